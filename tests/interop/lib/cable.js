// A network cable between clients and the server that a test can pull and plug in again.

import { once } from "node:events"
import { connect, createServer } from "node:net"

export class Cable {
  /** A cable to `url`; clients connect to the cable's own `url`. Bytes take `delay` ms each way. */
  static async to(url, { delay = 0 } = {}) {
    const cable = new Cable()
    cable.delay = delay
    const { hostname, port } = new URL(url)
    cable.far = { host: hostname, port: Number(port) }
    cable.sockets = new Set()
    cable.listener = createServer(near => cable.#carry(near))
    await cable.#listen(0)
    cable.port = cable.listener.address().port
    cable.url = `ws://127.0.0.1:${cable.port}`
    return cable
  }

  /** Drops every connection at once, without a close frame, and refuses new ones. */
  async cut() {
    const closed = once(this.listener, "close")
    this.listener.close()
    for (const socket of this.sockets) socket.destroy()
    await closed
  }

  /** Lets connections through again. */
  async mend() {
    await this.#listen(this.port)
  }

  #carry(near) {
    const far = connect(this.far)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      this.sockets.add(from)
      if (this.delay === 0) from.pipe(to)
      else this.#carrySlowly(from, to)
      from.on("error", () => to.destroy())
      from.on("close", () => {
        this.sockets.delete(from)
        to.destroy()
      })
    }
  }

  /** Timers of one length fire in order, so bytes keep theirs. */
  #carrySlowly(from, to) {
    from.on("data", bytes => setTimeout(() => to.destroyed || to.write(bytes), this.delay))
    from.on("end", () => setTimeout(() => to.end(), this.delay))
  }

  async #listen(port) {
    this.listener.listen(port, "127.0.0.1")
    await once(this.listener, "listening")
  }
}
