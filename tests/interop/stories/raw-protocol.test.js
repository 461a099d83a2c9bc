// What a peer may do to the server on the wire, and what the server owes to everybody else.

import assert from "node:assert/strict"
import { after, describe, test } from "node:test"
import { stock } from "../lib/client.js"
import { NOTHING_KNOWN, Raw } from "../lib/raw.js"
import { isStock } from "../lib/server.js"
import { story } from "../lib/story.js"
import { until } from "../lib/until.js"

const world = story()
const peers = []
after(() => {
  for (const peer of peers) peer.end()
})

let names = 0
const newName = () => `raw-${++names}`
const newUrl = () => stock.generateAutomergeUrl()
const idOf = url => url.replace("automerge:", "")
const kept = peer => peers.push(peer) && peer
const open = async options => kept(await Raw.open(world.server.url, options))
const join = async (name = newName(), options) => kept(await Raw.join(world.server.url, name, options))

/** The peer is sent away; if a reason was given, it was given properly. */
async function sentAway(peer) {
  await until(() => peer.closeCode !== undefined, "the connection to be closed")
  for (const message of peer.received.filter(({ type }) => type === "error")) {
    assert.equal(typeof message.message, "string")
    assert.ok(message.message.length > 0)
  }
}

/** A sync message that uploads a document of its own: `{url, data, save}`. */
function upload(value = { text: "uploaded" }) {
  const { Automerge } = stock
  const doc = Automerge.from(value)
  // Says what it has, as the second message of an exchange does, and sends it.
  let [state, first] = Automerge.generateSyncMessage(doc, Automerge.initSyncState())
  const empty = Automerge.generateSyncMessage(Automerge.init(), Automerge.initSyncState())[1]
  ;[, state] = Automerge.receiveSyncMessage(doc, state, empty)
  const [, second] = Automerge.generateSyncMessage(doc, state)
  return { url: newUrl(), doc, messages: [first, second] }
}

test("join is answered with everything a client looks for", async () => {
  const peer = await open()
  const senderId = newName()
  peer.say({ type: "join", senderId, peerMetadata: {}, supportedProtocolVersions: ["1"] })
  const answer = await peer.hear("peer")
  assert.equal(answer.targetId, senderId)
  assert.equal(typeof answer.senderId, "string")
  assert.equal(answer.selectedProtocolVersion, "1")
  assert.equal(typeof answer.peerMetadata.storageId, "string")
  assert.equal(answer.peerMetadata.isEphemeral, false)
})

test("join without metadata or versions is answered too", async () => {
  const peer = await open()
  peer.say({ type: "join", senderId: newName() })
  await peer.hear("peer")
})

test("an unknown protocol version is refused with the words that clients know", async () => {
  const peer = await open()
  peer.say({ type: "join", senderId: newName(), peerMetadata: {}, supportedProtocolVersions: ["2"] })
  assert.match((await peer.hear("error")).message, /unsupported protocol version/)
  await sentAway(peer)
})

for (const path of ["/", "/sync", "/?token=secret", "/sync?token=secret"]) {
  test(`a client can connect at ${path}`, { skip: isStock && "any path will do" }, async () => {
    kept(await Raw.join(new URL(path, world.server.url).href, newName()))
  })
}

test("a browser that opens the address sees a page", { skip: isStock && "has none" }, async () => {
  const accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
  const answer = await fetch(world.server.url.replace("ws:", "http:"), { headers: { accept } })
  assert.equal(answer.status, 200)
  assert.match(answer.headers.get("content-type"), /^text\/html/)
  assert.match(await answer.text(), /tributary/i)
})

test("a program that asks the address reads how to connect", { skip: isStock && "has none" }, async () => {
  const answer = await fetch(world.server.url.replace("ws:", "http:"))
  assert.equal(answer.status, 200)
  assert.match(answer.headers.get("content-type"), /^text\/plain/)
  assert.ok((await answer.text()).includes(`new WebSocketClientAdapter("${world.server.url.replace(/\/$/, "")}")`))
})

