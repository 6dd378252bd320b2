// From a picture's pixels to what a detector or a segmentor takes: evaluation's transforms, equal to OpenCV and numpy to the bit.
// An image is {width, height, data}, data being Uint8Array or, once normalised, Float32Array [height * width * 3], RGB.
import {roundHalfEven} from "./preprocess.js";

const MEAN = [123.675, 116.28, 103.53], STD = [58.395, 57.12, 57.375];
const MAX_PIXELS = 89_478_485;                  // of an image after a transform
const LONGEST = 1 << 20;                        // of a side
const ONE = 2048;                               // of OpenCV's fixed-point weights

function wholeSizes(sizes, count) {
  if (!Array.isArray(sizes) || sizes.length !== count) throw new Error(`expected ${count} sizes, got ${JSON.stringify(sizes)}`);
  if (!sizes.every((side) => Number.isInteger(side) && side >= 1 && side <= LONGEST)) {
    throw new Error(`expected whole numbers from 1 to ${LONGEST}, got ${JSON.stringify(sizes)}`);
  }
  return sizes;
}

// Where the pixels of a resized axis lie in the original one: `low`, and the weights of it and of the next.
function fixedAxis(length, size, clamped) {
  const scale = 1 / (size / length), low = new Int32Array(size), weights = new Int32Array(2 * size);
  for (let i = 0; i < size; i++) {
    let place = Math.fround((i + 0.5) * scale - 0.5), at = Math.floor(place);
    place = Math.fround(place - at);
    if (clamped && at < 0) [place, at] = [0, 0];
    if (clamped && at >= length - 1) [place, at] = [0, length - 1];
    low[i] = at;
    weights[2 * i] = roundHalfEven(Math.fround(Math.fround(1 - place) * ONE));
    weights[2 * i + 1] = roundHalfEven(Math.fround(place * ONE));
  }
  return {low, weights};
}

const isHalf = (length, size) => Math.abs(1 / (size / length) - 2) < Number.EPSILON;

function halved({width: from, data}, width, height) {
  const target = new Uint8Array(3 * width * height);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0, at = 6 * y * from; x < width; x++, at += 6) {
      for (let c = 0, below = at + 3 * from; c < 3; c++) {
        target[to++] = (data[at + c] + data[at + c + 3] + data[below + c] + data[below + c + 3] + 2) >> 2;
      }
    }
  }
  return {width, height, data: target};
}

// `image` at `width` x `height`, as OpenCV's bilinear resize of bytes.
export function resizeBilinear(image, width, height) {
  if (width === image.width && height === image.height) return image;
  if (isHalf(image.width, width) && isHalf(image.height, height)) return halved(image, width, height);
  const across = fixedAxis(image.width, width, true), down = fixedAxis(image.height, height, false);
  const {data} = image, target = new Uint8Array(3 * width * height), last = 3 * (image.width - 1);
  const resizedRow = (y, row) => {
    const start = 3 * y * image.width;
    for (let x = 0, to = 0; x < width; x++) {
      const low = 3 * across.low[x], high = Math.min(low + 3, last), first = across.weights[2 * x], second = across.weights[2 * x + 1];
      for (let c = 0; c < 3; c++) row[to++] = data[start + low + c] * first + data[start + high + c] * second;
    }
  };
  let rows = [new Int32Array(3 * width), new Int32Array(3 * width)], held = [-1, -1];
  for (let y = 0, to = 0; y < height; y++) {
    for (let k = 0; k < 2; k++) {
      const wanted = Math.min(Math.max(down.low[y] + k, 0), image.height - 1);
      if (k === 0 && held[1] === wanted) [rows, held] = [[rows[1], rows[0]], [held[1], held[0]]];
      if (held[k] === wanted) continue;
      resizedRow(wanted, rows[k]);
      held[k] = wanted;
    }
    const first = down.weights[2 * y], second = down.weights[2 * y + 1], [above, below] = rows;
    for (let i = 0; i < above.length; i++) {
      target[to++] = (((first * (above[i] >> 4)) >> 16) + ((second * (below[i] >> 4)) >> 16) + 2) >> 2;
    }
  }
  return {width, height, data: target};
}

function normalised({width, height, data}, mean, std) {
  const target = new Float32Array(data.length), means = Float32Array.from(mean), stds = Float32Array.from(std);
  for (let i = 0; i < data.length; i += 3) {
    for (let c = 0; c < 3; c++) target[i + c] = Math.fround(data[i + c] - means[c]) / stds[c];
  }
  return {width, height, data: target};
}

// Zeros at the right and below.
function padded({width: from, height: rows, data}, width, height) {
  if (from === width && rows === height) return {width, height, data};
  const target = new data.constructor(3 * width * height);
  for (let y = 0; y < rows; y++) target.set(data.subarray(3 * y * from, 3 * (y + 1) * from), 3 * y * width);
  return {width, height, data: target};
}

