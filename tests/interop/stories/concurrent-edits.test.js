import assert from "node:assert/strict"
import { test } from "node:test"
import { splice } from "../lib/client.js"
import { story } from "../lib/story.js"
import { agree, allShow } from "../lib/until.js"

const world = story()

test("two clients that type into one text at once end with the same text", async () => {
  const [alice, bob] = [await world.join(), await world.join()]
  const hers = alice.create({ text: "" })
  const his = await bob.open(hers.url)
  const [a, b] = ["a".repeat(200), "b".repeat(200)]
  for (let at = 0; at < 200; at++) {
    splice(alice, hers, hers.doc().text.length, 0, a[at])
    splice(bob, his, 0, 0, b[at])
    // Lets the sockets work between the keystrokes, so that the edits really interleave.
    await new Promise(setImmediate)
  }
  const { text } = await agree([hers, his], doc => doc.text.length === 400)
  assert.equal([...text].sort().join(""), a + b)
})

test("two values written to one key at once end as the same one for everybody", async () => {
  const clients = await Promise.all(Array.from({ length: 4 }, () => world.join()))
  const first = clients[0].create({ key: 0, written: [] })
  const others = await Promise.all(clients.slice(1).map(client => client.open(first.url)))
  const handles = [first, ...others]
  for (const [at, handle] of handles.entries()) {
    handle.change(doc => {
      doc.key = at + 1
      doc.written.push(at + 1)
    })
  }
  const doc = await agree(handles, doc => doc.written.length === 4)
  assert.ok(doc.written.includes(doc.key))
  assert.deepEqual([...doc.written].sort(), [1, 2, 3, 4])
})

test("concurrent increments of a counter all count", async () => {
  const [alice, bob] = [await world.join(), await world.join()]
  const { Counter } = alice.packages.Automerge
  const hers = alice.create({ count: new Counter(0) })
  const his = await bob.open(hers.url)
  for (let round = 0; round < 50; round++) {
    for (const handle of [hers, his]) handle.change(doc => doc.count.increment(1))
    await new Promise(setImmediate)
  }
  await allShow([hers, his], { count: 100 })
})

test("deleting what somebody else edits is settled the same way everywhere", async () => {
  const [alice, bob, carol] = [await world.join(), await world.join(), await world.join()]
  const hers = alice.create({ cards: { one: { title: "old" }, two: { title: "kept" } } })
  const his = await bob.open(hers.url)
  hers.change(doc => delete doc.cards.one)
  his.change(doc => (doc.cards.one.title = "new"))
  his.change(doc => (doc.done = true))
  const doc = await agree([hers, his, await carol.open(hers.url)], doc => doc.done)
  assert.deepEqual(doc.cards, { two: { title: "kept" } })
})
