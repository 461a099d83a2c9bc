import assert from "node:assert/strict"
import { test } from "node:test"
import { Disk } from "../lib/client.js"
import { story } from "../lib/story.js"
import { allShow, until } from "../lib/until.js"

const world = story()
const gossiping = { enableRemoteHeadsGossiping: true }

test("a client hears what another client's store holds", async () => {
  const alice = await world.join({ ...gossiping, storage: new Disk() })
  const bob = await world.join({ ...gossiping, storage: new Disk() })
  const bobsStore = await bob.repo.storageId()
  alice.repo.subscribeToRemotes([bobsStore])
  const hers = alice.create({ count: 0 })
  const his = await bob.open(hers.url)
  for (let count = 1; count <= 3; count++) {
    hers.change(doc => (doc.count = count))
    await allShow([his], { count })
    const heads = hers.heads()
    await until(() => same(hers.getRemoteHeads(bobsStore), heads), `word of edit ${count}`)
  }
})

test("a client hears what the server's own store holds", async () => {
  const alice = await world.join({ ...gossiping, storage: new Disk() })
  const store = alice.server.peerMetadata.storageId
  alice.repo.subscribeToRemotes([store])
  const hers = alice.create({ count: 0 })
  for (let count = 1; count <= 3; count++) {
    hers.change(doc => (doc.count = count))
    const heads = hers.heads()
    await until(() => same(hers.getRemoteHeads(store), heads), `word of edit ${count}`)
  }
})

test("a client without gossip goes on undisturbed beside ones that have it", async () => {
  const alice = await world.join({ ...gossiping, storage: new Disk() })
  const bob = await world.join()
  alice.repo.subscribeToRemotes([alice.server.peerMetadata.storageId, "a store nobody has"])
  const hers = alice.create({ from: "alice" })
  const his = await bob.open(hers.url)
  his.change(doc => (doc.from = "bob"))
  await allShow([hers, his], { from: "bob" })
  assert.ok(bob.connected)
})

const same = (heads, others) => heads !== undefined && [...heads].sort().join() === [...others].sort().join()
