// The last minute: changes per second, lag, and bytes sent to other regions, one line per region.

import uPlot from "uplot"
import "uplot/dist/uPlot.min.css"
import { element } from "./dom.ts"
import { PLACES, type RegionId } from "./people.ts"
import type { RegionSample, Sample } from "./world.ts"

const KEPT = 120
const HEIGHT = 130
/** Lines differ by more than their colour. */
const DASHES = [[], [6, 3], [2, 3]]

const FIGURES: { title: string; of: (region: RegionSample, id: RegionId, sample: Sample) => number }[] = [
  { title: "Changes per second", of: region => region.changes_per_second },
  { title: "Lag, seconds", of: (_, id, sample) => lag(sample, id) },
  { title: "Sent to other regions, kB per second", of: region => region.egress_per_second / 1e3 },
]

export class Timeline {
  readonly #samples: Sample[] = []
  #plots: { plot: uPlot; at: HTMLElement; label: HTMLElement }[] = []

  constructor(
    private readonly where: HTMLElement,
    key: HTMLElement
  ) {
    for (const [n, { city, id }] of PLACES.entries()) {
      key.append(element("span", { class: `line ${id} dash-${n}` }), `${city} `)
    }
    this.#make()
    // The canvas does not take its colours from the style sheet by itself.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#make())
    new ResizeObserver(() => {
      for (const { plot, at } of this.#plots) plot.setSize({ width: at.clientWidth, height: HEIGHT })
    }).observe(where)
  }

  add(sample: Sample): void {
    this.#samples.push(sample)
    if (this.#samples.length > KEPT) this.#samples.shift()
    this.#draw()
  }

  #make(): void {
    for (const { plot } of this.#plots) plot.destroy()
    this.where.replaceChildren()
    const style = getComputedStyle(document.documentElement)
    const colour = (name: string) => style.getPropertyValue(`--${name}`).trim()
    const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } }
    this.#plots = FIGURES.map(({ title }) => {
      const at = element("div", { class: "plot", role: "img" })
      const label = element("h3", {}, title)
      this.where.append(element("figure", {}, label, at))
      const plot = new uPlot(
        {
          width: at.clientWidth || 300,
          height: HEIGHT,
          legend: { show: false },
          cursor: { show: false },
          scales: { y: { range: (_plot, _min, max) => [0, Math.max(1, (max ?? 0) * 1.1)] } },
          axes: [{ ...axis, space: 90 }, { ...axis, size: 36, space: 34 }],
          series: [
            {},
            ...PLACES.map(({ id, city }, n) => ({
              label: city,
              stroke: colour(id),
              width: 2,
              dash: DASHES[n],
              points: { show: false },
            })),
          ],
        },
        [[], ...PLACES.map(() => [])],
        at
      )
      return { plot, at, label }
    })
    this.#draw()
  }

  #draw(): void {
    const times = this.#samples.map(({ at }) => at / 1e3)
    for (const [n, { plot, at }] of this.#plots.entries()) {
      const { title, of } = FIGURES[n]
      const lines = PLACES.map(({ id }) =>
        this.#samples.map(sample => (sample.regions[id] ? of(sample.regions[id], id, sample) : null))
      )
      plot.setData([times, ...lines])
      const now = PLACES.map(({ city }, n) => `${city} ${lines[n].at(-1)?.toFixed(1) ?? "down"}`)
      at.setAttribute("aria-label", `${title}: ${now.join(", ")}`)
    }
  }
}

/** For how long the oldest change that this region has and some other lacks has been waiting, in seconds. */
function lag({ links }: Sample, id: RegionId): number {
  const ways = links.flatMap(({ ways }) => ways).filter(({ from }) => from === id)
  return Math.max(0, ...ways.map(way => way.lag_seconds ?? 0))
}
