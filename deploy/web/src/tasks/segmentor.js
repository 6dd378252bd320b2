// A segmentor in the worker: the class of every pixel. See classifier.js.
import {namesOf} from "../description.js";
import {jointPreprocess} from "../joint.js";
import {bestClass} from "../labels.js";

export function segmentor(description) {
  const {PreProcess, Export, Model} = description, classes = namesOf(description).length;
  const [[name, [batch, , ...sides]]] = Object.entries(Export.inputs);
  const prepare = jointPreprocess(PreProcess.transform_ops, {sides, fills: false, least: Model?.input?.min_size});
  return async (session, tensor, pixels) => {
    const {data, size, shape} = prepare(pixels), copies = batch ?? 1, input = new Float32Array(copies * data.length);
    for (let i = 0; i < copies; i++) input.set(data, i * data.length);
    const {logits} = await session.run({[name]: tensor(input, [copies, 3, ...size])}), [, depth, ...cells] = logits.dims;
    if (depth !== classes) throw new Error(`scores of ${depth} classes; export.json names ${classes}.`);
    const scores = logits.data.subarray(0, depth * cells[0] * cells[1]);
    return {labels: bestClass(scores, classes, cells, size, shape, [pixels.height, pixels.width])};
  };
}
