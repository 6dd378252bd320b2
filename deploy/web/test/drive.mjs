// Uses the built page in a real browser as a person would and prints what was seen as JSON; tests/test_web.py judges it.
// node test/drive.mjs '{"chromium": PATH, "url": URL, "photos": [PATH], "bad": [PATH], "downloads": FOLDER, "screenshot": PATH or null}'
import {downloaded, drop, open} from "./browser.mjs";

const {photos, bad, screenshot, downloads, ...where} = JSON.parse(process.argv[2]);
const {browser, page, seen} = await open(where);
seen.photos = {};
if (!seen.ready) {                                      // there is no model: nothing more to try
  await browser.close();
  console.log(JSON.stringify(seen));
  process.exit();
}

const rows = () => page.$eval("#results > li", (card) => [...card.querySelectorAll("ol > li")].map((row) =>
  ({id: Number(row.dataset.class), score: Number(row.dataset.score), text: row.textContent, chosen: row.querySelector("input").checked})));
const corners = () => page.$eval("#results > li canvas", (canvas) => [0, 1, 2, 3].map((i) => Array.from(
  canvas.getContext("2d").getImageData(i % 2 ? canvas.width - 2 : 1, i > 1 ? canvas.height - 2 : 1, 1, 1).data)));
const toggle = () => page.focus("#heat").then(() => page.keyboard.press("Space"));

for (const path of photos) {
  await drop(page, path);
  const found = {rows: await rows(), heat: await corners()};
  await toggle();
  found.plain = await corners();
  await toggle();
  seen.photos[path] = found;
}

// By keyboard alone: from the check box back to the file input, open it; then the second class of the newest card.
await page.keyboard.down("Shift");
await page.keyboard.press("Tab");
await page.keyboard.up("Shift");
seen.focused = await page.evaluate(() => document.activeElement.id);
for (let chooser = null, tries = 0; !chooser; tries++) {        // a browser on a busy machine misses the first key now and then
  const waiting = page.waitForFileChooser({timeout: 5000});
  await page.keyboard.press("Enter");
  chooser = await waiting.catch((error) => tries < 5 ? null : Promise.reject(error));
  await chooser?.accept([photos[0]]);
}
await page.waitForFunction((count) => document.querySelectorAll("#results > .done").length === count, {}, photos.length + 1);
await page.focus("#results > li input:checked");
await page.keyboard.press("ArrowDown");
seen.keyboard = {rows: await rows(), heat: await corners()};

await page.setViewport({width: 320, height: 640});
seen.small = await page.evaluate(() => ({page: document.documentElement.scrollWidth, canvas: document.querySelector("canvas").clientWidth}));
await page.setViewport({width: 1000, height: 810});
if (screenshot) {
  await page.evaluate(() => document.querySelector("#results > li").remove());
  await page.screenshot({path: screenshot});
}

seen.bad = [];
for (const path of bad) {
  await drop(page, path);
  seen.bad.push(await page.$eval("#results > li [role=alert]", (element) => element.textContent));
}
await drop(page, photos[0]);
seen.after = await rows();
seen.told = await downloaded(page, downloads);
await browser.close();
console.log(JSON.stringify(seen));
