import assert from "node:assert/strict"
import { test } from "node:test"
import { splice } from "../lib/client.js"
import { isStock } from "../lib/server.js"
import { story } from "../lib/story.js"
import { allShow, until } from "../lib/until.js"

const world = story()

for (const [how, end] of [
  ["stopped", server => server.stop()],
  ["killed", server => server.kill()],
]) {
  test(`connected clients go on after the server is ${how} and started again`, async () => {
    const [alice, bob] = [await world.join(), await world.join()]
    const hers = alice.create({ text: "" })
    const his = await bob.open(hers.url)
    for (let at = 0; at < 10; at++) splice(alice, hers, at, 0, "x")
    await allShow([hers, his], { text: "x".repeat(10) })

    const code = await end(world.server)
    if (how === "stopped") assert.equal(code, 0)
    await until(() => !alice.connected && !bob.connected, "the clients to notice")
    for (let at = 0; at < 10; at++) {
      splice(alice, hers, 0, 0, "a")
      splice(bob, his, his.doc().text.length, 0, "b")
    }
    await world.server.startAgain()
    const text = "a".repeat(10) + "x".repeat(10) + "b".repeat(10)
    await allShow([hers, his], { text })
    await allShow([await (await world.join()).open(hers.url)], { text })
  })
}

test(
  "what another client has seen is there after a kill, with nobody left to supply it again",
  { skip: isStock && "the stock server saves a while after it has spoken" },
  async () => {
    const [alice, bob] = [await world.join(), await world.join()]
    const hers = alice.create({ text: "" })
    const his = await bob.open(hers.url)
    for (let round = 0; round < 10; round++) {
      splice(alice, hers, round, 0, "y")
      await allShow([his], { text: "y".repeat(round + 1) })
    }
    // Unplugged before the server ends: nobody can give it back what it should have kept.
    const gone = [alice, bob].map(client => client.close())
    await world.server.kill()
    await Promise.all(gone)
    await world.server.startAgain()
    await allShow([await (await world.join()).open(hers.url)], { text: "y".repeat(10) })
  }
)

test("the server keeps its storage id over a restart", async () => {
  const before = await world.join()
  const { storageId } = before.server.peerMetadata
  await before.close()
  await world.server.stop()
  await world.server.startAgain()
  const after = await world.join()
  assert.equal(after.server.peerMetadata.storageId, storageId)
})
