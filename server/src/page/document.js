// One document: heads, size, who is connected, history, and its value.

import { ask } from "./main.js"
import { graph } from "./graph.js"
import { tree } from "./tree.js"
import { ago, bytes, count, h, moment, number, replace, sentence } from "./words.js"

/** A larger document is opened only when somebody asks for it. */
const BYTES_UNASKED = 4 * 1024 * 1024
/** What was costly to make is not made again before this many times as long. */
const PATIENCE = 5
/** What failed is tried again after this long, in milliseconds. */
const RETRY = 10000

export class DocumentView {
  constructor(place, id) {
    this.id = id
    this.path = `v1/documents/${encodeURIComponent(id)}`
    this.facts = h("div")
    this.history = h("div", {}, h("p", { class: "quiet" }, "Reading …"))
    this.value = h("div", {}, h("p", { class: "quiet" }, "Reading …"))
    this.open = new Set()
    this.shown = null
    this.again = 0
    this.asked = false
    place.replaceChildren(
      h("p", { class: "crumb" }, h("a", { href: "#" }, "← The region")),
      h("h2", { class: "title" }, `automerge:${id}`),
      this.facts,
      this.rest = h("div", { class: "two", hidden: true },
        h("section", { class: "panel", "aria-labelledby": "value" }, h("h2", { id: "value" }, "Value"), this.value),
        h("section", { class: "panel", "aria-labelledby": "history" }, h("h2", { id: "history" }, "History"), this.history)))
  }

  async refresh(region, current) {
    let status
    try {
      status = await (await ask(`${this.path}/status`)).json()
    } catch (error) {
      if (error.unreached) throw error
      if (!current()) return
      this.rest.hidden = true
      this.shown = null
      const title = error.problem?.title ?? "It cannot be shown"
      return replace(this.facts, h("p", { class: "notice bad" }, h("strong", {}, `${title}. `), `${sentence(error.message)}.`))
    }
    if (!current()) return
    this.rest.hidden = false
    replace(this.facts, facts(status, region.now), peers(status))
    const heads = status.heads.join(".")
    if (heads === this.shown || Date.now() < this.again) return
    const started = Date.now()
    const read = await Promise.all([this.readHistory(status, current), this.readValue(status, current)])
    // What could not be read is tried again, also when nothing changes.
    this.shown = read.includes(false) ? null : heads
    this.again = Date.now() + PATIENCE * (Date.now() - started) + (this.shown === null ? RETRY : 0)
  }

  async readHistory(status, current) {
    try {
      const page = await (await ask(`${this.path}/history`)).json()
      if (current()) this.history.replaceChildren(graph(page.changes, status.heads, page.next !== null))
    } catch (error) {
      return current() ? failed(this.history, error) : false
    }
  }

  async readValue(status, current) {
    if (status.bytes > BYTES_UNASKED && !this.asked) {
      const button = h("button", { type: "button" }, `Read ${bytes(status.bytes)}`)
      button.addEventListener("click", () => { this.asked = true; this.shown = null; this.again = 0 })
      this.value.replaceChildren(h("p", { class: "quiet" }, "The document is large."), button)
      return true
    }
    try {
      const value = await (await ask(`${this.path}?form=typed`)).json()
      if (!current()) return
      const focused = this.value.contains(document.activeElement) ? Array.from(this.value.querySelectorAll("summary")).indexOf(document.activeElement) : -1
      this.value.replaceChildren(tree(value, this.open))
      this.value.querySelectorAll("summary")[focused]?.focus({ preventScroll: true })
    } catch (error) {
      return current() ? failed(this.value, error) : false
    }
  }
}

function failed(place, error) {
  if (error.unreached) throw error
  place.replaceChildren(h("p", { class: "notice bad" }, `It cannot be read: ${error.message}.`))
  return false
}

function facts(status, now) {
  const heads = status.heads.map(head => h("div", { class: "mono" }, head))
  return h("section", { class: "panel", "aria-label": "Facts" }, h("dl", { class: "facts" },
    h("dt", {}, status.heads.length === 1 ? "Head" : `${number(status.heads.length)} heads`), h("dd", {}, heads),
    h("dt", {}, "Changes"), h("dd", {}, number(status.changes)),
    h("dt", {}, "Stored"), h("dd", {}, bytes(status.bytes)),
    h("dt", {}, "Came here"), h("dd", {}, moment(status.created)),
    h("dt", {}, "Last change"), h("dd", {}, status.changed === null ? "longer ago than changes are kept one by one" : `${moment(status.changed)}, ${ago(status.changed, now)}`)))
}

function peers(status) {
  const items = status.peers.map(peer => h("li", {},
    h("span", { class: "mono" }, peer.peer), " ",
    h("span", { class: peer.level ? "good" : "warn" }, peer.level ? "level" : "not level yet"),
    h("span", { class: "quiet" }, `, session ${peer.session}${peer.storage === null ? ", no lasting store" : `, store ${peer.storage}`}`)))
  const left = status.peers_total - status.peers.length
  return h("section", { class: "panel", "aria-labelledby": "peers" },
    h("h2", { id: "peers" }, `Connected here: ${count(status.peers_total, "session")}`),
    items.length ? h("ul", { class: "plain" }, items) : h("p", { class: "quiet" }, "Nobody has it open in this region."),
    left > 0 ? h("p", { class: "quiet" }, `and ${number(left)} more`) : null)
}
