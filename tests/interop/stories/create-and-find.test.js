import assert from "node:assert/strict"
import { test } from "node:test"
import { splice } from "../lib/client.js"
import { story } from "../lib/story.js"
import { agree, allShow } from "../lib/until.js"

const world = story()

test("the server introduces itself as a store that lasts", async () => {
  const { server } = await world.join()
  assert.equal(typeof server.peerId, "string")
  assert.equal(typeof server.peerMetadata.storageId, "string")
  assert.notEqual(server.peerMetadata.isEphemeral, true)
})

test("a document that one client creates is found by another", async () => {
  const [alice, bob] = [await world.join(), await world.join()]
  const theirs = alice.create({ title: "shopping", items: ["milk"] })
  const mine = await bob.open(theirs.url)
  await allShow([mine], { title: "shopping", items: ["milk"] })
})

test("every later edit reaches the others, whoever makes it", async () => {
  const clients = [await world.join(), await world.join(), await world.join()]
  const first = clients[0].create({ edits: {} })
  const others = await Promise.all(clients.slice(1).map(client => client.open(first.url)))
  const handles = [first, ...others]
  const expected = {}
  for (let round = 0; round < 10; round++) {
    handles[round % 3].change(doc => (doc.edits[`edit ${round}`] = round))
    expected[`edit ${round}`] = round
    await allShow(handles, { edits: expected })
  }
})

test("a document is there after everyone who had it has left", async () => {
  const author = await world.join()
  const handle = author.create({ text: "" })
  for (const [at, character] of [..."one letter after the other"].entries()) {
    splice(author, handle, at, 0, character)
  }
  const witness = await world.join()
  await allShow([await witness.open(handle.url)], { text: "one letter after the other" })
  await author.close()
  await witness.close()
  const reader = await world.join()
  await allShow([await reader.open(handle.url)], { text: "one letter after the other" })
})

test("every kind of value survives the way", async () => {
  const [alice, bob] = [await world.join(), await world.join()]
  const { Counter } = alice.packages.Automerge
  const value = {
    text: "grüße, 你好, 🦀",
    number: -12,
    float: 0.1,
    truth: true,
    nothing: null,
    nested: { list: [1, [2, { three: 3 }], "four"] },
    bytes: new Uint8Array([0, 1, 255]),
    when: new Date(1_700_000_000_000),
  }
  const handle = alice.create({ ...value, counter: new Counter(5) })
  handle.change(doc => doc.counter.increment(2))
  const found = await bob.open(handle.url)
  const doc = await agree([handle, found], doc => doc.counter === 7)
  assert.equal(doc.text, value.text)
  assert.deepEqual(found.doc().bytes, value.bytes)
  assert.deepEqual(found.doc().when, value.when)
  assert.deepEqual(found.doc().nested, value.nested)
})

test("many documents opened at once are all found", async () => {
  const [alice, bob] = [await world.join(), await world.join()]
  const theirs = Array.from({ length: 100 }, (_, number) => alice.create({ number }))
  const mine = await Promise.all(theirs.map(handle => bob.open(handle.url)))
  for (const [number, handle] of mine.entries()) await allShow([handle], { number })
})
