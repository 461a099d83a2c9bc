// The demo as a visitor uses it: real regions, a real browser. Every wait has an end.
//
//   BINARIES=target/debug CHROMIUM=/usr/bin/chromium SCREENSHOTS=target/demo-screenshots npm test
//
// Everyone types the recording TRACE, or the one beside this repository, or what was made up for the demo.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { existsSync, mkdirSync } from "node:fs"
import { createInterface } from "node:readline"
import { after, before, test } from "node:test"
import { resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { chromium } from "playwright-core"
import { readTrace } from "../../web-demo/server/trace.mjs"

const root = fileURLToPath(new URL("../..", import.meta.url))
/** Where cargo, run in the root of the repository, puts what it builds. */
const target = resolve(root, process.env.CARGO_TARGET_DIR ?? "target")
const binaries = process.env.BINARIES ?? `${target}/debug`
const shots = process.env.SCREENSHOTS ?? `${target}/demo-screenshots`
const trace = [process.env.TRACE, `${root}/../shared/data/automerge-paper.json.gz`].find(path => path && existsSync(path))
const PEOPLE = ["us", "eu", "ap"]
const PARAGRAPHS = { us: "Ben in Oregon:", eu: "Ada in Frankfurt:", ap: "Chie in Tokyo:" }
const START_MS = 20_000
const WAIT_MS = 12_000
/** Still faster than people type. */
const KEY_MS = 20
/** Servers notice a cut by silence, and look for another way then. */
const DETOUR_MS = 20_000
/** Whatever hangs, this process and those that it started end. */
const ALL_MS = 85_000

let supervisor, browser, page, address
const problems = []

const hard = setTimeout(() => {
  console.error(`the demo's test did not end within ${ALL_MS / 1e3} s`)
  supervisor?.kill("SIGTERM")
  setTimeout(() => process.exit(1), 3_000)
}, ALL_MS)
hard.unref()

before(async () => {
  mkdirSync(shots, { recursive: true })
  const arguments_ = ["server/demo.mjs", "--binaries", binaries, "--port", "0", ...(trace ? ["--trace", trace] : [])]
  supervisor = spawn("node", arguments_, { cwd: `${root}/web-demo`, stdio: ["ignore", "pipe", "inherit"] })
  address = await within(START_MS, "the supervisor says where the page is", new Promise((resolve, reject) => {
    supervisor.once("exit", code => reject(new Error(`the supervisor ended with ${code}`)))
    createInterface({ input: supervisor.stdout }).on("line", line => {
      if (line.startsWith("demo: ")) resolve(line.slice("demo: ".length))
    })
  }))
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
    timeout: START_MS,
  })
  page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "light" })
  page.setDefaultTimeout(WAIT_MS)
  page.on("pageerror", error => problems.push(error.message))
  await page.goto(address)
  await page.locator(".cm-content").nth(2).waitFor()
  await areEqual()
})

after(async () => {
  if (page) await page.screenshot({ path: `${shots}/last.png`, fullPage: true, timeout: 5_000 }).catch(() => {})
  await within(5_000, "the browser ends", browser?.close()).catch(() => {})
  if (supervisor && supervisor.exitCode === null) {
    const ended = new Promise(resolve => supervisor.once("exit", resolve))
    supervisor.kill("SIGINT")
    await within(8_000, "ctrl-C ends the demo", ended).catch(error => {
      supervisor.kill("SIGKILL")
      throw error
    })
  }
})

test("what one person types is read by the others, with the writer's cursor", async () => {
  await type("us", "Hello from Oregon. ")
  for (const person of PEOPLE) await reads(person, "Hello from Oregon.")
  await page.locator(".pane.eu .caret.us").waitFor()
  await areEqual()
})

test("a card that is added, renamed, moved and deleted is so for everybody", async () => {
  await pane("eu").getByLabel("Title of a new card").fill("Borrow chairs")
  await pane("eu").getByRole("button", { name: "Add" }).click()
  await pane("ap").getByLabel("Title of card Borrow chairs").fill("Borrow benches")
  await pane("us").getByLabel("Move Borrow benches to Doing").click()
  const doing = pane("eu").getByRole("list", { name: "Doing, as Ada sees it" })
  await doing.getByLabel("Title of card Borrow benches").waitFor()
  await pane("eu").getByLabel("Delete Find a band").click()
  await pane("us").getByLabel("Title of card Find a band").waitFor({ state: "detached" })
  await areEqual()
})

