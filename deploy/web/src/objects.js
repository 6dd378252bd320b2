// From a detector's outputs to the objects in a picture: boxes, scores, masks and their COCO run lengths; as deploy/python/objects.py.

export const MASK_THRESHOLD = 0.5;

// What each of the `count` pixels from `first` on takes of the cells that lie evenly from `low` to `high`: of cell at[i] near[i], of the next far[i].
function shares(low, high, size, cells) {
  const none = {first: 0, count: 0};
  if (!Number.isFinite(low) || !Number.isFinite(high)) return none;
  const first = Math.max(Math.floor(low) - 1, 0), last = Math.min(Math.ceil(high) + 1, size), count = last - first;
  if (high <= low || count <= 0) return {...none, first: Math.min(first, size)};
  const at = new Int32Array(count), near = new Float32Array(count), far = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const place = ((first + i + 0.5 - low) / (high - low)) * cells - 0.5, cell = Math.floor(place);
    at[i] = Math.min(Math.max(cell, -1), cells - 1);
    near[i] = cell >= 0 && cell < cells ? 1 - Math.abs(place - cell) : 0;
    far[i] = cell >= -1 && cell < cells - 1 ? Math.max(1 - Math.abs(place - cell - 1), 0) : 0;
  }
  return {first, count, at, near, far};
}

// The pixels of `grid`, Float32Array [cells * cells] of probabilities over `box` [x1, y1, x2, y2], in a picture: bilinear, 0 outside the grid.
// Returns {top, left, rows, columns, part: Uint8Array [rows * columns] of 0 and 1}.
export function paste(grid, cells, box, height, width, threshold = MASK_THRESHOLD) {
  const [x1, y1, x2, y2] = box, down = shares(y1, y2, height, cells), across = shares(x1, x2, width, cells);
  const part = new Uint8Array(down.count * across.count), line = new Float32Array(cells + 1), limit = Math.fround(threshold);
  const cell = (row, column) => (row >= 0 && row < cells ? grid[row * cells + column] : 0);
  for (let y = 0, to = 0; y < down.count; y++) {
    for (let column = 0; column < cells; column++) {
      line[column] = Math.fround(down.near[y] * cell(down.at[y], column)) + Math.fround(down.far[y] * cell(down.at[y] + 1, column));
    }
    for (let x = 0; x < across.count; x++) {
      const at = across.at[x], near = at < 0 ? 0 : Math.fround(across.near[x] * line[at]);
      part[to++] = Math.fround(near + Math.fround(across.far[x] * line[at + 1])) >= limit ? 1 : 0;
    }
  }
  return {top: down.first, left: across.first, rows: down.count, columns: across.count, part};
}

// COCO's compressed form of the runs from each first to each second of `edges`, of `total` pixels.
export function cocoCounts(edges, total) {
  const counts = edges.map((edge, i) => edge - (i ? edges[i - 1] : 0)), rest = total - (edges.at(-1) ?? 0);
  if (rest > 0 || !counts.length) counts.push(rest);
  const codes = [];
  counts.forEach((count, i) => {
    let value = i > 2 ? count - counts[i - 2] : count;
    for (let more = true; more;) {
      const digit = value & 31;
      value >>= 5;
      more = value !== (digit & 16 ? -1 : 0);   // the top bit of the last digit is the sign
      codes.push((more ? digit | 32 : digit) + 48);
    }
  });
  return codes.map((code) => String.fromCharCode(code)).join("");
}

// {size: [height, width], counts}: COCO's compressed run lengths of a mask in the whole picture, down its columns.
export function runLengths({top, left, rows, columns, part}, height, width) {
  const edges = [];
  for (let x = 0; x < columns; x++) {
    for (let y = 0; y < rows; y++) {
      if (!part[y * columns + x]) continue;
      const at = (left + x) * height + top + y;
      if (edges.at(-1) === at) edges[edges.length - 1] = at + 1;
      else edges.push(at, at + 1);
    }
  }
  return {size: [height, width], counts: cocoCounts(edges, height * width)};
}

// The rows of `table`, Float32Array [n * 6] of (label, score, x1, y1, x2, y2), that score `threshold` or more: [{label, score, box, grid}], best first.
// grids: Float32Array [n * cells * cells], or null.
export function objectsOf({table, grids, cells}, threshold) {
  const found = [], area = cells * cells, limit = Math.fround(threshold);
  for (let i = 0; i < table.length / 6; i++) {
    const [label, score, ...box] = table.subarray(6 * i, 6 * i + 6);
    if (score >= limit) found.push({label, score, box, grid: grids && grids.subarray(i * area, (i + 1) * area)});
  }
  return found;
}

// What JSON says of the objects, as `nextvit infer --json`.
export const toldObjects = (found, names, cells, height, width) => found.map(({label, score, box, grid}) => ({
  class_id: label, label_name: names[label], score, box,
  ...(grid && {mask: runLengths(paste(grid, cells, box, height, width), height, width)}),
}));
