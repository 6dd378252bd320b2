// What the views share: a canvas of the picture's size, small pictures enlarged by whole factors, and lists of names beside swatches.
import {css} from "../palette.js";

const SMALLEST = 512, LARGEST = 1600;           // of the longer side, in pixels of the canvas

// Draws `bitmap` on `canvas`. Returns {context, zoom, dot}: zoom: pixels of the canvas for one of the picture; dot: for one of the page.
export function drawPicture(canvas, bitmap) {
  const longest = Math.max(bitmap.width, bitmap.height);
  const zoom = longest <= LARGEST ? Math.max(1, Math.floor(SMALLEST / longest)) : LARGEST / longest;
  canvas.width = Math.max(1, Math.round(bitmap.width * zoom));
  canvas.height = Math.max(1, Math.round(bitmap.height * zoom));
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = zoom < 1;
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return {context, zoom, dot: Math.max(1, canvas.width / (canvas.clientWidth || canvas.width))};
}

// Draws {rows, columns} of pixels, whose RGBA are set by `fill(data)`, with the upper left corner at (x, y), each `size` wide and high.
export function drawPixels(context, {rows, columns}, fill, x, y, size) {
  if (!rows || !columns) return;
  const layer = new OffscreenCanvas(columns, rows), image = new ImageData(columns, rows);
  fill(image.data);
  layer.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(layer, x, y, columns * size, rows * size);
}

// `list` with a line for each of [{colour or null, name, value}].
export function fillList(list, lines) {
  list.replaceChildren(...lines.map(({colour, name, value}) => {
    const row = document.getElementById("line").content.firstElementChild.cloneNode(true), swatch = row.querySelector(".swatch");
    if (colour) swatch.style.setProperty("--colour", css(colour));
    else swatch.remove();
    row.querySelector(".name").textContent = name;
    row.querySelector(".score").textContent = value;
    return row;
  }));
}

export const shortened = (text, longest = 40) => (text.length <= longest ? text : `${text.slice(0, longest - 1)}…`);
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
