// Everyone types: each person's piece of a recording is replayed at speed in that person's paragraph.

import { EditorView } from "@codemirror/view"
import type { Pane } from "./pane.ts"
import type { Edit, Recordings } from "./recording.ts"

const EVERY_MS = 45

export class Typists {
  #timer?: ReturnType<typeof setInterval>
  /** How many edits each person has made, and where in the paragraph the last one ended. */
  #made: number[]
  #carets: number[]

  constructor(
    private readonly control: HTMLButtonElement,
    private readonly panes: Pane[],
    private readonly pieces: Recordings["pieces"]
  ) {
    this.#made = panes.map(() => 0)
    this.#carets = panes.map(() => Infinity)
    control.addEventListener("click", () => (this.#timer ? this.stop() : this.start()))
  }

  start(): void {
    this.#timer = setInterval(() => this.#edit(), EVERY_MS)
    this.control.textContent = "Stop typing"
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.control.textContent = "Everyone types"
  }

  #edit(): void {
    let left = false
    for (const [n, { view, place }] of this.panes.entries()) {
      const edits = this.pieces[place.id]
      if (!view || this.#made[n] >= edits.length) continue
      left = true
      this.#carets[n] = apply(view, place.paragraph, this.#carets[n], edits[this.#made[n]++])
    }
    if (left) return
    this.stop()
    // From the beginning, at the end of what is there, when it is asked for again.
    this.#made = this.panes.map(() => 0)
    this.#carets = this.panes.map(() => Infinity)
  }
}

/**
 * One edit in the line that begins with `paragraph`; returns where in it the caret is then. An edit
 * that was made elsewhere, in a text that is not here, is made at the nearest end of the line.
 */
function apply(view: EditorView, paragraph: string, caret: number, [move, deleted, inserted]: Edit): number {
  const text = view.state.doc
  const found = text.toString().indexOf(paragraph)
  const start = found < 0 ? text.length : found + paragraph.length
  const length = (found < 0 ? text.length : text.lineAt(found).to) - start
  const at = Math.max(0, Math.min(length, Math.min(length, caret) + move))
  const to = Math.min(length, at + deleted)
  view.dispatch({
    changes: { from: start + at, to: start + to, insert: inserted },
    selection: { anchor: start + at + inserted.length },
    scrollIntoView: true,
  })
  return at + inserted.length
}
