// Chooses pixels of a picture in the built page by mouse, touch and keyboard, and prints what it then attends to; tests/test_web_attention.py judges it.
// node test/drive_attention.mjs '{"chromium": PATH, "url": URL, "photo": PATH, "side": PIXELS, "points": [[x, y]], "downloads": FOLDER,
// "screenshot": PATH or null}'
import {downloaded, drop, open} from "./browser.mjs";

const {photo, side, points, downloads, screenshot, ...where} = JSON.parse(process.argv[2]);
const {browser, page, seen} = await open(where);
seen.disabled = await page.$eval("#map [value=attention]", (option) => option.disabled);
seen.why = await page.$eval("#why", (element) => element.textContent);
await drop(page, photo);
if (!seen.disabled) {
  const canvas = await page.$("#results canvas");
  const label = () => canvas.evaluate((element) => element.getAttribute("aria-label"));
  const now = async () => ({...(await downloaded(page, downloads))[0].attention, label: await label()});
  const placed = async ([x, y]) => {
    await canvas.scrollIntoView();
    const box = await canvas.boundingBox();
    return [box.x + (x + 0.5) / side * box.width, box.y + (y + 0.5) / side * box.height];
  };
  // `act` until the label tells of the pixel: a browser on a busy machine misses an event now and then
  const reached = async ([x, y], act) => {
    for (let tries = 0; ; tries++) {
      await act(...await placed([x, y]));
      const there = page.waitForFunction((element, text) => element.getAttribute("aria-label").includes(text), {timeout: 10_000}, canvas, `(${x}, ${y})`);
      if (await there.then(() => true, (error) => tries < 5 ? false : Promise.reject(error))) return now();
    }
  };
  seen.before = (await downloaded(page, downloads))[0];
  seen.label = await label();
  await page.mouse.move(...await placed(points[0]));             // before it is chosen the pointer moves nothing
  await page.select("#map", "attention");
  seen.centre = await now();
  seen.mouse = [];
  for (const point of points) seen.mouse.push(await reached(point, (x, y) => page.mouse.move(x, y)));
  const corners = () => canvas.evaluate((element) => [0, 1, 2, 3].map((i) => Array.from(element.getContext("2d").getImageData(
    i % 2 ? element.width - 2 : 1, i > 1 ? element.height - 2 : 1, 1, 1).data)));
  seen.heat = await corners();
  await page.click("#heat");
  seen.plain = await corners();
  await page.click("#heat");
  seen.touch = await reached(points[0], (x, y) => page.touchscreen.tap(x, y));
  await canvas.focus();
  for (const key of ["ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft"]) await page.keyboard.press(key);
  seen.keyboard = await now();
  if (screenshot) {
    await page.mouse.move(...await placed(points[0]));
    await page.screenshot({path: screenshot});
  }
  await page.select("#map", "cam");
  await page.mouse.move(...await placed(points[0]));
  seen.after = (await downloaded(page, downloads))[0];
  seen.tabbable = await canvas.evaluate((element) => element.tabIndex);
}
await browser.close();
console.log(JSON.stringify(seen));
