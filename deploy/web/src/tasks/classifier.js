// A classifier in the worker: the probabilities, and for each class the map whose mean is its logit.
import {check, preprocess} from "../preprocess.js";

function softmax(logits) {
  const largest = Math.max(...logits), exponents = logits.map((value) => Math.exp(value - largest));
  const sum = exponents.reduce((a, b) => a + b, 0);
  return exponents.map((value) => value / sum);
}

// run(session, tensor, pixels) -> what the page is told of a picture. Error for a description that cannot be followed.
export function classifier(description) {
  const {transform_ops: transforms} = description.PreProcess, {input, softmax: ends} = description.Model;
  check(transforms);
  return async (session, tensor, pixels) => {
    const {data, width, height, view} = preprocess(transforms, pixels, description.Versions.pillow);
    if (Math.min(width, height) < input.min_size) {
      throw new Error(`${width} x ${height} pixels are too few for the model; it needs at least ${input.min_size}.`);
    }
    const outputs = await session.run({[input.name]: tensor(data, [1, 3, height, width])});
    const {cam, [session.outputNames[0]]: scores} = outputs, [, , rows, columns] = cam.dims;
    return {view, scores: ends ? scores.data : softmax(Array.from(scores.data)), cam: {data: cam.data, rows, columns}};
  };
}
