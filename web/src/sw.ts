/**
 * The service worker: keeps the page's files in the browser, so that the page opens without a network.
 *
 * The network has precedence, so that what is shown is never old; what was kept answers where there is none.
 */
const CACHE = "tiny-kws";

/** What TypeScript's library for pages does not say of the scope of a service worker. */
interface Extendable extends Event {
  waitUntil(done: Promise<unknown>): void;
}
interface Fetching extends Extendable {
  request: Request;
  respondWith(answer: Promise<Response>): void;
}
interface ServiceWorkerScope {
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  registration: { scope: string };
  addEventListener(type: "install" | "activate", listener: (event: Extendable) => void): void;
  addEventListener(type: "fetch", listener: (event: Fetching) => void): void;
}
const worker = self as unknown as ServiceWorkerScope;
const { scope } = worker.registration;

worker.addEventListener("install", (event) => event.waitUntil(keepAll().then(() => worker.skipWaiting())));
worker.addEventListener("activate", (event) => event.waitUntil(worker.clients.claim()));
worker.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(scope)) event.respondWith(answer(event.request));
});

/** Fetch and keep every file of the page, models and recordings included. */
async function keepAll(): Promise<void> {
  const json = async (path: string) => (await fetch(new URL(path, scope))).json();
  const { models } = (await json("models/index.json")) as { models: { file: string }[] };
  const files = [...((await json("files.json")) as string[]), ...models.map(({ file }) => `models/${encodeURIComponent(file)}`)];
  const cache = await caches.open(CACHE);
  await cache.addAll(["./", "files.json", "models/index.json", ...files].map((path) => new URL(path, scope).href));
}

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  try {
    const fresh = await fetch(request);
    if (fresh.ok && !isSame(fresh, kept)) await cache.put(request, fresh.clone()).catch(() => undefined); // storage may be full
    return fresh;
  } catch {
    return kept ?? Response.error();
  }
}

function isSame(fresh: Response, kept: Response | undefined): boolean {
  const tag = fresh.headers.get("ETag") ?? fresh.headers.get("Last-Modified");
  return tag !== null && tag === (kept?.headers.get("ETag") ?? kept?.headers.get("Last-Modified"));
}
