// The board of one person: the cards by column, each to be renamed, moved on, moved back and deleted.

import type { Client, Peer } from "./client.ts"
import { addCard, cardsOf, deleteCard, moveCard, retitleCard, type ShownCard } from "./document.ts"
import { button, element, say } from "./dom.ts"

interface Row {
  element: HTMLLIElement
  title: HTMLInputElement
  back: HTMLButtonElement
  on: HTMLButtonElement
  remove: HTMLButtonElement
  who: HTMLElement
  card: ShownCard
}

export class Board {
  readonly #lists = new Map<string, HTMLUListElement>()
  readonly #rows = new Map<string, Row>()
  #peers: readonly Peer[] = []
  readonly #columns: { id: string; title: string }[]

  constructor(
    parent: HTMLElement,
    private readonly client: Client
  ) {
    this.#columns = client.handle.doc().board.columns.map(({ id, title }) => ({ id, title }))
    for (const { id, title } of this.#columns) {
      const list = element("ul", { "aria-label": `${title}, as ${client.place.person} sees it` })
      this.#lists.set(id, list)
      parent.append(element("h3", {}, title), list)
    }
    const title = element("input", { placeholder: "New card", "aria-label": "Title of a new card" })
    const add = element("form", { class: "add" }, title, element("button", {}, "Add"))
    add.addEventListener("submit", event => {
      event.preventDefault()
      if (!title.value.trim()) return
      addCard(client.handle, this.#columns[0].id, title.value.trim(), client.place.person)
      title.value = ""
    })
    parent.append(add)
  }

  /** @param peers who is where at the moment */
  draw(peers: readonly Peer[]): void {
    this.#peers = peers
    const seen = new Set<string>()
    for (const [column, cards] of cardsOf(this.client.handle.doc())) {
      const list = this.#lists.get(column)
      if (!list) continue
      for (const [index, card] of cards.entries()) {
        seen.add(card.id)
        const row = this.#rows.get(card.id) ?? this.#make(card)
        this.#update(row, card)
        // Only what is not in its place is put there: an element that is moved loses the focus.
        if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null)
      }
    }
    for (const [id, row] of this.#rows) {
      if (seen.has(id)) continue
      row.element.remove()
      this.#rows.delete(id)
    }
  }

  #make(card: ShownCard): Row {
    const { client } = this
    const { handle, place } = client
    const { id } = card
    const title = element("input", { class: "title" })
    title.addEventListener("focus", () => client.moveTo({ kind: "card", id }))
    title.addEventListener("input", () => retitleCard(handle, id, title.value, place.person))
    const row: Row = {
      card,
      title,
      who: element("span", { class: "who" }),
      back: button("‹", "", () => this.#move(id, -1)),
      on: button("›", "", () => this.#move(id, 1)),
      remove: button("×", "", () => deleteCard(handle, id)),
      element: element("li", { "data-card": id }),
    }
    row.element.append(title, row.who, row.back, row.on, row.remove)
    this.#rows.set(id, row)
    return row
  }

  #update(row: Row, card: ShownCard): void {
    row.card = card
    if (row.title.value !== card.title) {
      const [start, end] = [row.title.selectionStart, row.title.selectionEnd]
      row.title.value = card.title
      if (document.activeElement === row.title) row.title.setSelectionRange(start, end)
    }
    const here = this.#peers.filter(({ at }) => at?.kind === "card" && at.id === card.id)
    say(row.who, here.map(({ place }) => place.person).join(", "))
    row.title.setAttribute("aria-label", `Title of card ${card.title}`)
    for (const [control, by] of [[row.back, -1], [row.on, 1]] as const) {
      const to = this.#beside(card.column, by)
      control.disabled = !to
      control.setAttribute("aria-label", to ? `Move ${card.title} to ${to.title}` : "There is no further column")
    }
    row.remove.setAttribute("aria-label", `Delete ${card.title}`)
  }

  #move(id: string, by: number): void {
    const row = this.#rows.get(id)!
    const to = this.#beside(row.card.column, by)
    if (!to) return
    moveCard(this.client.handle, id, to.id, this.client.place.person)
    this.draw(this.#peers)
    // The keyboard stays with the card.
    const control = by < 0 ? row.back : row.on
    if (control.disabled) row.title.focus()
    else control.focus()
  }

  #beside(column: string, by: number): { id: string; title: string } | undefined {
    return this.#columns[this.#columns.findIndex(({ id }) => id === column) + by]
  }
}
