// One cable: how slow it is, whether it is cut, and what goes through it.

import { element, say } from "./dom.ts"
import { CABLES, cities, place, type LinkId } from "./people.ts"
import { detour } from "./ways.ts"
import type { Sample, Supervisor, World } from "./world.ts"

export class Cable {
  readonly element: HTMLElement
  #slider = element("input", { type: "range", min: "0", max: "1000", step: "10" })
  #latency = element("output")
  #switch = element("input", { type: "checkbox", role: "switch" })
  #state = element("p", { class: "flow" })
  #lag = element("dd", {}, "–")
  #bytes = element("dd", {}, "–")
  #world?: World

  constructor(
    readonly id: LinkId,
    supervisor: Supervisor,
    attempt: (done: Promise<void>) => void
  ) {
    const { name, ends } = CABLES[id]
    const [from, to] = ends.map(end => place(end).city)
    this.#slider.setAttribute("aria-label", `Latency of the ${name}, one way, in milliseconds`)
    this.#slider.addEventListener("input", () => this.#showLatency())
    this.#slider.addEventListener("change", () =>
      attempt(supervisor.setLink(id, { latency_ms: this.#slider.valueAsNumber }))
    )
    this.#switch.setAttribute("aria-label", `Cut the ${name}`)
    this.#switch.addEventListener("change", () =>
      attempt(supervisor.setLink(id, { cut: this.#switch.checked }))
    )
    this.element = element(
      "section",
      { class: `cable ${id}`, "data-link": id, "aria-label": `${name}, ${from} to ${to}` },
      element("div", { class: "wire", "aria-hidden": "true" }),
      element("h3", {}, name),
      element("p", { class: "ends" }, `${from} – ${to}`),
      this.#state,
      element("label", { class: "cut" }, this.#switch, "cut"),
      element("div", { class: "latency" }, this.#slider, this.#latency),
      element("dl", {}, element("dt", {}, "lag"), this.#lag, element("dt", {}, "sent"), this.#bytes)
    )
  }

  showWorld(world: World): void {
    this.#world = world
    const link = world.links.find(({ name }) => name === this.id)!
    this.#slider.max = String(world.latency_ms_max)
    if (document.activeElement !== this.#slider) this.#slider.value = String(link.latency_ms)
    this.#showLatency()
    this.#switch.checked = link.cut
    const down = link.ends.some(end => !world.regions.find(({ name }) => name === end)!.running)
    say(this.#state, link.cut ? "Cut" : down ? "One end is down" : "Open")
    this.element.classList.toggle("is-cut", link.cut || down)
  }

  showSample(sample: Sample): void {
    const link = sample.links.find(({ name }) => name === this.id)
    if (!link) return
    const waiting = Math.max(...link.ways.map(way => way.waiting_changes ?? 0))
    const lag = Math.max(...link.ways.map(way => way.lag_seconds ?? 0))
    const amount = waiting === 0 ? "none" : `${lag.toFixed(1)} s, ${waiting} waiting`
    // Nothing is sent another way until the servers have noticed.
    const by = this.#world && !link.ways.some(way => way.up) && detour(this.#world, this.id)
    say(this.#lag, by ? `${amount}, by way of ${cities(by)}` : amount)
    say(this.#bytes, `${size(link.bytes)}, ${size(link.bytes_per_second)}/s`)
    this.element.classList.toggle("flowing", link.bytes_per_second > 200)
  }

  #showLatency(): void {
    say(this.#latency, `${this.#slider.value} ms`)
    this.#slider.setAttribute("aria-valuetext", `${this.#slider.value} milliseconds`)
  }
}

/** Bytes, as people read them. */
export function size(bytes: number): string {
  if (bytes < 1_000) return `${Math.round(bytes)} B`
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`
  return `${(bytes / 1e6).toFixed(1)} MB`
}
