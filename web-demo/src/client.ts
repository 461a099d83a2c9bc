// One person: a stock automerge-repo client with a storage of its own, connected to one region.

import * as A from "@automerge/automerge/slim"
import {
  Presence,
  Repo,
  type AutomergeUrl,
  type PeerId,
} from "@automerge/automerge-repo/slim"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"
import { headsOf, type Handle, type SharedDocument } from "./document.ts"
import { place, type Place, type RegionId } from "./people.ts"

/** How soon a lost connection is tried again; the stock five seconds are long for a demonstration. */
const RETRY_MS = 1_000
const HEARTBEAT_MS = 2_000
/** A cursor that was not heard of for so long is not shown any more. */
const FORGET_MS = 7_000
const DATABASES = "tributary-demo-"

/** Where somebody is: in the text, between two Automerge cursors, or on a card. */
export type Whereabouts =
  | { kind: "text"; anchor: string; head: string }
  | { kind: "card"; id: string }
  | null

interface State {
  region: RegionId
  at: Whereabouts
}

export interface Peer {
  place: Place
  at: Whereabouts
}

export class Client {
  readonly place: Place
  /** Hears of everything that may be shown otherwise now. */
  readonly listeners = new Set<() => void>()
  isConnected = false

  private constructor(
    place: Place,
    readonly repo: Repo,
    readonly handle: Handle,
    private readonly presence: Presence<State, SharedDocument>
  ) {
    this.place = place
  }

  /**
   * Connects to a region and opens the document; waits for ever for a region that has it.
   *
   * @param run names the run of the demo, so that the storage is that of this run
   */
  static async open(place: Place, url: string, document: string, run: string): Promise<Client> {
    const network = new WebSocketClientAdapter(url, RETRY_MS)
    const repo = new Repo({
      network: [network],
      storage: new IndexedDBStorageAdapter(`${DATABASES}${run}-${place.id}`),
      peerId: `${place.person}-${crypto.randomUUID()}` as PeerId,
    })
    let client: Client | undefined
    let connected = false
    const onReach = (reached: boolean) => {
      connected = reached
      client?.reached(reached)
    }
    network.on("peer-candidate", () => onReach(true))
    network.on("peer-disconnected", () => onReach(false))
    const handle = await find(repo, document as AutomergeUrl)
    const presence = new Presence<State, SharedDocument>({ handle })
    client = new Client(place, repo, handle, presence)
    client.#start()
    client.reached(connected)
    return client
  }

  /** What this browser holds. */
  get heads(): string[] {
    return headsOf(this.handle)
  }

  get changes(): number {
    return this.handle.metrics().numChanges
  }

  /** Whether these changes are all here. */
  holds(hashes: string[]): boolean {
    return A.hasHeads(this.handle.doc(), hashes)
  }

  /** Tells everybody who can hear it where this person is. */
  moveTo(at: Whereabouts): void {
    this.presence.broadcast("at", at)
  }

  /** Where the others are, as far as they were heard of lately. */
  get peers(): Peer[] {
    return Object.values(this.presence.getPeerStates().value)
      .filter(({ value }) => value.region !== undefined)
      .map(({ value }) => ({ place: place(value.region), at: value.at ?? null }))
  }

  private reached(reached: boolean): void {
    this.isConnected = reached
    this.#tell()
  }

  #start(): void {
    const { presence, handle } = this
    handle.on("change", () => this.#tell())
    for (const event of ["update", "snapshot", "goodbye", "pruning"] as const) {
      presence.on(event, () => this.#tell())
    }
    presence.start({
      initialState: { region: this.place.id, at: null },
      heartbeatMs: HEARTBEAT_MS,
      peerTtlMs: FORGET_MS,
    })
    addEventListener("pagehide", () => presence.stop())
  }

  #tell(): void {
    for (const listener of this.listeners) listener()
  }
}

/** A document that is nowhere yet may be somewhere in a moment: its region may be down, or cut off. */
async function find(repo: Repo, url: AutomergeUrl): Promise<Handle> {
  for (;;) {
    try {
      return await repo.find<SharedDocument>(url)
    } catch {
      await new Promise(resolve => setTimeout(resolve, RETRY_MS))
    }
  }
}

/** Forgets what earlier runs of the demo have left in this browser. */
export async function forgetOtherRuns(run: string): Promise<void> {
  // Not every browser tells which databases there are; then they stay.
  for (const { name } of (await indexedDB.databases?.()) ?? []) {
    if (name?.startsWith(DATABASES) && !name.startsWith(DATABASES + run)) indexedDB.deleteDatabase(name)
  }
}
