// What one person sees: whether the server answers, the text, the board, and what is held where.

import { EditorView } from "@codemirror/view"
import { Board } from "./board.ts"
import type { Client } from "./client.ts"
import { button, element, say } from "./dom.ts"
import { openEditor, showPeers } from "./editor.ts"
import type { Place, RegionId } from "./people.ts"
import { isDirect } from "./ways.ts"
import type { ServerHeads, Supervisor, World } from "./world.ts"

type Held = NonNullable<ServerHeads["us"]>

export class Pane {
  readonly element: HTMLElement
  client?: Client
  view?: EditorView
  #board?: Board
  #world?: World
  #state = element("p", { class: "state" }, "connecting")
  #server = element("dd", {}, "?")
  #browser = element("dd", {}, "?")
  #text = element("div", { class: "text" })
  #cards = element("div", { class: "board" })
  #fold = element("summary")
  #power: HTMLButtonElement
  #told: Held | null = null
  #drawing = false

  constructor(
    readonly place: Place,
    supervisor: Supervisor,
    attempt: (done: Promise<void>) => void
  ) {
    this.#power = button("Kill server", "", () =>
      attempt(this.#isRunning ? supervisor.kill(place.id) : supervisor.start(place.id))
    )
    this.#power.className = "power"
    this.element = element(
      "section",
      { class: `pane ${place.id}`, "data-region": place.id, "aria-labelledby": `name-${place.id}` },
      element(
        "div",
        { class: "top" },
        element("h2", { id: `name-${place.id}` }, `${place.person} in ${place.city}`),
        this.#power
      ),
      this.#state,
      this.#text,
      foldable(this.#fold, this.#cards),
      element(
        "dl",
        { class: "heads" },
        element("dt", {}, "Server holds"),
        this.#server,
        element("dt", {}, "Browser holds"),
        this.#browser
      )
    )
  }

  /** Shows the document of this client from now on. */
  open(client: Client): void {
    this.client = client
    this.view = openEditor(this.#text, client)
    this.#board = new Board(this.#cards, client)
    client.listeners.add(() => this.#soon())
    this.#soon()
  }

  showWorld(world: World): void {
    this.#world = world
    const running = this.#isRunning
    say(this.#power, running ? "Kill server" : "Bring back")
    this.#power.setAttribute(
      "aria-label",
      running ? `Kill the server in ${this.place.city}` : `Bring back the server in ${this.place.city}`
    )
    this.element.classList.toggle("down", !running)
    this.#soon()
  }

  showServer(told: Held | null): void {
    this.#told = told
    this.#soon()
  }

  /** A listener may be called in the middle of an edit; what it shows is drawn after that. */
  #soon(): void {
    if (this.#drawing) return
    this.#drawing = true
    setTimeout(() => {
      this.#drawing = false
      this.#draw()
    }, 16)
  }

  #draw(): void {
    const { client, place } = this
    if (this.#told) show(this.#server, this.#told.heads, this.#told.changes)
    else say(this.#server, this.#isRunning ? "does not have it yet" : "down; what it stored is safe")
    if (!client) return
    show(this.#browser, client.heads, client.changes)
    if (client.isConnected) say(this.#state, `Connected to the server in ${place.city}.`)
    else say(this.#state, `No server. ${place.person} goes on writing; the browser keeps it all.`)
    this.element.classList.toggle("offline", !client.isConnected)
    // A cursor from where nothing is heard of stays for a while; it may have gone on since.
    const peers = client.peers.map(peer => ({ ...peer, isStale: !this.#hears(peer.place.id) }))
    if (this.view) showPeers(this.view, client.handle, peers)
    this.#board?.draw(peers.filter(({ isStale }) => !isStale))
    const cards = this.#cards.querySelectorAll("li").length
    say(this.#fold, `${cards} ${cards === 1 ? "card" : "cards"} on the board`)
  }

  get #isRunning(): boolean {
    return this.#world?.regions.find(({ name }) => name === this.place.id)!.running ?? true
  }

  #hears(from: RegionId): boolean {
    return this.#world !== undefined && isDirect(this.#world, from, this.place.id)
  }
}

/** On a phone the boards are folded at first, so that the texts are near to each other; elsewhere they are open. */
function foldable(summary: HTMLElement, what: HTMLElement): HTMLElement {
  const made = element("details", {}, summary, what)
  const narrow = matchMedia("(max-width: 900px)")
  const fit = () => (made.open = !narrow.matches)
  narrow.addEventListener("change", fit)
  fit()
  return made
}

/** Heads are long, and many while people write; a few letters of one, and the number, tell them apart. */
function show(where: HTMLElement, heads: string[], changes: number): void {
  const short = heads[0]?.slice(0, 8) ?? "nothing"
  const more = heads.length > 1 ? ` +${heads.length - 1}` : ""
  say(where, `${short}${more} · ${changes} ${changes === 1 ? "change" : "changes"}`)
  where.dataset.heads = [...heads].sort().join(",")
}
