// Three regions as real processes, the network between them, and the document that people share.

import { EventEmitter } from "node:events"
import { existsSync } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { randomBytes } from "node:crypto"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Child } from "./child.mjs"
import { createDocument } from "./document.mjs"
import { LATENCY_MS_MAX, LINKS, REGIONS } from "./places.mjs"

/** Somebody asked for something that is not there, or not possible. `status` is for HTTP. */
export class Refused extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

/** Emits `changed` when a region has come or gone, a cable was altered, or the document is another. */
export class World extends EventEmitter {
  /**
   * Starts everything in a new temporary directory.
   *
   * @param {{binaries: string, host: string}} options the directory of `tributary` and `tributary-wan`,
   *   and the address that regions listen on
   */
  static async start({ binaries, host }) {
    for (const name of ["tributary", "tributary-wan"]) {
      if (!existsSync(join(binaries, name))) {
        throw new Error(`there is no ${name} in ${binaries}; 'cargo xtask demo' builds it`)
      }
    }
    const world = new World()
    world.binaries = binaries
    world.host = host
    world.folder = await mkdtemp(join(tmpdir(), "tributary-demo-"))
    try {
      await world.#start()
    } catch (error) {
      await world.end()
      throw error
    }
    return world
  }

  constructor() {
    super()
    /** Names this run, so that a browser does not mix it up with an earlier one. */
    this.run = randomBytes(4).toString("hex")
    /** name → {name, port, child, starting} */
    this.regions = new Map()
    /** name → {name, ends, latency_ms, cut} */
    this.links = new Map()
  }

  /** What the page has to know, as JSON. */
  describe() {
    return {
      run: this.run,
      document: this.document,
      latency_ms_max: LATENCY_MS_MAX,
      regions: REGIONS.map(name => {
        const { port, child } = this.regions.get(name)
        return { name, port, running: child !== undefined }
      }),
      links: [...this.links.values()],
    }
  }

  /** The address of a region for HTTP from here. */
  url(region) {
    return `http://127.0.0.1:${this.regions.get(region).port}`
  }

  isRunning(region) {
    return this.regions.get(region).child !== undefined
  }

  /** What the proxy says of its links. */
  async wanLinks() {
    const response = await fetch(`${this.control}/links`, { signal: AbortSignal.timeout(2_000) })
    return response.json()
  }

  /** Ends a region's process without a warning (SIGKILL). Does nothing if it is down already. */
  async kill(name) {
    await this.#region(name).child?.kill()
  }

  /** Starts a region again, on the data that it had. Does nothing if it runs or is starting. */
  async startRegion(name) {
    const region = this.#region(name)
    if (region.child) return
    region.starting ??= this.#spawn(region).finally(() => (region.starting = undefined))
    await region.starting
  }

  /** Makes a cable slower, faster, cut or whole; what is not given stays as it is. */
  async setLink(name, { latency_ms, cut }) {
    const link = this.links.get(name)
    if (!link) throw new Refused(404, `there is no link ${name}`)
    if (latency_ms !== undefined) {
      if (!Number.isInteger(latency_ms) || latency_ms < 0 || latency_ms > LATENCY_MS_MAX) {
        throw new Refused(422, `latency_ms is a whole number from 0 to ${LATENCY_MS_MAX}`)
      }
      link.latency_ms = latency_ms
    }
    if (cut !== undefined) {
      if (typeof cut !== "boolean") throw new Refused(422, "cut is true or false")
      link.cut = cut
    }
    await this.#tell(link)
    this.emit("changed")
  }

  /** Gives everybody a new document. */
  async startOver() {
    const region = REGIONS.find(name => this.isRunning(name))
    if (!region) throw new Refused(409, "no region is running")
    this.document = await createDocument(`ws://127.0.0.1:${this.regions.get(region).port}`)
    this.emit("changed")
  }

  /** Ends every process and removes everything that was written. */
  async end() {
    this.ending = true
    const children = [...this.regions.values()].map(region => region.child)
    await Promise.allSettled([...children, this.wan].map(child => child?.kill()))
    await rm(this.folder, { recursive: true, force: true })
  }

  async #start() {
    const ports = await freePorts(REGIONS.length + LINKS.length + 1)
    for (const name of REGIONS) this.regions.set(name, { name, port: ports.pop() })
    const proxies = new Map(LINKS.map(link => [link.name, ports.pop()]))
    for (const { name, dials, to, latencyMs } of LINKS) {
      this.links.set(name, { name, ends: [to, dials], latency_ms: latencyMs, cut: false })
    }
    const control = ports.pop()
    this.control = `http://127.0.0.1:${control}`
    this.wan = await Child.start(
      join(this.binaries, "tributary-wan"),
      LINKS.flatMap(({ name, to }) => {
        const target = `127.0.0.1:${this.regions.get(to).port}`
        return ["--link", `${name}=127.0.0.1:${proxies.get(name)},${target}`]
      }).concat("--control", `127.0.0.1:${control}`),
      {
        ready: /^control: /,
        log: join(this.folder, "wan.log"),
        onExit: () => this.ending || this.emit("error", new Error("tributary-wan has ended")),
      }
    )
    for (const link of this.links.values()) await this.#tell(link)

    await writeFile(join(this.folder, "mesh.key"), randomBytes(32).toString("base64") + "\n", {
      mode: 0o600,
    })
    for (const name of REGIONS) {
      await writeFile(this.#config(name), this.#configText(name, proxies))
    }
    await Promise.all(REGIONS.map(name => this.startRegion(name)))
    await this.startOver()
  }

  #config(region) {
    return join(this.folder, `${region}.toml`)
  }

  /** A region lists all others, and has an address for those that it dials: that of the proxy. */
  #configText(region, proxies) {
    const links = LINKS.filter(({ dials, to }) => dials === region || to === region)
    const quoted = text => JSON.stringify(text)
    return [
      `region = ${quoted(region)}`,
      `listen = ${quoted(`${this.host}:${this.regions.get(region).port}`)}`,
      `data = ${quoted(join(this.folder, region))}`,
      `mesh.key_file = ${quoted(join(this.folder, "mesh.key"))}`,
      ...links.map(({ name, dials, to }) =>
        dials === region
          ? `[[link]]\nname = ${quoted(to)}\nurl = "ws://127.0.0.1:${proxies.get(name)}"`
          : `[[link]]\nname = ${quoted(dials)}`
      ),
    ].join("\n")
  }

  async #spawn(region) {
    const child = await Child.start(
      join(this.binaries, "tributary"),
      ["serve", "--config", this.#config(region.name)],
      {
        ready: /ws:\/\//,
        log: join(this.folder, `${region.name}.log`),
        onExit: () => {
          region.child = undefined
          if (!this.ending) this.emit("changed")
        },
      }
    )
    region.child = child
    this.emit("changed")
  }

  #region(name) {
    const region = this.regions.get(name)
    if (!region) throw new Refused(404, `there is no region ${name}`)
    return region
  }

  async #tell({ name, latency_ms, cut }) {
    const way = { latency_ms, flow: cut ? "cut" : "open" }
    const response = await fetch(`${this.control}/links/${name}`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ there: way, back: way }),
      signal: AbortSignal.timeout(2_000),
    })
    if (!response.ok) throw new Error(`tributary-wan refused: ${await response.text()}`)
  }
}

/** Ports that nobody listens on at the moment. */
async function freePorts(count) {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise((resolve, reject) => {
          const server = createServer().once("error", reject)
          server.listen(0, "127.0.0.1", () => resolve(server))
        })
    )
  )
  const ports = servers.map(server => server.address().port)
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}
