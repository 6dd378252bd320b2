// Uses the built page of a detector or a segmentor as a person would and prints what was seen as JSON; tests/test_web_dense.py judges it.
// node test/drive_dense.mjs '{"chromium": PATH, "url": URL, "photos": [PATH], "bad": [PATH], "thresholds": [TEXT], "folder": for downloads and pictures}'
import {writeFileSync} from "node:fs";
import {basename, join} from "node:path";
import {downloaded, drop, open} from "./browser.mjs";

const {photos, bad, thresholds, folder, ...where} = JSON.parse(process.argv[2]);
const {browser, page, seen} = await open(where);
const text = (selector) => page.$eval(selector, (element) => element.textContent);
const tick = async (id, wanted) => {
  if (await page.$eval(id, (box) => box.checked) !== wanted) await page.click(id);
};

// The newest card's canvas as a PNG file.
async function canvas(name) {
  const url = await page.$eval("#results canvas", (element) => element.toDataURL());
  writeFileSync(join(folder, name), Buffer.from(url.split(",")[1], "base64"));
}

async function card() {
  return page.$eval("#results > li", (item) => ({
    legend: [...item.querySelectorAll(".legend li")].map((row) => [row.querySelector(".name").textContent, row.querySelector(".score").textContent]),
    objects: [...item.querySelectorAll("details li")].map((row) => row.textContent),
    label: item.querySelector("canvas").getAttribute("aria-label"),
  }));
}

// Types `value` into the field beside the slider, as a person does.
async function type(value) {
  await page.$eval("#exact", (field) => field.select());
  await page.keyboard.press("Backspace");
  await page.type("#exact", `${value}\n`);
  return {value, wrong: await text("#wrong"), slider: await page.$eval("#threshold", (slider) => slider.value), ...await card()};
}

if (seen.ready) {
  const detects = await page.$("#threshold") !== null, boxes = detects ? ["#boxes", "#names", "#masks"] : ["#colours"];
  seen.photos = [];
  for (const path of photos) {
    await drop(page, path);
    const name = basename(path), status = await text("#status");
    await canvas(`all-${name}`);
    for (const id of boxes.slice(0, -1)) await tick(id, false);
    await canvas(`masks-${name}`);
    await tick(boxes.at(-1), false);
    await canvas(`plain-${name}`);
    for (const id of boxes) await tick(id, true);
    seen.photos.push({name, status, ...await card()});
  }
  seen.told = await downloaded(page, folder);
  if (detects) {
    seen.typed = [];
    for (const value of thresholds) seen.typed.push(await type(value));
    seen.toldThen = await downloaded(page, folder);
    await page.focus("#threshold");
    await page.keyboard.press("ArrowRight");
    seen.stepped = await page.$eval("#exact", (field) => field.valueAsNumber);
    await page.keyboard.press("Tab");
    seen.next = await page.evaluate(() => document.activeElement.id);
    await page.$eval("details", (details) => { details.open = true; });
  }
  for (const width of [400, 1400]) {
    await page.setViewport({width, height: 900});
    seen[width] = await page.evaluate(() => ({page: document.documentElement.scrollWidth, canvas: document.querySelector("canvas").clientWidth}));
    await page.screenshot({path: join(folder, `page-${width}.png`), fullPage: true});
  }
  seen.bad = [];
  for (const path of bad) {
    await drop(page, path);
    seen.bad.push(await text("#results > li [role=alert]"));
  }
  seen.last = (await downloaded(page, folder)).slice(photos.length);
}
await browser.close();
console.log(JSON.stringify(seen));