test("cut cables stop nobody, and mended ones bring everything together", async () => {
  await page.getByRole("button", { name: "Cut all cables" }).click()
  await page.getByRole("status").getByText("No region reaches another.").waitFor()
  await pane("eu").locator(".caret.us.stale").waitFor()
  await type("us", "West of the cut. ")
  await type("ap", "East of the cut. ")
  await page.locator("#status[data-equal=false]").waitFor()
  await reads("us", "West of the cut.")
  await reads("ap", "East of the cut.")
  assert.ok(!(await textOf("us")).includes("East of the cut."))
  assert.ok(!(await textOf("ap")).includes("West of the cut."))
  await page.screenshot({ path: `${shots}/1280-cut.png`, fullPage: true })
  await page.getByRole("button", { name: "Mend all cables" }).click()
  for (const person of PEOPLE) {
    await reads(person, "West of the cut.")
    await reads(person, "East of the cut.")
  }
  await areEqual()
})

test("what is written on one side of a single cut cable gets to the other by way of the third region", async () => {
  const atlantic = page.locator("[data-link=eu-us]")
  await atlantic.getByRole("switch").press("Space")
  await page.getByRole("status").getByText("The Atlantic cable is cut").waitFor()
  assert.ok(await page.getByRole("button", { name: "Cut all cables" }).isEnabled())
  assert.ok(await page.getByRole("button", { name: "Mend all cables" }).isEnabled())
  await type("us", "Round by Tokyo. ")
  await reads("eu", "Round by Tokyo.", DETOUR_MS)
  await page.locator("#status[data-equal=true]").waitFor()
  const by = page.getByRole("status").getByText("The regions are equal. The Atlantic cable is cut; changes go by way of Tokyo.")
  await by.waitFor({ timeout: DETOUR_MS })
  await atlantic.getByText("none, by way of Tokyo").waitFor()
  // The server in Oregon has not heard from Frankfurt itself that it holds this, and never will.
  const lags = await page.locator("[data-link] dd:nth-of-type(1)").allTextContents()
  assert.deepEqual(lags, ["none, by way of Tokyo", "none", "none"])
  assert.match(await page.getByRole("img", { name: "Lag, seconds" }).getAttribute("aria-label"), /Oregon 0\.0, Frankfurt 0\.0, Tokyo 0\.0/)
  await page.screenshot({ path: `${shots}/1280-detour.png`, fullPage: true })
  await page.getByRole("button", { name: "Mend all cables" }).click()
  await page.getByRole("status").getByText("every server holds every change").waitFor()
  await areEqual()
})

test("a single cable is cut by its switch and made slow by its slider, with the keyboard", async () => {
  const pacific = page.locator("[data-link=us-ap]")
  await pacific.getByRole("switch").press("Space")
  await pacific.getByText("Cut", { exact: true }).waitFor()
  await pacific.getByRole("switch").press("Space")
  await pacific.getByText("Open", { exact: true }).waitFor()
  await pacific.getByRole("slider").press("ArrowRight")
  await pacific.getByText("60 ms").waitFor()
})

test("a killed region loses nothing, and its person writes on meanwhile", async () => {
  await page.getByRole("button", { name: "Kill the server in Frankfurt" }).click()
  await pane("eu").getByText("No server.").waitFor()
  await type("eu", "Written without a server. ")
  await type("us", "Written while Frankfurt was down. ")
  await reads("ap", "Written while Frankfurt was down.")
  await page.screenshot({ path: `${shots}/1280-killed.png`, fullPage: true })
  await page.getByRole("button", { name: "Bring back the server in Frankfurt" }).click()
  for (const person of PEOPLE) {
    await reads(person, "Written without a server.")
    await reads(person, "Written while Frankfurt was down.")
  }
  await areEqual()
})

