// The three regions of the demo, the cables between them, and what the network is like at the start.

/** From west to east, as the page shows them. */
export const REGIONS = ["us", "eu", "ap"]

/**
 * One cable for each pair. `dials` is the region that opens the connection, `to` the one that takes it;
 * the latency is one way, in milliseconds: about what light and routers need between Frankfurt, Oregon
 * and Tokyo.
 */
export const LINKS = [
  { name: "eu-us", dials: "us", to: "eu", latencyMs: 70 },
  { name: "eu-ap", dials: "ap", to: "eu", latencyMs: 110 },
  { name: "us-ap", dials: "ap", to: "us", latencyMs: 50 },
]

/** The slowest that the page lets a cable be, one way, in milliseconds. */
export const LATENCY_MS_MAX = 1_000
