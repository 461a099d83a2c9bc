// How things are said, and how they become elements. Text is only ever set as text, never as markup.

/** An element: `h("p", { class: "quiet" }, "text", child)`. `null` children are left out. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

/** The same for what is drawn. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children)
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value)
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value)
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined))
  return element
}

/** Puts these in the place of what is there, except for what would stay the same: what somebody reads,
    hears or has selected is not disturbed by a look that finds nothing new. */
export function replace(place, ...children) {
  const [old, now] = [Array.from(place.childNodes), children.flat()]
  if (old.length !== now.length) return place.replaceChildren(...now)
  old.forEach((element, i) => { if (!element.isEqualNode(now[i])) keepFocus(element, now[i]) })
}

/** Replaces an element; the link or button in it that had the focus has it afterwards. */
function keepFocus(old, now) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null
  old.replaceWith(now)
  if (!focused || !now.querySelectorAll) return
  const same = other => other.textContent === focused.textContent && other.getAttribute("href") === focused.getAttribute("href")
  Array.from(now.querySelectorAll(focused.tagName)).find(same)?.focus({ preventScroll: true })
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })

/** A number with its thousands apart; small ones with a tenth. */
export const number = n => (Math.abs(n) < 10 ? tenth : whole).format(n)

/** `1 change`, `2 changes`. */
export const count = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`

export function bytes(n) {
  if (n < 1024) return `${number(n)} B`
  const at = Math.min(4, Math.floor(Math.log2(n) / 10))
  return `${tenth.format(n / 1024 ** at)} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`
}

export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–"
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : whole.format(ms)} ms` : `${tenth.format(ms / 1000)} s`
}

/** A span of time in its two largest units. */
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`
}

/** How long ago, roughly, so that it does not change with every look. */
export function ago(ms, now) {
  const s = Math.max(0, (now - ms) / 1000)
  if (s < 10) return "just now"
  if (s < 60) return `${Math.floor(s / 10) * 10} s ago`
  if (s < 3600) return `${Math.floor(s / 60)} min ago`
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`
  return `${Math.floor(s / 86400)} d ago`
}

/** A moment, with its date. */
export const moment = ms => new Date(ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" })

/** A moment in few letters: the day only if it is not today. */
export function brief(ms) {
  const [then, today] = [new Date(ms), new Date()]
  const time = then.toLocaleTimeString("en-GB")
  if (then.toDateString() === today.toDateString()) return time
  const year = then.getFullYear() === today.getFullYear() ? {} : { year: "numeric" }
  return `${then.toLocaleDateString("en-GB", { day: "numeric", month: "short", ...year })} ${time}`
}

/** With a capital letter. */
export const sentence = text => text.slice(0, 1).toUpperCase() + text.slice(1)

/** The start of a hash or an actor. */
export const short = text => text.slice(0, 8)

/** A table with a caption for those who hear it. `head` is a list of `[title, class]`. */
export function table(caption, head, rows) {
  const columns = head.map(([title, kind]) => h("th", { scope: "col", class: kind }, title))
  return h("div", { class: "wide" }, h("table", {},
    caption ? h("caption", {}, caption) : null, h("thead", {}, h("tr", {}, columns)), h("tbody", {}, rows)))
}
