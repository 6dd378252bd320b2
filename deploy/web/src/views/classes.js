// A classifier's card: the five best classes of a picture, and over it where the chosen one is seen, or what a pixel attends to.
import {attended, described, follow, mark, told} from "./attention.js";
import {percent} from "./canvas.js";

const SHOWN = 5, SIDE = 448;
const WITHOUT = "Attention needs an export made with --attention.";
const $ = (id) => document.getElementById(id);

const attending = () => $("map").value === "attention";

// [values as shares of their range, rows, columns] of the map that is chosen; null for one that says nothing about places.
function heat({cam, chosen, attention}, found) {
  const {rows, columns} = found ? attention : cam, size = rows * columns;
  // square roots, as in the pictures of `nextvit explain`
  const values = found ? found.weights.map(Math.sqrt) : cam.data.subarray(chosen * size, (chosen + 1) * size);
  const low = Math.min(...values), range = Math.max(...values) - low;
  return range ? [Array.from(values, (value) => (value - low) / range), rows, columns] : null;
}

// The picture's part that the model sees, and over it the map: blue where it has little, red where it has most.
function draw(state) {
  const {item, bitmap, view, name, best} = state, found = attending() ? attended(state) : null;
  const canvas = item.querySelector("canvas"), context = canvas.getContext("2d");
  const zoom = SIDE / Math.max(view.width, view.height);
  canvas.width = Math.round(view.width * zoom);
  canvas.height = Math.round(view.height * zoom);
  context.imageSmoothingEnabled = zoom < 2;
  context.drawImage(bitmap, view.x, view.y, view.width, view.height, 0, 0, canvas.width, canvas.height);
  canvas.tabIndex = found ? 0 : -1;
  canvas.setAttribute("aria-label", found ? `${name}: ${told(state, found)}` : `${name}: ${best}`);
  const map = $("heat").checked ? heat(state, found) : null;
  if (map) colour(context, ...map);
  if (found) mark(context, state);
}

function colour(context, shares, rows, columns) {
  const map = new OffscreenCanvas(columns, rows), colours = new ImageData(columns, rows);
  shares.forEach((share, i) => {
    colours.data.set([255 * share, 160 * (1 - Math.abs(2 * share - 1)), 255 * (1 - share), 60 + 100 * share], 4 * i);
  });
  map.getContext("2d").putImageData(colours, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(map, 0, 0, context.canvas.width, context.canvas.height);
}

const bestOf = (scores, count) => Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, count);

// A view: `start(post, redraw, model)` once the model is known, `show(state, labels)` a result and the line that tells it, `tell(state, labels)` what JSON says.
export const classes = {
  redraws: false,
  start(post, redraw, model) {
    this.topk = post.Topk.topk;
    $("heat").onchange = redraw;
    $("map").onchange = redraw;
    $("map").querySelector("[value=attention]").disabled = !model.attention;
    $("why").textContent = model.attention ? "" : WITHOUT;
  },
  draw,
  show(state, labels) {
    const {item, id, name, scores} = state, best = bestOf(scores, SHOWN);
    item.querySelector("legend").textContent = `Classes of ${name}`;
    Object.assign(state, {chosen: best[0], best: labels[best[0]]});
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
    if (state.attention) {
      state.point = {x: state.input.width >> 1, y: state.input.height >> 1};
      follow(state, attending, () => draw(state));
    }
    draw(state);
    return `${labels[best[0]]}, ${percent(scores[best[0]])}`;
  },
  tell(state, labels) {
    const {scores} = state, best = bestOf(scores, this.topk), more = attending() ? {attention: described(state)} : {};
    return {class_ids: best, scores: best.map((index) => scores[index]), label_names: best.map((index) => labels[index]), ...more};
  },
};
