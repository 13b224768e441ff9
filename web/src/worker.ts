/** The worker: the model, the detector and all that costs time, off the page's own thread. */
import { detectorConfig, type DetectorConfig } from "./decoder";
import { KwsError, messageOf } from "./errors";
import { decoderOf, Live, Recording, type Setup } from "./listening";
import type { Batch, FileReport, LiveReport, Report, Request } from "./protocol";
import { openSound, Undecodable } from "./soundfile";
import { StreamModel } from "./stream";

const REPORT_MS = 150; // from one report on a file to the next
const MAX_WAITING_S = 2; // of sound that waits for this worker
const BLOCK_S = 0.5;

let setup: Setup | undefined;
let modelConfig: DetectorConfig | undefined; // the settings that the model carries
let threshold: number | null = null;
let live: Live | undefined;
let recording: { of: Recording; last: FileReport } | undefined;
let fileJob = 0; // a later one ends those before
let waitingS = 0;

const report = (message: Report): void => postMessage(message);

/** One after another: the model answers one call at a time, and events must keep their order. */
let queue: Promise<unknown> = Promise.resolve();
function enqueue<T>(job: () => Promise<T> | T): Promise<T> {
  const done = queue.then(job);
  queue = done.catch(() => undefined);
  return done;
}

/** Let other messages be answered, live sound first of all. */
const yieldToOthers = (): Promise<void> =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });

function configNow(config: DetectorConfig): DetectorConfig {
  return threshold === null ? config : { ...config, threshold, thresholds: {} };
}

async function useModel({ name, bytes, settings }: Extract<Request, { kind: "model" }>): Promise<void> {
  try {
    const model = await StreamModel.load(bytes, name);
    const { metadata } = model;
    const labels = metadata.labels.filter((label) => !settings.not_words.includes(label));
    const config = detectorConfig(settings.detector, metadata.detector, labels, name);
    await model.stream().process(new Float32Array(2 * metadata.hop)); // the first call is slow
    const before = setup;
    modelConfig = config;
    setup = { model, settings, config: configNow(config) };
    live?.use(setup);
    recording = undefined;
    fileJob++;
    await before?.model.release();
    report({ kind: "model", name, metadata, words: decoderOf(setup).words, config });
  } catch (error) {
    report({ kind: "failed", what: "model", name, message: messageOf(error) });
  }
}

function useThreshold(value: number | null): void {
  threshold = value;
  if (!setup || !modelConfig) return;
  setup = { ...setup, config: configNow(modelConfig) };
  live?.use(setup);
  if (recording) {
    recording.of.decideAnew(setup.config);
    if (recording.last.isDone) report({ ...recording.last, events: recording.of.events });
  }
}

function start(rate: number, port: MessagePort): void {
  if (!setup) return;
  const listening = new Live(setup, rate);
  live = listening;
  waitingS = 0;
  port.onmessage = ({ data }: MessageEvent<Batch>) => {
    if (live !== listening) return port.close();
    const seconds = data.samples.length / rate;
    if (waitingS + seconds > MAX_WAITING_S) {
      return report({ kind: "note", message: "Some sound was lost because this device is too busy. Close other programs or tabs." });
    }
    waitingS += seconds;
    void enqueue(async () => {
      waitingS -= seconds;
      if (live !== listening) return;
      const { report: found, note } = await listening.process(data);
      if (found) report(found);
      if (note) report({ kind: "note", message: note });
    });
  };
}

async function stop(withTail: boolean): Promise<void> {
  const last = withTail ? await live?.finish() : undefined;
  live = undefined;
  if (last) report(last);
  report({ kind: "stopped" });
}

async function detectInFile(id: number, name: string, open: () => ReturnType<typeof openSound>): Promise<void> {
  const job = ++fileJob;
  recording = undefined;
  try {
    const { rate, totalS, blocks } = await open();
    if (!setup) throw new KwsError(`${name}: no model is loaded, expected one to find words with; choose one above.`);
    const of = new Recording(setup, rate);
    const started = performance.now();
    const reportProgress = (isDone: boolean): void => {
      const seconds = of.seconds;
      const total = isDone ? seconds : Math.max(seconds, totalS ?? 0);
      const tookMs = performance.now() - started;
      const last: FileReport = { kind: "file", id, seconds, total, isDone, tookMs, overview: of.overview.snapshot(), events: of.events };
      recording = { of, last };
      report(last);
    };
    let reportedAt = started;
    for await (const whole of blocks) {
      for (let at = 0; at < whole.length; at += BLOCK_S * rate) {
        await enqueue(() => of.process(whole.subarray(at, at + BLOCK_S * rate)));
        if (job !== fileJob) return;
        if (performance.now() - reportedAt > REPORT_MS) {
          reportProgress(false);
          reportedAt = performance.now();
        }
        await yieldToOthers();
        if (job !== fileJob) return;
      }
    }
    if (of.samples === 0) throw new KwsError(`${name}: holds no samples, expected some sound; download or record it again.`);
    await enqueue(() => of.finish());
    if (job === fileJob) reportProgress(true);
  } catch (error) {
    if (job !== fileJob) return;
    if (error instanceof Undecodable) return report({ kind: "decode", id });
    const message = error instanceof KwsError ? error.message : `${name}: is damaged (${messageOf(error)}), expected a complete sound file; download or record it again.`;
    report({ kind: "failed", what: "file", name, message });
  }
}

/** What listening would show of a sound, unless someone begins to listen. */
async function preview(id: number, samples: Float32Array): Promise<void> {
  const before = setup;
  if (!before) return;
  const { rate, hop } = before.model.metadata;
  const listening = new Live(before, rate);
  const reports: LiveReport[] = [];
  for (let at = 0; at < samples.length; at += hop) {
    const batch = { samples: samples.subarray(at, at + hop), arrived: Date.now() };
    const found = await enqueue(async () => (setup?.model === before.model && !live ? (await listening.process(batch)).report : undefined));
    if (!found) break;
    reports.push(found);
    await yieldToOthers();
  }
  report({ kind: "preview", id, reports });
}

self.onmessage = ({ data }: MessageEvent<Request>) => {
  switch (data.kind) {
    case "model":
      return enqueue(() => useModel(data));
    case "threshold":
      return enqueue(() => useThreshold(data.value));
    case "start":
      return enqueue(() => start(data.rate, data.port));
    case "stop":
      return enqueue(() => stop(data.withTail));
    case "file":
      return detectInFile(data.id, data.name, () => openSound(data.file, data.name));
    case "samples": {
      const blocks = (async function* () {
        yield data.samples;
      })();
      const totalS = data.samples.length / data.rate;
      return detectInFile(data.id, data.name, async () => ({ rate: data.rate, totalS, blocks }));
    }
    case "preview":
      return preview(data.id, data.samples);
    case "cancel":
      fileJob++;
  }
};
