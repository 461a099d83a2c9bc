import assert from "node:assert/strict"
import { test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"
import { splice } from "../lib/client.js"
import { regions } from "../lib/regions.js"
import { replayTogether } from "../lib/replay.js"
import { INSTEAD, generateConcurrent, trace } from "../lib/traces.js"
import { agree, until } from "../lib/until.js"

const world = regions()
const LIMIT_MS = 300_000
/** A minute: long after everybody has noticed, given up, and begun to wait longer between attempts. */
const PARTITION_MS = 60_000
/** From one character to the next of somebody who takes notes meanwhile. */
const PACE_MS = 100

test("two people replay what they typed at once in two regions, through a partition of a minute", { timeout: 3 * LIMIT_MS }, async t => {
  const { txns, endContent, generated } = trace("friendsforever", generateConcurrent)
  if (generated) t.diagnostic(INSTEAD)
  const clients = []
  for (const region of ["eu", "us", "ap"]) clients.push(await world.join(region))
  /** One document, open with each of these. */
  const shared = async ([author, ...others]) => {
    const first = author.create({ text: "" })
    return [first, ...(await Promise.all(others.map(client => client.open(first.url, LIMIT_MS))))]
  }
  const handles = await shared(clients.slice(0, 2))
  const notes = await shared(clients)
  const text = handle => handle.doc().text

  /** Europe is alone. All go on as far as the trace lets them, and take notes for the whole minute. */
  async function partition() {
    await world.withWiresOf("eu", wire => wire.cut())
    const end = performance.now() + PARTITION_MS
    await world.linked(false, ["eu"])
    let noted = 0
    for (; performance.now() < end; noted++) {
      for (const [n, handle] of notes.entries()) splice(clients[n], handle, 0, 0, "abc"[n])
      await delay(PACE_MS)
    }
    // Europe has what Europe wrote. The other two see each other, and nothing of Europe.
    assert.equal(text(notes[0]), "a".repeat(noted))
    const others = await agree(notes.slice(1), doc => doc.text.length === 2 * noted)
    assert.ok(!others.text.includes("a"))
    assert.notEqual(text(handles[0]), text(handles[1]))
    await world.withWiresOf("eu", wire => wire.mend())
    const mended = performance.now()
    const { text: all } = await agree(notes, doc => doc.text.length === 3 * noted)
    assert.equal([...all].sort().join(""), [..."abc"].map(one => one.repeat(noted)).join(""))
    t.diagnostic(`${3 * noted} notes agreed ${((performance.now() - mended) / 1000).toFixed(1)} s after the minute`)
    await world.linked()
  }
  let parted
  await replayTogether(txns, clients, handles, {
    after(done, total) {
      if (done >= total / 3) parted ??= partition()
    },
  })
  await parted
  await until(() => handles.every(handle => text(handle) === endContent), "all ends", LIMIT_MS)
  for (const region of ["eu", "us", "ap"]) {
    const newcomer = await world.join(region)
    const handle = await newcomer.open(handles[0].url, LIMIT_MS)
    await until(() => text(handle) === endContent, "the newcomer to read the end", LIMIT_MS)
  }
})
