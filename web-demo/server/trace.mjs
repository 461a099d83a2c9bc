// What the three people type when everyone types: pieces of a recording of somebody who wrote a text.
//
// A recording is JSON, gzipped or not, in the format of github.com/josephg/editing-traces:
// `{txns: [{patches: [[position, deleted, inserted], …]}, …]}`, positions in code points.

import { readFile } from "node:fs/promises"
import { gunzipSync } from "node:zlib"
import { REGIONS } from "./places.mjs"

/** How many edits one person has; at the pace of the page these are two minutes. */
export const EDITS_EACH = 3_000

/**
 * @returns {Promise<Record<string, [number, number, string][]>>} for each region the edits of its person;
 *   an edit is how far the caret moves first, how much is deleted after it, what is inserted
 */
export async function readTrace(path) {
  let trace
  try {
    const bytes = await readFile(path)
    trace = JSON.parse(bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes)
  } catch (error) {
    throw new Error(`--trace ${path}: ${error.message}`)
  }
  const patches = Array.isArray(trace.txns) ? trace.txns.flatMap(({ patches }) => patches ?? []) : []
  const pieces = pick(patches, REGIONS.length)
  if (!pieces) throw new Error(`--trace ${path}: this is no recording of ${REGIONS.length * EDITS_EACH} edits or more`)
  return Object.fromEntries(REGIONS.map((region, n) => [region, pieces[n]]))
}

/** The pieces with the fewest jumps and deletions: they make sense away from the rest of the text. */
function pick(patches, count) {
  const pieces = []
  for (let from = 0; from + EDITS_EACH <= patches.length; from += EDITS_EACH) {
    pieces.push(relative(patches.slice(from, from + EDITS_EACH)))
  }
  const broken = piece => piece.filter(([move, deleted]) => move !== 0 || deleted > 0).length
  pieces.sort((a, b) => broken(a) - broken(b))
  return pieces.length < count ? undefined : pieces.slice(0, count)
}

function relative(patches) {
  let caret = patches[0][0]
  return patches.map(([position, deleted, inserted]) => {
    const move = position - caret
    caret = position + [...inserted].length
    // Each person has one paragraph.
    return [move, deleted, inserted.replaceAll("\n", " ")]
  })
}
