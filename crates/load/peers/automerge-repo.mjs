// The stock JavaScript sync server, of the newest stock packages.
//   node automerge-repo.mjs PORT DIRECTORY
import { Repo } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { WebSocketServer } from "ws"

const [port, directory] = process.argv.slice(2)
const sockets = new WebSocketServer({ host: "127.0.0.1", port: Number(port), maxPayload: 2 ** 28 })
const repo = new Repo({
  network: [new WebSocketServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(directory),
  peerId: "storage-server-bench",
  sharePolicy: async () => false,
})
process.on("SIGTERM", async () => {
  await repo.flush()
  process.exit(0)
})
