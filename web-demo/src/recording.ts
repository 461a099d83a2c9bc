// What the three people type, edit by edit: a recording that the demo was started with, or else what
// was written down for it here, slips and their corrections (`<` is the backspace key) included.

import type { RegionId } from "./people.ts"

/** How far the caret moves first, how much is deleted after it, what is inserted. */
export type Edit = readonly [move: number, deleted: number, inserted: string]
export interface Recordings {
  /** The file; nothing for what was written down here. */
  name?: string
  pieces: Record<RegionId, readonly Edit[]>
}

export async function recordings(): Promise<Recordings> {
  const response = await fetch("api/recordings")
  if (response.ok) return response.json()
  if (response.status === 404) return { pieces: OWN }
  throw new Error(`the recording: ${response.status}`)
}

const OWN: Recordings["pieces"] = {
  us: keys(
    " The stage goes up on Firday<<<<<riday, two days before. We need thirty metres of cable" +
      " and a generator<<<<<<<<<<<quiet generator. The band plays at nien<<ne, so sound check is at seven." +
      " I ask the bakery wether<<<<<hether they open early."
  ),
  eu: keys(
    " The street is ours form<<<rom noon. Neighbours get a letter this week, with a mpa<<ap of where" +
      " cars can stay. Two hundred lanterns are odrered<<<<<<<ordered; if it rains they hang inside." +
      " Somebody has to bring ladders<<<<<<<the long ladders."
  ),
  ap: keys(
    " Fireworks are allowed until tne<<en, not later. I draw the poster tonight adn<<nd send it to both of" +
      " you. Tea for everybody, and lemonaed<<de for the children. The childrens<'s choir sings first," +
      " then the band."
  ),
}

function keys(text: string): Edit[] {
  return [...text].map(key => (key === "<" ? [-1, 1, ""] : [0, 0, key]))
}
