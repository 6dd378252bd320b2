// A classifier's card: the five best classes of a picture, and where in it the chosen one is seen.
import {percent} from "./canvas.js";

const SHOWN = 5, SIDE = 448;
const $ = (id) => document.getElementById(id);

// The picture's part that the model sees, and over it the class's map: blue where little speaks for it, red where most does.
function draw({item, bitmap, view, cam, chosen}) {
  const canvas = item.querySelector("canvas"), context = canvas.getContext("2d"), size = cam.rows * cam.columns;
  const zoom = SIDE / Math.max(view.width, view.height);
  canvas.width = Math.round(view.width * zoom);
  canvas.height = Math.round(view.height * zoom);
  context.imageSmoothingEnabled = zoom < 2;
  context.drawImage(bitmap, view.x, view.y, view.width, view.height, 0, 0, canvas.width, canvas.height);
  if (!$("heat").checked) return;
  const values = cam.data.subarray(chosen * size, (chosen + 1) * size), low = Math.min(...values), range = Math.max(...values) - low;
  if (!range) return;                           // a map of one cell says nothing about places
  const map = new OffscreenCanvas(cam.columns, cam.rows), colours = new ImageData(cam.columns, cam.rows);
  values.forEach((value, i) => {
    const share = (value - low) / range;
    colours.data.set([255 * share, 160 * (1 - Math.abs(2 * share - 1)), 255 * (1 - share), 60 + 100 * share], 4 * i);
  });
  map.getContext("2d").putImageData(colours, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(map, 0, 0, canvas.width, canvas.height);
}

const bestOf = (scores, count) => Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, count);

// A view: `start(post, redraw)` once the model is known, `show(state, labels)` a result and the line that tells it, `tell(state, labels)` what JSON says.
export const classes = {
  redraws: false,
  start(post, redraw) {
    this.topk = post.Topk.topk;
    $("heat").onchange = redraw;
  },
  draw,
  show(state, labels) {
    const {item, id, name, scores} = state, best = bestOf(scores, SHOWN);
    item.querySelector("legend").textContent = `Classes of ${name}`;
    state.chosen = best[0];
    for (const index of best) {
      const row = $("class").content.firstElementChild.cloneNode(true), radio = row.querySelector("input");
      row.dataset.class = index;
      row.dataset.score = scores[index];
      row.style.setProperty("--share", scores[index]);
      row.querySelector(".name").textContent = labels[index];
      row.querySelector(".score").textContent = percent(scores[index]);
      radio.name = `picture${id}`;
      radio.checked = index === state.chosen;
      radio.onchange = () => {
        state.chosen = index;
        draw(state);
      };
      item.querySelector("ol").append(row);
    }
    item.querySelector("canvas").setAttribute("aria-label", `${name}: ${labels[best[0]]}`);
    draw(state);
    return `${labels[best[0]]}, ${percent(scores[best[0]])}`;
  },
  tell({scores}, labels) {
    const best = bestOf(scores, this.topk);
    return {class_ids: best, scores: best.map((index) => scores[index]), label_names: best.map((index) => labels[index])};
  },
};
