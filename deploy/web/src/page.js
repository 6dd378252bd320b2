// The page: takes pictures, shows the five best classes of each and where in the picture the chosen one is seen.
const SHOWN = 5, SIDE = 448;
const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), {type: "module"});
const cards = new Map();
let labels = [];

function say(text) {
  $("status").textContent = text;
}

function card(name) {
  const item = $("card").content.firstElementChild.cloneNode(true);
  item.querySelector("figcaption").textContent = name;
  item.querySelector("legend").textContent = `Classes of ${name}`;
  $("results").prepend(item);
  return item;
}

function add(files) {
  for (const file of files) {
    const id = cards.size;
    cards.set(id, {item: card(file.name), name: file.name});
    worker.postMessage({id, file});
  }
  if (files.length) say(files.length === 1 ? `Looking at ${files[0].name} …` : `Looking at ${files.length} pictures …`);
}

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

function show(id, result) {
  const state = Object.assign(cards.get(id), result), {item, name, scores} = state;
  const best = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b).slice(0, SHOWN);
  state.chosen = best[0];
  for (const index of best) {
    const row = $("class").content.firstElementChild.cloneNode(true), radio = row.querySelector("input");
    row.dataset.class = index;
    row.dataset.score = scores[index];
    row.style.setProperty("--share", scores[index]);
    row.querySelector(".name").textContent = labels[index];
    row.querySelector(".score").textContent = `${(100 * scores[index]).toFixed(1)} %`;
    radio.name = `picture${id}`;
    radio.checked = index === state.chosen;
    radio.onchange = () => {
      state.chosen = index;
      draw(state);
    };
    item.querySelector("ol").append(row);
  }
  item.querySelector("canvas").setAttribute("aria-label", `${name}: ${labels[best[0]]}`);
  item.classList.add("done");
  draw(state);
  say(`${name}: ${labels[best[0]]}, ${(100 * scores[best[0]]).toFixed(1)} %`);
}

function fail(id, reason) {
  const {item, name} = cards.get(id), message = document.createElement("p");
  message.setAttribute("role", "alert");
  message.textContent = `${name}: ${reason}`;
  item.replaceChildren(message);
  item.classList.add("bad");
  say("");
}

worker.onmessage = ({data: {kind, ...message}}) => {
  if (kind === "loading") {
    $("progress").value = message.total ? message.received / message.total : null;
  } else if (kind === "ready") {
    labels = message.labels;
    $("progress").hidden = true;
    say(`${message.name} is ready: ${labels.length} classes.`);
    document.body.classList.add("ready");
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
$("heat").onchange = () => [...cards.values()].filter(({bitmap}) => bitmap).forEach(draw);
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
