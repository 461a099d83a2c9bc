// The frame of every story: one server, clients that are closed at the end, a wire to cut.

import { after, before } from "node:test"
import { Client } from "./client.js"
import { Server } from "./server.js"
import { Wire } from "./wan.js"

/** A server for all tests of a file. Its clients and wires go when the file ends. */
export function story(options) {
  const world = {
    clients: [],
    wires: [],
    /** A client that has joined the server, directly or at the end of a wire. */
    async join({ wire, ...options } = {}) {
      const client = await Client.join((wire ?? world.server).url, options)
      world.clients.push(client)
      return client
    },
    /** A wire to the server. */
    async wire() {
      const wire = await Wire.to(world.server.url)
      world.wires.push(wire)
      return wire
    },
  }
  before(async () => {
    world.server = await Server.start(options)
  })
  after(async () => {
    // A test that failed may have left a client that cannot shut down in good order.
    await Promise.allSettled(world.clients.map(client => client.close()))
    await Promise.allSettled(world.wires.map(wire => wire.end()))
    await world.server?.dispose()
  })
  return world
}
