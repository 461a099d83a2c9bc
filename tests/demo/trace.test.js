// A recording that the demo is started with becomes what three people type.

import assert from "node:assert/strict"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { gzipSync } from "node:zlib"
import { EDITS_EACH, readTrace } from "../../web-demo/server/trace.mjs"

const folder = mkdtempSync(join(tmpdir(), "tributary-demo-test-"))
after(() => rmSync(folder, { recursive: true }))

const WORDS = ["the", "river", "rises", "slowly", "under", "an", "old", "bridge", "of", "grey", "stone", "again"]

/** Somebody writes sentences, no two alike, with slips that are corrected, and formulas in between. */
function recording(edits) {
  const txns = []
  let end = 0
  const keys = (text, at = end) => {
    for (const [n, key] of [...text].entries()) txns.push({ patches: [[at + n, 0, key]] })
    end += text.length
  }
  for (let n = 0; txns.length < edits; n++) {
    const words = Array.from({ length: 9 }, (_, place) => WORDS[Math.floor(n / WORDS.length ** (place % 4)) % WORDS.length])
    keys("Somebody saysx")
    txns.push({ patches: [[end - 1, 1, ""]] })
    end -= 1
    keys(` ${words.join(" ")}.\n`)
    keys(`$x_{${n}} \\in \\mathit{deps}(${n})$ and 0.5.5.053.\n`)
    // A word in a sentence that was there before.
    if (n % 3 === 2) keys("!!", 4)
  }
  return txns
}

/** What is there when somebody has made these edits. */
function made(edits) {
  let text = ""
  let caret = 0
  for (const [move, deleted, inserted] of edits) {
    const at = caret + move
    assert.ok(at >= 0 && at + deleted <= text.length, "an edit is outside of what was written")
    text = text.slice(0, at) + inserted + text.slice(at + deleted)
    caret = at + inserted.length
  }
  return text
}

function file(name, content) {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

test("each person gets sentences of the recording, and no formulas", async () => {
  const path = file("good.json.gz", gzipSync(JSON.stringify({ txns: recording(9 * EDITS_EACH) })))
  const pieces = await readTrace(path)
  assert.deepEqual(Object.keys(pieces).sort(), ["ap", "eu", "us"])
  for (const piece of Object.values(pieces)) {
    assert.ok(Math.abs(piece.length - EDITS_EACH) < 300, `${piece.length} edits`)
    assert.match(made(piece), /^( Somebody says( [a-z]+)+\.)+ $/)
  }
})

test("what has no sentences is typed all the same", async () => {
  const txns = Array.from({ length: 4 * EDITS_EACH }, (_, n) => ({ patches: [[n, 0, String(((n * n) % 9_973) % 10)]] }))
  const pieces = await readTrace(file("digits.json", JSON.stringify({ txns })))
  for (const piece of Object.values(pieces)) made(piece)
})

test("what is no recording is refused by name", async () => {
  const few = file("few.json", JSON.stringify({ txns: recording(10) }))
  await assert.rejects(readTrace(few), /few\.json: this is no recording of 9000 edits or more/)
  await assert.rejects(readTrace(file("no.json", "{")), /no\.json: .*JSON/)
  await assert.rejects(readTrace(join(folder, "missing")), /missing: .*ENOENT/)
})
