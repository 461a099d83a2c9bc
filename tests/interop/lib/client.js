// A stock client, exactly as an application would set it up.
//
// CLIENT names the folder under clients/ whose packages are used.

import { until } from "./until.js"

/** The packages of one folder under clients/. */
export const packages = folder => import(`../clients/${folder}/index.js`)

/** The folder that this run tests. */
export const folder = process.env.CLIENT ?? "repo-2.5-automerge-3.2"

/** The packages that this run tests. */
export const stock = await packages(folder)

// The stock interval is 5000 ms. Short ones abandon sockets that are still opening.
const RETRY_MS = 500

/** What a browser keeps between two visits. */
export class Disk {
  #rows = new Map()

  async load(key) {
    return this.#rows.get(JSON.stringify(key))
  }
  async save(key, data) {
    this.#rows.set(JSON.stringify(key), data.slice())
  }
  async remove(key) {
    this.#rows.delete(JSON.stringify(key))
  }
  async loadRange(prefix) {
    return [...this.#rows]
      .map(([text, data]) => ({ key: JSON.parse(text), data }))
      .filter(({ key }) => prefix.every((part, at) => key[at] === part))
  }
  async removeRange(prefix) {
    for (const { key } of await this.loadRange(prefix)) await this.remove(key)
  }
}

export class Client {
  /** `options` go to the Repo as they are; `from` are the packages. No URL, no network. */
  constructor(url, { from = stock, ...options } = {}) {
    this.packages = from
    this.repo = new from.Repo({ network: url ? [this.#connect(url)] : [], ...options })
  }

  #connect(url) {
    const from = this.packages
    this.adapter = new from.WebSocketClientAdapter(url, RETRY_MS)
    this.connected = false
    this.adapter.on("peer-candidate", ({ peerId, peerMetadata }) => {
      this.connected = true
      this.server = { peerId, peerMetadata }
    })
    this.adapter.on("peer-disconnected", () => {
      this.connected = false
    })
    return this.adapter
  }

  /** A client that has joined. */
  static async join(url, options) {
    const client = new Client(url, options)
    await until(() => client.connected, "the client to be connected")
    return client
  }

  create(value) {
    return this.repo.create(value)
  }

  find(url) {
    return this.repo.find(url)
  }

  /** Finds a document that may still be on its way to the server. */
  open(url, limit) {
    return until(() => this.find(url).catch(() => undefined), "the document to be found", limit)
  }

  async close() {
    if (this.closed) return
    this.closed = true
    if (this.adapter) {
      this.adapter.retryInterval = 0
      // One that is still opening complains when it is closed, and the adapter does not listen any more.
      this.adapter.socket?.addEventListener("error", () => {})
    }
    await this.repo.shutdown()
  }
}

/** Inserts and deletes in the text at `doc.text`, as an editor does. */
export function splice(client, handle, at, deleted, inserted) {
  handle.change(doc => client.packages.Automerge.splice(doc, ["text"], at, deleted, inserted))
}
