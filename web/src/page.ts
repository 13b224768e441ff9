/** The page: what is loaded, what its buttons do, and what it says when something goes wrong. */
import { byId, make } from "./dom";
import type { DetectorConfig } from "./decoder";
import { KwsError, messageOf } from "./errors";
import { examples } from "./examples";
import { LiveView } from "./live";
import type { Report, Request, Settings } from "./protocol";
import { RecordingView } from "./recording";
import { Sound } from "./sound";

const MAX_WHOLE_BYTES = 200e6; // of a file that can only be decoded as a whole
const NO_SIMD =
  "This browser cannot run WebAssembly with SIMD, which the model needs: update it (Chrome 91, Firefox 89, Safari 16.4 or newer), or use `tiny-kws listen`.";

/** The smallest module that uses a SIMD instruction. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

const page = document.documentElement;
const listen = byId<HTMLButtonElement>("listen");
const modelChoice = byId<HTMLSelectElement>("model");
const slider = byId<HTMLInputElement>("threshold");
const live = new LiveView();
const recording = new RecordingView((label) => live.colour(label));
const kept = new Map<string, Promise<ArrayBuffer>>(); // files, so that the network may go away

let worker: Worker;
let preparing: Promise<Sound>;
let sound: Sound | undefined;
let settings: Settings;
let config: DetectorConfig | undefined; // the model's own
let rate = 16000;
let file: { id: number; of: File } | undefined;
let chosen = ""; // the model that answers
let playing: HTMLElement | undefined;

const send = (message: Request, transfer: Transferable[] = []): void => worker.postMessage(message, transfer);

/** Say what happened and what to do. */
function tell(message: string): void {
  byId("notice").hidden = !message;
  byId("notice").querySelector("p")!.textContent = message;
}

/** A file of the page's own folder, fetched once. Throws KwsError if it cannot be had. */
function fetched(path: string): Promise<ArrayBuffer> {
  let bytes = kept.get(path);
  if (!bytes) {
    bytes = (async () => {
      const answer = await fetch(new URL(path, document.baseURI)).catch(() => undefined);
      if (!answer?.ok) {
        const found = answer ? `status ${answer.status}` : "no answer";
        throw new KwsError(`${path}: could not be fetched (${found}); is the server still running? Reload, or choose another.`);
      }
      return answer.arrayBuffer();
    })();
    kept.set(path, bytes);
    bytes.catch(() => kept.delete(path));
  }
  return bytes;
}

async function chooseModel(name: string): Promise<void> {
  const model = settings.models.find((candidate) => candidate.name === name);
  try {
    if (!model) throw new KwsError(`${name}: is not among the models here, expected one of ${settings.models.map((m) => m.name).join(", ")}.`);
    const bytes = new Uint8Array((await fetched(`models/${model.file}`)).slice(0));
    send({ kind: "model", name, bytes, settings }, [bytes.buffer]);
  } catch (error) {
    modelFailed(messageOf(error));
  }
}

function modelFailed(message: string): void {
  tell(`${message} ${chosen ? `Going on with ${chosen}.` : "Choose another model."}`);
  if (chosen) modelChoice.value = chosen;
  else byId("listen-text").textContent = "No model";
  modelChoice.disabled = false;
  page.dataset.state = chosen ? "ready" : "failed";
}

function modelLoaded(report: Extract<Report, { kind: "model" }>): void {
  const isFirst = !chosen;
  chosen = report.name;
  ({ config } = report);
  rate = report.metadata.rate;
  if (![...modelChoice.options].some(({ value }) => value === chosen)) modelChoice.append(make("option", { value: chosen }, chosen));
  modelChoice.value = chosen;
  live.setLabels(report.metadata.labels, report.words);
  colourExamples(report.words);
  byId("network").textContent = `${Math.round(report.metadata.parameters / 1000)} k parameters`;
  ownThreshold();
  for (const id of ["listen", "model", "threshold", "file"]) byId<HTMLButtonElement>(id).disabled = false;
  for (const button of byId("examples").children) (button as HTMLButtonElement).disabled = false;
  showState();
  if (file) hearFile(file.of);
  if (isFirst) {
    byId("ready").textContent = `${(performance.now() / 1000).toFixed(1)} s`;
    page.dataset.readyMs = performance.now().toFixed(0);
    // What else may be asked for is fetched now, while there is a network.
    for (const { file: path } of settings.models) fetched(`models/${path}`).catch(() => undefined);
    for (const { url } of examples) fetched(url).catch(() => undefined);
  }
  page.dataset.state = "ready";
  page.dataset.model = chosen;
}

