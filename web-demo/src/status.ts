// A few words on the whole: whether the regions are equal, and what is in the way of it.

import { say } from "./dom.ts"
import type { Pane } from "./pane.ts"
import { CABLES, cities, place, type LinkId, type RegionId } from "./people.ts"
import { detour, groups } from "./ways.ts"
import type { Sample, ServerHeads, World } from "./world.ts"

/** While people type regions differ all the time for a moment; only what lasts is worth a sentence. */
const LASTS_MS = 600

export class Status {
  #world?: World
  #heads: ServerHeads = {}
  /** The cables that the servers take for whole; they notice a cut after some seconds of silence. */
  #up: LinkId[] = []
  #late?: ReturnType<typeof setTimeout>
  #next = ""

  constructor(
    private readonly where: HTMLElement,
    private readonly panes: Pane[]
  ) {}

  showWorld(world: World): void {
    this.#world = world
    this.show()
  }

  showHeads(heads: ServerHeads): void {
    this.#heads = heads
    this.show()
  }

  showSample(sample: Sample): void {
    this.#up = sample.links.filter(({ ways }) => ways.some(way => way.up)).map(({ name }) => name)
    this.show()
  }

  show(): void {
    if (!this.#world || this.panes.some(pane => !pane.client)) return
    const equal = this.#areEqual()
    const text = sentences(this.#world, this.#up, equal)
    if (text === this.#next) return
    this.#next = text
    clearTimeout(this.#late)
    this.#late = setTimeout(() => {
      say(this.where, text)
      this.where.dataset.equal = String(equal)
    }, LASTS_MS)
  }

  #areEqual(): boolean {
    const all = this.panes.map(({ place }) => this.#heads[place.id] ?? null)
    const same = (told: (typeof all)[number]) =>
      told !== null && [...told.heads].sort().join() === [...(all[0]?.heads ?? [])].sort().join()
    return all.every(same)
  }
}

function sentences(world: World, up: LinkId[], equal: boolean): string {
  const down = world.regions.filter(({ running }) => !running).map(({ name }) => name)
  const apart = groups(world).length > 1
  const why = [...server(down), ...(apart ? cutOff(world, equal) : detours(world, up))]
  if (equal && why.length === 0) return "The regions are equal: every server holds every change."
  const how = equal ? `The regions are equal${apart ? ", for now" : ""}.`
    : apart || down.length > 0 ? "The regions differ."
    : "Changes are on their way."
  return [how, ...why].join(" ")
}

function server(down: RegionId[]): string[] {
  if (down.length === 0) return []
  const people = down.map(id => place(id).person).join(" and ")
  return down.length === 1
    ? [`The server in ${cities(down)} is down. ${people} writes on in the browser; bring it back and it catches up.`]
    : [`The servers in ${cities(down)} are down. ${people} write on in the browser; bring them back and they catch up.`]
}

/** The cut cables that changes get round. */
function detours(world: World, up: LinkId[]): string[] {
  return world.links.flatMap(({ name }) => {
    const by = detour(world, name)
    if (!by) return []
    const soon = up.includes(name) ? "as soon as the servers notice, " : ""
    return [`The ${CABLES[name].name} is cut; ${soon}changes go by way of ${cities(by)}.`]
  })
}

function cutOff(world: World, equal: boolean): string[] {
  const apart = groups(world)
  const alone = apart.filter(group => group.length === 1).flat()
  const who = alone.length === apart.length ? "No region reaches another." : `${cities(alone)} is cut off.`
  const then = equal ? "Write something to see them differ."
    : "Everybody writes on; mend the cables and the changes of all sides are merged."
  return [who, then]
}
