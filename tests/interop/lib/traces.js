// Editing traces of real people, read where they are; see `../shared/data/README.md`.
//
// Where they are not (a clone of the repository alone) a small generated one takes their place.

import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"

const folder = process.env.TRACES ?? fileURLToPath(new URL("../../../../shared/data", import.meta.url))

/** What a test says that did not have the real one. */
export const INSTEAD = `NOT THE RECORDING: it is not in ${folder} (TRACES names another folder); a small generated trace was replayed`

/** The traces that are not where they should be: a run without them shows less. */
export function missing() {
  return ["friendsforever", "automerge-paper"].map(pathOf).filter(path => !existsSync(path))
}

const pathOf = name => `${folder}/${name}.json.gz`

/** A trace by name; `generated` says that it is not the real one. */
export function trace(name, generate) {
  const path = pathOf(name)
  if (!existsSync(path)) return { ...generate(), generated: true }
  const trace = JSON.parse(gunzipSync(readFileSync(path)))
  // Positions count code points; a JavaScript string counts UTF-16 units. The same, without these.
  if (/[\ud800-\udfff]/.test(trace.endContent)) throw new Error(`${name} needs other positions`)
  return trace
}

/** Numbers that are the same in every run. */
function* numbers(state) {
  for (;;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    yield state >>> 8
  }
}

/** One person inserts and deletes. */
export function generateSequential(count = 5_000) {
  const random = numbers(1)
  const below = limit => random.next().value % limit
  let text = ""
  const txns = Array.from({ length: count }, () => {
    const at = below(text.length + 1)
    const deleted = below(4) === 0 ? Math.min(below(5), text.length - at) : 0
    const inserted = String.fromCharCode(97 + below(26)).repeat(below(3))
    text = text.slice(0, at) + inserted + text.slice(at + deleted)
    return { patches: [[at, deleted, inserted]] }
  })
  return { startContent: "", endContent: text, txns }
}

/** Two people write at once, one on each side of a bar, and merge now and then. */
export function generateConcurrent(rounds = 100) {
  const random = numbers(2)
  const below = limit => random.next().value % limit
  const txns = [{ parents: [], agent: 0, patches: [[0, 0, "|"]] }]
  const sides = ["", ""]
  let merged = [0]
  for (let round = 0; round < rounds; round++) {
    const offsets = [0, sides[0].length + 1]
    merged = [0, 1].map(agent => {
      let parents = merged
      for (let left = 1 + below(10); left > 0; left--) {
        const at = below(sides[agent].length + 1)
        const inserted = "LR"[agent]
        sides[agent] = sides[agent].slice(0, at) + inserted + sides[agent].slice(at)
        txns.push({ parents, agent, patches: [[offsets[agent] + at, 0, inserted]] })
        parents = [txns.length - 1]
      }
      return parents[0]
    })
  }
  return { kind: "concurrent", endContent: sides.join("|"), numAgents: 2, txns }
}

/**
 * The runs of a concurrent trace: consecutive transactions of one agent in which nobody branches off
 * and nothing is merged. Each is `{agent, parents, last, patches}`; `parents` and `last` are indices
 * of transactions.
 */
export function runs(txns) {
  const last = []
  const open = []
  const branched = new Set()
  for (const [index, { agent, parents }] of txns.entries()) {
    const continues = parents.length === 1 && parents[0] === last[agent]
    if (!continues) for (const parent of parents) branched.add(parent)
    last[agent] = index
  }
  const all = []
  for (const [index, { agent, parents, patches }] of txns.entries()) {
    const run = open[agent]
    const continues = parents.length === 1 && parents[0] === run?.last && !branched.has(run.last)
    if (continues) {
      run.last = index
      run.patches.push(...patches)
    } else {
      open[agent] = { agent, parents, last: index, patches: [...patches] }
      all.push(open[agent])
    }
  }
  return all
}
