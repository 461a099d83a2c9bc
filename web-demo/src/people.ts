// Who and where: the three regions, a person in each, and what is said of them.

export type RegionId = "us" | "eu" | "ap"
export type LinkId = "eu-us" | "eu-ap" | "us-ap"

export interface Place {
  id: RegionId
  /** The region, as people call it. */
  region: string
  city: string
  person: string
  /** How this person's paragraph of the text begins. */
  paragraph: string
}

/** From west to east. */
export const PLACES: readonly Place[] = [
  { id: "us", region: "America", city: "Oregon", person: "Ben", paragraph: "Ben in Oregon:" },
  { id: "eu", region: "Europe", city: "Frankfurt", person: "Ada", paragraph: "Ada in Frankfurt:" },
  { id: "ap", region: "Asia", city: "Tokyo", person: "Chie", paragraph: "Chie in Tokyo:" },
]

/** What the cables are called, and what they connect. */
export const CABLES: Record<LinkId, { name: string; ends: [RegionId, RegionId] }> = {
  "eu-us": { name: "Atlantic cable", ends: ["us", "eu"] },
  "eu-ap": { name: "Overland cable", ends: ["eu", "ap"] },
  "us-ap": { name: "Pacific cable", ends: ["us", "ap"] },
}

export function place(id: RegionId): Place {
  return PLACES.find(place => place.id === id)!
}

/** The cities of some regions, as a sentence has them. */
export function cities(regions: RegionId[]): string {
  return regions.map(id => place(id).city).join(" and ")
}
