import assert from "node:assert/strict"
import { test } from "node:test"
import { replayTogether } from "../lib/replay.js"
import { story } from "../lib/story.js"
import { INSTEAD, generateConcurrent, generateSequential, trace } from "../lib/traces.js"
import { until } from "../lib/until.js"

const world = story()
const LIMIT_MS = 300_000

test("two clients replay what two people typed at once", { timeout: 2 * LIMIT_MS }, async t => {
  const { txns, endContent, generated } = trace("friendsforever", generateConcurrent)
  if (generated) t.diagnostic(INSTEAD)
  const clients = [await world.join(), await world.join()]
  const first = clients[0].create({ text: "" })
  const handles = [first, await clients[1].open(first.url)]
  await replayTogether(txns, clients, handles)
  await until(() => handles.every(handle => handle.doc().text === endContent), "both ends", LIMIT_MS)
  await newcomerReads(first.url, endContent)
})

test("one client replays the writing of a paper", { timeout: 2 * LIMIT_MS }, async t => {
  const { txns, startContent, endContent, generated } = trace("automerge-paper", generateSequential)
  if (generated) t.diagnostic(INSTEAD)
  const author = await world.join()
  const { Automerge } = author.packages
  const handle = author.create({ text: startContent })
  const TRANSACTIONS_PER_CHANGE = 20
  for (let from = 0; from < txns.length; from += TRANSACTIONS_PER_CHANGE) {
    handle.change(doc => {
      for (const { patches } of txns.slice(from, from + TRANSACTIONS_PER_CHANGE)) {
        for (const [position, deleted, inserted] of patches) {
          Automerge.splice(doc, ["text"], position, deleted, inserted)
        }
      }
    })
    await new Promise(setImmediate)
  }
  assert.equal(handle.doc().text, endContent)
  await newcomerReads(handle.url, endContent)
})

/** A client without any history reads the document, at the latest when all of it has arrived. */
async function newcomerReads(url, content) {
  const newcomer = await world.join()
  const handle = await newcomer.open(url, LIMIT_MS)
  await until(() => handle.doc().text === content, "the newcomer to read the end", LIMIT_MS)
}
