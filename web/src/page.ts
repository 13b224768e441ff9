/** The page: what is loaded, what its buttons do, and what it says when something goes wrong. */
import { byId, make } from "./dom";
import type { Metadata } from "./artefact";
import { thresholdOf, type DetectorConfig } from "./decoder";
import { KwsError, messageOf } from "./errors";
import { examples } from "./examples";
import { fetchFile } from "./files";
import { LiveView, log } from "./live";
import { chosenMicrophone, listMicrophones, offerMicrophones } from "./microphones";
import { ModelMenu } from "./models";
import { Preview, previewSound } from "./preview";
import type { LiveReport, ModelReport, Report, Request, Settings } from "./protocol";
import { RecordingView } from "./recording";
import { Sound } from "./sound";
import { offerThemes } from "./theme";

const MAX_WHOLE_BYTES = 200e6; // of a file that can only be decoded as a whole
const NO_SIMD =
  "This browser cannot run WebAssembly with SIMD, which the model needs: update it (Chrome 91, Firefox 89, Safari 16.4 or newer), or use `tiny-kws listen`.";

/** The smallest module that uses a SIMD instruction. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

const page = document.documentElement;
const listen = byId<HTMLButtonElement>("listen");
const slider = byId<HTMLInputElement>("threshold");
const live = new LiveView();
const preview = new Preview((report) => live.preview(report));
const recording = new RecordingView((label) => live.colour(label));
const models = new ModelMenu(
  (name, bytes) => send({ kind: "model", name, bytes, settings: settings! }, [bytes.buffer]),
  (error) => modelFailed(messageOf(error)),
);

let worker: Worker;
let preparing: Promise<Sound>;
let sound: Sound | undefined;
let settings: Settings | undefined;
let config: DetectorConfig | undefined; // the model's own
let rate = 16000;
let file: { id: number; of: File } | undefined;
let playing: HTMLElement | undefined;
let previewId = 0; // of the one that is waited for

const send = (message: Request, transfer: Transferable[] = []): void => worker.postMessage(message, transfer);

/** Say what happened and what to do. */
function showNotice(message: string): void {
  byId("notice").hidden = !message;
  byId("notice").querySelector("p")!.textContent = message;
}

function modelFailed(message: string): void {
  const { current } = models;
  showNotice(`${message} ${current ? `Going on with ${current}.` : "Choose another model."}`);
  models.goBack();
  if (!current) byId("listen-text").textContent = "No model";
  byId<HTMLButtonElement>("open-model").disabled = !settings;
  page.dataset.state = current ? "ready" : "failed";
}

function modelLoaded({ name, metadata, words, config: own }: ModelReport): void {
  const isFirst = !models.current;
  const listens = Object.keys(metadata.detector).length > 0;
  models.loaded(listens);
  byId("model-note").textContent = models.note(listens);
  byId("model-note").classList.toggle("careful", !listens);
  config = own;
  rate = metadata.rate;
  live.setLabels(metadata.labels, words);
  markExamples(words);
  describe(metadata);
  ownThreshold();
  for (const id of ["listen", "model", "open-model", "threshold", "file"]) byId<HTMLButtonElement>(id).disabled = false;
  for (const button of byId("examples").children) (button as HTMLButtonElement).disabled = false;
  showState();
  if (file) detectInFile(file.of);
  if (isFirst) {
    byId("ready").textContent = `${(performance.now() / 1000).toFixed(1)} s`;
    page.dataset.readyMs = performance.now().toFixed(0);
    // What else may be asked for is fetched now, while there is a network.
    models.fetchAll();
    for (const { url } of examples) fetchFile(url).catch(() => undefined);
    void keepForLater();
  }
  page.dataset.state = "ready";
  page.dataset.model = name;
  void showPreview(words);
}

/** Have the page kept in the browser, so that it opens without a network, too. */
async function keepForLater(): Promise<void> {
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
    byId("offline").textContent = "It is stored in this browser and opens without a network, too.";
    page.dataset.offline = "ready";
  } catch {
    // Over plain http, or where storage is refused, it works as long as it is open.
  }
}

