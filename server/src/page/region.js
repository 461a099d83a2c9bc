// How the region is: figures, links, quarantine, errors, and the documents to go on from.

import { ask } from "./main.js"
import { ago, bytes, count, h, milliseconds, number, replace, span, svg, table } from "./words.js"

export class Region {
  id = null

  constructor(place) {
    this.figures = h("div")
    this.documents = new Documents()
    place.replaceChildren(this.figures, this.documents.place)
  }

  async refresh(status) {
    replace(this.figures, cards(status), links(status), h("div", { class: "two" }, quarantine(status), recent(status)), errors(status))
  }
}

function cards(status) {
  const { sessions, documents, commits, per_second: rates, totals, minute } = status
  const stored = documents.stored === null ? null : `${number(documents.stored)}${documents.stored_more ? "+" : ""}`
  return h("section", { class: "cards", "aria-label": "Figures" },
    card("Up for", span(status.uptime_seconds), null, status.peer),
    card("Sessions", number(sessions.connected), null, `${number(sessions.opened)} joined since the start, ${number(sessions.closed_for_cause)} closed for cause`),
    card("Documents", stored ?? number(documents.open), stored === null ? "open" : "stored", `${number(documents.open)} open, ${bytes(documents.memory_bytes)} in memory`),
    card("Commit latency", milliseconds(commits.p99_ms), commits.p99_ms === null ? null : "p99", commits.p99_ms === null ? "no commits in the last minute" : `p50 ${milliseconds(commits.p50_ms)}, ${count(commits.count, "commit")} in a minute`, spark(minute.commit_p99_ms, "p99 of each second", milliseconds)),
    card("Changes in", number(rates.changes_in), "/s", `${number(totals.changes_in)} since the start`, spark(minute.changes_in, "changes in", n => `${number(n)} a second`)),
    card("Changes out", number(rates.changes_out), "/s", `${number(totals.changes_out)} since the start`, spark(minute.changes_out, "changes out", n => `${number(n)} a second`)),
    card("Bytes in", bytes(rates.bytes_in), "/s", `${bytes(totals.bytes_in)} since the start`, spark(minute.bytes_in, "bytes in", n => `${bytes(n)} a second`)),
    card("Bytes out", bytes(rates.bytes_out), "/s", `${bytes(totals.bytes_out)} since the start`, spark(minute.bytes_out, "bytes out", n => `${bytes(n)} a second`)))
}

function card(title, figure, unit, under, plot = null) {
  return h("div", { class: "card" }, h("h2", {}, title),
    h("p", { class: "figure" }, figure, unit ? h("small", {}, ` ${unit}`) : null),
    h("p", { class: "under" }, under), plot)
}

/** The last minute as a line. Its highest point is said in words. */
function spark(values, what, say) {
  const known = values.filter(value => value !== null)
  const most = Math.max(...known, 0)
  const label = known.length === 0 ? `No ${what} in the last minute` : `The last minute of ${what}, at most ${say(most)}`
  const box = svg("svg", { class: "spark", viewBox: "0 0 60 20", preserveAspectRatio: "none", role: "img", "aria-label": label })
  // Starts at the right: a server that runs for ten seconds has ten of them.
  const points = values.map((value, i) => [60 - values.length + 1 + i, 19 - 17 * (value ?? 0) / (most || 1)])
  if (points.length > 1) {
    const line = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(2)}`).join("")
    box.append(svg("path", { class: "area", d: `${line}L${points.at(-1)[0]} 20L${points[0][0]} 20Z` }), svg("path", { d: line }))
  }
  return box
}

const HEAD = [["Region"], ["State"], ["Round trip", "number"], ["Behind", "number"], ["In", "number"], ["Out", "number"], ["Last error"]]
const STATES = { up: "good", half: "warn", opening: "warn", busy: "warn", down: "bad" }

function links(status) {
  const title = h("h2", { id: "links" }, "Links")
  if (status.links.length === 0) {
    return h("section", { class: "panel", "aria-labelledby": "links" }, title, h("p", { class: "quiet" }, "None: this region stands alone."))
  }
  const rows = status.links.map(link => h("tr", {},
    h("th", { scope: "row" }, link.region),
    h("td", {}, h("span", { class: `state ${STATES[link.state] ?? "warn"}` }, link.state), link.up_seconds === null ? null : h("span", { class: "quiet" }, ` for ${span(link.up_seconds)}`)),
    h("td", { class: "number" }, link.round_trip_ms === null ? "–" : milliseconds(link.round_trip_ms)),
    h("td", { class: "number" }, link.lag_changes === 0 ? "level" : `${count(link.lag_changes, "change")}, ${milliseconds(link.lag_seconds * 1000)}`),
    h("td", { class: "number" }, bytes(link.bytes_in)),
    h("td", { class: "number" }, bytes(link.bytes_out)),
    h("td", { class: "text quiet" }, link.last_error || "–")))
  // On a phone each link is a block, and the titles stand beside the figures.
  rows.forEach(row => Array.from(row.children).forEach((cell, i) => cell.setAttribute("data-title", HEAD[i][0])))
  return h("section", { class: "panel stacked", "aria-labelledby": "links" }, title,
    h("p", { class: "quiet" }, "Behind: changes handed in here that are not known to be durable there, and for how long."),
    table(null, HEAD, rows))
}

function quarantine({ quarantine: held }) {
  const fact = (title, n, bad, why) => [h("dt", {}, title), h("dd", {}, h("strong", { class: n > 0 ? bad : "" }, number(n)), h("span", { class: "quiet" }, ` ${why}`))]
  return h("section", { class: "panel", "aria-labelledby": "held" }, h("h2", { id: "held" }, "Quarantine"), h("dl", { class: "facts" },
    fact("Set aside", held.set_aside, "bad", "changes that turned out not to fit after they were stored"),
    fact("Refused", held.refused, "warn", "changes turned away at the door"),
    fact("Unreadable", held.unreadable, "bad", "reads of documents that failed"),
    fact("Archive", held.archive_failures, "warn", `jobs without an answer; ${number(held.archive_queue)} waiting`)))
}

function recent({ documents }) {
  const items = documents.recent.map(id => h("li", {}, h("a", { class: "mono", href: `#${id}` }, id)))
  return h("section", { class: "panel", "aria-labelledby": "recent" }, h("h2", { id: "recent" }, "Changed last"),
    items.length ? h("ul", { class: "plain" }, items) : h("p", { class: "quiet" }, "Nothing has changed since the start."))
}

