// Runs the parts of the page for detectors and segmentors on raw numbers: node test/dense.mjs CASES.json; tests/test_web_dense.py.
// CASES: {inputs: [{ops, options, width, height, raw, out}], labels: [{raw, classes, sizes, names, out}], objects: [{table, grids, cells, names, threshold,
// size}], palette: count, descriptions: [...]}; files hold little-endian numbers.
import {readFileSync, writeFileSync} from "node:fs";
import {checkDescription} from "../src/description.js";
import {jointPreprocess} from "../src/joint.js";
import {bestClass, toldClasses} from "../src/labels.js";
import {objectsOf, toldObjects} from "../src/objects.js";
import {colourOf} from "../src/palette.js";

const floats = (path) => new Float32Array(new Uint8Array(readFileSync(path)).buffer);
const orRefusal = (make) => {
  try {
    return make();
  } catch (error) {
    return {refused: error.message};
  }
};

const {inputs, labels, objects, palette, descriptions} = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify({
  inputs: inputs.map(({ops, options, width, height, raw, out}) => orRefusal(() => {
    const {data, ...told} = jointPreprocess(ops, options)({width, height, data: new Uint8Array(readFileSync(raw))});
    writeFileSync(out, new Uint8Array(data.buffer));
    return told;
  })),
  labels: labels.map(({raw, classes, sizes: [cells, padded, shape, original], names, out}) => {
    const found = bestClass(floats(raw), classes, cells, padded, shape, original);
    writeFileSync(out, new Uint8Array(Int32Array.from(found).buffer));
    return toldClasses(found, names, ...original);
  }),
  objects: objects.map(({table, grids, cells, names, threshold, size}) =>
    toldObjects(objectsOf({table: floats(table), grids: floats(grids), cells}, threshold), names, cells, ...size)),
  palette: Array.from({length: palette}, (_, i) => colourOf(i)),
  descriptions: descriptions.map((description) => orRefusal(() => checkDescription(description) ?? "right")),
}));
