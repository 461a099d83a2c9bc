// What the three people type, key by key. Written down for this demo, slips and their corrections
// (`<` is the backspace key) included; it stands here so that the demo needs no other file.

import type { RegionId } from "./people.ts"

export const RECORDINGS: Record<RegionId, string[]> = {
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

function keys(text: string): string[] {
  return [...text]
}
