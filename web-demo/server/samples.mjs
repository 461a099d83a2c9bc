// How the regions and the cables are doing: figures twice a second, heads as soon as they change.

import { EventEmitter } from "node:events"
import { REGIONS } from "./places.mjs"

const SAMPLE_EVERY_MS = 500
const ANSWER_MS = 1_500
/** How soon a region that does not answer is asked for its heads again. */
const AGAIN_MS = 250
/** How often heads are passed on at most. */
const HEADS_EVERY_MS = 60

/**
 * Emits `sample` with figures and `heads` with `{region, heads, changes}`; `heads` is null for a region
 * that does not answer.
 */
export class Samples extends EventEmitter {
  /** @param {import("./world.mjs").World} world */
  constructor(world) {
    super()
    this.world = world
    /** region → what was told last */
    this.heads = new Map()
    this.stopped = new AbortController()
    this.timer = setInterval(() => this.#sample(), SAMPLE_EVERY_MS)
    for (const region of REGIONS) this.#follow(region)
  }

  end() {
    clearInterval(this.timer)
    this.stopped.abort()
  }

  async #sample() {
    // One that takes longer than the next is late anyway.
    if (this.sampling) return
    this.sampling = true
    try {
      const [wan, ...regions] = await Promise.all([
        this.world.wanLinks(),
        ...REGIONS.map(region => this.#ask(region)),
      ])
      const now = { at: Date.now(), wan, regions }
      if (this.before) this.emit("sample", compare(this.before, now))
      this.before = now
    } catch (error) {
      if (!this.stopped.signal.aborted) console.error(`no figures: ${error.message}`)
    } finally {
      this.sampling = false
    }
  }

  /** The raw counters of one region; nothing if it does not answer. */
  async #ask(region) {
    if (!this.world.isRunning(region)) return undefined
    const get = async path => {
      const signal = AbortSignal.timeout(ANSWER_MS)
      return fetch(this.world.url(region) + path, { signal })
    }
    try {
      const [metrics, mesh] = await Promise.all([
        get("/metrics").then(response => response.text()),
        get("/v1/mesh").then(response => response.json()),
      ])
      return { changesIn: counter(metrics, "tributary_changes_in_total"), links: mesh.links }
    } catch {
      return undefined
    }
  }

  /** Listens to the heads of the document in one region, for ever. */
  async #follow(region) {
    while (!this.stopped.signal.aborted) {
      const document = this.world.document
      if (document && this.world.isRunning(region)) await this.#listen(region, document).catch(() => {})
      this.#tell(region, null)
      await pause(AGAIN_MS)
    }
  }

  async #listen(region, document) {
    const ended = new AbortController()
    const end = () => {
      if (this.world.document !== document) ended.abort()
    }
    this.world.on("changed", end)
    try {
      const path = `/v1/documents/${document.replace("automerge:", "")}/events`
      const signal = AbortSignal.any([this.stopped.signal, ended.signal])
      const response = await fetch(this.world.url(region) + path, { signal })
      if (!response.ok) return
      let text = ""
      for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
        text += part
        const events = text.split("\n\n")
        text = events.pop()
        // Only the newest matters.
        const told = events.map(event => /^data: ?(.*)$/m.exec(event)?.[1]).filter(Boolean)
        if (told.length === 0) continue
        const { heads, changes } = JSON.parse(told.at(-1))
        this.#tell(region, { heads, changes })
      }
    } finally {
      this.world.off("changed", end)
    }
  }

  #tell(region, told) {
    const before = this.heads.get(region)
    if (JSON.stringify(before) === JSON.stringify(told)) return
    this.heads.set(region, told)
    this.late ??= setTimeout(() => {
      this.late = undefined
      this.emit("heads", Object.fromEntries(this.heads))
    }, HEADS_EVERY_MS)
  }
}

/**
 * What the page is told of the time between two samples. Per region: changes taken into logs and bytes
 * sent to other regions, per second. Per cable: its bytes both ways, and for each direction what waits and
 * for how long, as the region that sends knows it; `src/lag.ts` of the page knows more.
 */
function compare(before, now) {
  const seconds = (now.at - before.at) / 1e3
  // A process that has started again counts from nothing.
  const rate = (was, is) => (is >= was ? is - was : is) / seconds
  const regions = {}
  for (const [n, name] of REGIONS.entries()) {
    const [was, is] = [before.regions[n], now.regions[n]]
    regions[name] = is && {
      changes_per_second: was ? rate(was.changesIn, is.changesIn) : 0,
      egress_per_second: was ? rate(sent(was), sent(is)) : 0,
    }
  }
  const links = now.wan.map(({ name, stats }) => {
    const was = before.wan.find(link => link.name === name)?.stats ?? stats
    const [from, to] = name.split("-")
    return {
      name,
      bytes: bytes(stats),
      bytes_per_second: rate(bytes(was), bytes(stats)),
      ways: [way(now, from, to), way(now, to, from)],
    }
  })
  return { at: now.at, regions, links }
}

function way(now, from, to) {
  const link = now.regions[REGIONS.indexOf(from)]?.links.find(link => link.region === to)
  return {
    from,
    to,
    up: link?.up_seconds != null,
    waiting_changes: link?.lag_changes ?? null,
    lag_seconds: link?.lag_seconds ?? null,
    round_trip_ms: link?.round_trip_ms ?? null,
  }
}

const bytes = stats => stats.there.delivered_bytes + stats.back.delivered_bytes
const sent = region =>
  region.links.reduce((sum, link) => sum + link.live.bytes_out + link.bulk.bytes_out, 0)

/** The value of a counter without labels in the text format of Prometheus. */
function counter(text, name) {
  return Number(new RegExp(`^${name} (\\S+)`, "m").exec(text)?.[1] ?? 0)
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
