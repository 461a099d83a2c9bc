// What the three people type when everyone types: sentences of a recording of somebody who wrote a text.
//
// A recording is JSON, gzipped or not, in the format of github.com/josephg/editing-traces:
// `{txns: [{patches: [[position, deleted, inserted], …]}, …]}`, positions in code points.

import { readFile } from "node:fs/promises"
import { gunzipSync } from "node:zlib"
import { REGIONS } from "./places.mjs"

/** About how many edits one person has: whole sentences of them. At the pace of the page these are two minutes. */
export const EDITS_EACH = 3_000
/** Whoever goes further than this, in code points, is at work on something else. */
const NEAR = 80
/** Shorter ones are headings, notes and slips; what is longer has no sentences as we know them. */
const SENTENCE_MIN = 40
const SENTENCE_MAX = 1_000

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
  const pieces = deal(passages(patches), REGIONS.length)
  if (!pieces) throw new Error(`--trace ${path}: this is no recording of ${REGIONS.length * EDITS_EACH} edits or more`)
  return Object.fromEntries(REGIONS.map((region, n) => [region, pieces[n]]))
}

/**
 * The passages that read best, in the order in which they were written, for each person about as many
 * edits; nothing if there are too few.
 */
function deal(passages, count) {
  const ranked = passages.map(passage => ({ ...passage, prose: prose(passage.text) }))
  ranked.sort((a, b) => b.prose - a.prose)
  const kept = []
  const texts = new Set()
  let edits = 0
  for (const passage of ranked) {
    if (edits >= count * EDITS_EACH) break
    if (texts.has(passage.text)) continue
    texts.add(passage.text)
    kept.push(passage)
    edits += passage.edits.length
  }
  if (edits < count * EDITS_EACH) return undefined

  kept.sort((a, b) => a.order - b.order)
  const pieces = []
  let piece
  for (const passage of kept) {
    if (!piece || (piece.length >= edits / count && pieces.length < count)) pieces.push((piece = [[0, 0, " "]]))
    piece.push(...passage.edits)
  }
  return pieces.length === count ? pieces : undefined
}

/**
 * What was written in one go, up to the end of a sentence or line: edits that touch nothing but what was
 * inserted since the passage began, so that they make sense away from the rest of the text.
 */
function passages(patches) {
  const all = []
  let passage
  for (const [position, deleted, inserted] of patches) {
    if (passage && !goesOn(passage, position, deleted)) {
      all.push(passage)
      passage = undefined
    }
    // What was there before cannot be deleted here.
    if (!passage && (deleted > 0 || inserted === "")) continue
    passage ??= { order: all.length, start: position, letters: [], caret: 0, edits: [] }
    const letters = [...inserted]
    const at = position - passage.start
    // Each person has one paragraph.
    passage.edits.push([at - passage.caret, deleted, inserted.replaceAll("\n", " ")])
    passage.letters.splice(at, deleted, ...letters)
    passage.caret = at + letters.length
  }
  if (passage) all.push(passage)
  for (const { edits, letters, caret } of all) {
    // The next one begins at the end.
    if (caret < letters.length) edits.push([letters.length - caret, 0, ""])
  }
  return all.map(({ order, letters, edits }) => ({ order, text: letters.join(""), edits }))
}

function goesOn({ start, letters, caret }, position, deleted) {
  const at = position - start
  if (at < 0 || at + deleted > letters.length || Math.abs(at - caret) > NEAR) return false
  const ended = letters.at(-1) === "\n" || (letters.at(-1) === " " && /[.?!]/.test(letters.at(-2)))
  return !((ended || at >= SENTENCE_MAX) && at === letters.length)
}

/** How much a text reads like sentences for everybody, from 0 to 1: its share of ordinary words. */
function prose(text) {
  if (text.length < SENTENCE_MIN) return 0
  const words = text.trim().split(/\s+/)
  const ordinary = words.filter(word => /^\(?\p{L}+(['’-]\p{L}+)*\)?[.,:;?!]?$/u.test(word))
  const share = ordinary.length / words.length
  // Its beginning and its end may be elsewhere.
  return /^\p{Lu}[^]*[.?!]\s$/u.test(text) ? share : share / 2
}
