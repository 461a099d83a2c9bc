// A peer that says what the test wants, and not what the protocol allows.

import { Encoder } from "cbor-x"
import { WebSocket } from "ws"
import { until } from "./until.js"

const cbor = new Encoder({ tagUint8Array: false, useRecords: false })

export class Raw {
  /** An open socket that has not joined. `options` go to the `ws` package. */
  static async open(url, options) {
    const raw = new Raw()
    raw.received = []
    raw.socket = new WebSocket(url, options)
    raw.socket.on("error", () => {})
    raw.closed = new Promise(resolve => raw.socket.on("close", resolve))
    raw.socket.on("close", code => (raw.closeCode = code))
    raw.socket.on("message", (bytes, isBinary) => {
      if (!isBinary) throw new Error("a text frame from the server")
      const message = cbor.decode(bytes)
      if (message.data?.byteLength === 0) throw new Error("a zero-length message from the server")
      raw.received.push(message)
    })
    await until(() => raw.socket.readyState === WebSocket.OPEN, "the socket to open")
    return raw
  }

  /** A peer that has joined as `name`. */
  static async join(url, name, options) {
    const raw = await Raw.open(url, options)
    raw.name = name
    raw.say({ type: "join", senderId: name, peerMetadata: { isEphemeral: true }, supportedProtocolVersions: ["1"] })
    raw.server = (await raw.hear("peer")).senderId
    return raw
  }

  /** Sends a map. What it does not name of sender and target is filled in. */
  say(message) {
    this.sayValue({ senderId: this.name, targetId: this.server, ...message })
  }

  /** Sends any CBOR at all. */
  sayValue(value) {
    this.sayBytes(cbor.encode(value))
  }

  sayBytes(bytes) {
    this.socket.send(bytes)
  }

  /** The next message of the type, taken out of what was received. */
  async hear(type, limit) {
    const at = () => this.received.findIndex(message => message.type === type)
    await until(() => at() >= 0, `a message of type ${type}`, limit)
    return this.received.splice(at(), 1)[0]
  }

  /** Resolves when every message sent so far has been read: the server answers in order. */
  async settled(url) {
    const documentId = url.replace("automerge:", "")
    this.say({ type: "request", documentId, data: NOTHING_KNOWN })
    await until(
      () => this.received.some(message => message.documentId === documentId),
      "an answer to a request"
    )
  }

  end() {
    this.socket.terminate()
  }
}

/** The sync message of a peer that has nothing: version 1, no heads, no needs, one empty filter. */
export const NOTHING_KNOWN = Uint8Array.of(0x42, 0, 0, 1, 0, 0, 0)
