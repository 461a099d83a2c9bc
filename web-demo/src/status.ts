// One sentence on the whole: whether the regions are equal, and what that means.

import { say } from "./dom.ts"
import type { Pane } from "./pane.ts"
import { isBroken, type ServerHeads, type World } from "./world.ts"

/** While people type regions differ all the time for a moment; only what lasts is worth a sentence. */
const LASTS_MS = 600

export class Status {
  #world?: World
  #heads: ServerHeads = {}
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

  show(): void {
    if (this.panes.some(pane => !pane.client)) return
    const { equal, text } = this.#judge()
    if (text === this.#next) return
    this.#next = text
    clearTimeout(this.#late)
    this.#late = setTimeout(() => {
      say(this.where, text)
      this.where.dataset.equal = String(equal)
    }, LASTS_MS)
  }

  #judge(): { equal: boolean; text: string } {
    const all = this.panes.map(({ place }) => this.#heads[place.id] ?? null)
    const same = (told: (typeof all)[number]) =>
      told !== null && [...told.heads].sort().join() === [...(all[0]?.heads ?? [])].sort().join()
    if (all.every(same)) {
      const still = this.#world && isBroken(this.#world)
      return {
        equal: true,
        text: still ? "The regions are equal, for now. Write something to see them differ."
          : "The regions are equal: every server holds every change.",
      }
    }
    const down = this.#world?.regions.some(({ running }) => !running)
    const cut = this.#world?.links.some(link => link.cut)
    const why = down
      ? "A server is down. Its person writes on in the browser; bring it back and it catches up."
      : cut
        ? "A cable is cut. Everybody writes on; mend it and the changes of all sides are merged."
        : "Changes are on their way."
    return { equal: false, text: `The regions differ. ${why}` }
  }
}
