// A process of the demo's own: started, waited for, ended.

import { spawn } from "node:child_process"
import { once } from "node:events"
import { createWriteStream } from "node:fs"
import { createInterface } from "node:readline"

const START_MS = 30_000
const STOP_MS = 5_000

/** Every process that has not ended, so that none is left when this one ends. */
const running = new Set()
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL")
})

export class Child {
  /**
   * Starts a process and waits until a line on its standard output matches `ready`.
   *
   * @param {string} command the path of the binary
   * @param {string[]} args
   * @param {{ready: RegExp, log: string, onExit?: () => void}} options `log` is the file for what it
   *   writes to standard error; `onExit` is called when it has ended, whoever ended it
   */
  static async start(command, args, { ready, log, onExit }) {
    // In a group of its own: a ctrl-C in the terminal is for us, and we end it in our own order.
    const process_ = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], detached: true })
    running.add(process_)
    process_.once("exit", () => running.delete(process_))
    process_.stderr.pipe(createWriteStream(log, { flags: "a" }))
    const child = new Child(process_)
    await new Promise((resolve, reject) => {
      const fail = why => {
        clearTimeout(late)
        process_.kill("SIGKILL")
        reject(new Error(`${command} ${why}; its log is ${log}`))
      }
      const late = setTimeout(() => fail("said nothing in time"), START_MS)
      process_.once("error", error => fail(`cannot be started (${error.message})`))
      process_.once("exit", code => fail(`ended with ${code}`))
      createInterface({ input: process_.stdout }).on("line", line => {
        if (!ready.test(line)) return
        clearTimeout(late)
        process_.removeAllListeners("exit")
        process_.once("exit", () => {
          running.delete(process_)
          onExit?.()
        })
        resolve()
      })
    })
    return child
  }

  constructor(child) {
    this.child = child
  }

  get hasEnded() {
    return this.child.exitCode !== null || this.child.signalCode !== null
  }

  /** As a power cut would end it. */
  async kill() {
    await this.#end("SIGKILL")
  }

  /** In good order, if it is quick about it. */
  async stop() {
    await this.#end("SIGTERM")
  }

  async #end(signal) {
    if (this.hasEnded) return
    const ended = once(this.child, "exit")
    this.child.kill(signal)
    const late = setTimeout(() => this.child.kill("SIGKILL"), STOP_MS)
    await ended
    clearTimeout(late)
  }
}