/** The slider is even in log odds, so that thresholds near 1 can be told apart. */
const toThreshold = (position: number): number => 1 / (1 + 10 ** -position);
const toPosition = (threshold: number): number => Math.log10(threshold / (1 - Math.min(threshold, 1 - 1e-9)));

function showThreshold(value: number, isOwn: boolean): void {
  const thresholds = Object.values(config?.thresholds ?? {});
  const several = isOwn && thresholds.length > 0;
  const text = several ? "by word" : value.toFixed(value > 0.99 ? 4 : 3);
  byId("threshold-value").textContent = text;
  slider.setAttribute("aria-valuetext", isOwn ? `${text}, the model's own` : text);
  slider.dataset.value = String(value);
  byId<HTMLButtonElement>("threshold-own").disabled = isOwn;
  live.setThresholds((label) => (isOwn ? (config?.thresholds[label] ?? value) : value));
}

function ownThreshold(): void {
  send({ kind: "threshold", value: null });
  const value = config?.threshold ?? 0.5;
  slider.value = String(toPosition(value));
  showThreshold(value, true);
}

function showState(): void {
  const isOn = Boolean(sound?.isOn);
  const isMicrophone = isOn && !playing;
  listen.setAttribute("aria-pressed", String(isMicrophone));
  byId("listen-text").textContent = isMicrophone ? "Stop" : "Listen";
  for (const button of byId("examples").children) button.setAttribute("aria-pressed", String(isOn && button === playing));
  byId("device").textContent = isOn && sound?.context ? `${sound.context.sampleRate / 1000} → ${rate / 1000} kHz` : "–";
  page.dataset.listening = isMicrophone ? "microphone" : isOn ? "recording" : "off";
}

function stop(heardOut = false): void {
  sound?.stop(heardOut);
  playing = undefined;
  showState();
}

/** Begin to listen or to play; a failure is told, and leaves the page as it was. */
async function begin(what: (to: Sound) => Promise<void>, button?: HTMLElement): Promise<void> {
  stop();
  tell("");
  live.clear();
  try {
    sound = await preparing.catch((error: unknown) => {
      throw new KwsError(`The audio thread could not be started (${messageOf(error)}); reload the page.`);
    });
    playing = button;
    await what(sound);
    tabs.postMessage("listening");
  } catch (error) {
    playing = undefined;
    tell(messageOf(error));
  }
  showState();
}

/** One tab listens at a time: two would share microphone and processor. */
const tabs = new BroadcastChannel("tiny-kws");
tabs.onmessage = () => {
  if (!sound?.isOn) return;
  stop();
  tell("Another tab began to listen, so this one stopped. Press Listen to go on here.");
};

function hearFile(of: File): void {
  file = { id: (file?.id ?? 0) + 1, of };
  recording.begin(of);
  send({ kind: "file", id: file.id, name: of.name, file: of });
}

async function takeFile(of: File): Promise<void> {
  tell("");
  if (of.name.endsWith(".onnx")) {
    kept.set(`models/${of.name}`, of.arrayBuffer());
    if (!settings.models.some(({ name }) => name === of.name)) {
      settings.models.push({ name: of.name, file: of.name, bytes: of.size });
    }
    return chooseModel(of.name);
  }
  hearFile(of);
}

/** What the worker cannot decode as a stream, the browser may still decode as a whole. */
async function decodeWhole({ id, of }: { id: number; of: File }): Promise<void> {
  try {
    if (of.size > MAX_WHOLE_BYTES) {
      throw new KwsError(`${of.name}: is too long (${Math.round(of.size / 1e6)} MB) for a kind of file that this browser must decode as a whole; convert it to WAV, or use \`tiny-kws detect\`.`);
    }
    const bytes = await of.arrayBuffer();
    const sounds = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes).catch(() => {
      throw new KwsError(`${of.name}: is no sound that this browser can read, expected WAV, MP3, FLAC, OGG or M4A; convert it, or choose another file.`);
    });
    const samples = new Float32Array(sounds.length);
    for (let channel = 0; channel < sounds.numberOfChannels; channel++) {
      sounds.getChannelData(channel).forEach((value, i) => (samples[i] += value / sounds.numberOfChannels));
    }
    if (file?.id === id) send({ kind: "samples", id, name: of.name, samples, rate: sounds.sampleRate }, [samples.buffer]);
  } catch (error) {
    if (file?.id === id) fileFailed(messageOf(error));
  }
}