/** Say what the model is: its size, the sound an answer rests on, where it is from. */
function describe({ name, parameters, window, hop, rate, data, licence }: Metadata): void {
  const network = byId("network");
  network.textContent = parameters < 10000 ? `${parameters} parameters` : `${Math.round(parameters / 1000)} k parameters`;
  const [windowS, hopMs] = [window / rate, (1000 * hop) / rate].map((value) => Number(value.toFixed(2)));
  byId("network-note").textContent = `${name}; it looks at the last ${windowS} s of sound every ${hopMs} ms`;
  const origin = [data?.source && `trained on ${data.source}`, licence && `licence: ${licence}`].filter(Boolean);
  byId("origin").textContent = origin.length > 0 ? `The model ${name}: ${origin.join("; ")}.` : "";
}

/** While nobody listens, show what it would look like. */
async function showPreview(words: readonly string[]): Promise<void> {
  preview.stop();
  const id = ++previewId;
  if (sound?.isOn || byId("idle").hidden) return;
  const samples = await previewSound(examples, words, rate).catch(() => undefined); // without it the page is as good
  if (samples && id === previewId) send({ kind: "preview", id, samples }, [samples.buffer]);
}

function startPreview(reports: LiveReport[]): void {
  live.restart(); // what another model's preview left is of another time
  preview.start(reports);
}

function endPreview(): void {
  preview.stop();
  previewId++;
  live.setIdle(false);
}

/** The slider is even in log odds, so that thresholds near 1 can be told apart; further right is less strict. */
const toThreshold = (position: number): number => 1 / (1 + 10 ** position);
const toPosition = (threshold: number): number => -Math.log10(threshold / (1 - Math.min(threshold, 1 - 1e-9)));

function showThreshold(value: number, isOwn: boolean): void {
  const thresholds = Object.values(config?.thresholds ?? {});
  const several = isOwn && thresholds.length > 0;
  const text = several ? "set for each word" : `threshold ${value.toFixed(value > 0.99 ? 4 : 3)}`;
  byId("threshold-value").textContent = text;
  slider.setAttribute("aria-valuetext", isOwn ? `${text}, the model's own` : text);
  slider.dataset.value = String(value);
  byId<HTMLButtonElement>("threshold-own").disabled = isOwn;
  live.setThresholds((label) => (isOwn && config ? thresholdOf(config, label) : value));
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
  const state = isMicrophone ? "microphone" : isOn ? "recording" : "off";
  if (state !== (page.dataset.listening ?? "off")) log({ microphone: "Listening.", recording: "Playing a recording.", off: "Stopped." }[state]);
  page.dataset.listening = state;
}

function stop(withTail = false): void {
  sound?.stop(withTail);
  playing = undefined;
  showState();
}

/** Begin to listen or to play; a failure is told, and leaves the page as it was. */
async function begin(what: (to: Sound) => Promise<void>, button?: HTMLElement): Promise<void> {
  stop();
  showNotice("");
  endPreview();
  live.restart();
  try {
    sound = await preparing.catch((error: unknown) => {
      throw new KwsError(`The audio thread could not be started (${messageOf(error)}); reload the page.`);
    });
    playing = button;
    await what(sound);
    tabs.postMessage("listening");
  } catch (error) {
    playing = undefined;
    showNotice(messageOf(error));
  }
  showState();
}

async function beginWithMicrophone(): Promise<void> {
  await begin((to) => to.microphone(chosenMicrophone()));
  await listMicrophones(); // now they have names
}

/** One tab listens at a time: two would share microphone and processor. */
const tabs = new BroadcastChannel("tiny-kws");
tabs.onmessage = () => {
  if (!sound?.isOn) return;
  stop();
  showNotice("Another tab started to listen, so this one stopped. Press Listen to go on here.");
};

function detectInFile(of: File): void {
  file = { id: (file?.id ?? 0) + 1, of };
  recording.begin(of);
  send({ kind: "file", id: file.id, name: of.name, file: of });
}

/** A model of one's own, or a recording to find words in. */
function takeFile(of: File): void {
  showNotice("");
  if (/\.onnx$/i.test(of.name)) {
    if (settings) void models.open(of);
  } else if (models.current) {
    detectInFile(of);
  } else {
    showNotice(`${of.name}: no model is loaded, expected one to find words with; choose one above.`);
  }
}

