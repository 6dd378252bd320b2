// A detector's card: boxes, masks and names of the objects that score enough, with a legend of their classes.
import {objectsOf, paste, toldObjects} from "../objects.js";
import {colourOf, css, textOn} from "../palette.js";
import {drawPicture, drawPixels, fillList, shortened} from "./canvas.js";

const OPACITY = 0.45, TEXT = 12, MARGIN = 3;    // the last two in pixels of the page
const $ = (id) => document.getElementById(id);
let threshold = 0;

// The class's colour; of a single class, the object's own.
const coloursOf = (found, labels) => found.map(({label}, i) => colourOf(labels.length > 1 ? label : i));

function draw(state) {
  const {item, bitmap, found, cells, labels} = state, canvas = item.querySelector("canvas"), colours = coloursOf(found, labels);
  const {context, zoom, dot} = drawPicture(canvas, bitmap), fine = Math.min(zoom, 1);
  const size = [Math.round(bitmap.height * fine), Math.round(bitmap.width * fine)];
  if ($("masks").checked) {
    found.forEach(({grid, box}, i) => {
      if (!grid) return;
      const mask = paste(grid, cells, box.map((side) => side * fine), ...size), [red, green, blue] = colours[i];
      const fill = (data) => mask.part.forEach((inside, at) => inside && data.set([red, green, blue, 255 * OPACITY], 4 * at));
      drawPixels(context, mask, fill, mask.left * zoom / fine, mask.top * zoom / fine, zoom / fine);
    });
  }
  const boxes = found.map(({box}) => box.map((side) => side * zoom));
  if ($("boxes").checked) {
    context.lineWidth = Math.max(1, Math.round(dot));
    boxes.forEach(([left, top, right, bottom], i) => {
      context.strokeStyle = css(colours[i]);
      context.strokeRect(left, top, right - left, bottom - top);
    });
  }
  if ($("names").checked) drawNames(context, found, boxes, colours, labels, dot);
}

function drawNames(context, found, boxes, colours, labels, dot) {
  const high = Math.round(TEXT * dot), margin = Math.round(MARGIN * dot), taken = [];
  context.font = `${high}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  found.forEach(({label, score}, i) => {
    const text = `${shortened(labels[label])} ${score.toFixed(2)}`, width = Math.round(context.measureText(text).width) + 2 * margin;
    const place = freePlace(width, high + 2 * margin, boxes[i], context.canvas, taken);
    if (!place) return;
    taken.push(place);
    context.fillStyle = css(colours[i]);
    context.fillRect(place.x, place.y, place.width, place.height);
    context.fillStyle = textOn(colours[i]);
    context.fillText(text, place.x + margin, place.y + place.height / 2 + dot / 2);
  });
}

// Where the text of a box stands: above it, in its corners or below, moved into the picture; null where each place touches one that is taken.
function freePlace(width, height, [left, top, right, bottom], canvas, taken) {
  if (width >= canvas.width || height >= canvas.height) return null;
  const wanted = [[left, top - height], [left, top + 1], [left, bottom + 1], [right - width, top - height], [left, bottom - height], [right - width, bottom + 1]];
  const places = wanted.map(([x, y]) => ({
    x: Math.min(Math.max(x, 0), canvas.width - width - 1), y: Math.min(Math.max(y, 0), canvas.height - height - 1), width, height,
  }));
  const touch = (one, other) => one.x <= other.x + other.width && other.x <= one.x + one.width
    && one.y <= other.y + other.height && other.y <= one.y + one.height;
  return places.find((place) => !taken.some((other) => touch(place, other))) ?? null;
}

const counted = (count) => `${count} object${count === 1 ? "" : "s"}`;

// The objects from the threshold on: list, legend, picture. Returns the line that tells them.
function update(state) {
  const {item, name, labels} = state, found = state.found = objectsOf(state, threshold), colours = coloursOf(found, labels);
  const line = found.length ? counted(found.length) : `no object scores ${threshold} or more`, times = new Map();
  for (const {label} of found) times.set(label, (times.get(label) ?? 0) + 1);
  const classes = labels.length > 1 ? Array.from(times.keys()).sort((a, b) => times.get(b) - times.get(a) || a - b) : [];
  fillList(item.querySelector(".legend"), classes.map((label) => ({colour: colourOf(label), name: labels[label], value: times.get(label)})));
  item.querySelector("summary").textContent = line;
  fillList(item.querySelector("details ol"), found.map(({label, score}, i) => ({colour: colours[i], name: labels[label], value: score.toFixed(4)})));
  item.querySelector("canvas").setAttribute("aria-label", `${name}: ${line}`);
  draw(state);
  return line;
}

// The slider and the number beside it are the same threshold. What is no number from 0 to 1 is said, and changes nothing.
function setThreshold(value, from, redraw) {
  const valid = Number.isFinite(value) && value >= 0 && value <= 1;
  $("exact").setAttribute("aria-invalid", !valid);
  $("wrong").textContent = valid ? "" : "The score must be a number from 0 to 1.";
  if (!valid) return;
  threshold = value;
  if (from !== "slider") $("threshold").value = value;
  if (from !== "number") $("exact").value = value;
  redraw();
}

// A view, see classes.js.
export const objects = {
  redraws: true,
  start({score_threshold: given}, redraw) {
    setThreshold(given, null, () => {});
    $("threshold").oninput = ({target}) => setThreshold(target.valueAsNumber, "slider", () => redraw(update));
    $("exact").onchange = ({target}) => setThreshold(target.valueAsNumber, "number", () => redraw(update));
    for (const id of ["masks", "boxes", "names"]) $(id).onchange = () => redraw();
  },
  draw,
  show(state, labels) {
    state.labels = labels;
    return update(state);
  },
  tell: ({found, cells, bitmap: {height, width}}, labels) => ({height, width, objects: toldObjects(found, labels, cells, height, width)}),
};
