// Installs the packages of this folder and of every client, as the lock files say.

import { spawnSync } from "node:child_process"
import { readdirSync, statSync } from "node:fs"
import { fileURLToPath } from "node:url"

const here = path => fileURLToPath(new URL(path, import.meta.url))
const folders = [here("."), ...readdirSync(here("clients")).map(name => here(`clients/${name}`))]

/** npm writes its own copy of the lock last: newer than ours, it is what ours says. */
function isInstalled(folder) {
  const time = path => statSync(`${folder}/${path}`, { throwIfNoEntry: false })?.mtimeMs
  return time("node_modules/.package-lock.json") >= time("package-lock.json")
}

for (const folder of folders) {
  if (isInstalled(folder)) continue
  console.log(`npm ci in ${folder}`)
  const { status } = spawnSync("npm", ["ci"], { cwd: folder, stdio: "inherit" })
  if (status !== 0) process.exit(1)
}
