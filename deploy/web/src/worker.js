// The model's side of the page: decodes, preprocesses and runs, one picture after the other, so that the page stays responsive.
// In: {id, file}. Out: {kind: "loading" | "ready" | "failed" | "result" | "error", ...}.
import * as ort from "onnxruntime-web/wasm";
import {checkDescription, checkHash, namesOf, taskOf} from "./description.js";
import {withoutAlpha} from "./preprocess.js";
import {classifier} from "./tasks/classifier.js";
import {detector} from "./tasks/detector.js";
import {segmentor} from "./tasks/segmentor.js";

const TASKS = {classification: classifier, detection: detector, segmentation: segmentor};
const MAX_PIXELS = 50e6;
ort.env.wasm.wasmPaths = new URL(".", self.location.href).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
const tensor = (data, shape) => new ort.Tensor("float32", data, shape);

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

async function describe() {
  const response = await fetched("export.json");
  try {
    return await response.json();
  } catch {
    throw new Error("model/export.json is not JSON; make it again with prepare.py");
  }
}

async function load() {
  const description = await describe();
  checkDescription(description);
  const task = taskOf(description), run = TASKS[task](description), bytes = await download("model.onnx");
  await checkHash(description, "model.onnx", bytes);
  const session = await ort.InferenceSession.create(bytes, {executionProviders: ["wasm"]});
  const {Global, Model, PostProcess} = description, names = namesOf(description);
  postMessage({kind: "ready", task, name: Global?.model_name ?? "model", labels: names, post: PostProcess, model: Model ?? {}});
  return {run, session};
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

const loaded = load();
loaded.catch((error) => postMessage({kind: "failed", reason: error.message}));
let last = loaded.catch(() => {});
self.onmessage = ({data: {id, file}}) => {
  last = last.then(async () => {
    try {
      const {run, session} = await loaded, {bitmap, pixels} = await decode(file);
      postMessage({kind: "result", id, bitmap, ...await run(session, tensor, pixels)}, [bitmap]);
    } catch (error) {
      postMessage({kind: "error", id, reason: error.message});
    }
  });
};
