// What one region holds and another lacks, and for how long.
//
// A server hears what another one holds from that one alone, over the cable between them. When it is cut,
// changes go by way of the third region, and the server goes on counting them as waiting. The other
// region's person has them by then, so the figures are corrected by what that browser holds.

import type { Pane } from "./pane.ts"
import { PLACES, type RegionId } from "./people.ts"
import type { Sample, ServerHeads } from "./world.ts"

/** More of it makes the figures no better. */
const KEPT_MAX = 400

/** What a server held, and since when. */
interface Held {
  at: number
  heads: string[]
  changes: number
}

interface Way {
  from: RegionId
  to: Pane
  /** What the first region held that the other did not hold when it was last looked at, the oldest first. */
  lacking: Held[]
  /** How many changes the first region had when the other last held them all; it is not known at first. */
  arrived: number
}

export class Lag {
  readonly #ways: Way[]

  constructor(panes: Pane[]) {
    this.#ways = panes.flatMap(to =>
      PLACES.filter(({ id }) => id !== to.place.id).map(({ id: from }) => ({ from, to, lacking: [], arrived: -Infinity }))
    )
  }

  showHeads(told: ServerHeads): void {
    for (const way of this.#ways) {
      const now = told[way.from]
      if (!now || now.heads.join() === way.lacking.at(-1)?.heads.join()) continue
      // Since when a server has what it is heard to have first, nobody knows.
      const at = way.arrived < 0 && way.lacking.length === 0 ? -Infinity : Date.now()
      way.lacking.push({ at, ...now })
      if (way.lacking.length > KEPT_MAX) way.lacking = thin(way.lacking)
    }
  }

  /** Makes the figures of a sample no greater than what is really lacking. */
  correct(sample: Sample): void {
    for (const way of sample.links.flatMap(({ ways }) => ways)) {
      const ours = this.#ways.find(({ from, to }) => from === way.from && to.place.id === way.to)!
      const { changes, seconds } = look(ours)
      if (way.waiting_changes !== null) way.waiting_changes = Math.min(way.waiting_changes, changes)
      if (way.lag_seconds !== null) way.lag_seconds = Math.min(way.lag_seconds, seconds)
    }
  }
}

function look(way: Way): { changes: number; seconds: number } {
  const lacks = ({ heads }: Held) => !way.to.client?.holds(heads)
  while (way.lacking.length > 0 && !lacks(way.lacking[0])) way.arrived = way.lacking.shift()!.changes
  if (way.lacking.length === 0) return { changes: 0, seconds: 0 }
  return {
    changes: way.lacking.at(-1)!.changes - way.arrived,
    seconds: (Date.now() - way.lacking[0].at) / 1e3,
  }
}

/** The first and the last stay, and every second one between. */
const thin = (all: Held[]) => all.filter((_, n) => n % 2 === 0 || n === all.length - 1)
