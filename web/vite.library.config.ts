/** Builds the npm package in npm/: one module for browsers and for Node, and the WebAssembly beside it. */
import { defineConfig } from "vite";
import { licences, packed } from "./vite.config";

export default defineConfig({
  base: "./",
  publicDir: false,
  plugins: [packed("npm/dist"), licences("npm")],
  build: {
    outDir: "npm/dist",
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
    rollupOptions: {
      input: { library: "src/library.ts" },
      external: [/^node:/],
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "[name].js", assetFileNames: "[name][extname]" },
    },
  },
});
