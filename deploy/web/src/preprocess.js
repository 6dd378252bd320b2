// From a picture's pixels to the model's input: evaluation's transforms, equal to Pillow and numpy to the bit.
// An image is {width, height, data}, data being Uint8Array [height * width * 3], RGB.

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

// Pillow's filters: [support, weight at a distance].
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(1 - Math.abs(x), 0)],
  hamming: [1, (x) => (Math.abs(x) < 1 ? sinc(x) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(x * Math.PI)) : 0)],
  bicubic: [2, (x) => {
    const a = -0.5, d = Math.abs(x);
    if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
  }],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const BITS = 22;                                // of the fixed-point weights: 32 - 8 of a pixel - 2 for what a filter overshoots

// For each of `size` output positions, the first input position and the fixed-point weights of those that make it.
function weights(inputSize, size, [filterSupport, filter]) {
  const scale = inputSize / size, stretch = Math.max(scale, 1), support = filterSupport * stretch;
  return Array.from({length: size}, (_, position) => {
    const center = (position + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), inputSize);
    const values = Array.from({length: last - first}, (_, i) => filter((i + first - center + 0.5) * (1 / stretch)));
    const total = values.reduce((sum, value) => sum + value, 0);
    const fixed = values.map((value) => {
      const weight = (total === 0 ? value : value / total) * 2 ** BITS;
      return Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    });
    return [first, Int32Array.from(fixed)];
  });
}

// One direction: `lines` lines, `lineStep` apart, of samples that are `step` apart in `source` and `targetStep` in `target`.
function resample(source, target, table, lines, [lineStep, step], [targetLineStep, targetStep]) {
  for (let line = 0; line < lines; line++) {
    for (let position = 0; position < table.length; position++) {
      const [first, row] = table[position];
      const from = line * lineStep + first * step, to = line * targetLineStep + position * targetStep;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 1 << (BITS - 1);
        for (let i = 0, at = from + channel; i < row.length; i++, at += step) sum += source[at] * row[i];
        sum >>= BITS;
        target[to + channel] = sum < 0 ? 0 : sum > 255 ? 255 : sum;
      }
    }
  }
}

// Whether Pillow shrinks columns before rows; both round to 8 bits, so the order shows in single pixels. Versions to 12.1 never do.
function columnsFirst(image, width, height, pillow) {
  const [major, minor] = pillow.split(".").map(Number);
  if (height >= image.height || major < 12 || (major === 12 && minor < 2)) return false;
  return major >= 13 ? image.height - height > 2 * (image.width - width) : image.height > 100 * image.width;
}

// `image` at `width` x `height`, as Image.resize of Pillow's version `pillow`.
export function resize(image, width, height, interpolation, pillow) {
  const filter = FILTERS[interpolation];
  let {data} = image, [w, h] = [image.width, image.height];
  const rows = () => {
    if (width === w) return;
    const target = new Uint8Array(width * h * 3);
    resample(data, target, weights(w, width, filter), h, [w * 3, 3], [width * 3, 3]);
    [data, w] = [target, width];
  };
  const columns = () => {
    if (height === h) return;
    const target = new Uint8Array(w * height * 3);
    resample(data, target, weights(h, height, filter), w, [3, w * 3], [3, w * 3]);
    [data, h] = [target, height];
  };
  for (const pass of columnsFirst(image, width, height, pillow) ? [columns, rows] : [rows, columns]) pass();
  return {width, height, data};
}

// x.5 goes to the even neighbour, as Python's round() does.
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor & 1) : Math.round(value);
}

// The centre of `image`; black where it is smaller. Also where that lies in `image`: [left, top].
function centerCrop(image, width, height) {
  const place = (have, want) => (have < want ? -Math.trunc((want - have) / 2) : roundHalfEven((have - want) / 2));
  const left = place(image.width, width), top = place(image.height, height), data = new Uint8Array(width * height * 3);
  const begin = Math.max(left, 0), end = Math.min(left + width, image.width);
  for (let y = Math.max(top, 0); y < Math.min(top + height, image.height); y++) {
    data.set(image.data.subarray((y * image.width + begin) * 3, (y * image.width + end) * 3), ((y - top) * width + begin - left) * 3);
  }
  return [{width, height, data}, [left, top]];
}

const pair = (size) => (Array.isArray(size) ? size : [size, size]);

// Throws what a page can show if `transformOps` (export.json: PreProcess.transform_ops) hold something that is not done here.
export function check(transformOps) {
  for (const [name, options] of transformOps.flatMap(Object.entries)) {
    if (!["DecodeImage", "ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage"].includes(name)) {
      throw new Error(`the transform ${name} is not known here`);
    }
    if (name === "ResizeImage" && (options.backend !== "pil" || !FILTERS[options.interpolation ?? "bilinear"])) {
      throw new Error(`ResizeImage by ${options.backend}, ${options.interpolation}: the browser has Pillow's ${Object.keys(FILTERS).join(", ")}`);
    }
  }
}

// The transforms in turn, as Pillow's version `pillow` and numpy do them. Returns {data: Float32Array [3 * height * width], width, height, view}; view = {x, y, width, height} is the part
// of the picture that the model sees, in pixels of the picture.
export function preprocess(transformOps, image, pillow) {
  let view = {x: 0, y: 0, width: image.width, height: image.height}, tables = null, swap = false;
  for (const [name, options] of transformOps.flatMap(Object.entries)) {
    if (name === "DecodeImage") {
      swap = options?.to_rgb === false;
    } else if (name === "ResizeImage") {
      const short = options.resize_short && pair(options.resize_short)[0], {width, height} = image;
      const [w, h] = !short ? pair(options.size)
        : width <= height ? [short, Math.trunc((short * height) / width)] : [Math.trunc((short * width) / height), short];
      if (w !== width || h !== height) image = resize(image, w, h, options.interpolation ?? "bilinear", pillow);
    } else if (name === "CropImage") {
      const [x, y] = [view.width / image.width, view.height / image.height];
      const [cropped, [left, top]] = centerCrop(image, ...pair(options.size));
      view = {x: view.x + left * x, y: view.y + top * y, width: cropped.width * x, height: cropped.height * y};
      image = cropped;
    } else if (name === "NormalizeImage") {
      const scale = Math.fround(options.scale ?? 1 / 255);
      tables = [0, 1, 2].map((c) => Float32Array.from({length: 256}, (_, value) =>
        Math.fround(Math.fround(Math.fround(value * scale) - Math.fround(options.mean[c])) / Math.fround(options.std[c]))));
    }
  }
  const {width, height} = image, data = new Float32Array(3 * width * height);
  for (let channel = 0; channel < 3; channel++) {
    const plane = data.subarray(channel * width * height, (channel + 1) * width * height), table = tables?.[channel];
    for (let i = 0, at = swap ? 2 - channel : channel; i < plane.length; i++, at += 3) {
      plane[i] = table ? table[image.data[at]] : image.data[at];
    }
  }
  return {data, width, height, view};
}

// The RGB of RGBA pixels, alpha dropped.
export function withoutAlpha({width, height, data}) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return {width, height, data: rgb};
}
