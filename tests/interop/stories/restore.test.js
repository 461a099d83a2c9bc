// A region that begins again from a backup, under clients that are connected and go on.

import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { rename, rm } from "node:fs/promises"
import { test } from "node:test"
import { promisify } from "node:util"
import { splice } from "../lib/client.js"
import { isStock, wanted } from "../lib/server.js"
import { story } from "../lib/story.js"
import { allShow, until } from "../lib/until.js"

const LIMIT_MS = 60_000
const tributary = (...args) => promisify(execFile)(wanted, args, { timeout: LIMIT_MS })

for (const kind of isStock ? [] : ["sled", "sqlite"]) {
  const world = story({ args: ["--store", kind] })

  test(`connected clients bring back what a restored region on ${kind} has lost`, async () => {
    const { data, url } = world.server
    const [backup, lost] = [`${data}-backup`, `${data}-lost`]
    try {
      const [alice, bob] = [await world.join(), await world.join()]
      const hers = alice.create({ text: "" })
      const his = await bob.open(hers.url)
      for (let at = 0; at < 10; at++) splice(alice, hers, at, 0, "x")
      await allShow([hers, his], { text: "x".repeat(10) })
      await tributary("backup", "--url", url, "--to", backup)

      // Acknowledged, told to others, and not in the backup: an edit, and a whole document.
      for (let at = 0; at < 10; at++) splice(alice, hers, 0, 0, "a")
      const young = bob.create({ text: "" })
      splice(bob, young, 0, 0, "young")
      const both = "a".repeat(10) + "x".repeat(10)
      await allShow([hers, his], { text: both })
      await allShow([await alice.open(young.url)], { text: "young" })

      await world.server.kill()
      await until(() => !alice.connected && !bob.connected, "the clients to notice")
      await rename(data, lost)
      const said = await tributary("restore", "--from", backup, "--data", data, "--store", kind)
      assert.match(said.stdout, /next: start the server/)
      splice(bob, his, 20, 0, "b")
      await world.server.startAgain()

      await allShow([hers, his], { text: both + "b" })
      const carol = await world.join()
      await allShow([await carol.open(hers.url)], { text: both + "b" })
      await allShow([await carol.open(young.url)], { text: "young" })
      splice(alice, hers, 21, 0, "!")
      await allShow([hers, his, await carol.open(hers.url)], { text: both + "b!" })
    } finally {
      for (const folder of [backup, lost]) await rm(folder, { recursive: true, force: true })
    }
  })
}
