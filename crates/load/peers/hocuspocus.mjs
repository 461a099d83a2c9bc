// Hocuspocus with its SQLite extension, all other settings as they come.
//   node hocuspocus.mjs PORT DIRECTORY
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { SQLite } from "@hocuspocus/extension-sqlite"
import { Server } from "@hocuspocus/server"

const [port, directory] = process.argv.slice(2)
mkdirSync(directory, { recursive: true })
const server = new Server({
  address: "127.0.0.1",
  port: Number(port),
  quiet: true,
  websocketOptions: { maxPayload: 2 ** 28 },
  extensions: [new SQLite({ database: join(directory, "documents.sqlite") })],
})
await server.listen()
