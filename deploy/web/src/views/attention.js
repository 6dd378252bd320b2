// What one pixel of a picture attends to, and the ways to choose it: pointer, touch, arrow keys. A pixel is one of the model's input.

// Of the cell that the state's pixel is in: {row, column, weights}, the weights of all cells in raster order.
export function attended({attention: {data, rows, columns, stride}, point: {x, y}}) {
  const row = Math.min(Math.floor(y / stride), rows - 1), column = Math.min(Math.floor(x / stride), columns - 1);
  const size = rows * columns, start = (row * columns + column) * size;
  return {row, column, weights: data.subarray(start, start + size)};
}

// What a screen reader says of it.
export function told({attention: {columns, stride}, point: {x, y}}, {row, column, weights}) {
  const most = weights.indexOf(Math.max(...weights)), cell = (i, j) => `row ${i + 1}, column ${j + 1}`;
  const there = cell(Math.floor(most / columns), most % columns);
  return `the pixel (${x}, ${y}), in ${cell(row, column)} of cells of ${stride} pixels, attends most to ${there}`;
}

// As the JSON of `nextvit explain attention` says it.
export function described(state) {
  const {attention: {rows, columns, stage, block}, point: {x, y}} = state, {row, column, weights} = attended(state);
  const map = Array.from({length: rows}, (_, i) => Array.from(weights.subarray(i * columns, (i + 1) * columns)));
  return {point: [x, y], block: `stage${stage}.block${block}`, query: [row, column], size: [rows, columns], map};
}

// A ring around the state's pixel.
export function mark(context, {input, point: {x, y}}) {
  const {width, height} = context.canvas;
  context.beginPath();
  context.arc((x + 0.5) / input.width * width, (y + 0.5) / input.height * height, 7, 0, 2 * Math.PI);
  for (const [style, line] of [["black", 5], ["white", 2.5]]) {
    context.strokeStyle = style;
    context.lineWidth = line;
    context.stroke();
  }
}

// Lets the state's pixel be chosen on its canvas while `chosen()`; `moved()` is called after each change.
export function follow(state, chosen, moved) {
  const canvas = state.item.querySelector("canvas"), {input, attention: {stride}} = state;
  const to = (x, y) => {
    if (!chosen()) return false;
    state.point = {x: Math.min(Math.max(x, 0), input.width - 1), y: Math.min(Math.max(y, 0), input.height - 1)};
    moved();
    return true;
  };
  const under = ({clientX, clientY}) => {
    const box = canvas.getBoundingClientRect();
    to(Math.floor((clientX - box.left) / box.width * input.width), Math.floor((clientY - box.top) / box.height * input.height));
  };
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  canvas.onpointerdown = under;
  canvas.onpointermove = under;
  canvas.onkeydown = (event) => {
    const [right, down] = steps[event.key] ?? [], {x, y} = state.point;
    if (right !== undefined && to(x + right * stride, y + down * stride)) event.preventDefault();
  };
}
