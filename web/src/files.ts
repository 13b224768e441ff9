/** Files of the page's own folder, each fetched once, so that the network may go away. */
import { KwsError } from "./errors";

const fetched = new Map<string, Promise<ArrayBuffer>>();

/** The file at a path that may stand in an address. Throws KwsError if the file cannot be had; it is asked for again the next time. */
export function fetchFile(path: string): Promise<ArrayBuffer> {
  let bytes = fetched.get(path);
  if (!bytes) {
    bytes = fetchOnce(path);
    fetched.set(path, bytes);
    bytes.catch(() => fetched.delete(path));
  }
  return bytes;
}

async function fetchOnce(path: string): Promise<ArrayBuffer> {
  const answer = await fetch(new URL(path, document.baseURI)).catch(() => undefined);
  if (!answer?.ok) {
    const found = answer ? `status ${answer.status}` : "no answer";
    throw new KwsError(`${decodeURIComponent(path)}: could not be fetched (${found}). Is the server still running? Reload the page, or choose another.`);
  }
  return answer.arrayBuffer();
}
