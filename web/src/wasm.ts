/** onnxruntime's WebAssembly: it comes packed, since not every host of files packs what it sends. */
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { KwsError } from "./errors";

/** The WebAssembly, unpacked. Throws KwsError if it cannot be had. */
export async function wasmBinary(): Promise<ArrayBuffer> {
  const bytes = await read(new URL(`${wasmUrl}.gz`, import.meta.url));
  const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b; // some hosts have the browser unpack it
  if (!isPacked) return bytes.buffer;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function read(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  if (url.protocol === "file:") return (await import("node:fs/promises")).readFile(url); // Node fetches no files
  const answer = await fetch(url).catch(() => undefined);
  if (!answer?.ok) throw new KwsError(`${url.pathname}: could not be fetched (${answer ? `status ${answer.status}` : "no answer"}); reload the page.`);
  return new Uint8Array(await answer.arrayBuffer());
}
