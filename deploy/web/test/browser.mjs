// The built page in a real browser, without network: what the drivers of the tests share.
import {existsSync, readFileSync, rmSync} from "node:fs";
import {basename, join} from "node:path";
import puppeteer from "puppeteer-core";

// Opens the page and waits until its model is ready, or cannot be. seen: {requests, problems, status, ready}.
export async function open({chromium, url}) {
  const browser = await puppeteer.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--force-device-scale-factor=1"],
  });
  const page = await browser.newPage(), seen = {requests: [], problems: []};
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("console", (message) => message.type() === "error" && seen.problems.push(message.text()));
  page.on("pageerror", (error) => seen.problems.push(error.message));
  await page.setViewport({width: 1000, height: 900});
  await page.goto(url);
  await page.waitForSelector("body.ready, #drop[hidden]", {timeout: 120_000});
  seen.status = await page.$eval("#status", (element) => element.textContent);
  seen.ready = await page.$("body.ready") !== null;
  return {browser, page, seen};
}

// Drops a file, as by a mouse, and waits until the newest card tells what was found or why nothing was.
export async function drop(page, path) {
  const protocol = await page.createCDPSession(), data = {items: [], files: [path], dragOperationsMask: 1};
  for (const type of ["dragEnter", "dragOver", "drop"]) {
    await protocol.send("Input.dispatchDragEvent", {type, x: 400, y: 150, data});
  }
  await page.waitForFunction((name) => {
    const card = document.querySelector("#results > li");
    return card?.matches(".done, .bad") && card.textContent.includes(name);
  }, {timeout: 60_000}, basename(path));
}

// Presses the button and returns the list that the browser downloads into `folder`.
export async function downloaded(page, folder) {
  const protocol = await page.createCDPSession(), path = join(folder, "predictions.json");
  await protocol.send("Browser.setDownloadBehavior", {behavior: "allow", downloadPath: folder, eventsEnabled: true});
  rmSync(path, {force: true});
  const done = new Promise((resolve) => protocol.on("Browser.downloadProgress", ({state}) => state === "completed" && resolve()));
  await page.click("#json");
  await done;
  if (!existsSync(path)) throw new Error(`no ${path}`);
  return JSON.parse(readFileSync(path));
}
