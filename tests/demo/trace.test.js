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

/** Somebody types one letter after the other, jumps about for a while, and takes letters away. */
function recording(edits) {
  return Array.from({ length: edits }, (_, n) => {
    const piece = Math.floor(n / EDITS_EACH)
    if (piece === 1 && n % 2 === 0) return { patches: [[0, 0, "x"]] }
    if (piece === 2) return { patches: [[EDITS_EACH - (n % EDITS_EACH), 1, ""]] }
    return { patches: [[n, 0, n % 10 === 9 ? "\n" : String(n % 10)]] }
  })
}

function file(name, content) {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

test("each person gets a piece of the recording in which the writer just wrote", async () => {
  const path = file("good.json.gz", gzipSync(JSON.stringify({ txns: recording(5 * EDITS_EACH) })))
  const pieces = await readTrace(path)
  assert.deepEqual(Object.keys(pieces).sort(), ["ap", "eu", "us"])
  for (const piece of Object.values(pieces)) {
    assert.equal(piece.length, EDITS_EACH)
    assert.ok(piece.every(([move]) => move === 0))
    assert.equal(piece.slice(0, 10).map(([, , inserted]) => inserted).join(""), "012345678 ")
  }
})

test("what is no recording is refused by name", async () => {
  const few = file("few.json", JSON.stringify({ txns: recording(10) }))
  await assert.rejects(readTrace(few), /few\.json: this is no recording of 9000 edits or more/)
  await assert.rejects(readTrace(file("no.json", "{")), /no\.json: .*JSON/)
  await assert.rejects(readTrace(join(folder, "missing")), /missing: .*ENOENT/)
})