// Each makes {target([height, width]), apply(image, width, height)} of its arguments; Error for wrong ones.
const TRANSFORMS = {
  Resize({scale, keep_ratio: inProportion = true, ratio_range: range = null}) {
    const sizes = Array.isArray(scale) && scale.every(Number.isInteger) ? [scale] : scale;
    if (!Array.isArray(sizes) || sizes.length !== 1 || range !== null) throw new Error("leaves the size to chance, which only training does");
    const [first, second] = wholeSizes(sizes[0], 2), longer = Math.max(first, second), shorter = Math.min(first, second);
    const target = ([height, width]) => {
      if (!inProportion) return [second, first];
      const factor = Math.min(longer / Math.max(height, width), shorter / Math.min(height, width));
      return [height, width].map((side) => Math.max(1, Math.trunc(side * factor + 0.5)));
    };
    return {target, apply: resizeBilinear};
  },
  Normalize({mean = MEAN, std = STD}) {
    const isThree = (values) => Array.isArray(values) && values.length === 3 && values.every(Number.isFinite);
    if (!isThree(mean) || !isThree(std) || Math.min(...std) <= 0) throw new Error(`expected three values each, got mean=${mean}, std=${std}`);
    return {target: (size) => size, apply: (image) => normalised(image, mean, std)};
  },
  Pad({size = null, size_divisor: divisor = null}) {
    if ((size === null) === (divisor === null)) throw new Error("expected either size = [height, width] or size_divisor");
    const least = size && wholeSizes(size, 2), step = divisor === null ? 1 : wholeSizes([divisor], 1)[0];
    return {target: (sides) => sides.map((side, i) => (least ? Math.max(side, least[i]) : Math.ceil(side / step) * step)), apply: padded};
  },
};

function stepsOf(transformOps) {
  const steps = transformOps.flatMap(Object.entries).map(([name, options]) => {
    if (!Object.hasOwn(TRANSFORMS, name)) throw new Error(`export.json: unknown transform ${name}; this page knows ${Object.keys(TRANSFORMS).join(", ")}`);
    try {
      return {name, ...TRANSFORMS[name](options ?? {})};
    } catch (error) {
      throw new Error(`export.json: ${name}: ${error.message}`);
    }
  });
  const names = steps.map(({name}) => name);
  if (names.includes("Normalize") && names.lastIndexOf("Resize") > names.indexOf("Normalize")) {
    throw new Error("export.json: Resize needs uint8 pixels; put it before Normalize");
  }
  return steps;
}

// prepare(image) of the transforms of a detector or a segmentor -> {data: Float32Array [3 * height * width], size, shape, scale}: size = [height, width],
// shape = that before padding, scale = the (y, x) factors of the resize. Error for what export.json must not have, and from prepare() for a picture of a
// size that cannot be used. sides: the model's [height, width], nulls for any; fills: a smaller image is padded to them; least: of the sides.
export function jointPreprocess(transformOps, {sides, fills, least = 1}) {
  const steps = stepsOf(transformOps), [rows, columns] = sides, fixed = rows !== null && columns !== null;
  const check = (size) => {
    for (const {name, target} of steps) {
      size = target(size);
      if (size[0] * size[1] > MAX_PIXELS) throw new Error(`${size[0]} x ${size[1]} pixels after ${name} are more than the limit of ${MAX_PIXELS}.`);
    }
    const [height, width] = size, is = `${height} x ${width} pixels when transformed`;
    if (Math.min(height, width) < least) throw new Error(`${is}; the model needs ${least} or more.`);
    if (fixed && !fills && (height !== rows || width !== columns)) throw new Error(`${is}; the exported program takes ${rows} x ${columns}.`);
    if (fixed && (height > rows || width > columns)) throw new Error(`${is}, more than the ${rows} x ${columns} of the exported program.`);
  };
  return (image) => {
    check([image.height, image.width]);
    let shape = null, scale = [1, 1];
    for (const {name, target, apply} of steps) {
      const before = [image.height, image.width], [height, width] = target(before);
      image = apply(image, width, height);
      if (name === "Resize") scale = [scale[0] * (height / before[0]), scale[1] * (width / before[1])];
      if (name === "Pad") shape = before;
    }
    shape ??= [image.height, image.width];
    if (fills && fixed) image = padded(image, columns, rows);
    return {data: planes(image), size: [image.height, image.width], shape, scale};
  };
}

function planes({width, height, data}) {
  const area = width * height, target = new Float32Array(3 * area);
  for (let c = 0; c < 3; c++) {
    for (let i = 0, at = c, to = c * area; i < area; i++, at += 3) target[to++] = data[at];
  }
  return target;
}
