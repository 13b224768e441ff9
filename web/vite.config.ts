/**
 * Builds the page into the Python package. File names are plain, so that rebuilt sources change few files; the
 * server and other hosts of static files answer by date and checksum whether a browser's copy is still right.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const OUT = process.env.PAGE_FOLDER ?? "../src/tiny_kws/apps/web";
const SOURCES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "mit.txt", "public", "src", "../examples"];

/** SHA-256 over all that the build is made from: sorted paths and contents. `tests/test_demo.py` computes the same. */
function sourcesSum(): string {
  const files = (path: string): string[] => {
    try {
      return readdirSync(path).flatMap((name) => files(`${path}/${name}`));
    } catch {
      return [path];
    }
  };
  const sum = createHash("sha256");
  for (const path of SOURCES.flatMap(files).sort()) sum.update(path).update("\0").update(readFileSync(path)).update("\0");
  return sum.digest("hex");
}

/** Pack the WebAssembly: not every host of files packs what it sends. */
export const packed = (folder: string): Plugin => ({
  name: "packed",
  closeBundle() {
    for (const name of readdirSync(folder).filter((name) => name.endsWith(".wasm"))) {
      writeFileSync(join(folder, `${name}.gz`), gzipSync(readFileSync(join(folder, name)), { level: 9 }));
      unlinkSync(join(folder, name));
    }
  },
});

/** Write the licences of what is built in. */
export const licences = (folder: string): Plugin => ({
  name: "licences",
  closeBundle() {
    const licence = (name: string, note: string) => {
      const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
      return `${name} ${version} (${license}). ${note}\n`;
    };
    const texts = [
      licence("onnxruntime-web", "Copyright (c) Microsoft Corporation; https://github.com/microsoft/onnxruntime"),
      readFileSync("mit.txt", "utf8"),
      licence("mediabunny", "Unchanged; its source: https://www.npmjs.com/package/mediabunny"),
      readFileSync("node_modules/mediabunny/LICENSE", "utf8"),
    ];
    writeFileSync(join(folder, "licences.txt"), texts.join("\n"));
  },
});

/** List the files for the service worker, and say which sources the build was made from. */
const described: Plugin = {
  name: "described",
  closeBundle() {
    const files = (path = ""): string[] =>
      readdirSync(join(OUT, path), { withFileTypes: true }).flatMap((entry) =>
        entry.isDirectory() ? files(`${path}${entry.name}/`) : [path + entry.name],
      );
    const kept = files().filter((name) => !["index.html", "sw.js", "files.json", "build.json"].includes(name));
    writeFileSync(join(OUT, "files.json"), JSON.stringify(kept.sort(), null, 2) + "\n");
    const { dependencies, devDependencies } = JSON.parse(readFileSync("package.json", "utf8"));
    writeFileSync(join(OUT, "build.json"), JSON.stringify({ sources_sha256: sourcesSum(), ...dependencies, ...devDependencies }, null, 2) + "\n");
  },
};

export default defineConfig({
  base: "./",
  plugins: [packed(OUT), licences(OUT), described],
  build: {
    outDir: OUT,
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
    rollupOptions: {
      input: { index: "index.html", worker: "src/worker.ts", capture: "src/capture.ts", kws: "src/kws.ts", sw: "src/sw.ts" },
      external: [/^node:/], // what the library needs in Node, and no browser asks for
      preserveEntrySignatures: "strict",
      output: {
        entryFileNames: "[name].js",
        chunkFileNames: "[name].js",
        assetFileNames: ({ originalFileNames }) =>
          originalFileNames.some((name) => name.includes("examples/")) ? "examples/[name][extname]" : "[name][extname]",
      },
    },
  },
});
