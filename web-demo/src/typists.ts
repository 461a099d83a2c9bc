// Everyone types: each person's recording is replayed at speed at the end of that person's paragraph.

import { EditorView } from "@codemirror/view"
import type { Pane } from "./pane.ts"
import { RECORDINGS } from "./recording.ts"

const EVERY_MS = 45

export class Typists {
  #timer?: ReturnType<typeof setInterval>
  /** How many keys each person has pressed. */
  #keys: number[]

  constructor(
    private readonly control: HTMLButtonElement,
    private readonly panes: Pane[]
  ) {
    this.#keys = panes.map(() => 0)
    control.addEventListener("click", () => (this.#timer ? this.stop() : this.start()))
  }

  start(): void {
    this.#timer = setInterval(() => this.#press(), EVERY_MS)
    this.control.textContent = "Stop typing"
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.control.textContent = "Everyone types"
  }

  #press(): void {
    let left = false
    for (const [n, { view, place }] of this.panes.entries()) {
      const keys = RECORDINGS[place.id]
      if (!view || this.#keys[n] >= keys.length) continue
      left = true
      press(view, place.paragraph, keys[this.#keys[n]++])
    }
    if (left) return
    this.stop()
    // From the beginning, when it is asked for again.
    this.#keys = this.panes.map(() => 0)
  }
}

/** One key at the end of the line that begins so; `<` takes the last letter away. */
function press(view: EditorView, paragraph: string, key: string): void {
  const text = view.state.doc
  const found = text.toString().indexOf(paragraph)
  const end = found < 0 ? text.length : text.lineAt(found).to
  const from = key === "<" ? Math.max(found + paragraph.length, end - 1) : end
  view.dispatch({
    changes: { from, to: end, insert: key === "<" ? "" : key },
    selection: { anchor: key === "<" ? from : from + key.length },
  })
}
