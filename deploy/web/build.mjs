// Bundles the page into dist/, which then needs no network: `npm ci && npm run build`. The model comes from prepare.py.
import {cp, mkdir, readdir, stat} from "node:fs/promises";
import {build} from "esbuild";

await mkdir("dist", {recursive: true});
await build({
  entryPoints: ["src/page.js", "src/worker.js"], outdir: "dist", bundle: true, minify: true, format: "esm", target: "es2022",
  conditions: ["onnxruntime-web-use-extern-wasm"],          // its threads start from a file of their own
});
for (const name of ["index.html", "style.css"]) {
  await cp(name, `dist/${name}`);
}
for (const name of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  await cp(`node_modules/onnxruntime-web/dist/${name}`, `dist/${name}`);
}
const files = (await readdir("dist", {withFileTypes: true})).filter(entry => entry.isFile()).map(entry => entry.name).sort();
const sizes = await Promise.all(files.map(async name => `${name} (${((await stat(`dist/${name}`)).size / 1e3).toFixed(1)} kB)`));
console.log(`in dist: ${sizes.join(", ")}`);
