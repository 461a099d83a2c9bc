// Puts the page together: three people, the cables between them, the timeline.

import { initializeWasm } from "@automerge/automerge/slim"
import wasm from "@automerge/automerge/automerge.wasm?url"
import { Client, forgetOtherRuns } from "./client.ts"
import { Cable } from "./cable.ts"
import { Lag } from "./lag.ts"
import { Pane } from "./pane.ts"
import { CABLES, PLACES, type LinkId } from "./people.ts"
import { recordings } from "./recording.ts"
import { Status } from "./status.ts"
import { Timeline } from "./timeline.ts"
import { Typists } from "./typists.ts"
import { Supervisor, type World } from "./world.ts"

const byId = (id: string) => document.getElementById(id)!

const supervisor = new Supervisor()
const errorLine = byId("error")

/** Does what a button asks for; says so if it cannot be done. */
function attempt(done: Promise<void>): void {
  done.then(
    () => (errorLine.hidden = true),
    error => fail((error as Error).message)
  )
}

function fail(message: string): void {
  errorLine.textContent = message
  errorLine.hidden = false
}

const firstWorld = new Promise<World>(resolve => supervisor.on("world", resolve))
supervisor.onReach(reached => {
  errorLine.hidden = reached
  if (!reached) errorLine.textContent = "The demo does not answer; was it ended? Start it again and reload."
})

async function main(): Promise<void> {
  // The listeners first: what is told while the clients connect must not be missed.
  const panes = PLACES.map(place => new Pane(place, supervisor, attempt))
  const cables = new Map(
    (Object.keys(CABLES) as LinkId[]).map(id => [id, new Cable(id, supervisor, attempt)])
  )
  const order = [
    panes[0].element,
    cables.get("eu-us")!.element,
    panes[1].element,
    cables.get("eu-ap")!.element,
    panes[2].element,
    cables.get("us-ap")!.element,
  ]
  byId("world").append(...order)
  const status = new Status(byId("status"), panes)
  const lag = new Lag(panes)
  const [cutAll, mendAll] = ["cut", "mend"].map(id => byId(id) as HTMLButtonElement)
  const timeline = new Timeline(byId("timeline"), byId("key"))
  let world: World | undefined
  supervisor.on("world", told => {
    // Another document, or another run of the demo: everything begins anew.
    if (world && (world.document !== told.document || world.run !== told.run)) return location.reload()
    world = told
    for (const pane of panes) pane.showWorld(told)
    for (const cable of cables.values()) cable.showWorld(told)
    status.showWorld(told)
    const hasFocus = [cutAll, mendAll].includes(document.activeElement as HTMLButtonElement)
    cutAll.disabled = told.links.every(link => link.cut)
    mendAll.disabled = !told.links.some(link => link.cut)
    // A button that can do nothing more passes the keyboard on to the other one.
    if (hasFocus && cutAll.disabled) mendAll.focus()
    else if (hasFocus && mendAll.disabled) cutAll.focus()
  })
  supervisor.on("heads", heads => {
    for (const pane of panes) pane.showServer(heads[pane.place.id] ?? null)
    status.showHeads(heads)
    lag.showHeads(heads)
  })
  supervisor.on("sample", sample => {
    lag.correct(sample)
    status.showSample(sample)
    for (const cable of cables.values()) cable.showSample(sample)
    timeline.add(sample)
  })
  for (const [button, cut] of [[cutAll, true], [mendAll, false]] as const) {
    button.addEventListener("click", () =>
      attempt(Promise.all(world!.links.map(({ name }) => supervisor.setLink(name, { cut }))).then(() => {}))
    )
  }
  byId("over").addEventListener("click", () => attempt(supervisor.startOver()))

  const [{ document: url, run, regions }, typed] = await Promise.all([
    firstWorld,
    recordings(),
    initializeWasm(wasm),
  ])
  await forgetOtherRuns(run)
  await Promise.all(
    panes.map(async pane => {
      const { port } = regions.find(({ name }) => name === pane.place.id)!
      pane.open(await Client.open(pane.place, `ws://${location.hostname}:${port}`, url, run))
      status.show()
    })
  )
  new Typists(byId("type") as HTMLButtonElement, panes, typed.pieces)
  byId("typed").textContent = typed.name
    ? `What they type when everyone types was recorded key by key from somebody who wrote: ${typed.name}.`
    : "What they type when everyone types was made up for the demo; --trace replays a real recording."
}

main().catch(error => fail(`The page could not start: ${(error as Error).message}`))
