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
const SOURCES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "public", "src", "../examples"];

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

/** Pack the WebAssembly, write the licences of what is built in, and say which sources the build was made from. */
const finish: Plugin = {
  name: "finish",
  closeBundle() {
    for (const name of readdirSync(OUT).filter((name) => name.endsWith(".wasm"))) {
      writeFileSync(join(OUT, `${name}.gz`), gzipSync(readFileSync(join(OUT, name)), { level: 9 }));
      unlinkSync(join(OUT, name));
    }
    const { dependencies, devDependencies } = JSON.parse(readFileSync("package.json", "utf8"));
    const licence = (name: string, note: string) => {
      const folder = `node_modules/${name}`;
      const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
      return `${name} ${version} (${license}). ${note}\n`;
    };
    const texts = [
      licence("onnxruntime-web", "Copyright (c) Microsoft Corporation; https://github.com/microsoft/onnxruntime"),
      readFileSync("public/mit.txt", "utf8"),
      licence("mediabunny", "Unchanged; its source: https://www.npmjs.com/package/mediabunny"),
      readFileSync("node_modules/mediabunny/LICENSE", "utf8"),
    ];
    writeFileSync(join(OUT, "licences.txt"), texts.join("\n"));
    unlinkSync(join(OUT, "mit.txt"));
    writeFileSync(join(OUT, "build.json"), JSON.stringify({ sources_sha256: sourcesSum(), ...dependencies, ...devDependencies }, null, 2) + "\n");
  },
};

export default defineConfig({
  base: "./",
  plugins: [finish],
  build: {
    outDir: OUT,
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
    rollupOptions: {
      input: { index: "index.html", worker: "src/worker.ts", capture: "src/capture.ts", kws: "src/kws.ts" },
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
