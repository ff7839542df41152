// Looks at the status page in a browser, as a person does: what it shows, that it stays up to date, what the keyboard reaches,
// and what axe-core says of it. Run by tests/integration/page/browser.rs, which has a Sheave for it:
//   node check.mjs <page> <listener> <tools> [screenshots]
// <tools> is what scripts/install-page-tools prints; the browser is $CHROMIUM or the system's.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import net from "node:net";
import path from "node:path";

const [, , url, listener, tools, screenshots] = process.argv;
const require = createRequire(path.join(tools, "package.json"));
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const DEADLINE = 30_000;

/** What the page does that nobody should see: messages of the console, and requests to others. */
function watch(page) {
    const seen = { messages: [], strangers: [] };
    page.on("console", (message) => seen.messages.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => seen.messages.push(`error: ${error.message}`));
    page.on("request", (request) => {
        if (new URL(request.url()).origin !== new URL(url).origin) seen.strangers.push(request.url());
    });
    return seen;
}

/** A client that stays, once its endpoint has answered. */
function client() {
    const [, host, port] = listener.match(/^(.*):(\d+)$/);
    return new Promise((resolve, reject) => {
        const socket = net.connect(Number(port), host, () => socket.write("hello"));
        socket.once("data", () => resolve(socket));
        socket.once("error", reject);
    });
}

const address = (socket) => `${socket.localAddress}:${socket.localPort}`;
const ended = (socket) => new Promise((resolve) => socket.once("close", resolve).resume());
const rows = (page) => page.locator("#connections tbody tr");

/** The clients of the live connections, from top to bottom, once there are so many. */
async function clients(page, count) {
    await page.waitForFunction(
        (count) => document.querySelectorAll("#connections tbody tr").length === count,
        count,
        { timeout: DEADLINE },
    );
    return rows(page).locator("th").evaluateAll((heads) => heads.map((head) => head.firstChild.data.trim()));
}

async function showsWhatThereIs(page) {
    await page.goto(url);
    assert.equal(await page.title(), "Sheave · serving");
    for (const title of ["Listeners", "Routes", "Upstreams", "Live connections", "Recent failures", "Workers", "Tables", "Latency"]) {
        assert.equal(await page.getByRole("heading", { name: title, exact: true, level: 2 }).count(), 1, title);
    }
    assert.equal(await page.getByText("breaker open").count(), 1, "the endpoint that refuses is seen to");
    assert.equal(await page.locator("#failures tbody tr").count(), 1);
    assert.match(await page.locator("#failures tbody tr").innerText(), /connect_refused/);
    for (const [class_, colour] of [["ok", /./], ["bad", /./]]) {
        const shown = await page.locator(`.pill.${class_}`).first().evaluate((pill) => getComputedStyle(pill).backgroundColor);
        assert.match(shown, colour);
        assert.notEqual(shown, "rgba(0, 0, 0, 0)", "the style sheet is in effect");
    }
}

async function staysUpToDate(page) {
    const one = await client();
    const two = await client();
    assert.deepEqual(await clients(page, 2), [address(one), address(two)], "oldest first, without a reload");
    await page.evaluate(() => { document.querySelector("#connections tbody tr").marked = true; });
    const three = await client();
    await clients(page, 3);
    assert.equal(await page.evaluate(() => document.querySelector("#connections tbody tr").marked), true, "what stays is not made anew");
    three.destroy();
    await clients(page, 2);
    return [one, two];
}

async function obeysTheKeyboard(page, [one, two]) {
    const age = page.locator("#sort-age");
    assert.equal(await page.locator("th[aria-sort]").getAttribute("aria-sort"), "descending");
    await age.focus();
    await page.keyboard.press("Enter");
    await page.waitForSelector('th[aria-sort="ascending"] #sort-age', { timeout: DEADLINE });
    assert.deepEqual(await clients(page, 2), [address(two), address(one)]);
    assert.equal(await page.evaluate(() => document.activeElement.id), "sort-age", "the focus stays where it was");
    assert.equal(new URL(page.url()).search, "?sort=-age", "a view can be sent to somebody");
    await page.locator("#filter").focus();
    await page.keyboard.type(address(one));
    assert.deepEqual(await clients(page, 1), [address(one)]);
    assert.equal(await page.locator("#filter").inputValue(), address(one), "what is typed is left alone");
    await page.keyboard.press("Control+A");
    await page.keyboard.press("Delete");
    await clients(page, 2);
    // From the beginning on, each press of Tab comes to something that is seen to have the focus.
    await page.goto(url);
    await page.waitForSelector("html.scripted");
    const reached = new Set();
    for (let press = 0; press < 60; press++) {
        await page.keyboard.press("Tab");
        const focused = await page.evaluate(() => {
            const { id, textContent, tagName } = document.activeElement;
            return { what: id || textContent.trim(), tagName, outline: getComputedStyle(document.activeElement).outlineStyle };
        });
        if (focused.tagName === "BODY") break;
        assert.notEqual(focused.outline, "none", `no focus is seen on ${focused.what}`);
        reached.add(focused.what);
    }
    for (const what of ["To the content", "pause", "upstreams-filter", "filter", "sort-age", "sort-sent", "Close"]) {
        assert.ok(reached.has(what), `${what} is not reached: ${[...reached].join(", ")}`);
    }
}