describe("what is no message ends the session that sent it and no other", () => {
  const { Automerge } = stock
  const documentId = idOf(newUrl())
  const [change] = Automerge.getAllChanges(Automerge.from({ some: "change" }))
  const frames = {
    "bytes that are no CBOR": Uint8Array.of(0xff, 0x00, 0x17),
    "an empty frame": new Uint8Array(),
    "half a message": Uint8Array.of(0xa2, 0x64, 0x74, 0x79, 0x70, 0x65),
    "a list": [],
    "a number": 7,
    "a map without a type": { senderId: "x" },
    "a type that is a number": { type: 7 },
    "a join after the join, as somebody else": { type: "join", senderId: "somebody-else", peerMetadata: {} },
    "a sync whose data is text": { type: "sync", documentId, data: "text" },
    "a sync whose document is a number": { type: "sync", documentId: 5, data: NOTHING_KNOWN },
    "a sync whose document is no id": { type: "sync", documentId: "../etc/passwd", data: NOTHING_KNOWN },
    "a sync without data": { type: "sync", documentId },
    "a sync of no bytes": { type: "sync", documentId, data: new Uint8Array() },
    "a sync whose data is no sync message": { type: "sync", documentId, data: change },
    "a sync message cut short": { type: "sync", documentId, data: NOTHING_KNOWN.slice(0, 3) },
    "an ephemeral whose count is text": { type: "ephemeral", documentId, sessionId: "s", count: "1", data: change },
  }
  for (const [what, frame] of Object.entries(frames)) {
    test(what, { skip: isStock && "the stock server answers in other ways" }, async () => {
      const [peer, witness] = [await join(), await join()]
      if (frame instanceof Uint8Array) peer.sayBytes(frame)
      else if (frame?.constructor === Object) peer.say(frame)
      else peer.sayValue(frame)
      await sentAway(peer)
      await witness.settled(newUrl())
    })
  }

  test("a text frame", { skip: isStock && "the stock server answers in other ways" }, async () => {
    const [peer, witness] = [await join(), await join()]
    peer.socket.send(JSON.stringify({ type: "sync" }))
    await sentAway(peer)
    await witness.settled(newUrl())
  })

  test("a message before the join", { skip: isStock && "the stock server waits" }, async () => {
    const peer = await open()
    peer.say({ type: "request", senderId: "nobody", targetId: "server", documentId, data: NOTHING_KNOWN })
    await sentAway(peer)
  })

  test("a frame over the limit is closed with 1009", { timeout: 60_000, skip: isStock && "it ends the stock server" }, async () => {
    const [peer, witness] = [await join(), await join()]
    peer.sayBytes(new Uint8Array((64 << 20) + 1))
    await sentAway(peer)
    assert.equal(peer.closeCode, 1009)
    await witness.settled(newUrl())
  })
})

test("a damaged change ends the session and nothing of it is stored", { skip: isStock && "no" }, async () => {
  const { url, messages } = upload()
  const [peer, witness] = [await join(), await join()]
  // Four bytes of magic open the chunk; the checksum follows.
  const damaged = Buffer.from(messages[1])
  damaged[damaged.indexOf(Uint8Array.of(0x85, 0x6f, 0x4a, 0x83)) + 4] ^= 0xff
  peer.say({ type: "request", documentId: idOf(url), data: messages[0] })
  peer.say({ type: "sync", documentId: idOf(url), data: damaged })
  await sentAway(peer)
  witness.say({ type: "request", documentId: idOf(url), data: NOTHING_KNOWN })
  await witness.hear("doc-unavailable")
})

test("types that the protocol does not have are ignored", async () => {
  const peer = await join()
  peer.say({ type: "subduction-connection", data: Uint8Array.of(1, 2, 3) })
  peer.say({ type: "x-anything", senderId: 5, deep: [[[{ a: null }]]] })
  await peer.settled(newUrl())
  assert.equal(peer.closeCode, undefined)
})

test("a request is answered, and answered again when the document turns up", async () => {
  const { url, messages } = upload()
  const [waiting, author] = [await join(), await join()]
  waiting.say({ type: "request", documentId: idOf(url), data: NOTHING_KNOWN })
  assert.equal((await waiting.hear("doc-unavailable")).documentId, idOf(url))
  author.say({ type: "request", documentId: idOf(url), data: messages[0] })
  author.say({ type: "sync", documentId: idOf(url), data: messages[1] })
  const late = await waiting.hear("sync")
  assert.equal(late.documentId, idOf(url))
})