test("everyone types at once, and all end with the same text", async () => {
  await page.getByRole("button", { name: "Everyone types" }).click()
  const pieces = trace && (await readTrace(trace))
  const first = pieces ? beginning(pieces.us) : "The stage goes up on Friday"
  await reads("ap", first)
  await page.screenshot({ path: `${shots}/1280-light.png`, fullPage: true })
  await page.emulateMedia({ colorScheme: "dark" })
  await page.screenshot({ path: `${shots}/1280-dark.png`, fullPage: true })
  await page.getByRole("button", { name: "Stop typing" }).click()
  await areEqual()
  const texts = await Promise.all(PEOPLE.map(textOf))
  for (const text of texts) assert.equal(text, texts[0])
  for (const [person, piece] of Object.entries(pieces ?? {})) {
    const line = texts[0].split("\n").find(line => line.startsWith(PARAGRAPHS[person]))
    const typed = line.slice(PARAGRAPHS[person].length)
    assert.ok([...stages(piece)].includes(typed), `${person} has not typed what was recorded: ${typed}`)
  }
})

test("it fits a phone, and nothing failed on the page", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme })
    await page.setViewportSize({ width: 390, height: 844 })
    await page.screenshot({ path: `${shots}/390-${colorScheme}.png`, fullPage: true })
  }
  await pane("ap").getByText("cards on the board").click()
  await pane("ap").getByLabel("Title of a new card").scrollIntoViewIfNeeded()
  const status = await page.locator("#status").boundingBox()
  assert.ok(status.y >= 0 && status.y < 20, `the status is at ${status.y} px`)
  for (const control of await pane("ap").locator("button, input").all()) {
    assert.ok((await control.boundingBox()).height >= 44, await control.evaluate(it => it.outerHTML))
  }
  assert.ok((await page.locator("[data-link=us-ap] label").boundingBox()).height >= 44)
  for (const width of [390, 320]) {
    await page.setViewportSize({ width, height: 844 })
    const needed = await page.evaluate(() => document.documentElement.scrollWidth)
    assert.ok(needed <= width, `the page is ${needed} px wide on a screen of ${width}`)
  }
  assert.deepEqual(problems, [])
})

const pane = person => page.locator(`.pane.${person}`)

/** What the person's own copy of the text says; the names on cursors are no part of it. */
function textOf(person) {
  return page.evaluate(person => {
    const content = document.querySelector(`.pane.${person} .cm-content`).cloneNode(true)
    for (const caret of content.querySelectorAll(".caret")) caret.remove()
    return [...content.querySelectorAll(".cm-line")].map(line => line.textContent).join("\n")
  }, person)
}

/** Types at the beginning of the text. */
async function type(person, text) {
  const content = pane(person).locator(".cm-content")
  await content.focus()
  await content.press("Control+Home")
  // Slow enough for the others' letters to arrive meanwhile, as they do when people type.
  await page.keyboard.type(text, { delay: KEY_MS })
  assert.equal(await page.evaluate(() => document.activeElement.closest(".pane")?.dataset.region), person)
}

async function reads(person, text, timeout = WAIT_MS) {
  await pane(person).locator(".cm-content").filter({ hasText: text }).waitFor({ timeout })
}

/** What a paragraph says after each edit of a recording. */
function* stages(edits) {
  let text = ""
  let caret = 0
  for (const [move, deleted, inserted] of edits) {
    const at = caret + move
    text = text.slice(0, at) + inserted + text.slice(at + deleted)
    caret = at + inserted.length
    yield text
  }
}

/** The first words of a recording: enough to see that it is typed. */
function beginning(edits) {
  return [...stages(edits)].at(-1).trim().split(" ").slice(0, 3).join(" ")
}

/** Waits until every server and every browser names the same heads, and the page says so. */
async function areEqual() {
  await page.waitForFunction(() => {
    const told = [...document.querySelectorAll(".heads dd")].map(dd => dd.dataset.heads)
    return told.length === 6 && told[0] && told.every(heads => heads === told[0])
  })
  await page.locator("#status[data-equal=true]").waitFor()
}

function within(ms, what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
