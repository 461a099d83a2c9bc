// A value as a tree that can be opened and closed. Bounded: a level shows so many at first, and a text so
// many characters.

import { bytes, count, h, number } from "./words.js"

const CHILDREN = 100
const CHARACTERS = 2000

/** The elements of a value in the typed form of `docs/rest.md`. `open` holds the places that are open. */
export function tree(value, open) {
  return h("div", { class: "tree" }, node(null, value, "", open))
}

function node(key, value, place, open) {
  const name = key === null ? null : [h("span", { class: "key" }, key), ": "]
  const [kind, inner] = typed(value)
  if (kind !== null) return h("div", {}, name, leaf(inner), h("span", { class: "kind" }, ` ${kind}`))
  if (value === null || typeof value !== "object") return h("div", {}, name, leaf(value))
  const list = Array.isArray(value)
  const entries = list ? value.map((item, i) => [String(i), item]) : Object.entries(value).map(([k, v]) => [k.startsWith("$$") ? k.slice(1) : k, v])
  const size = count(entries.length, list ? "item" : "key")
  const kindOf = h("span", { class: "kind" }, `${list ? "list" : "map"}, ${size}`)
  if (entries.length === 0) return h("div", {}, name, kindOf)
  const inside = h("div")
  const details = h("details", { open: open.has(place) || place === "" }, h("summary", {}, name, kindOf), inside)
  const build = () => { if (!inside.firstChild) grow(inside, entries, 0, place, open) }
  details.addEventListener("toggle", () => {
    if (details.open) { open.add(place); build() } else open.delete(place)
  })
  if (details.open) { open.add(place); build() }
  return details
}

function grow(inside, entries, from, place, open) {
  const end = Math.min(entries.length, from + CHILDREN)
  inside.append(...entries.slice(from, end).map(([key, value]) => node(key, value, `${place}/${key}`, open)))
  if (end === entries.length) return
  const more = h("button", { type: "button" }, `${number(entries.length - end)} more`)
  more.addEventListener("click", () => { more.remove(); grow(inside, entries, end, place, open) })
  inside.append(more)
}

function leaf(value) {
  if (typeof value !== "string") return h("span", { class: "number" }, String(value))
  const cut = value.length > CHARACTERS
  const shown = cut ? `${value.slice(0, CHARACTERS)} …` : value
  return h("span", {}, h("span", { class: "string" }, `"${shown}"`), cut ? h("span", { class: "kind" }, ` ${number(value.length)} characters`) : null)
}

/** What JSON has no word for: an object whose first key begins with one `$`. */
function typed(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [null, null]
  const key = Object.keys(value)[0] ?? ""
  if (!key.startsWith("$") || key.startsWith("$$")) return [null, null]
  const inner = value[key]
  switch (key) {
    case "$text": return [`text with ${count((value.$marks ?? []).length, "mark")}, ${count((value.$blocks ?? []).length, "block")}`, inner]
    case "$timestamp": return ["timestamp", stamp(inner)]
    case "$bytes": return [`bytes, ${bytes(Math.floor(inner.replace(/=+$/, "").length * 3 / 4))}`, inner]
    case "$string": return ["scalar string", inner]
    case "$unknown": return [`of unknown type ${inner.type}`, inner.bytes]
    default: return [key.slice(1), inner]
  }
}

function stamp(ms) {
  const date = new Date(Number(ms))
  return Number.isNaN(date.getTime()) ? ms : date.toISOString()
}
