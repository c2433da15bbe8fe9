// Drives Chromium for tests/support/browser.py. Lines of JSON in: [number, act, …]; out: [number, isGood, value].
// Number 0 tells what went wrong in a page: [0, true, [page, words]].

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [folder, executablePath] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";
const WITHIN = { timeout: 25000 };

let browser;
const pages = new Map();
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const acts = {
  start: async () => {
    browser = await chromium.launch({ executablePath, args: FLAGS.split(" "), handleSIGTERM: true });
  },
  open: async (number, options) => {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(WITHIN.timeout);
    page.on("console", (said) => ["error", "warning"].includes(said.type()) && tell([0, true, [number, `${said.type()}: ${said.text()}`]]));
    page.on("pageerror", (error) => tell([0, true, [number, `exception: ${error.message}`]]));
    await page.addInitScript(() =>
      document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)),
    );
    pages.set(number, page);
  },
  close: async (number) => {
    const page = pages.get(number);
    pages.delete(number);
    await page.context().close();
  },
  goto: async (page, url) => void (await page.goto(url)),
  reload: async (page) => void (await page.reload()),
  click: (page, selector) => page.locator(selector).first().click(),
  fill: (page, selector, text) => page.locator(selector).first().fill(text),
  press: (page, key) => page.keyboard.press(key),
  text: (page, selector) => page.locator(selector).first().innerText(),
  count: (page, selector) => page.locator(selector).count(),
  sees: (page, selector) => page.locator(selector).first().waitFor({ state: "visible" }),
  until: async (page, script, argument) => {
    const expression = `(${script})(${JSON.stringify(argument ?? null)})`;
    for (const deadline = Date.now() + WITHIN.timeout; ; ) {
      const value = await page.evaluate(expression); // not waitForFunction: it needs eval in the page, which its policy forbids
      if (value) return value;
      if (Date.now() > deadline) throw new Error(`not within ${WITHIN.timeout} ms; the page shows: ${(await page.innerText("body")).slice(0, 1500)}`);
      await new Promise((done) => setTimeout(done, 30));
    }
  },
  evaluate: (page, script, argument) => page.evaluate(`(${script})(${JSON.stringify(argument ?? null)})`),
  screenshot: async (page, path) => void (await page.screenshot({ path })),
  busy: async (page) => {
    // Seconds of CPU that the page's main thread has used since the first time this was asked.
    if (!page.session) {
      page.session = await page.context().newCDPSession(page);
      await page.session.send("Performance.enable", { timeDomain: "threadTicks" });
    }
    const { metrics } = await page.session.send("Performance.getMetrics");
    return metrics.find((one) => one.name === "TaskDuration").value;
  },
  trace: async (page) => {
    // Note what the main thread does, and what the page measures, from now on.
    page.traced = [];
    page.tracing = await browser.newBrowserCDPSession();
    page.tracing.on("Tracing.dataCollected", ({ value }) => page.traced.push(...value));
    const traceConfig = { includedCategories: ["toplevel", "blink.user_timing"], excludedCategories: ["*"] };
    await page.tracing.send("Tracing.start", { transferMode: "ReportEvents", traceConfig });
  },
  traced: async (page, prefix) => {
    // End that. What the page has measured under names that begin so, each another one: [[milliseconds, CPU milliseconds of its main thread meanwhile], …].
    const complete = new Promise((done) => page.tracing.once("Tracing.tracingComplete", done));
    await page.tracing.send("Tracing.end");
    await complete;
    await page.tracing.detach();
    const edges = page.traced.filter((one) => one.name.startsWith(prefix) && "be".includes(one.ph));
    const ends = new Map(edges.filter((one) => one.ph === "e").map((one) => [one.name, one.ts]));
    const tasks = page.traced.filter((one) => one.ph === "X" && one.name === "ThreadControllerImpl::RunTask");
    return edges
      .filter((one) => one.ph === "b")
      .map(({ pid, tid, ts, name }) => {
        const end = ends.get(name);
        const during = tasks.filter((one) => one.pid === pid && one.tid === tid && one.ts < end && one.ts + one.dur > ts);
        return [(end - ts) / 1000, during.reduce((sum, one) => sum + (one.tdur ?? 0), 0) / 1000];
      });
  },
  later: async (page, ms) => {
    // The page's clock goes on from here as if so much time had passed.
    await page.clock.install();
    await page.clock.fastForward(ms);
  },
  axe: async (page, rules) => {
    const session = await page.context().newCDPSession(page);
    await session.send("Runtime.evaluate", { expression: axe }); // from outside: the page's policy forbids scripts of others
    const options = { resultTypes: ["violations"], ...(rules ? { runOnly: rules } : {}) };
    const found = await page.evaluate((given) => window.axe.run(document, given), options);
    return found.violations
      .filter((one) => ["serious", "critical"].includes(one.impact))
      .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.target.join(" ")} (${node.any[0]?.message ?? ""})`).join("; ")}`);
  },
};

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const [number, act, ...given] = JSON.parse(line);
  const target = ["start", "open", "close"].includes(act) ? given : [pages.get(given[0]), ...given.slice(1)];
  Promise.resolve()
    .then(() => acts[act](...target))
    .then((value) => tell([number, true, value ?? null]), (error) => tell([number, false, `${act} ${JSON.stringify(given)}: ${error.message}`]));
});
lines.on("close", async () => {
  await browser?.close().catch(() => {});
  process.exit(0);
});
