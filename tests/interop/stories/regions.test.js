import assert from "node:assert/strict"
import { randomBytes } from "node:crypto"
import { test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"
import { splice } from "../lib/client.js"
import { regions } from "../lib/regions.js"
import { agree, allShow, until } from "../lib/until.js"

const world = regions()
/** How long partitions last. Long enough that both sides have noticed and given up. */
const PARTITION_MS = 3_000
/**
 * What a region that is cut off writes, and a wire that needs some seconds for it. More changes than
 * are taken for keystrokes, of what does not compress.
 */
const MUCH = { changes: 400, bytes: 2_000 }
const NARROW = { latency_ms: 20, jitter_ms: 5, bytes_per_second: 100_000 }

/** One client in each of these regions, with one document open. */
async function room(...names) {
  const clients = await Promise.all(names.map(name => world.join(name)))
  const first = clients[0].create({ text: "" })
  const others = await Promise.all(clients.slice(1).map(client => client.open(first.url)))
  await allShow(others, { text: "" })
  return { clients, handles: [first, ...others] }
}

test("a document created in one region is found in the others", async () => {
  const alice = await world.join("eu")
  const hers = alice.create({ title: "from Europe" })
  for (const region of ["us", "ap"]) {
    const bob = await world.join(region)
    await allShow([await bob.open(hers.url)], { title: "from Europe" })
  }
})

test("people who type in three regions at once end with the same text", async () => {
  const { clients, handles } = await room("eu", "us", "ap")
  for (let at = 0; at < 50; at++) {
    for (const [n, handle] of handles.entries()) {
      splice(clients[n], handle, n === 0 ? 0 : handle.doc().text.length, 0, "abc"[n])
    }
    await new Promise(setImmediate)
  }
  const { text } = await agree(handles, doc => doc.text.length === 150)
  assert.equal([...text].sort().join(""), "a".repeat(50) + "b".repeat(50) + "c".repeat(50))
})

test("a region that is cut off goes on, and both sides merge when it is back", async () => {
  const { clients, handles } = await room("eu", "us", "ap")
  await world.withWiresOf("eu", wire => wire.cut())
  await world.linked(false, ["eu"])
  const end = performance.now() + PARTITION_MS
  let rounds = 0
  for (; performance.now() < end; rounds++) {
    for (const [n, handle] of handles.entries()) {
      splice(clients[n], handle, 0, 0, "abc"[n])
    }
    await delay(50)
  }
  // The two that still see each other have each other's.
  await agree(handles.slice(1), doc => doc.text.length === 2 * rounds)
  assert.equal(handles[0].doc().text, "a".repeat(rounds))

  await world.withWiresOf("eu", wire => wire.mend())
  await agree(handles, doc => doc.text.length === 3 * rounds)
  await world.linked()
})

test("two regions whose link is cut still hear each other through the third", async () => {
  const { clients, handles } = await room("eu", "us")
  await world.wire("eu", "us").cut()
  await world.link("eu", "us", false)
  splice(clients[0], handles[0], 0, 0, "around ")
  await allShow(handles, { text: "around " })
  await world.wire("eu", "us").mend()
  await world.linked()
})

test("a link that falls silent is given up by both sides, and people hear each other through the third", async () => {
  const { clients, handles } = await room("eu", "us")
  await world.wire("eu", "us").stall()
  splice(clients[0], handles[0], 0, 0, "a")
  splice(clients[1], handles[1], 0, 0, "b")
  await world.link("eu", "us", false)
  await world.link("us", "eu", false)
  splice(clients[0], handles[0], 0, 0, "c")
  await agree(handles, doc => [...doc.text].sort().join("") === "abc")
  await world.wire("eu", "us").mend()
  await world.linked()
  splice(clients[1], handles[1], 3, 0, "d")
  await agree(handles, doc => doc.text.length === 4)
})

test("after a cut a keystroke is there before what was missed is through a narrow link", async () => {
  const { clients, handles } = await room("eu", "us")
  const much = clients[0].create({ done: 0 })
  const missed = await clients[1].open(much.url)
  await world.withWiresOf("eu", wire => wire.cut())
  await world.linked(false, ["eu"])
  for (let done = 1; done <= MUCH.changes; done++) {
    much.change(doc => Object.assign(doc, { done, noise: new Uint8Array(randomBytes(MUCH.bytes)) }))
    if (done % 50 === 0) await new Promise(setImmediate)
  }
  const complete = handle => handle.doc().done === MUCH.changes
  // Another client has it, so the region has.
  const witness = await (await world.join("eu")).open(much.url)
  await until(() => complete(witness), "the region to have it all")
  await world.withWiresOf("eu", wire => wire.become(NARROW))
  await world.link("eu", "us", true)
  for (let at = 1; at <= 10; at++) {
    splice(clients[0], handles[0], 0, 0, "k")
    await allShow([handles[1]], { text: "k".repeat(at) })
    assert.ok(!complete(missed), `keystroke ${at} came after ${MUCH.changes} changes`)
  }
  await until(() => complete(missed), "what was missed to be there, too", 60_000)
  await world.restore()
})

test("a region that is killed has everything again when it is back, and loses nothing", async () => {
  const { clients, handles } = await room("us", "ap")
  for (let at = 0; at < 20; at++) splice(clients[0], handles[0], 0, 0, "x")
  await allShow(handles, { text: "x".repeat(20) })
  await world.servers.us.kill()
  for (let at = 0; at < 20; at++) {
    splice(clients[0], handles[0], 0, 0, "a")
    splice(clients[1], handles[1], handles[1].doc().text.length, 0, "b")
  }
  await world.servers.us.startAgain()
  const text = "a".repeat(20) + "x".repeat(20) + "b".repeat(20)
  await allShow(handles, { text })
  const carol = await world.join("eu")
  await allShow([await carol.open(handles[0].url)], { text })
  await world.linked()
})

test("presence crosses regions in order, under the author's name", async () => {
  const { clients, handles } = await room("eu", "us", "ap")
  const inboxes = handles.map(handle => {
    const messages = []
    handle.on("ephemeral-message", ({ senderId, message }) => messages.push({ senderId, message }))
    return messages
  })
  // Presence goes to those who are known to listen; that, too, takes a way.
  await until(() => {
    handles[0].broadcast("first")
    return delay(50).then(() => inboxes[1].length > 0 && inboxes[2].length > 0)
  }, "the first to be heard")
  const sent = Array.from({ length: 100 }, (_, at) => ({ cursor: at }))
  for (const message of sent) handles[0].broadcast(message)
  for (const inbox of inboxes.slice(1)) {
    const numbered = () => inbox.filter(({ message }) => message !== "first")
    await until(() => numbered().length >= sent.length, "all messages")
    assert.deepEqual(numbered().map(({ message }) => message), sent)
    const author = clients[0].repo.networkSubsystem.peerId
    assert.ok(inbox.every(({ senderId }) => senderId === author))
  }
  assert.deepEqual(inboxes[0], [])
})

test("a document that nobody has anywhere is unavailable, and found later in any region", async () => {
  const [alice, bob] = [await world.join("eu"), await world.join("ap")]
  // Made by a client without a network: no region has heard of it.
  const { packages } = alice
  const alone = new packages.Repo({ network: [] })
  const made = alone.create({ kept: true })
  await assert.rejects(bob.find(made.url))
  const bytes = packages.Automerge.save(made.doc())
  const hers = alice.repo.import(bytes, { docId: made.documentId })
  hers.change?.(doc => (doc.handed = "in"))
  await allShow([await bob.open(made.url)], { kept: true, handed: "in" })
})
