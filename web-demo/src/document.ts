// The shape of the shared document, and every way in which the page alters its board.
//
// A card stays in one map for ever and says itself in which column it is. Were it an element of a
// column's list, then two people who move it at once would each delete it here and insert it there,
// and it would be there twice.

import * as A from "@automerge/automerge/slim"
import type { DocHandle } from "@automerge/automerge-repo/slim"

export interface Column {
  id: string
  title: string
}

export interface Card {
  title: string
  /** The id of its column. */
  column: string
  /** Cards of a column are in this order. */
  position: number
  /** Deleting a card only marks it, so that whoever edits it at the same time does not write into nothing. */
  state: "kept" | "deleted"
  /** Who has had a hand in it, the first first. */
  touched_by: string[]
}

export interface SharedDocument {
  text: string
  board: { columns: Column[]; cards: Record<string, Card> }
}

export type Handle = DocHandle<SharedDocument>

export interface ShownCard extends Card {
  id: string
}

/** Where the text is. A new array every time: the packages alter the one that they are given. */
export const textPath = (): string[] => ["text"]

/** The heads of a document, as the servers write them, in one order. */
export function headsOf(handle: Handle): string[] {
  return [...A.getHeads(handle.doc())].sort()
}

/** The cards that are shown, by column. */
export function cardsOf(document: SharedDocument): Map<string, ShownCard[]> {
  const columns = new Map<string, ShownCard[]>(document.board.columns.map(({ id }) => [id, []]))
  for (const [id, card] of Object.entries(document.board.cards)) {
    if (isKept(card)) columns.get(card.column)?.push({ ...card, id })
  }
  for (const cards of columns.values()) {
    cards.sort((a, b) => a.position - b.position || (a.id < b.id ? -1 : 1))
  }
  return columns
}

/** A card that one person deletes while another edits it stays. */
function isKept(card: Card): boolean {
  if (card.state === "kept") return true
  const kept = Object.values(A.getConflicts(card, "state") ?? {})
  return kept.some(state => state === "kept")
}

/** Adds a card at the end of a column; gives its id. */
export function addCard(handle: Handle, column: string, title: string, who: string): string {
  const id = crypto.randomUUID().slice(0, 8)
  const position = after(handle.doc(), column)
  handle.change(({ board }) => {
    board.cards[id] = { title, column, position, state: "kept", touched_by: [who] }
  })
  return id
}

/** Makes the title of a card this, by as few edits of its letters as possible. */
export function retitleCard(handle: Handle, id: string, title: string, who: string): void {
  handle.change(document => {
    A.updateText(document, ["board", "cards", id, "title"], title)
    touch(document.board.cards[id], who)
  })
}

/** Moves a card to the end of a column. */
export function moveCard(handle: Handle, id: string, column: string, who: string): void {
  const position = after(handle.doc(), column)
  handle.change(({ board }) => {
    board.cards[id].column = column
    board.cards[id].position = position
    touch(board.cards[id], who)
  })
}

export function deleteCard(handle: Handle, id: string): void {
  handle.change(({ board }) => {
    board.cards[id].state = "deleted"
  })
}

/** Written even if it says so already: whoever deletes it at the same time then does not win. */
function touch(card: Card, who: string): void {
  card.state = "kept"
  if (!card.touched_by.includes(who)) card.touched_by.push(who)
}

function after(document: SharedDocument, column: string): number {
  return 1 + Math.max(0, ...(cardsOf(document).get(column) ?? []).map(card => card.position))
}