async function closesByHand(page, [one, two]) {
    const asked = [];
    let answer = false;
    page.on("dialog", (dialog) => {
        asked.push(dialog.message());
        return answer ? dialog.accept() : dialog.dismiss();
    });
    const button = rows(page).filter({ hasText: address(one) }).getByRole("button", { name: /^Close connection/ });
    await button.focus();
    await page.keyboard.press("Enter");
    assert.equal(asked.length, 1);
    assert.ok(asked[0].includes(address(one)), asked[0]);
    await clients(page, 2);
    answer = true;
    const gone = ended(one);
    await page.keyboard.press("Enter");
    await gone;
    assert.deepEqual(await clients(page, 1), [address(two)]);
    await page.getByRole("status").getByText(/^Connection \d+ is closed$/).waitFor({ timeout: DEADLINE });
}

async function pauses(page) {
    await page.getByRole("button", { name: "Pause" }).click();
    assert.equal(await page.locator("#pause").getAttribute("aria-pressed"), "true");
    const requests = [];
    page.on("request", (request) => requests.push(request.url()));
    const [late] = await Promise.all([client(), page.waitForTimeout(3_000)]);
    // One may have been under way.
    assert.ok(requests.length <= 1, `asked ${requests.length} times`);
    await page.locator("#pause").press("Space");
    await clients(page, 2);
    late.destroy();
    await clients(page, 1);
}

async function isAccessible(browser, colorScheme) {
    // The policy of the page would not let axe in.
    const page = await browser.newPage({ colorScheme, bypassCSP: true, viewport: { width: 1280, height: 900 } });
    await page.goto(url);
    await page.waitForSelector("html.scripted");
    await page.evaluate(axe.source);
    const { violations, passes } = await page.evaluate(() => axe.run());
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join("\n    ")}`);
    assert.deepEqual(found, [], `${colorScheme}: axe-core has found something`);
    assert.ok(passes.length > 20, `${colorScheme}: axe-core has looked at ${passes.length} rules only`);
    if (screenshots) await page.screenshot({ path: path.join(screenshots, `${colorScheme}.png`), fullPage: true });
    await page.close();
}

async function fitsAPhone(browser) {
    const page = await browser.newPage({ viewport: { width: 360, height: 740 } });
    await page.goto(url);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `the page is ${width} pixels wide; only its tables may scroll`);
    if (screenshots) await page.screenshot({ path: path.join(screenshots, "phone.png") });
    await page.close();
}

async function isReadWithoutScript(browser) {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(url);
    assert.equal(await rows(page).count(), 1);
    assert.equal(await page.locator("#pause").isVisible(), false, "nothing is offered that does nothing");
    await page.locator("#sort-idle").click();
    await page.waitForURL(/sort=idle/);
    assert.equal(await page.locator('th[aria-sort="descending"] #sort-idle').count(), 1);
    await context.close();
}

/** What a page of somebody else's can do to this one in the same browser. */
async function keepsStrangersOut(browser) {
    const page = await browser.newPage();
    await page.route("http://stranger.test/**", (route) => route.fulfill({ contentType: "text/html", body: "<title>x</title>" }));
    await page.goto("http://stranger.test/");
    const outcomes = await page.evaluate(async (url) => {
        const attempt = (path, options) => fetch(url + path, options).then(() => "answered", () => "refused");
        const frame = document.createElement("iframe");
        const framed = new Promise((resolve) => frame.addEventListener("load", resolve));
        frame.src = url;
        document.body.append(frame);
        await framed;
        return [
            await attempt("connections/1", { method: "DELETE" }),
            await attempt("drain", { method: "POST" }),
            await attempt("connections"),
        ];
    }, url);
    assert.deepEqual(outcomes, ["refused", "refused", "refused"]);
    const frame = page.frames().find((frame) => frame !== page.mainFrame());
    assert.equal(await frame.locator("#page").count(), 0, "it is shown in nobody's frame");
    await page.close();
}

async function saysThatContactIsLost(page) {
    await page.route("**/*", (route) => route.abort());
    await page.getByText("No contact: what you see is old").waitFor({ timeout: DEADLINE });
    await page.unroute("**/*");
    await page.waitForFunction(() => document.getElementById("contact").textContent === "", undefined, { timeout: DEADLINE });
}

// As root there is no sandbox to be had.
const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await chromium.launch({ executablePath, args: [...args, "--disable-dev-shm-usage", "--disable-gpu"] });
try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    page.setDefaultTimeout(DEADLINE);
    const seen = watch(page);
    await showsWhatThereIs(page);
    const held = await staysUpToDate(page);
    await obeysTheKeyboard(page, held);
    await closesByHand(page, held);
    await pauses(page);
    for (const colorScheme of ["light", "dark"]) await isAccessible(browser, colorScheme);
    await fitsAPhone(browser);
    await isReadWithoutScript(browser);
    assert.deepEqual(seen, { messages: [], strangers: [] });
    await keepsStrangersOut(browser);
    await saysThatContactIsLost(page);
    held.forEach((socket) => socket.destroy());
    console.log("the page is as it should be");
} finally {
    await browser.close();
}
