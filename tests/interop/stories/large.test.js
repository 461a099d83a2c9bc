import assert from "node:assert/strict"
import { randomFillSync } from "node:crypto"
import { test } from "node:test"
import { splice } from "../lib/client.js"
import { story } from "../lib/story.js"
import { until } from "../lib/until.js"

const world = story()
const LIMIT_MS = 120_000

test("a text of 5 MB is uploaded, edited and downloaded", { timeout: 2 * LIMIT_MS }, async () => {
  const line = "A line of text that is neither short nor long, with a number at the end: "
  let text = ""
  for (let number = 0; text.length < 5 << 20; number++) text += `${line}${number}\n`
  const author = await world.join()
  const hers = author.create({ text: "" })
  splice(author, hers, 0, 0, text)
  const reader = await world.join()
  const his = await reader.open(hers.url, LIMIT_MS)
  assert.equal(his.doc().text.length, text.length)
  assert.ok(his.doc().text === text)
  splice(reader, his, 10, 0, "(edited)")
  await until(() => hers.doc().text.startsWith("A line of (edited)"), "the edit to come back", LIMIT_MS)
})

test("a value of 50 MB is uploaded and downloaded", { timeout: 2 * LIMIT_MS }, async () => {
  const value = randomFillSync(new Uint8Array(50 << 20))
  const author = await world.join()
  const { url } = author.create({ value })
  const reader = await world.join()
  const handle = await reader.open(url, LIMIT_MS)
  assert.equal(Buffer.compare(handle.doc().value, value), 0)
})
