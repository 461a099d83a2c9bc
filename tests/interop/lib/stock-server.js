// The stock JavaScript sync server behind the same command line: the tests' own test.

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { WebSocketServer } from "ws"
import { Repo, WebSocketServerAdapter } from "../clients/repo-2.5-automerge-3.2/index.js"

const { values } = parseArgs({ options: { listen: { type: "string" }, data: { type: "string" } } })
const [host, port] = values.listen.split(":")

/** One file per key, named by the key. */
class Files {
  constructor(folder) {
    this.folder = folder
    mkdirSync(folder, { recursive: true })
  }
  #path(key) {
    return join(this.folder, encodeURIComponent(JSON.stringify(key)))
  }
  async load(key) {
    try {
      return readFileSync(this.#path(key))
    } catch {
      return undefined
    }
  }
  async save(key, data) {
    writeFileSync(this.#path(key), data)
  }
  async remove(key) {
    rmSync(this.#path(key), { force: true })
  }
  async loadRange(prefix) {
    return readdirSync(this.folder)
      .map(name => JSON.parse(decodeURIComponent(name)))
      .filter(key => prefix.every((part, at) => key[at] === part))
      .map(key => ({ key, data: readFileSync(this.#path(key)) }))
  }
  async removeRange(prefix) {
    for (const { key } of await this.loadRange(prefix)) await this.remove(key)
  }
}

const socket = new WebSocketServer({ host, port: Number(port), maxPayload: 64 << 20 })
socket.on("listening", () => {
  const adapter = new WebSocketServerAdapter(socket)
  const storage = new Files(values.data)
  const repo = new Repo({
    network: [adapter],
    storage,
    peerId: "stock-server",
    sharePolicy: async () => false,
    enableRemoteHeadsGossiping: true,
  })
  process.on("SIGTERM", async () => {
    await repo.flush()
    process.exit(0)
  })
  console.log(`stock server is listening on ws://${host}:${socket.address().port}`)
})
