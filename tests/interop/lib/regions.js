// The frame of the stories about regions: some servers, linked by wires that a test can cut and stall.

import { after, before } from "node:test"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Client } from "./client.js"
import { Server } from "./server.js"
import { until } from "./until.js"
import { Wire } from "./wan.js"

const KEY = "a secret that all regions of the test share\n"
/** What wires between regions are like, unless a test makes them otherwise. */
const FAR = { latency_ms: 20, jitter_ms: 5, bytes_per_second: 2_000_000 }

/**
 * Linked regions for all tests of a file. The region `names[i]` dials every `names[j]` with j < i
 * through a wire of their own.
 */
export function regions(names = ["eu", "us", "ap"], { way = FAR } = {}) {
  const world = {
    servers: {},
    clients: [],
    wires: new Map(),
    /** A client that has joined a region. */
    async join(region, options) {
      const client = await Client.join(world.servers[region].url, options)
      world.clients.push(client)
      return client
    },
    /** The wire between two regions. */
    wire(one, other) {
      return world.wires.get([one, other].sort().join())
    },
    /** Does something with every wire of a region. */
    async withWiresOf(region, act) {
      const others = names.filter(name => name !== region)
      await Promise.all(others.map(name => act(world.wire(region, name))))
    },
    /** Makes every wire as it was at the start. */
    async restore() {
      await Promise.all([...world.wires.values()].map(wire => wire.become(way)))
      await world.linked()
    },
    /** What a region says of its links. */
    async mesh(region) {
      const response = await fetch(world.servers[region].url.replace("ws:", "http:") + "/v1/mesh")
      return response.json()
    },
    /** Waits until every region, or each of the chosen ones, sees all its links in one state. */
    async linked(wanted = true, chosen = names) {
      for (const region of chosen) {
        await until(
          async () => {
            const { links } = await world.mesh(region)
            return links.length >= names.length - 1 && links.every(link => isUp(link) === wanted)
          },
          `the links of ${region} to be ${wanted ? "up" : "down"}`,
          60_000
        )
      }
    },
    /** Waits until one region sees one link in one state. */
    async link(region, other, wanted) {
      await until(
        async () => {
          const { links } = await world.mesh(region)
          return isUp(links.find(link => link.region === other)) === wanted
        },
        `the link from ${region} to ${other} to be ${wanted ? "up" : "down"}`,
        60_000
      )
    },
    /** Starts a server with a config file of its own; resolves to it. */
    async start(region, { links = [], key = KEY } = {}) {
      const folder = await mkdtemp(join(tmpdir(), "tributary-region-"))
      world.folders.push(folder)
      await writeFile(join(folder, "key"), key)
      const config = [
        `region = "${region}"`,
        `mesh.key_file = "${join(folder, "key")}"`,
        ...links.map(({ name, url = "" }) => `[[link]]\nname = "${name}"\nurl = "${url}"`),
      ]
      await writeFile(join(folder, "config.toml"), config.join("\n") + "\n")
      const server = await Server.start({ args: ["--config", join(folder, "config.toml")] })
      world.all.push(server)
      return server
    },
    folders: [],
    all: [],
  }
  before(async () => {
    for (const [at, name] of names.entries()) {
      const links = []
      for (const other of names.slice(0, at)) {
        const wire = await Wire.to(world.servers[other].url, way)
        world.wires.set([name, other].sort().join(), wire)
        links.push({ name: other, url: wire.url })
      }
      links.push(...names.slice(at + 1).map(other => ({ name: other })))
      world.servers[name] = await world.start(name, { links })
    }
    await world.linked()
  })
  after(async () => {
    await Promise.allSettled(world.clients.map(client => client.close()))
    await Promise.allSettled([...world.wires.values()].map(wire => wire.end()))
    await Promise.allSettled(world.all.map(server => server.dispose()))
    await Promise.allSettled(world.folders.map(folder => rm(folder, { recursive: true, force: true })))
  })
  return world
}

/** Whether a link is up. */
export const isUp = link => link?.up_seconds != null
