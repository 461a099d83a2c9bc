export * from "@automerge/automerge-repo"
export * as Automerge from "@automerge/automerge"
export { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
