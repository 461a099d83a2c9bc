// The network between processes: `tributary-wan`, which takes its time, and breaks when told to.
//
// WAN names its binary; by default it is beside the server that is tested.

import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { binaries } from "./server.js"

const binary = process.env.WAN ?? join(binaries, "tributary-wan")
const START_MS = 30_000
/** What the proxy takes to do what it is told. */
const TELL_MS = 5_000

/** Every proxy that runs, so that none is left when this process ends before its time. */
const running = new Set()
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL")
})

/** One way to one server, by a proxy process of its own. Both directions are alike. */
export class Wire {
  /**
   * A wire to `url`; connections to the wire's own `url` take it.
   *
   * @param {string} url
   * @param {{latency_ms?: number, jitter_ms?: number, bytes_per_second?: number}} way
   *   what it is like; what is left out is as if there were no network
   */
  static async to(url, way = {}) {
    if (!existsSync(binary)) throw new Error(`no ${binary}: cargo build -p tributary-wan, or set WAN`)
    const wire = new Wire()
    wire.way = way
    await wire.#start(new URL(url).host)
    await wire.#set()
    return wire
  }

  /** Nothing goes through any more, and all connections end at once, without a word. */
  async cut() {
    await this.#set("cut")
    await this.#ask("POST", "/wire/reset")
  }

  /** Nothing goes through any more, and nobody is told: connections stay open and are silent. */
  async stall() {
    await this.#set("stalled")
  }

  /** Everything goes through again; where connections stayed open, also what was on its way. */
  async mend() {
    await this.#set("open")
  }

  /** What the wire is like from now on, also for connections that are open. */
  async become(way) {
    this.way = way
    await this.#set()
  }

  /** What has gone through so far. */
  async stats() {
    const [{ stats }] = await this.#ask("GET", "")
    return stats
  }

  /** Takes the wire away. */
  async end() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const ended = once(this.child, "exit")
    this.child.kill("SIGKILL")
    await ended
  }

  async #start(target) {
    const args = ["--link", `wire=127.0.0.1:0,${target}`, "--control", "127.0.0.1:0"]
    this.child = spawn(binary, args, { stdio: ["ignore", "pipe", "inherit"] })
    running.add(this.child)
    this.child.once("exit", () => running.delete(this.child))
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("tributary-wan does not listen")), START_MS)
      createInterface({ input: this.child.stdout }).on("line", line => {
        const listens = /^link wire: (\S+) leads/.exec(line)
        if (listens) this.url = `ws://${listens[1]}`
        const controlled = /^control: (\S+)/.exec(line)
        if (!controlled) return
        this.control = controlled[1]
        clearTimeout(late)
        resolve()
      })
      this.child.once("error", reject)
      this.child.once("exit", code => reject(new Error(`tributary-wan ended with ${code}`)))
    })
  }

  async #set(flow = "open") {
    const way = { ...this.way, flow }
    await this.#ask("PUT", "/wire", { there: way, back: way })
  }

  async #ask(method, path, body) {
    const response = await fetch(this.control + path, {
      method,
      headers: body && { "content-type": "application/json" },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(TELL_MS),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`tributary-wan refuses ${method} ${path}: ${text}`)
    return text && JSON.parse(text)
  }
}
