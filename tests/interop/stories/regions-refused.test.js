import assert from "node:assert/strict"
import { test } from "node:test"
import { WebSocket } from "ws"
import { isUp, regions } from "../lib/regions.js"
import { allShow, until } from "../lib/until.js"

const world = regions(["eu", "us"])

/** Clients in both regions still hear each other: whatever was refused did not touch them. */
async function clientsNoticeNothing() {
  const [alice, bob] = [await world.join("eu"), await world.join("us")]
  const hers = alice.create({ fine: 1 })
  const his = await bob.open(hers.url)
  his.change(doc => (doc.fine = 2))
  await allShow([hers, his], { fine: 2 })
}

const says = (server, ...parts) =>
  until(
    () => server.log.some(line => parts.every(part => line.includes(part))),
    `the log to say ${parts.join(" … ")}; it says\n${server.log.join("\n")}`
  )

test("a region with another key is refused, and both logs say why", async () => {
  const stranger = await world.start("ap", {
    key: "some other secret altogether\n",
    links: [{ name: "eu", url: world.servers.eu.url }],
  })
  await says(world.servers.eu, "refused", "key")
  await says(stranger, "not reached", "key")
  const { links } = await (await fetch(stranger.url.replace("ws:", "http:") + "/v1/mesh")).json()
  assert.ok(links.length === 1 && !isUp(links[0]) && links[0].last_error.includes("key"))
  await clientsNoticeNothing()
})

test("a region that calls itself like one that is there is refused, and both logs say so", async () => {
  const second = await world.start("us", { links: [{ name: "eu", url: world.servers.eu.url }] })
  await says(second, "us", "taken")
  await says(world.servers.eu, "us", "taken")
  await world.linked()
  await clientsNoticeNothing()
})

test("a region that turns out to be another one is refused, and both logs name both", async () => {
  const lost = await world.start("ap", { links: [{ name: "us", url: world.servers.eu.url }] })
  await says(lost, "'eu'", "'us'")
  await says(world.servers.eu, "'eu'", "'us'")
  await clientsNoticeNothing()
})

test("another version of the mesh's protocol is refused with both versions' names", async () => {
  const socket = new WebSocket(world.servers.eu.url + "/mesh", ["tributary-mesh.99"])
  socket.on("error", () => {})
  const [, response] = await new Promise(resolve =>
    socket.on("unexpected-response", (...found) => resolve(found))
  )
  assert.equal(response.statusCode, 400)
  let answer = ""
  for await (const part of response) answer += part
  assert.ok(answer.includes("tributary-mesh.3") && answer.includes("tributary-mesh.99"), answer)
  await says(world.servers.eu, "tributary-mesh.99")
  await clientsNoticeNothing()
})

test("a peer that says nonsense instead of proving the key is cut off", async () => {
  for (const nonsense of [Uint8Array.of(1), new Uint8Array(200), new Uint8Array(100_000)]) {
    const socket = new WebSocket(world.servers.eu.url + "/mesh", ["tributary-mesh.3"])
    socket.on("error", () => {})
    const closed = new Promise(resolve => socket.on("close", resolve))
    await new Promise(resolve => socket.on("open", resolve))
    socket.send(nonsense)
    await closed
  }
  await clientsNoticeNothing()
})