test("a sync message from a client that is level is answered once", async () => {
  const { url, doc, messages } = upload()
  const { Automerge } = stock
  const author = await join()
  author.say({ type: "sync", documentId: idOf(url), data: messages[0] })
  author.say({ type: "sync", documentId: idOf(url), data: messages[1] })
  const heads = Automerge.getHeads(doc).join()
  const told = ({ data }) => Automerge.decodeSyncMessage(data).heads.join()
  await until(() => author.received.some(message => message.data && told(message) === heads), "the acknowledgement")

  const returning = await join()
  returning.say({ type: "sync", documentId: idOf(url), data: messages[0] })
  const answer = await returning.hear("sync")
  assert.equal(told(answer), heads)
  await returning.settled(newUrl())
  assert.deepEqual(returning.received.filter(message => message.documentId === idOf(url)), [])
})

describe("ephemeral messages", () => {
  /** Two peers that have opened the same new document. */
  async function pair() {
    const { url, messages } = upload()
    const [author, listener] = [await join(), await join()]
    for (const peer of [author, listener]) {
      peer.say({ type: "sync", documentId: idOf(url), data: messages[0] })
      peer.say({ type: "sync", documentId: idOf(url), data: messages[1] })
      await peer.hear("sync")
    }
    return { documentId: idOf(url), author, listener }
  }

  test("are passed on as they were sent, but for the target", async () => {
    const { documentId, author, listener } = await pair()
    const said = { type: "ephemeral", documentId, sessionId: "stream", data: Uint8Array.of(0x63, 0x79, 0x65, 0x73) }
    for (const count of [1, 2, 40, 5_000_000_000]) {
      author.say({ ...said, count })
      const { data, ...heard } = await listener.hear("ephemeral")
      assert.deepEqual([...data], [...said.data])
      const { data: _, ...sent } = { ...said, count, senderId: author.name, targetId: listener.name }
      assert.deepEqual(heard, sent)
    }
    await author.settled(newUrl())
    assert.deepEqual(author.received.filter(({ type }) => type === "ephemeral"), [])
  })

  test("keep their order over several documents, for a client counts over all of them", async () => {
    const { documentId, author, listener } = await pair()
    const documents = [documentId]
    while (documents.length < 8) {
      const { url, messages } = upload()
      for (const peer of [author, listener]) {
        for (const data of messages) peer.say({ type: "sync", documentId: idOf(url), data })
        await peer.hear("sync")
      }
      documents.push(idOf(url))
    }
    const counts = Array.from({ length: 400 }, (_, at) => at + 1)
    for (const count of counts) {
      const documentId = documents[count % documents.length]
      author.say({ type: "ephemeral", documentId, sessionId: "stream", count, data: Uint8Array.of(1) })
    }
    const heard = []
    while (heard.length < counts.length) heard.push((await listener.hear("ephemeral")).count)
    assert.deepEqual(heard, counts)
  })

  test("under somebody else's name are not passed on", async () => {
    const { documentId, author, listener } = await pair()
    const said = { type: "ephemeral", documentId, sessionId: "stream", data: Uint8Array.of(1) }
    const forger = await join()
    forger.say({ type: "sync", documentId, data: NOTHING_KNOWN })
    forger.say({ ...said, senderId: author.name, count: 1_000 })
    // Either answer is right: the session ends, or the message is passed over.
    await Promise.race([forger.closed, forger.settled(newUrl()).catch(() => {})])
    author.say({ ...said, count: 1 })
    assert.equal((await listener.hear("ephemeral")).count, 1)
  })
})

test("a second connection under the same name takes the place of the first", async () => {
  const name = newName()
  const first = await join(name)
  const second = await join(name)
  await first.closed
  await second.settled(newUrl())
})

describe("the clock", { concurrency: true }, () => {
  test("a connection that does not join is closed after ten seconds", { skip: isStock && "waits for ever" }, async () => {
    const peer = await open()
    const opened = performance.now()
    await until(() => peer.closeCode !== undefined, "the connection to be closed", 15_000)
    const waited = performance.now() - opened
    assert.ok(waited > 8_000, `closed after ${waited} ms`)
  })

  test("a client is pinged and stays", async () => {
    const peer = await join()
    let pings = 0
    peer.socket.on("ping", () => pings++)
    await until(() => pings >= 2, "two pings", 45_000)
    await peer.settled(newUrl())
  })

  test("a client that answers no ping is given up", async () => {
    const peer = await join(newName(), { autoPong: false })
    await until(() => peer.closeCode !== undefined, "the connection to be closed", 60_000)
  })
})
