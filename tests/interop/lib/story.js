// The frame of every story: one server, clients that are closed at the end, a cable to cut.

import { after, before } from "node:test"
import { Cable } from "./cable.js"
import { Client } from "./client.js"
import { Server } from "./server.js"

/** A server for all tests of a file. Its clients and cables go when the file ends. */
export function story(options) {
  const world = {
    clients: [],
    cables: [],
    /** A client that has joined the server, directly or at the end of a cable. */
    async join({ cable, ...options } = {}) {
      const client = await Client.join((cable ?? world.server).url, options)
      world.clients.push(client)
      return client
    },
    async cable() {
      const cable = await Cable.to(world.server.url)
      world.cables.push(cable)
      return cable
    },
  }
  before(async () => {
    world.server = await Server.start(options)
  })
  after(async () => {
    // A test that failed may have left a client that cannot shut down in good order.
    await Promise.allSettled(world.clients.map(client => client.close()))
    await Promise.allSettled(world.cables.map(cable => cable.cut()))
    await world.server?.dispose()
  })
  return world
}
