// Two clients replay a concurrent trace: each types its own part, as soon as it has what that builds on.

import { runs } from "./traces.js"

/**
 * Resolves when both have typed everything. `after(done, total)` is called after each run of
 * transactions, with how many there have been.
 */
export async function replayTogether(txns, clients, handles, { after = () => {} } = {}) {
  const all = runs(txns)
  const start = handles[0].heads()
  // Heads of the document after each transaction and its ancestors; of one, after its last change.
  const heads = new Map()
  let wake = []
  const changed = () => {
    for (const resolve of wake.splice(0)) resolve()
  }
  // Not "change": what two people delete at once changes the heads and nothing else.
  for (const handle of handles) handle.on("heads-changed", changed)
  let done = 0

  const play = async agent => {
    const { Automerge, decodeHeads } = clients[agent].packages
    const handle = handles[agent]
    const has = parents =>
      parents.every(parent => heads.has(parent)) &&
      Automerge.hasHeads(handle.doc(), decodeHeads(parents.flatMap(parent => heads.get(parent))))
    for (const { parents, last, patches } of all.filter(run => run.agent === agent)) {
      while (!has(parents)) await new Promise(resolve => wake.push(resolve))
      const at = parents.length === 0 ? start : parents.flatMap(parent => heads.get(parent))
      const edit = doc => {
        for (const [position, deleted, inserted] of patches) {
          Automerge.splice(doc, ["text"], position, deleted, inserted)
        }
      }
      if (same(handle.heads(), at)) {
        handle.change(edit)
        heads.set(last, handle.heads())
      } else {
        heads.set(last, handle.changeAt(at, edit))
      }
      changed()
      after(++done, all.length)
      // The sockets get their turn.
      await new Promise(setImmediate)
    }
  }
  await Promise.all([play(0), play(1)])
}

const same = (heads, others) => [...heads].sort().join() === [...others].sort().join()
