// A classifier in the worker: the probabilities, for each class the map whose mean is its logit, and of an export with --attention the weights of
// its last block.
import {namesOf} from "../description.js";
import {check, preprocess} from "../preprocess.js";

function softmax(logits) {
  const largest = Math.max(...logits), exponents = logits.map((value) => Math.exp(value - largest));
  const sum = exponents.reduce((a, b) => a + b, 0);
  return exponents.map((value) => value / sum);
}

// Error where the program gives something else than export.json says, as deploy/python's agreement.py.
export function checkScores(scores, dims, classes, ends) {
  if (dims.join() !== [1, classes].join()) throw new Error(`the program gives ${dims.join(" x ")} scores; export.json names ${classes} classes.`);
  if (!scores.every(Number.isFinite)) throw new Error("the model's output is not finite.");
  const sum = scores.reduce((a, b) => a + b, 0), least = Math.min(...scores);
  if (ends && (least < 0 || Math.abs(sum - 1) > 0.1)) throw new Error("export.json: Model.softmax is true, but the program gives no probabilities.");
  if (!ends && classes > 1 && least >= 0 && Math.abs(sum - 1) < 1e-4) {
    throw new Error("export.json: Model.softmax is false, but the program gives probabilities.");
  }
}

// {data, rows, columns, ...}: data [rows * columns]^2. Error where the output has another size than export.json tells.
function attentionOf(output, {stage, block, stride}, height, width) {
  const rows = Math.ceil(height / stride), columns = Math.ceil(width / stride), cells = rows * columns;
  if (output?.dims.join() !== [1, cells, cells].join()) {
    throw new Error(`the model's attention has ${output?.dims.join(" x ") ?? "no"} values, not 1 x ${cells} x ${cells}; export it again.`);
  }
  return {data: output.data, rows, columns, stage, block, stride};
}

// run(session, tensor, pixels) -> what the page is told of a picture. Error for a description that cannot be followed.
export function classifier(description) {
  const {transform_ops: transforms} = description.PreProcess, {input, softmax: ends, attention} = description.Model;
  check(transforms);
  return async (session, tensor, pixels) => {
    const {data, width, height, view} = preprocess(transforms, pixels, description.Versions.pillow);
    if (Math.min(width, height) < input.min_size) {
      throw new Error(`${width} x ${height} pixels are too few for the model; it needs at least ${input.min_size}.`);
    }
    const outputs = await session.run({[input.name]: tensor(data, [1, 3, height, width])});
    const {cam, [session.outputNames[0]]: scores} = outputs, [, , rows, columns] = cam.dims;
    checkScores(scores.data, scores.dims, namesOf(description).length, ends);
    const more = attention ? {attention: attentionOf(outputs[attention.output], attention, height, width)} : {};
    return {view, input: {width, height}, ...more, scores: ends ? scores.data : softmax(Array.from(scores.data)), cam: {data: cam.data, rows, columns}};
  };
}
