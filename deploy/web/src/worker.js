// The model's side of the page: decodes, preprocesses and runs, one picture after the other, so that the page stays responsive.
// In: {id, file}. Out: {kind: "loading" | "ready" | "failed" | "result" | "error", ...}.
import * as ort from "onnxruntime-web/wasm";
import {check, preprocess, withoutAlpha} from "./preprocess.js";

const MAX_PIXELS = 50e6;
ort.env.wasm.wasmPaths = new URL(".", self.location.href).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

async function fetched(name) {
  const response = await fetch(new URL(`model/${name}`, self.location.href));
  if (!response.ok) throw new Error(`model/${name} is not there (${response.status}); make it with prepare.py`);
  return response;
}

async function download(name) {
  const response = await fetched(name), total = Number(response.headers.get("Content-Length")), parts = [];
  let received = 0;
  for (const reader = response.body.getReader(); ;) {
    const {done, value} = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    postMessage({kind: "loading", received, total});
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function load() {
  const description = await (await fetched("export.json")).json();
  check(description.PreProcess.transform_ops);
  const session = await ort.InferenceSession.create(await download("model.onnx"), {executionProviders: ["wasm"]});
  postMessage({kind: "ready", name: description.Global?.model_name ?? "model", labels: description.PostProcess.Topk.label_list});
  return {description, session};
}

async function decode(file) {
  if (!file.size) throw new Error("the file is empty.");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none"});
  } catch {
    throw new Error("this is not a picture that your browser can read, or it is damaged. Try a JPEG, PNG or WebP file.");
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    throw new Error(`${bitmap.width} x ${bitmap.height} pixels are too many; at most ${MAX_PIXELS / 1e6} million, please.`);
  }
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  return {bitmap, pixels: withoutAlpha(context.getImageData(0, 0, bitmap.width, bitmap.height))};
}

function softmax(logits) {
  const largest = Math.max(...logits), exponents = logits.map((value) => Math.exp(value - largest));
  const sum = exponents.reduce((a, b) => a + b, 0);
  return exponents.map((value) => value / sum);
}

// The probabilities, and for each class the map whose mean is its logit.
async function classify({description, session}, {bitmap, pixels}) {
  const {transform_ops: transforms} = description.PreProcess, {input} = description.Model;
  const {data, width, height, view} = preprocess(transforms, pixels, description.Versions.pillow);
  if (Math.min(width, height) < input.min_size) {
    throw new Error(`${width} x ${height} pixels are too few for the model; it needs at least ${input.min_size}.`);
  }
  const outputs = await session.run({[input.name]: new ort.Tensor("float32", data, [1, 3, height, width])});
  const {cam, [session.outputNames[0]]: scores} = outputs, [, , rows, columns] = cam.dims;
  return {bitmap, view, scores: description.Model.softmax ? scores.data : softmax(Array.from(scores.data)), cam: {data: cam.data, rows, columns}};
}

const loaded = load();
loaded.catch((error) => postMessage({kind: "failed", reason: error.message}));
let last = loaded.catch(() => {});
self.onmessage = ({data: {id, file}}) => {
  last = last.then(async () => {
    try {
      const model = await loaded, result = await classify(model, await decode(file));
      postMessage({kind: "result", id, ...result}, [result.bitmap]);
    } catch (error) {
      postMessage({kind: "error", id, reason: error.message});
    }
  });
};
