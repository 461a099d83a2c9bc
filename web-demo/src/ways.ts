// How regions reach each other: the servers that run and the whole cables between them, as a graph.

import { CABLES, PLACES, type LinkId, type RegionId } from "./people.ts"
import type { World } from "./world.ts"

/** The regions that run, in groups that reach each other, directly or by way of others. */
export function groups(world: World): RegionId[][] {
  const found: RegionId[][] = []
  for (const { id } of PLACES) {
    if (!isRunning(world, id) || found.some(group => group.includes(id))) continue
    found.push(PLACES.map(to => to.id).filter(to => route(world, id, to)))
  }
  return found
}

/** By way of which regions changes get round a cut cable; nothing if it is whole, or there is no such way. */
export function detour(world: World, id: LinkId): RegionId[] | undefined {
  const [from, to] = CABLES[id].ends
  const between = route(world, from, to)?.slice(1, -1)
  return between?.length ? between : undefined
}

/** Whether the cable between two regions is whole and both run: presence takes no other way. */
export function isDirect(world: World, from: RegionId, to: RegionId): boolean {
  return neighbours(world, from).includes(to) && isRunning(world, from)
}

/** The shortest way, with both ends; nothing if there is none. */
function route(world: World, from: RegionId, to: RegionId): RegionId[] | undefined {
  const routes: RegionId[][] = isRunning(world, from) ? [[from]] : []
  const seen = new Set([from])
  // It grows while it is walked through, the shorter routes first.
  for (const route of routes) {
    const last = route.at(-1)!
    if (last === to) return route
    for (const next of neighbours(world, last)) {
      if (!seen.has(next)) routes.push([...route, next])
      seen.add(next)
    }
  }
}

function neighbours(world: World, region: RegionId): RegionId[] {
  return world.links
    .filter(({ cut, ends }) => !cut && ends.includes(region))
    .map(({ ends }) => ends.find(end => end !== region)!)
    .filter(end => isRunning(world, end))
}

function isRunning(world: World, region: RegionId): boolean {
  return world.regions.some(({ name, running }) => name === region && running)
}
