// The page: which view is shown, and how it is kept up to date.

import { Region } from "./region.js"
import { DocumentView } from "./document.js"
import { h } from "./words.js"

/** How often the region is asked, in milliseconds; less often when nobody looks. */
const EVERY = 2000
const EVERY_HIDDEN = 30000
/** An answer that takes longer is none. */
const ANSWER_WITHIN = 8000

const place = document.getElementById("view")
const reach = document.getElementById("reach")
let view = null
let timer = 0
let round = 0

/** Asks the region. Throws an `Error` that says what is wrong; `problem` has the region's own words. */
export async function ask(path, headers = {}) {
  let answer
  try {
    answer = await fetch(path, { headers, signal: AbortSignal.timeout(ANSWER_WITHIN), cache: "no-store" })
  } catch {
    throw Object.assign(new Error("the region does not answer"), { unreached: true })
  }
  if (answer.ok) return answer
  const problem = await answer.json().catch(() => ({}))
  const text = problem.detail ?? `the region answers ${answer.status}`
  throw Object.assign(new Error(text), { status: answer.status, problem, unreached: answer.status === 502 || answer.status === 504 })
}

/** Which document the address names, if it names one. */
function named() {
  let text = location.hash.slice(1)
  try { text = decodeURIComponent(text) } catch { /* it is taken as it stands */ }
  text = text.trim().replace(/^automerge:/, "")
  return text === "" ? null : text.split(/[#/]/)[0]
}

function show() {
  const id = named()
  if (view && view.id === id) return
  // The field follows the address, so that what is shown can be copied from there.
  document.getElementById("id").value = id ?? ""
  place.replaceChildren(h("p", { class: "quiet" }, "Asking the region …"))
  view = id === null ? new Region(place) : new DocumentView(place, id)
  refresh()
}

async function refresh() {
  clearTimeout(timer)
  const [mine, shown] = [++round, view]
  try {
    const status = await (await ask("v1/status")).json()
    if (mine !== round) return
    heard(status)
    await shown.refresh(status, () => mine === round)
  } catch (error) {
    if (mine !== round) return
    lost(error)
  }
  if (mine === round) timer = setTimeout(refresh, document.hidden ? EVERY_HIDDEN : EVERY)
}

function heard(status) {
  say("up", "Live")
  document.body.classList.remove("stale")
  const text = `Region ${status.region}, version ${status.version}`
  document.getElementById("where").textContent = text
  document.title = `${view.id ? `${view.id.slice(0, 8)} … ` : ""}${status.region}, Tributary`
}

let since = 0

function lost(error) {
  // What stays on the screen is old, and must look it.
  document.body.classList.add("stale")
  const words = error.status === 503 ? "The region is about to stop" : error.status ? `The region answers ${error.status}` : "Not reached"
  if (!reach.classList.contains("down")) since = Date.now()
  const time = new Date(since).toLocaleTimeString("en-GB")
  say("down", `${words} since ${time}; trying again`)
}

/** Says it once, not every two seconds. */
function say(state, text) {
  const words = reach.querySelector(".text")
  if (words.textContent === text) return
  reach.className = `reach ${state}`
  words.textContent = text
}

document.getElementById("open").addEventListener("submit", event => {
  event.preventDefault()
  const text = document.getElementById("id").value.trim()
  location.hash = text === "" ? "" : `#${text.replace(/^automerge:/, "").split(/[#/]/)[0]}`
  document.getElementById("main").focus()
})
document.querySelector(".skip").addEventListener("click", event => {
  // The part behind the # names a document here.
  event.preventDefault()
  document.getElementById("main").focus()
})
const scheme = location.protocol === "https:" ? "wss:" : "ws:"
document.getElementById("address").textContent = `${scheme}//${location.host}${location.pathname.replace(/\/$/, "")}`
window.addEventListener("hashchange", show)
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh() })
show()
