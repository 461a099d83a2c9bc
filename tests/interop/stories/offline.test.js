import assert from "node:assert/strict"
import { test } from "node:test"
import { Client, Disk, splice } from "../lib/client.js"
import { story } from "../lib/story.js"
import { agree, allShow, until } from "../lib/until.js"

const world = story()

test("edits made on both sides of a cut wire meet when it is mended", async () => {
  const wire = await world.wire()
  const [alice, bob] = [await world.join({ wire }), await world.join()]
  const hers = alice.create({ text: "start" })
  const his = await bob.open(hers.url)
  for (let round = 1; round <= 3; round++) {
    await wire.cut()
    await until(() => !alice.connected, "the client to notice")
    for (let at = 0; at < 20; at++) {
      splice(alice, hers, 0, 0, "a")
      splice(bob, his, his.doc().text.length, 0, "b")
    }
    await wire.mend()
    await allShow([hers, his], { text: "a".repeat(20 * round) + "start" + "b".repeat(20 * round) })
  }
})

test("a document created offline is uploaded on return", async () => {
  const wire = await world.wire()
  const [alice, bob] = [await world.join({ wire }), await world.join()]
  await wire.cut()
  await until(() => !alice.connected, "the client to notice")
  const hers = alice.create({ made: "offline" })
  hers.change(doc => (doc.edited = true))
  await wire.mend()
  await until(() => alice.connected, "the client to return")
  const his = await bob.open(hers.url)
  await allShow([his], { made: "offline", edited: true })
})

test("a client that comes back with its disk sends only what it has, and gets what it missed", async () => {
  const disk = new Disk()
  const alice = await world.join({ storage: disk })
  const hers = alice.create({ list: ["first"] })
  const bob = await world.join()
  const his = await bob.open(hers.url)
  await alice.repo.flush()
  await alice.close()
  his.change(doc => doc.list.push("while she was away"))

  const offline = new Client(undefined, { storage: disk })
  world.clients.push(offline)
  const alone = await offline.open(hers.url)
  await allShow([alone], { list: ["first"] })
  alone.change(doc => doc.list.push("without a network"))
  await offline.repo.flush()
  await offline.close()

  const returned = await world.join({ storage: disk })
  const again = await returned.open(hers.url)
  const { list } = await agree([again, his], doc => doc.list.length === 3)
  assert.equal(list[0], "first")
  assert.deepEqual([...list.slice(1)].sort(), ["while she was away", "without a network"])
})