/** What the worker cannot decode as a stream, the browser may still decode as a whole. */
async function decodeWhole({ id, of }: { id: number; of: File }): Promise<void> {
  try {
    if (of.size > MAX_WHOLE_BYTES) {
      throw new KwsError(`${of.name}: has ${Math.round(of.size / 1e6)} MB, expected at most ${MAX_WHOLE_BYTES / 1e6} MB in a format that this browser can only decode as a whole; convert it to WAV, or use \`tiny-kws detect\`.`);
    }
    const bytes = await of.arrayBuffer();
    const sounds = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes).catch(() => {
      throw new KwsError(`${of.name}: found no sound in it that this browser can read, expected a WAV, MP3, FLAC, OGG or M4A file; convert it, or choose another.`);
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
  recording.end("Could not be read to its end.");
  showNotice(message);
}

function onReport(report: Report): void {
  switch (report.kind) {
    case "model":
      return modelLoaded(report);
    case "failed":
      if (report.what === "file") return fileFailed(report.message);
      models.refused();
      return modelFailed(report.message);
    case "live":
      return live.show(report);
    case "note":
      return showNotice(report.message);
    case "stopped":
      return live.settle();
    case "decode":
      return file?.id === report.id ? void decodeWhole(file) : undefined;
    case "preview":
      return report.id === previewId ? startPreview(report.reports) : undefined;
    case "file":
      return file?.id === report.id ? recording.update(report) : undefined;
  }
}

function listenToPage(): void {
  listen.onclick = () => (page.dataset.listening === "microphone" ? stop() : void beginWithMicrophone());
  byId("clear").onclick = () => {
    live.clear();
    listen.focus(); // what had the focus is disabled now
  };
  offerMicrophones(() => page.dataset.listening === "microphone" && void beginWithMicrophone());
  slider.oninput = () => {
    const value = toThreshold(Number(slider.value));
    send({ kind: "threshold", value });
    showThreshold(value, false);
  };
  byId("threshold-own").onclick = ownThreshold;
  byId("notice").querySelector("button")!.onclick = () => showNotice("");
  byId("cancel").onclick = () => {
    send({ kind: "cancel" });
    file = undefined;
    recording.end("Stopped.");
  };
  for (const input of ["file", "model-file"].map((id) => byId<HTMLInputElement>(id))) {
    input.onchange = () => {
      const of = input.files?.[0];
      if (of) takeFile(of);
      input.value = "";
    };
  }
  byId("open-model").onclick = () => byId("model-file").click();
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
    if (of) takeFile(of);
  };
}

function showExamples(): void {
  for (const { url, title } of examples) {
    const button = make("button", { type: "button", "aria-pressed": "false", disabled: "" }, title);
    button.dataset.example = url.split("/").pop();
    button.onclick = () => {
      if (playing === button) return stop();
      void begin(async (to) => to.play(await fetchFile(url), () => stop(true)), button);
    };
    byId("examples").append(button);
  }
}

/** Those in which one of the model's words is said stand out. */
function markExamples(words: readonly string[]): void {
  const marked = examples.map(({ word }) => words.includes(word));
  marked.forEach((isMarked, i) => {
    const { style } = byId("examples").children[i] as HTMLElement;
    if (isMarked) style.setProperty("--word", "var(--accent)");
    else style.removeProperty("--word");
  });
  byId("examples-note").textContent = marked.includes(true)
    ? "Computer voices, played as if the microphone had heard them. The recordings in grey contain none of the words."
    : "Computer voices, played as if the microphone had heard them. None of them contains a word of this model.";
}

function showLinks(links: Record<string, string>): void {
  const items = Object.entries(links).map(([name, href]) => make("a", { href, target: "_blank", rel: "noopener" }, name));
  byId("links").replaceChildren(...items);
  byId("links").hidden = items.length === 0;
}

async function main(): Promise<void> {
  page.dataset.state = "loading";
  offerThemes();
  showExamples();
  if (!WebAssembly.validate(SIMD)) {
    showNotice(NO_SIMD);
    byId("listen-text").textContent = "Not supported";
    page.dataset.state = "failed";
    return;
  }
  worker = new Worker(new URL("worker.js", document.baseURI), { type: "module" });
  worker.onmessage = ({ data }: MessageEvent<Report>) => onReport(data);
  worker.onerror = () => modelFailed("The worker that runs the model could not be started; reload the page.");
  listenToPage();
  try {
    settings = JSON.parse(new TextDecoder().decode(await fetchFile("models/index.json"))) as Settings;
    models.offer(settings);
    showLinks(settings.links);
    await models.choose(settings.default);
    // Only now: while this takes its time, the worker is at work.
    preparing = Sound.prepare(send, (message, isOver) => {
      if (isOver) stop();
      showNotice(message);
    });
    preparing.catch(() => undefined); // it is told when it is needed
  } catch (error) {
    modelFailed(messageOf(error));
  }
}

void main();
