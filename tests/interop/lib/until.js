// Waiting for what should happen, never for time to pass.

import { setTimeout as delay } from "node:timers/promises"
import { isDeepStrictEqual } from "node:util"

const POLL_MS = 10
const LIMIT_MS = 20_000

/** Resolves to what `condition` returns once that is true; fails after `limit` milliseconds. */
export async function until(condition, what, limit = LIMIT_MS) {
  const end = performance.now() + limit
  for (;;) {
    const result = await condition()
    if (result) return result
    if (performance.now() > end) throw new Error(`waited ${limit} ms for ${what}`)
    await delay(POLL_MS)
  }
}

/** Waits until every handle shows `value`. */
export async function allShow(handles, value, limit) {
  const shown = () => handles.map(handle => plain(handle.doc()))
  try {
    await until(() => shown().every(doc => isDeepStrictEqual(doc, value)), "all to agree", limit)
  } catch (error) {
    throw new Error(`${error.message}: ${JSON.stringify(shown())} instead of ${JSON.stringify(value)}`)
  }
}

/** Waits until the handles show one value, whatever it is, that `accept` takes; resolves to it. */
export async function agree(handles, accept, limit) {
  return until(
    () => {
      const [first, ...others] = handles.map(handle => plain(handle.doc()))
      const same = others.every(other => isDeepStrictEqual(other, first))
      return same && first !== undefined && accept(first) ? first : undefined
    },
    "all to agree",
    limit
  )
}

const plain = doc => (doc === undefined ? undefined : JSON.parse(JSON.stringify(doc)))
