// Clients of every version at once on one document. Needs Node 22, for the newest of them.

import assert from "node:assert/strict"
import { readdirSync } from "node:fs"
import { test } from "node:test"
import { packages, splice } from "../lib/client.js"
import { story } from "../lib/story.js"
import { agree, allShow } from "../lib/until.js"

const world = story()
const folders = readdirSync(new URL("../clients", import.meta.url)).sort()

for (const creator of folders) {
  test(`every version works on a document that ${creator} created`, async () => {
    const author = await world.join({ from: await packages(creator) })
    const hers = author.create({ text: "", count: new author.packages.Automerge.Counter(0) })
    const readers = await Promise.all(
      folders.map(async folder => world.join({ from: await packages(folder) }))
    )
    const handles = await Promise.all(readers.map(reader => reader.open(hers.url)))
    for (let round = 0; round < 20; round++) {
      for (const [at, handle] of handles.entries()) {
        splice(readers[at], handle, round % (handle.doc().text.length + 1), 0, String(at))
        handle.change(doc => doc.count.increment(1))
      }
      await new Promise(setImmediate)
    }
    const edits = 20 * folders.length
    const { text } = await agree([hers, ...handles], doc => doc.count === edits)
    const expected = folders.map((_, at) => String(at).repeat(20)).join("")
    assert.equal([...text].sort().join(""), expected)
    await allShow([await (await world.join()).open(hers.url)], { text, count: edits })
  })
}
