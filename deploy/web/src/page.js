// The page: takes pictures, hands them to the worker, and shows what it finds in the view of the model's task.
import {classes} from "./views/classes.js";
import {labelMaps} from "./views/labels.js";
import {objects} from "./views/objects.js";

const VIEWS = {classification: classes, detection: objects, segmentation: labelMaps};
const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), {type: "module"});
const cards = new Map();
let labels = [], view = null, task = null;

function say(text) {
  $("status").textContent = text;
}

function card(name) {
  const item = $("card").content.firstElementChild.cloneNode(true);
  item.querySelector("figcaption").textContent = name;
  $("results").prepend(item);
  return item;
}

function add(files) {
  for (const file of files) {
    const id = cards.size;
    cards.set(id, {id, item: card(file.name), name: file.name});
    worker.postMessage({id, file});
  }
  if (files.length) say(files.length === 1 ? `Looking at ${files[0].name} …` : `Looking at ${files.length} pictures …`);
}

// All cards with a result, anew: by `step(state)`, or else drawn.
function redraw(step) {
  const done = [...cards.values()].filter(({bitmap}) => bitmap);
  const lines = done.map(typeof step === "function" ? step : view.draw);
  if (done.length && lines.at(-1)) say(`${done.at(-1).name}: ${lines.at(-1)}`);
}

// Texts on a canvas keep their size on the screen, whatever the width of the card.
const resized = new ResizeObserver((entries) => {
  for (const {target} of entries) {
    const state = cards.get(Number(target.dataset.id)), width = target.clientWidth;
    if (state?.bitmap && state.shownAt !== width) view.draw(state);
    if (state) state.shownAt = width;
  }
});

function start({task: of, name, labels: names, post, model}) {
  [task, labels, view] = [of, names, VIEWS[of]];
  $("controls").prepend($(`controls-${task}`).content.cloneNode(true));
  view.start(post, redraw, model);
  document.body.classList.add("ready", task);
  $("progress").hidden = true;
  say(`${name} is ready: ${labels.length} classes.`);
}

function show(id, result) {
  const state = Object.assign(cards.get(id), result), {item, name} = state;
  item.append($(`found-${task}`).content.cloneNode(true));
  item.classList.add("done");
  const line = view.show(state, labels), canvas = item.querySelector("canvas");
  canvas.dataset.id = id;
  if (view.redraws) resized.observe(canvas);
  $("json").hidden = false;
  say(`${name}: ${line}`);
}

function fail(id, reason) {
  const state = cards.get(id), {item, name} = state, message = document.createElement("p");
  state.error = `${name}: ${reason}`;
  message.setAttribute("role", "alert");
  message.textContent = state.error;
  item.replaceChildren(message);
  item.classList.add("bad");
  say("");
}

// The results as `nextvit infer --json` writes them.
function download() {
  const told = [...cards.values()].filter(({bitmap, error}) => bitmap || error)
    .map((state) => ({file_name: state.name, ...(state.error ? {error: state.error} : view.tell(state, labels))}));
  const link = document.createElement("a"), url = URL.createObjectURL(new Blob([`${JSON.stringify(told, null, 1)}\n`], {type: "application/json"}));
  link.href = url;
  link.download = "predictions.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

worker.onmessage = ({data: {kind, ...message}}) => {
  if (kind === "loading") {
    $("progress").value = message.total ? message.received / message.total : null;
  } else if (kind === "ready") {
    start(message);
  } else if (kind === "failed") {
    $("progress").hidden = true;
    $("drop").hidden = true;
    say(`The model cannot be loaded: ${message.reason}`);
  } else if (kind === "result") {
    show(message.id, message);
  } else {
    fail(message.id, message.reason);
  }
};
worker.onerror = () => say("This browser cannot run the model: it needs WebAssembly and module workers.");

$("files").onchange = ({target}) => {
  add(target.files);
  target.value = "";
};
$("json").onclick = download;
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("over");
};
document.ondragleave = ({relatedTarget}) => relatedTarget || document.body.classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
};
document.onpaste = ({clipboardData}) => add(clipboardData.files);