function fileFailed(message: string): void {
  file = undefined;
  recording.end("Not heard to its end.");
  tell(message);
}

function onReport(report: Report): void {
  switch (report.kind) {
    case "model":
      return modelLoaded(report);
    case "failed":
      return report.what === "model" ? modelFailed(report.message) : fileFailed(report.message);
    case "heard":
      return live.hear(report);
    case "note":
      return tell(report.message);
    case "stopped":
      return live.rest();
    case "decode":
      return file?.id === report.id ? void decodeWhole(file) : undefined;
    case "file":
      return file?.id === report.id ? recording.hear(report) : undefined;
  }
}

function listenToPage(): void {
  listen.onclick = () => (page.dataset.listening === "microphone" ? stop() : void begin((to) => to.microphone()));
  modelChoice.onchange = () => void chooseModel(modelChoice.value);
  slider.oninput = () => {
    const value = toThreshold(Number(slider.value));
    send({ kind: "threshold", value });
    showThreshold(value, false);
  };
  byId("threshold-own").onclick = ownThreshold;
  byId("notice").querySelector("button")!.onclick = () => tell("");
  byId("cancel").onclick = () => {
    send({ kind: "cancel" });
    file = undefined;
    recording.end("Stopped.");
  };
  const input = byId<HTMLInputElement>("file");
  input.onchange = () => {
    const of = input.files?.[0];
    if (of) void takeFile(of);
    input.value = "";
  };
  document.ondragover = (event) => {
    event.preventDefault();
    page.classList.add("dropping");
  };
  document.ondragleave = (event) => {
    if (!event.relatedTarget) page.classList.remove("dropping");
  };
  document.ondrop = (event) => {
    event.preventDefault();
    page.classList.remove("dropping");
    const of = event.dataTransfer?.files[0];
    if (of && chosen) void takeFile(of);
  };
}

function showExamples(): void {
  for (const { url, title } of examples) {
    const button = make("button", { type: "button", "aria-pressed": "false", disabled: "" }, title);
    button.dataset.example = url.split("/").pop();
    button.onclick = () => {
      if (playing === button) return stop();
      void begin(async (to) => to.play(await fetched(url), () => stop(true)), button);
    };
    byId("examples").append(button);
  }
}

/** Those in which one of the model's words is said stand out. */
function colourExamples(words: readonly string[]): void {
  examples.forEach(({ word }, i) => {
    const { style } = byId("examples").children[i] as HTMLElement;
    if (words.includes(word)) style.setProperty("--word", "var(--accent)");
    else style.removeProperty("--word");
  });
}

async function main(): Promise<void> {
  page.dataset.state = "loading";
  showExamples();
  if (!WebAssembly.validate(SIMD)) {
    tell(NO_SIMD);
    byId("listen-text").textContent = "Not here";
    page.dataset.state = "failed";
    return;
  }
  worker = new Worker(new URL("worker.js", document.baseURI), { type: "module" });
  worker.onmessage = ({ data }: MessageEvent<Report>) => onReport(data);
  worker.onerror = () => modelFailed("The worker that runs the model could not be started; reload the page.");
  listenToPage();
  try {
    settings = JSON.parse(new TextDecoder().decode(await fetched("models/index.json"))) as Settings;
    modelChoice.append(...settings.models.map(({ name }) => make("option", { value: name }, name)));
    modelChoice.value = settings.default;
    await chooseModel(settings.default);
    // Only now: while this takes its time, the worker is at work.
    preparing = Sound.prepare(send, (message, isOver) => {
      if (isOver) stop();
      tell(message);
    });
    preparing.catch(() => undefined); // it is told when it is needed
  } catch (error) {
    modelFailed(messageOf(error));
  }
}

void main();
