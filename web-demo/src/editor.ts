// The text: CodeMirror bound to Automerge, with the cursors of the others in it.

import * as A from "@automerge/automerge/slim"
import { automergeSyncPlugin, type DocHandle } from "@automerge/automerge-codemirror"
import { defaultKeymap } from "@codemirror/commands"
import { StateEffect, StateField } from "@codemirror/state"
import { Decoration, drawSelection, EditorView, keymap, WidgetType, type DecorationSet } from "@codemirror/view"
import type { Client, Peer } from "./client.ts"
import { textPath, type Handle } from "./document.ts"
import type { Place } from "./people.ts"

interface Spot {
  place: Place
  isStale: boolean
  from: number
  to: number
  head: number
}

class Flag extends WidgetType {
  constructor(
    readonly place: Place,
    readonly isStale: boolean
  ) {
    super()
  }

  eq(other: Flag): boolean {
    return other.place.id === this.place.id && other.isStale === this.isStale
  }

  toDOM(): HTMLElement {
    const caret = document.createElement("span")
    caret.className = `caret ${this.place.id}${this.isStale ? " stale" : ""}`
    // It is no part of the text, and a screen reader would read it in the middle of a word.
    caret.setAttribute("aria-hidden", "true")
    const name = document.createElement("span")
    name.textContent = this.place.person
    caret.append(name)
    return caret
  }
}

const moved = StateEffect.define<Spot[]>()

const others = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(before, transaction) {
    let now = before.map(transaction.changes)
    for (const effect of transaction.effects) if (effect.is(moved)) now = decorate(effect.value)
    return now
  },
  provide: field => EditorView.decorations.from(field),
})

function decorate(spots: Spot[]): DecorationSet {
  const all = spots.flatMap(({ place, isStale, from, to, head }) => [
    ...(from < to && !isStale ? [Decoration.mark({ class: `chosen ${place.id}` }).range(from, to)] : []),
    Decoration.widget({ widget: new Flag(place, isStale), side: 1 }).range(head),
  ])
  return Decoration.set(all, true)
}

/** Opens the text of a client's document, and tells the others where the cursor is. */
export function openEditor(parent: HTMLElement, client: Client): EditorView {
  const { handle, place } = client
  const tellWhere = EditorView.updateListener.of(update => {
    if (!update.selectionSet && !update.focusChanged) return
    const { anchor, head } = update.state.selection.main
    // The cursors are those of the document, which has this update only after it.
    queueMicrotask(() => {
      const at = (position: number) => {
        const document = handle.doc()
        return A.getCursor(document, textPath(), position < document.text.length ? position : "end")
      }
      client.moveTo({ kind: "text", anchor: at(anchor), head: at(head) })
    })
  })
  return new EditorView({
    parent,
    doc: handle.doc().text,
    extensions: [
      keymap.of(defaultKeymap),
      EditorView.lineWrapping,
      // CodeMirror moves the browser's own caret to the right side of a wrapped line when the others' letters
      // arrive, in an editor without the focus too, and the browser moves the focus with it: whoever writes
      // goes on in another person's text. A caret that it draws itself is left alone.
      drawSelection(),
      EditorView.contentAttributes.of({ "aria-label": `The text, as ${place.person} sees it` }),
      others,
      tellWhere,
      automergeSyncPlugin({ handle: handle as unknown as DocHandle<unknown>, path: textPath() }),
    ],
  })
}

/** Draws the cursors of everybody else, those that may have moved on since (stale) paler. */
export function showPeers(view: EditorView, handle: Handle, peers: (Peer & { isStale: boolean })[]): void {
  const document = handle.doc()
  const spots: Spot[] = []
  for (const { place, at, isStale } of peers) {
    if (at?.kind !== "text") continue
    try {
      const [anchor, head] = [at.anchor, at.head].map(cursor =>
        Math.min(A.getCursorPosition(document, textPath(), cursor), view.state.doc.length)
      )
      spots.push({ place, isStale, from: Math.min(anchor, head), to: Math.max(anchor, head), head })
    } catch {
      // It is beside a letter that has not arrived here; it is told again with the next heartbeat.
    }
  }
  view.dispatch({ effects: moved.of(spots) })
}
