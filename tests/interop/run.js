// Runs the stories with every client: `node run.js [part of a client's or story's name]…`.
//
// SERVER names the server (see lib/server.js). All rounds are run, whatever fails.

import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { missing } from "./lib/traces.js"

const here = path => fileURLToPath(new URL(path, import.meta.url))
const wanted = process.argv.slice(2)

/** Everything that a client does in the same way in every version. */
const STORIES = [
  "create-and-find",
  "concurrent-edits",
  "offline",
  "restart",
  "restore",
  "presence",
  "remote-heads",
  "unavailable",
]
/** What several regions do; no client can tell that there are more than one. */
const REGIONS = ["regions", "regions-refused"]
const NODE_22 = here("clients/repo-2.6-alpha/node_modules/.bin/node")

const rounds = [
  { client: "repo-2.5-automerge-3.2", stories: ["raw-protocol", ...STORIES, "large", ...REGIONS] },
  { client: "repo-2.5-automerge-3.5", stories: [...STORIES, "traces", "regions-trace"] },
  { client: "repo-2.0", stories: STORIES },
  { client: "repo-2.6-alpha", stories: [...STORIES, "mixed-versions"], node: NODE_22 },
]

const known = readdirSync(here("stories")).map(name => name.replace(".test.js", ""))
for (const { stories } of rounds) {
  const unknown = stories.filter(story => !known.includes(story))
  if (unknown.length > 0) throw new Error(`no such story: ${unknown}`)
}

const failed = []
let replayed = false
for (const { client, stories, node = process.execPath } of rounds) {
  const chosen = stories.filter(
    story => wanted.length === 0 || wanted.some(part => client.includes(part) || story.includes(part))
  )
  if (chosen.length === 0) continue
  replayed ||= chosen.some(story => story.includes("trace"))
  const version = spawnSync(node, ["--version"], { encoding: "utf8" }).stdout.trim()
  console.log(`\n== ${client} on Node ${version}`)
  const started = performance.now()
  const { status, signal } = spawnSync(
    node,
    // One file at a time: two servers and their clients at once would only wait for each other.
    ["--test", "--test-force-exit", "--test-concurrency=1", "--test-reporter=spec"].concat(
      chosen.map(story => here(`stories/${story}.test.js`))
    ),
    { stdio: "inherit", env: { ...process.env, CLIENT: client } }
  )
  console.log(`== ${client}: ${((performance.now() - started) / 1000).toFixed(0)} s`)
  if (status !== 0) failed.push(`${client} (${signal ?? `exit code ${status}`})`)
}
for (const path of replayed ? missing() : []) {
  console.log(`NOT REPLAYED: ${path} is not there (TRACES names another folder); a small generated trace took its place`)
}
if (failed.length > 0) {
  console.error(`failed: ${failed.join(", ")}`)
  process.exit(1)
}
