// What export.json says of a model, checked before anything is downloaded or run.

const isMapping = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isCount = (value) => Number.isInteger(value) && value >= 1;
const isShape = (value) => Array.isArray(value) && value.length === 4 && value.every((size) => size === null || isCount(size));
const isNames = (value) => Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === "string");
const isTransforms = (value) => Array.isArray(value) && value.every((entry) => isMapping(entry)
  && Object.values(entry).every((options) => options === null || isMapping(options)));
const isShare = (value) => typeof value === "number" && value >= 0 && value <= 1;
const isAttention = (value) => value === undefined || (isMapping(value) && typeof value.output === "string"
  && [value.stride, value.stage, value.block].every(isCount));
const isDetector = (value) => isMapping(value) && Object.keys(value).sort().join() === "im_shape,image,scale_factor" && isShape(value.image);
const isOneImage = (value) => isMapping(value) && Object.keys(value).length === 1 && Object.values(value).every(isShape);

// [place, whether a value is right, what is expected], of every export and of those for a task
const SHARED = [
  ["PreProcess.transform_ops", isTransforms, "a list of transforms with their arguments"],
  ["Export.outputs", isNames, "a list of names"],
  ["Model.input.min_size", (value) => value === undefined || isCount(value), "1 or more"],
];
const OF_TASK = {
  classification: [
    ["PostProcess.Topk.label_list", isNames, "a list of names"],
    ["PostProcess.Topk.topk", isCount, "1 or more"],
    ["Model.attention", isAttention, "an output, a stage, a block and a stride"],
    ["Model.input.name", (value) => typeof value === "string", "a name"],
    ["Versions.pillow", (value) => typeof value === "string", "a version"],
  ],
  detection: [
    ["PostProcess.label_list", isNames, "a list of names"],
    ["PostProcess.score_threshold", isShare, "a number from 0 to 1"],
    ["Export.inputs", isDetector, "image, im_shape and scale_factor"],
  ],
  segmentation: [
    ["PostProcess.label_list", isNames, "a list of names"],
    ["Export.inputs", isOneImage, "one input of four sizes or nulls"],
    ["Export.outputs", (value) => value.includes("logits"), "logits among them"],
  ],
};

// classification, detection or segmentation. Error for another one.
export function taskOf(description) {
  const task = description?.Model?.task ?? "classification";
  if (!Object.hasOwn(OF_TASK, task)) {
    throw new Error(`export.json: Model.task: expected one of ${Object.keys(OF_TASK).join(", ")}, got ${shown(task)}`);
  }
  return task;
}

// The names of the classes, in order, of a description that was checked.
export const namesOf = ({PostProcess}) => (PostProcess.Topk ?? PostProcess).label_list;

// Error, which names the field, for a description that is none of an ONNX export.
export function checkDescription(description) {
  const task = taskOf(description), target = description?.Export?.target;
  if (target !== "onnx") throw new Error(`export.json: an export for ${shown(target)}; this page runs those of --to onnx, made ready by prepare.py`);
  for (const [place, isRight, expected] of [...SHARED, ...OF_TASK[task]]) {
    const value = place.split(".").reduce((inner, key) => inner?.[key], description);
    if (!isRight(value)) throw new Error(`export.json: ${place}: expected ${expected}, got ${shown(value)}`);
  }
  const names = namesOf(description).length, classes = description.Model?.class_num ?? names;
  if (names !== classes) throw new Error(`export.json: ${names} class names for ${classes} classes; export again with the right label file`);
}

const shown = (value) => (value === undefined ? "nothing" : JSON.stringify(value).slice(0, 60));

// Error if `bytes`, of the file `name`, are not those that the description was written with. Browsers hash in secure contexts alone (https, localhost).
export async function checkHash(description, name, bytes) {
  const wanted = description.Files?.[name]?.sha256;
  if (typeof wanted !== "string") throw new Error(`export.json: Files: no hash of ${name}; make both with prepare.py`);
  if (!crypto.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== wanted) throw new Error(`${name} does not match export.json, so it is damaged or of another export; make both again with prepare.py`);
}
