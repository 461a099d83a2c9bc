// A server process of the test's own, on a port and a folder of its own.
//
// SERVER names what is tested: the path of a `tributary` binary (the debug build by default), or
// `stock` for the JavaScript server, which shows that a failing test is not the test's own fault.

import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const here = name => fileURLToPath(new URL(name, import.meta.url))
/** Where cargo, run in the root of the repository, puts what it builds. */
const target = resolve(here("../../.."), process.env.CARGO_TARGET_DIR ?? "target")
/** What is tested. */
export const wanted = process.env.SERVER ?? join(target, "debug/tributary")

/** Whether the JavaScript server is tested instead of Tributary. */
export const isStock = wanted === "stock"

/** Where the project's other binaries are. */
export const binaries = isStock ? join(target, "debug") : dirname(wanted)

const START_MS = 30_000
const STOP_MS = 30_000

export class Server {
  /** Starts a server on an empty store. `args` are more flags for `tributary serve`. */
  static async start({ args = [] } = {}) {
    if (!isStock && !existsSync(wanted)) {
      throw new Error(`no server at ${wanted}: cargo build -p tributary, or set SERVER`)
    }
    const server = new Server()
    server.data = await mkdtemp(join(tmpdir(), "tributary-interop-"))
    server.args = args
    await server.#run("127.0.0.1:0")
    return server
  }

  /** Starts the same store again at the same address, after `stop` or `kill`. */
  async startAgain() {
    await this.#run(new URL(this.url).host)
  }

  /** Ends the server in good order; resolves to its exit code. */
  async stop() {
    return this.#end("SIGTERM")
  }

  /** Ends the server as a power cut would end the process. */
  async kill() {
    return this.#end("SIGKILL")
  }

  /** Ends the server and forgets its store. */
  async dispose() {
    if (this.child) await this.kill()
    await rm(this.data, { recursive: true, force: true })
  }

  async #run(listen) {
    const [command, first] = isStock ? [process.execPath, here("stock-server.js")] : [wanted, "serve"]
    const args = [first, "--listen", listen, "--data", this.data, ...this.args]
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
    this.child = child
    this.log = []
    createInterface({ input: child.stderr }).on("line", line => {
      this.log.push(line)
      if (this.log.length > 200) this.log.shift()
      if (process.env.SERVER_LOG) console.error(`server: ${line}`)
    })
    this.url = await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("no URL in time:\n" + this.log.join("\n"))), START_MS)
      createInterface({ input: child.stdout }).on("line", line => {
        const found = /ws:\/\/\S+/.exec(line)
        if (!found) return
        clearTimeout(late)
        resolve(found[0])
      })
      child.once("error", reject)
      child.once("exit", code => {
        clearTimeout(late)
        reject(new Error(`the server ended with ${code}:\n` + this.log.join("\n")))
      })
    })
  }

  async #end(signal) {
    const child = this.child
    this.child = undefined
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal)
      const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS)
      await once(child, "exit")
      clearTimeout(late)
    }
    return child.exitCode
  }
}
