// A detector in the worker: all objects that the program gives, whatever they score. See classifier.js.
import {jointPreprocess} from "../joint.js";

export function detector({PreProcess, Export, Model}) {
  const [, , ...sides] = Export.inputs.image;
  const prepare = jointPreprocess(PreProcess.transform_ops, {sides, fills: true, least: Model?.input?.min_size});
  return async (session, tensor, pixels) => {
    const {data, size, shape, scale} = prepare(pixels);
    const {[Export.outputs[0]]: objects, [Export.outputs[1]]: masks} = await session.run({
      image: tensor(data, [1, 3, ...size]),
      im_shape: tensor(Float32Array.from(shape), [1, 2]),
      scale_factor: tensor(Float32Array.from(scale), [1, 2]),
    });
    if (objects.dims.length !== 2 || objects.dims[1] !== 6) throw new Error(`objects of the shape [${objects.dims}]; expected [n, 6].`);
    return {table: objects.data, grids: masks?.data ?? null, cells: masks?.dims.at(-1) ?? 0};
  };
}
