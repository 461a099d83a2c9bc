// Runs the stories with every client: `node run.js [part of a client's or story's name]…`.
//
// SERVER names the server (see lib/server.js), WAN the network's proxy (see lib/wan.js). All rounds are
// run, whatever fails: one after the other, and those that mostly wait beside them.

import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
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
  // A partition of a minute is a minute in which this round needs no processor.
  { client: "repo-2.5-automerge-3.5", stories: ["regions-trace"], beside: true },
  { client: "repo-2.5-automerge-3.2", stories: ["raw-protocol", ...STORIES, "large", ...REGIONS] },
  { client: "repo-2.5-automerge-3.5", stories: [...STORIES, "traces"] },
  { client: "repo-2.0", stories: STORIES },
  { client: "repo-2.6-alpha", stories: [...STORIES, "mixed-versions"], node: NODE_22 },
]

const known = readdirSync(here("stories")).map(name => name.replace(".test.js", ""))
for (const { stories } of rounds) {
  const unknown = stories.filter(story => !known.includes(story))
  if (unknown.length > 0) throw new Error(`no such story: ${unknown}`)
}

/** Runs one round; resolves to why it failed, if it did. What it says is shown at its end if it is beside others. */
async function run({ client, stories, node = process.execPath, beside = false }) {
  const version = spawnSync(node, ["--version"], { encoding: "utf8" }).stdout.trim()
  const started = performance.now()
  const said = [`\n== ${client} on Node ${version}${beside ? ", beside the others" : ""}\n`]
  const say = text => (beside ? said.push(text) : process.stdout.write(text))
  if (!beside) process.stdout.write(said[0])
  const child = spawn(
    node,
    // One file at a time: two servers and their clients at once would only wait for each other.
    ["--test", "--test-force-exit", "--test-concurrency=1", "--test-reporter=spec"].concat(
      stories.map(story => here(`stories/${story}.test.js`))
    ),
    { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, CLIENT: client } }
  )
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", say)
  const [status, signal] = await once(child, "close")
  say(`== ${client}: ${((performance.now() - started) / 1000).toFixed(0)} s\n`)
  if (beside) process.stdout.write(said.join(""))
  return status === 0 ? undefined : `${client} (${signal ?? `exit code ${status}`})`
}

const chosen = rounds
  .map(({ stories, ...round }) => ({
    ...round,
    stories: stories.filter(
      story => wanted.length === 0 || wanted.some(part => round.client.includes(part) || story.includes(part))
    ),
  }))
  .filter(({ stories }) => stories.length > 0)
const beside = chosen.filter(round => round.beside).map(run)
const results = []
for (const round of chosen.filter(round => !round.beside)) results.push(await run(round))
const failed = [...results, ...(await Promise.all(beside))].filter(Boolean)
for (const path of chosen.some(({ stories }) => stories.some(story => story.includes("trace"))) ? missing() : []) {
  console.log(`NOT REPLAYED: ${path} is not there (TRACES names another folder); a small generated trace took its place`)
}
if (failed.length > 0) {
  console.error(`failed: ${failed.join(", ")}`)
  process.exit(1)
}
