import assert from "node:assert/strict"
import { test } from "node:test"
import { stock } from "../lib/client.js"
import { story } from "../lib/story.js"
import { allShow, until } from "../lib/until.js"

const world = story()

const newUrl = () => stock.generateAutomergeUrl()

test("a document that nobody has is unavailable at once, not after a timeout", async () => {
  const alice = await world.join()
  const started = performance.now()
  await assert.rejects(alice.find(newUrl()), /unavailable/)
  assert.ok(performance.now() - started < 5_000)
})

test("many documents that nobody has are all answered", async () => {
  const alice = await world.join()
  const results = await Promise.allSettled(Array.from({ length: 50 }, () => alice.find(newUrl())))
  assert.deepEqual(results.map(({ status }) => status), Array(50).fill("rejected"))
})

test("a document that was unavailable arrives in the same connection when somebody brings it", async () => {
  const wire = await world.wire()
  const author = await world.join({ wire })
  const waiting = await world.join()
  await wire.cut()
  await until(() => !author.connected, "the author to be gone")
  const hers = author.create({ came: "late" })
  await assert.rejects(waiting.find(hers.url), /unavailable/)
  const { peerId } = waiting.server
  let left = false
  waiting.adapter.on("peer-disconnected", () => (left = true))
  await wire.mend()
  const his = await until(() => waiting.find(hers.url).catch(() => undefined), "the document to turn up")
  await allShow([his], { came: "late" })
  his.change(doc => (doc.answered = true))
  await allShow([hers, his], { came: "late", answered: true })
  assert.equal(left, false)
  assert.equal(waiting.server.peerId, peerId)
})
