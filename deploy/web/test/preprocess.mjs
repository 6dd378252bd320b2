// Runs src/preprocess.js on raw pixels: node test/preprocess.mjs CASES.json, [{ops, pillow, width, height, raw, out}]; tests/test_web.py.
import {readFileSync, writeFileSync} from "node:fs";
import {check, preprocess} from "../src/preprocess.js";

const found = JSON.parse(readFileSync(process.argv[2])).map(({ops, pillow, width, height, raw, out}) => {
  try {
    check(ops);
  } catch (error) {
    return {refused: error.message};
  }
  const {data, view} = preprocess(ops, {width, height, data: new Uint8Array(readFileSync(raw))}, pillow);
  writeFileSync(out, new Uint8Array(data.buffer));
  return {view};
});
console.log(JSON.stringify(found));
