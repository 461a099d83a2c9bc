// The last changes of a document: who built on whom. Actors are lanes, time goes up.

import { brief, count, h, number, short, svg } from "./words.js"

const LANES = 8
const ROWS = 60
const ROW = 44
const LANE = 16

/** Runs of one actor that nobody else built into are one row: a typist makes a change per key. */
export function runs(changes) {
  const children = new Map()
  for (const change of changes) {
    for (const dep of change.dependencies) children.set(dep, (children.get(dep) ?? 0) + 1)
  }
  const rows = []
  for (const change of changes) {
    const above = rows.at(-1)
    const goesOn = above && above.actor === change.actor && above.last.dependencies.length === 1 &&
      above.last.dependencies[0] === change.hash && children.get(change.hash) === 1 &&
      above.first.message === null && change.message === null
    if (goesOn) {
      above.last = change
      above.hashes.push(change.hash)
      above.operations += change.operations
    } else {
      rows.push({ actor: change.actor, first: change, last: change, hashes: [change.hash], operations: change.operations })
    }
  }
  return rows
}

/** Changes, the newest first, as they come from `/history`; `heads` are marked. */
export function graph(changes, heads, more) {
  const all = runs(changes)
  const rows = all.slice(0, ROWS)
  const lanes = new Map()
  for (const row of rows) if (!lanes.has(row.actor)) lanes.set(row.actor, Math.min(lanes.size, LANES - 1))
  const at = new Map()
  rows.forEach((row, i) => row.hashes.forEach(hash => at.set(hash, i)))
  const width = Math.min(lanes.size, LANES) * LANE + 10
  const height = rows.length * ROW
  const [x, y] = [row => lanes.get(row.actor) * LANE + 12, i => i * ROW + ROW / 2]
  const lines = rows.flatMap((row, i) => row.last.dependencies.map(dep => {
    const to = at.get(dep)
    const from = [x(row), y(i)]
    // What it builds on is further down than what is shown.
    const end = to === undefined ? [x(row), height] : [x(rows[to]), y(to)]
    const bend = to === undefined ? `L${end[0]} ${end[1]}` : `C${from[0]} ${from[1] + ROW * .6} ${end[0]} ${end[1] - ROW * .6} ${end[0]} ${end[1]}`
    return svg("path", { class: `lane${lanes.get(row.actor)}`, d: `M${from[0]} ${from[1]}${bend}` })
  }))
  const dots = rows.map((row, i) => svg("circle", { class: `lane${lanes.get(row.actor)}${row.hashes.length > 1 ? " many" : ""}`, cx: x(row), cy: y(i), r: row.hashes.length > 1 ? 6 : 5 }))
  const drawn = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, lines, dots)
  const items = rows.map(row => h("li", {}, title(row, heads, lanes), under(row)))
  const oldest = changes.at(-1)
  const left = more || all.length > rows.length
  return h("div", {},
    h("p", { class: "quiet" }, `The newest first, in the order in which they came here. A ring is a run of changes by one actor.`),
    h("div", { class: "graph" }, drawn, h("ol", { "aria-label": "Changes, the newest first" }, items)),
    left && oldest ? h("p", { class: "quiet" }, "Older changes are at ", h("code", {}, "/v1/documents/…/history"), ".") : null)
}

function title(row, heads, lanes) {
  const many = row.hashes.length
  const head = heads.includes(row.hashes[0]) ? [h("span", { class: "tag good" }, "head"), " "] : null
  return h("span", {}, head, h("code", { title: row.hashes[0] }, short(row.hashes[0])),
    h("span", { class: `who lane${lanes.get(row.actor)}`, title: row.actor }, ` ${short(row.actor)}`),
    row.first.by_server ? h("span", { class: "quiet" }, " this server, for REST") : null,
    many > 1 ? ` and ${number(many - 1)} before` : null,
    row.first.message ? ` ${row.first.message}` : null)
}

function under(row) {
  const when = row.first.time > 0 ? brief(row.first.time * 1000) : "without a time"
  const [from, to] = [row.last.seq, row.first.seq]
  const numbers = from === to ? `change ${number(to)}` : `changes ${number(from)} to ${number(to)}`
  const merge = row.last.dependencies.length > 1 ? `, merges ${row.last.dependencies.length}` : ""
  return h("span", { class: "when" }, `${when}, ${numbers}${merge}, ${count(row.operations, "operation")}`)
}
