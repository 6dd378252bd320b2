// A segmentor's card: the picture under the colours of its pixels' classes, with a legend, the largest class first.
import {classAreas, toldClasses} from "../labels.js";
import {colourOf} from "../palette.js";
import {drawPicture, drawPixels, fillList, percent} from "./canvas.js";

const OPACITY = 0.55, BACKGROUND = "background"; // a class of this name is left uncoloured
const $ = (id) => document.getElementById(id);

function draw({item, bitmap, labels: map, names}) {
  const {context, zoom} = drawPicture(item.querySelector("canvas"), bitmap), fine = Math.min(zoom, 1);
  if (!$("colours").checked) return;
  const rows = Math.max(1, Math.round(bitmap.height * fine)), columns = Math.max(1, Math.round(bitmap.width * fine));
  const colours = names.map((name, i) => (name === BACKGROUND ? [0, 0, 0, 0] : [...colourOf(i), 255 * OPACITY]));
  drawPixels(context, {rows, columns}, (data) => {
    for (let y = 0, to = 0; y < rows; y++) {
      const start = Math.min(Math.floor((y + 0.5) / fine), bitmap.height - 1) * bitmap.width;
      for (let x = 0; x < columns; x++, to += 4) data.set(colours[map[start + Math.min(Math.floor((x + 0.5) / fine), bitmap.width - 1)]], to);
    }
  }, 0, 0, zoom / fine);
}

// A view, see classes.js.
export const labelMaps = {
  redraws: true,
  start(post, redraw) {
    $("colours").onchange = () => redraw();
  },
  draw,
  show(state, names) {
    const {item, name, labels} = state, areas = classAreas(labels, names);
    state.names = names;
    const lines = areas.map(({class_id: label, label_name: of, share}) => ({
      colour: of === BACKGROUND ? null : colourOf(label), name: of, value: percent(share),
    }));
    fillList(item.querySelector(".legend"), lines);
    const line = areas.slice(0, 3).map(({label_name: of, share}) => `${of} ${percent(share)}`).join(", ");
    item.querySelector("canvas").setAttribute("aria-label", `${name}: ${line}`);
    draw(state);
    return line;
  },
  tell: ({labels, bitmap: {height, width}}, names) => ({height, width, classes: toldClasses(labels, names, height, width)}),
};
