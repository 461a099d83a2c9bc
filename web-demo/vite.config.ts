import { defineConfig } from "vite"

export default defineConfig({
  base: "./",
  resolve: {
    // Everybody uses the one Automerge whose WebAssembly `main.ts` loads as a file of its own; the
    // editor's plugin would otherwise bring a second one along.
    alias: [{ find: /^@automerge\/automerge$/, replacement: "@automerge/automerge/slim" }],
  },
  build: { target: "es2023", chunkSizeWarningLimit: 1_000 },
})
