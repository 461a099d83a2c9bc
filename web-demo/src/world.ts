// What the supervisor tells of regions and cables, and what it can be asked to do with them.

import type { LinkId, RegionId } from "./people.ts"

export interface World {
  /** Another run of the demo has another name. */
  run: string
  /** The URL of the shared document. */
  document: string
  latency_ms_max: number
  regions: { name: RegionId; port: number; running: boolean }[]
  links: { name: LinkId; ends: [RegionId, RegionId]; latency_ms: number; cut: boolean }[]
}

/** What a region's server holds, durably; null when it does not answer. */
export type ServerHeads = Partial<Record<RegionId, { heads: string[]; changes: number } | null>>

export interface RegionSample {
  changes_per_second: number
  /** Bytes sent to other regions. */
  egress_per_second: number
}

export interface WaySample {
  from: RegionId
  to: RegionId
  up: boolean
  /** What the first region has and the other lacks; null when the first does not answer. */
  waiting_changes: number | null
  /** For how long the oldest of them has been waiting. */
  lag_seconds: number | null
  round_trip_ms: number | null
}

export interface Sample {
  /** Milliseconds since 1970. */
  at: number
  regions: Partial<Record<RegionId, RegionSample>>
  links: { name: LinkId; bytes: number; bytes_per_second: number; ways: WaySample[] }[]
}

interface Events {
  world: World
  heads: ServerHeads
  sample: Sample
}

/** The supervisor behind the page. */
export class Supervisor {
  #source = new EventSource("api/events")

  on<K extends keyof Events>(name: K, hear: (told: Events[K]) => void): void {
    this.#source.addEventListener(name, event => hear(JSON.parse((event as MessageEvent).data)))
  }

  /** Whether it can be heard; said whenever that changes. */
  onReach(hear: (reached: boolean) => void): void {
    this.#source.addEventListener("open", () => hear(true))
    this.#source.addEventListener("error", () => hear(false))
  }

  setLink(name: LinkId, conditions: { latency_ms?: number; cut?: boolean }): Promise<void> {
    return this.#ask("PUT", `api/links/${name}`, conditions)
  }

  kill(region: RegionId): Promise<void> {
    return this.#ask("POST", `api/regions/${region}/kill`)
  }

  start(region: RegionId): Promise<void> {
    return this.#ask("POST", `api/regions/${region}/start`)
  }

  startOver(): Promise<void> {
    return this.#ask("POST", "api/document")
  }

  async #ask(method: string, path: string, body: object = {}): Promise<void> {
    const headers = { "content-type": "application/json" }
    const response = await fetch(path, { method, headers, body: JSON.stringify(body) })
    if (!response.ok) throw new Error((await response.json()).error)
  }
}
