import assert from "node:assert/strict"
import { test } from "node:test"
import { story } from "../lib/story.js"
import { allShow, until } from "../lib/until.js"

const world = story()

/** Two or more clients with the same document open. */
async function room(size) {
  const clients = await Promise.all(Array.from({ length: size }, () => world.join()))
  const first = clients[0].create({ opened: true })
  const others = await Promise.all(clients.slice(1).map(client => client.open(first.url)))
  await allShow(others, { opened: true })
  return { clients, handles: [first, ...others] }
}

function heard(handle) {
  const messages = []
  handle.on("ephemeral-message", ({ senderId, message }) => messages.push({ senderId, message }))
  return messages
}

test("what one client broadcasts reaches the others in order, under the author's name", async () => {
  const { clients, handles } = await room(3)
  const [own, ...others] = handles.map(heard)
  const sent = Array.from({ length: 200 }, (_, at) => ({ cursor: at, name: "Ada" }))
  for (const message of sent) handles[0].broadcast(message)
  for (const messages of others) {
    await until(() => messages.length >= sent.length, "all messages")
    assert.deepEqual(messages.map(({ message }) => message), sent)
    assert.ok(messages.every(({ senderId }) => senderId === clients[0].repo.networkSubsystem.peerId))
  }
  assert.deepEqual(own, [])
})

test("two authors are heard by each other at the same time, each in order", async () => {
  const { handles } = await room(2)
  const inboxes = handles.map(heard)
  for (let at = 0; at < 100; at++) {
    handles[0].broadcast(["first", at])
    handles[1].broadcast(["second", at])
    if (at % 10 === 0) await new Promise(setImmediate)
  }
  const numbers = Array.from({ length: 100 }, (_, at) => at)
  for (const [inbox, author] of [
    [inboxes[1], "first"],
    [inboxes[0], "second"],
  ]) {
    await until(() => inbox.length >= 100, "all messages")
    assert.deepEqual(inbox.map(({ message }) => message), numbers.map(at => [author, at]))
  }
})

test("presence stays in its own document", async () => {
  const { clients, handles } = await room(2)
  const hers = clients[0].create({ other: true })
  const his = await clients[1].open(hers.url)
  const [here, elsewhere] = [heard(handles[1]), heard(his)]
  handles[0].broadcast("here")
  hers.broadcast("elsewhere")
  await until(() => here.length > 0 && elsewhere.length > 0, "both messages")
  assert.deepEqual([here, elsewhere].map(inbox => inbox.map(({ message }) => message)), [
    ["here"],
    ["elsewhere"],
  ])
})

test("presence is heard again after the listener's connection was cut", async () => {
  const wire = await world.wire()
  const [alice, bob] = [await world.join(), await world.join({ wire })]
  const hers = alice.create({ opened: true })
  const his = await bob.open(hers.url)
  const inbox = heard(his)
  await wire.cut()
  await until(() => !bob.connected, "the client to notice")
  await wire.mend()
  hers.change(doc => (doc.edited = true))
  await allShow([his], { opened: true, edited: true })
  hers.broadcast("still here")
  await until(() => inbox.length > 0, "the message")
  assert.equal(inbox[0].message, "still here")
})
