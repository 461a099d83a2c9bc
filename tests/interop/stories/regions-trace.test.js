import { test } from "node:test"
import { setTimeout as delay } from "node:timers/promises"
import { regions } from "../lib/regions.js"
import { replayTogether } from "../lib/replay.js"
import { INSTEAD, generateConcurrent, trace } from "../lib/traces.js"
import { until } from "../lib/until.js"

const world = regions(["eu", "us"])
const LIMIT_MS = 300_000
const PARTITION_MS = 5_000

test("two people in two regions replay what they typed at once, through a partition", { timeout: 2 * LIMIT_MS }, async t => {
  const { txns, endContent, generated } = trace("friendsforever", generateConcurrent)
  if (generated) t.diagnostic(INSTEAD)
  const clients = [await world.join("eu"), await world.join("us")]
  const first = clients[0].create({ text: "" })
  const handles = [first, await clients[1].open(first.url, LIMIT_MS)]
  let cut
  await replayTogether(txns, clients, handles, {
    // In the middle of it the link goes away for a while; both type on as far as the trace lets them.
    async after(done, total) {
      if (cut || done < total / 3) return
      cut = (async () => {
        await world.cable("eu", "us").cut()
        await delay(PARTITION_MS)
        await world.cable("eu", "us").mend()
      })()
    },
  })
  await cut
  await until(() => handles.every(handle => handle.doc().text === endContent), "both ends", LIMIT_MS)
  for (const region of ["eu", "us"]) {
    const newcomer = await world.join(region)
    const handle = await newcomer.open(first.url, LIMIT_MS)
    await until(() => handle.doc().text === endContent, "the newcomer to read the end", LIMIT_MS)
  }
})
