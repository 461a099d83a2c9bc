// The demo's supervisor: starts the regions and the network, serves the page, ends all of it.
//
//   node server/demo.mjs --binaries DIR [--host ADDR] [--port PORT] [--trace FILE]
//
// The first line on standard output that begins with `demo: ` has the page's address.

import { existsSync } from "node:fs"
import { basename } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Samples } from "./samples.mjs"
import { serve } from "./site.mjs"
import { readTrace } from "./trace.mjs"
import { World } from "./world.mjs"

const { values: options } = parseArgs({
  options: {
    binaries: { type: "string", default: fileURLToPath(new URL("../../target/release", import.meta.url)) },
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "4460" },
    trace: { type: "string" },
  },
})
const folder = fileURLToPath(new URL("../dist", import.meta.url))

async function main() {
  if (!existsSync(folder)) throw new Error("the page is not built: npm run build")
  const recordings = options.trace && { name: basename(options.trace), pieces: await readTrace(options.trace) }
  const world = await World.start(options)
  const samples = new Samples(world)
  let ending
  const end = code => {
    ending ??= (async () => {
      samples.end()
      await world.end()
      process.exit(code)
    })()
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => end(0))
  world.on("error", error => {
    console.error(error.message)
    end(1)
  })
  try {
    const port = Number(options.port)
    const server = await serve({ world, samples, recordings, folder, host: options.host, port })
    console.log(`demo: http://${options.host}:${server.address().port}/`)
    console.log("Three regions are running. Press ctrl-C to end them.")
  } catch (error) {
    console.error(error.code === "EADDRINUSE" ? `port ${options.port} is taken: --port` : error.message)
    end(1)
  }
}

main().catch(error => {
  console.error(error.message)
  process.exit(1)
})
