export * from "@automerge/automerge-repo"
export * as Automerge from "@automerge/automerge/next"
export { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
