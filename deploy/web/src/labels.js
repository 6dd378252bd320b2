// From a segmentor's scores to the class of every pixel, and what is in the picture; as deploy/python/labels.py.
import {cocoCounts} from "./objects.js";

const TILE = 32;                                // pixels of the sides of the parts that are worked on

// The low of the two places of each of `size` pixels that `length` become, and the share of the other; in float32, as Paddle computes them.
function bilinear(length, size) {
  const ratio = Math.fround(length / size), low = new Int32Array(size), share = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const place = Math.max(Math.fround(Math.fround(ratio * Math.fround(i + 0.5)) - 0.5), 0);
    low[i] = Math.min(Math.trunc(place), length - 1);
    share[i] = place - low[i];
  }
  return {low, share};
}

// One axis of two resizes, from `length` cells by `padded` and `kept` to `original`: part(start) is {first, cells, count, matrix: Float32Array [count *
// cells]}, what the pixels from `start` on take of the cells from `first` on.
function axisOf(length, padded, kept, original) {
  const near = bilinear(length, padded), far = bilinear(kept, original);
  const cellsOf = new Int32Array(4 * original), weights = new Float32Array(4 * original);
  for (let i = 0; i < original; i++) {
    const share = far.share[i];
    [far.low[i], Math.min(far.low[i] + 1, kept - 1)].forEach((place, k) => {
      const whole = k ? share : Math.fround(1 - share), at = 4 * i + 2 * k;
      cellsOf[at] = near.low[place];
      cellsOf[at + 1] = Math.min(near.low[place] + 1, length - 1);
      weights[at] = whole * Math.fround(1 - near.share[place]);
      weights[at + 1] = whole * near.share[place];
    });
  }
  return (start) => {
    const count = Math.min(TILE, original - start), used = cellsOf.subarray(4 * start, 4 * (start + count));
    const first = Math.min(...used), cells = Math.max(...used) + 1 - first, matrix = new Float32Array(count * cells);
    used.forEach((cell, i) => { matrix[(i >> 2) * cells + cell - first] += weights[4 * start + i]; });
    return {first, cells, count, matrix};
  };
}

// Classes that can win in a part: what is interpolated lies between the scores around it, so the others do not reach the best of all least scores there.
function candidatesOf(scores, classes, [rows, columns], down, across, slack) {
  const most = new Float32Array(classes).fill(-Infinity);
  let bound = -Infinity;
  for (let label = 0; label < classes; label++) {
    let least = Infinity;
    for (let y = down.first; y < down.first + down.cells; y++) {
      const start = (label * rows + y) * columns + across.first;
      for (let at = start; at < start + across.cells; at++) {
        if (scores[at] < least) least = scores[at];
        if (scores[at] > most[label]) most[label] = scores[at];
      }
    }
    if (least > bound && least < Infinity) bound = least;
  }
  const found = Array.from(most.keys()).filter((label) => !(most[label] < bound - slack));
  return found.length ? found : [0];
}

// The scores of one class at the pixels of a part, into `target` [down.count * across.count].
function interpolate(scores, label, [rows, columns], down, across, lines, target) {
  for (let y = 0; y < down.cells; y++) {
    const start = (label * rows + down.first + y) * columns + across.first;
    for (let x = 0; x < across.count; x++) {
      let sum = 0;
      for (let k = 0, at = x * across.cells; k < across.cells; k++, at++) sum += scores[start + k] * across.matrix[at];
      lines[y * across.count + x] = sum;
    }
  }
  target.fill(0);
  for (let y = 0; y < down.count; y++) {
    for (let cell = 0; cell < down.cells; cell++) {
      const weight = down.matrix[y * down.cells + cell];
      if (weight === 0) continue;
      for (let x = 0, to = y * across.count, from = cell * across.count; x < across.count; x++) target[to + x] += weight * lines[from + x];
    }
  }
}

// The class of every pixel, Uint16Array or Int32Array [original]: `scores` [classes, ...cells] resized to `padded`, cut to `shape`, resized to `original`, each
// (height, width). Bilinear, half-pixel centres.
export function bestClass(scores, classes, cells, padded, shape, original) {
  let largest = 1e-30;
  for (const score of scores) if (Math.abs(score) > largest) largest = Math.abs(score);
  const [height, width] = original, slack = 1e-5 * largest;
  const [partDown, partAcross] = [0, 1].map((i) => axisOf(cells[i], padded[i], shape[i], original[i]));
  const labels = new (classes > 1 << 16 ? Int32Array : Uint16Array)(height * width);
  const acrosses = Array.from({length: Math.ceil(width / TILE)}, (_, i) => partAcross(i * TILE));
  for (let top = 0; top < height; top += TILE) {
    const down = partDown(top);
    acrosses.forEach((across, i) => {
      const candidates = candidatesOf(scores, classes, cells, down, across, slack), size = down.count * across.count;
      const best = new Float32Array(size).fill(-Infinity), found = new Float32Array(size), winners = new Int32Array(size).fill(candidates[0]);
      const lines = new Float32Array(down.cells * across.count);
      for (const label of candidates.length > 1 ? candidates : []) {
        interpolate(scores, label, cells, down, across, lines, found);
        for (let at = 0; at < size; at++) {
          if (found[at] > best[at]) [best[at], winners[at]] = [found[at], label];
        }
      }
      for (let y = 0; y < down.count; y++) {
        labels.set(winners.subarray(y * across.count, (y + 1) * across.count), (top + y) * width + i * TILE);
      }
    });
  }
  return labels;
}

// [{class_id, label_name, pixels, share}] of the classes in `labels`, the largest first.
export function classAreas(labels, names) {
  const counts = new Int32Array(names.length);
  for (const label of labels) counts[label]++;
  return Array.from(counts.keys()).filter((label) => counts[label]).sort((a, b) => counts[b] - counts[a] || a - b)
    .map((label) => ({class_id: label, label_name: names[label], pixels: counts[label], share: counts[label] / labels.length}));
}

// `classAreas`, each with its mask {size, counts}, COCO's compressed run lengths.
export function toldClasses(labels, names, height, width) {
  const edges = new Map(), areas = classAreas(labels, names);
  for (const {class_id: label} of areas) edges.set(label, []);
  let before = -1, at = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++, at++) {
      const label = labels[y * width + x];
      if (label === before) continue;
      edges.get(before)?.push(at);
      edges.get(label).push(at);
      before = label;
    }
  }
  edges.get(before)?.push(at);
  return areas.map((area) => ({...area, mask: {size: [height, width], counts: cocoCounts(edges.get(area.class_id), at)}}));
}
