// HTTP: the built page, and the control of the world behind it.
//
// | request | does |
// |---|---|
// | `GET /api/events` | server-sent events: `world`, `heads`, `sample` |
// | `GET /api/recordings` | `{name, pieces}`, what each person types (`trace.mjs`); 404 when the demo was started without |
// | `PUT /api/links/{name}` | `{"latency_ms": 0..1000, "cut": true|false}`, each may be left out |
// | `POST /api/regions/{name}/kill`, `.../start` | ends a region's process with SIGKILL, starts it again |
// | `POST /api/document` | everybody gets a new document |
//
// There is no password. Requests that alter something have to be `application/json`, which pages of
// other sites may not send.

import { createReadStream } from "node:fs"
import { stat } from "node:fs/promises"
import { createServer } from "node:http"
import { extname, join, normalize } from "node:path"
import { Refused } from "./world.mjs"

const BODY_BYTES_MAX = 4_096
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".wasm": "application/wasm",
  ".svg": "image/svg+xml",
}

/**
 * Serves the page and the control; resolves to the server when it listens.
 *
 * @param {{world: World, samples: Samples, folder: string, recordings?: object, host: string, port: number}}
 *   what is served: `folder` has the built page
 */
export async function serve({ host, port, ...site }) {
  const server = createServer((request, response) => {
    answer(site, request, response).catch(error => {
      const status = error instanceof Refused ? error.status : 500
      if (status === 500) console.error(error)
      if (response.headersSent) response.destroy()
      else send(response, status, { error: error.message })
    })
  })
  await new Promise((resolve, reject) => {
    server.once("error", reject)
    server.listen(port, host, resolve)
  })
  return server
}

async function answer(site, request, response) {
  const { pathname } = new URL(request.url, "http://demo")
  const [, first, kind, name, act] = pathname.split("/").map(decodeURIComponent)
  if (first !== "api") return file(site.folder, request, response, pathname)
  const asked = `${request.method} ${[kind, name && "*", act].filter(Boolean).join("/")}`
  if (asked === "GET events") return events(site, request, response)
  if (asked === "GET recordings" && site.recordings) return send(response, 200, site.recordings)
  if (request.method === "GET") throw new Refused(404, "there is no such thing")
  if (request.headers["content-type"] !== "application/json") {
    throw new Refused(415, "this has to be application/json")
  }
  const body = await json(request)
  const { world } = site
  switch (asked) {
    case "PUT links/*":
      await world.setLink(name, body)
      break
    case "POST regions/*/kill":
      await world.kill(name)
      break
    case "POST regions/*/start":
      await world.startRegion(name)
      break
    case "POST document":
      await world.startOver()
      break
    default:
      throw new Refused(404, "there is no such thing")
  }
  send(response, 200, world.describe())
}

/** Everything that happens, from now on, beginning with how it is. */
function events({ world, samples }, request, response) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
  const tell = (name, data) => response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)
  const onWorld = () => tell("world", world.describe())
  const onHeads = heads => tell("heads", heads)
  const onSample = sample => tell("sample", sample)
  onWorld()
  onHeads(Object.fromEntries(samples.heads))
  world.on("changed", onWorld)
  samples.on("heads", onHeads)
  samples.on("sample", onSample)
  request.once("close", () => {
    world.off("changed", onWorld)
    samples.off("heads", onHeads)
    samples.off("sample", onSample)
  })
}

async function file(folder, request, response, pathname) {
  if (request.method !== "GET" && request.method !== "HEAD") throw new Refused(405, "only GET")
  const path = normalize(decodeURIComponent(pathname === "/" ? "/index.html" : pathname))
  const found = join(folder, path)
  const known = found.startsWith(folder) && (await stat(found).catch(() => undefined))
  if (!known || !known.isFile()) throw new Refused(404, "there is no such page")
  // Names under assets/ have a hash in them; the page itself has not.
  const keep = path.startsWith("/assets/") ? "max-age=31536000, immutable" : "no-cache"
  response.writeHead(200, {
    "content-type": TYPES[extname(found)] ?? "application/octet-stream",
    "content-length": known.size,
    "cache-control": keep,
  })
  if (request.method === "HEAD") response.end()
  else createReadStream(found).pipe(response)
}

async function json(request) {
  let text = ""
  for await (const part of request.setEncoding("utf8")) {
    text += part
    if (text.length > BODY_BYTES_MAX) throw new Refused(413, "that is too long")
  }
  let body
  try {
    body = JSON.parse(text || "{}")
  } catch {
    throw new Refused(400, "that is not JSON")
  }
  if (typeof body !== "object" || body === null) throw new Refused(422, "that is not an object")
  return body
}

function send(response, status, body) {
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" })
  response.end(JSON.stringify(body))
}