function errors(status) {
  const items = status.errors.map(line => h("li", {},
    h("span", { class: `tag ${line.level === "error" ? "bad" : "warn"}` }, line.level === "error" ? "error" : "warning"),
    line.message,
    Object.entries(line.fields).map(([name, value]) => [" ", h("span", { class: "quiet" }, `${name} `),
      name === "document" ? h("a", { class: "mono", href: `#${value}` }, value) : h("span", { class: "mono" }, value)]),
    h("span", { class: "quiet" }, ` · ${ago(line.at, status.now)}${line.count > 1 ? `, ${number(line.count)} times` : ""}`)))
  const sum = `${count(status.errors_total, "error")} and ${count(status.warnings_total, "warning")} since the start; the log has all of each line`
  return h("section", { class: "panel", "aria-labelledby": "errors" }, h("h2", { id: "errors" }, "Recent errors"),
    items.length ? h("p", { class: "quiet" }, sum) : null,
    items.length ? h("ul", { class: "plain" }, items) : h("p", { class: "quiet" }, "None since the start."))
}

/** All documents, a page at a time, when somebody asks for them. */
class Documents {
  constructor() {
    this.rows = h("tbody")
    this.more = h("button", { type: "button", click: () => this.next() }, "List documents")
    this.said = h("p", { class: "quiet", role: "status" })
    this.list = h("div")
    this.place = h("section", { class: "panel", "aria-labelledby": "all" }, h("h2", { id: "all" }, "All documents"), this.list, this.said, this.more)
    this.cursor = null
    this.listed = 0
  }

  async next() {
    try {
      const query = this.cursor === null ? "" : `?cursor=${encodeURIComponent(this.cursor)}`
      const page = await (await ask(`v1/documents${query}`)).json()
      this.listed += page.documents.length
      this.rows.append(...page.documents.map(found => h("tr", {},
        h("td", { class: "id" }, h("a", { href: `#${found.id}` }, found.id)),
        h("td", { class: "number" }, number(found.changes)),
        h("td", { class: "number" }, bytes(found.bytes)),
        h("td", {}, found.changed === null ? "long ago" : ago(found.changed, Date.now())))))
      if (this.listed > 0 && !this.list.firstChild) {
        const made = table(null, [["Id"], ["Changes", "number"], ["Stored", "number"], ["Last change"]], [])
        made.querySelector("tbody").replaceWith(this.rows)
        this.list.append(made)
      }
      this.cursor = page.next
      this.said.textContent = this.listed === 0 ? "There are none yet: connect a client, or POST to /v1/documents." : `${number(this.listed)} listed${page.next === null ? ", that is all" : ""}`
      this.more.textContent = "List more"
      this.more.hidden = page.next === null
    } catch (error) {
      this.said.textContent = `They cannot be listed: ${error.message}.`
    }
  }
}
