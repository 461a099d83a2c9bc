// What the shared document is at the beginning. `src/document.ts` has its shape.

import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"

const DURABLE_MS = 15_000

const TEXT = `Summer festival: notes

Ben in Oregon:

Ada in Frankfurt:

Chie in Tokyo:
`

const COLUMNS = [
  { id: "todo", title: "To do" },
  { id: "doing", title: "Doing" },
  { id: "done", title: "Done" },
]

const CARDS = {
  band: { title: "Find a band", column: "todo", position: 1, state: "kept", touched_by: [] },
  lanterns: { title: "Order lanterns", column: "todo", position: 2, state: "kept", touched_by: [] },
  street: { title: "Close the street", column: "doing", position: 1, state: "kept", touched_by: [] },
  date: { title: "Fix the date", column: "done", position: 1, state: "kept", touched_by: [] },
}

/**
 * Creates the document as any client would; resolves to its URL when the server says that it is durable
 * there.
 *
 * @param {string} url the WebSocket address of a region
 */
export async function createDocument(url) {
  const network = new WebSocketClientAdapter(url)
  const repo = new Repo({ network: [network], enableRemoteHeadsGossiping: true })
  const server = await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no answer from ${url}`)), DURABLE_MS)
    repo.networkSubsystem.on("peer", ({ peerMetadata }) => {
      clearTimeout(late)
      resolve(peerMetadata.storageId)
    })
  })
  repo.subscribeToRemotes([server])
  const handle = repo.create({ text: TEXT, board: { columns: COLUMNS, cards: CARDS } })
  await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("the document was not stored")), DURABLE_MS)
    handle.on("remote-heads", ({ storageId, heads }) => {
      if (storageId !== server || heads.join() !== handle.heads().join()) return
      clearTimeout(late)
      resolve()
    })
  })
  await repo.shutdown()
  return handle.url
}
