/** The live panel: picture of the sound, probabilities, words as they come, and what it all costs. */
import { heatMap, wordColour, cssColour } from "./colours";
import { byId, clock, make, shortened, sized } from "./dom";
import type { Detection } from "./decoder";
import { BANDS, COLUMN_S } from "./logmel";
import type { LiveReport } from "./protocol";
import { isDark, onTheme } from "./theme";

const SPAN_S = 10;
const COLUMNS = SPAN_S / COLUMN_S;
const FRESH_MS = 1500; // a word stands so long
const STATS_MS = 1000;
const BUDGET = 0.03; // of the page's own thread that pictures may take; a slow one gets fewer of them
const SLOWEST_MS = 200;
const PEAK_S = 1; // how long a bar's mark stands at its highest
const MAX_SAID = 12; // words that are shown before listening begins
const MAX_LOG = 50; // lines for screen readers
const REDUCED_MOTION_MS = 500; // from one picture to the next with reduced motion
const MAX_HEARD = 200;
const SHORT_LABEL = 10; // letters; two such bars lie side by side on a phone
const MAX_WORD = 0.45; // of the picture's width
const FLOOR_DB = -60;

interface Bar {
  fill: HTMLElement;
  tick: HTMLElement;
  peak: HTMLElement;
  number: HTMLOutputElement;
  item: HTMLElement;
}

export class LiveView {
  private readonly canvas = byId<HTMLCanvasElement>("scene");
  private readonly picture = new OffscreenCanvas(COLUMNS, BANDS);
  private readonly columns = new Uint8Array(COLUMNS * BANDS); // in a ring, newest before `written`
  private readonly idle = byId("idle");
  private readonly reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  private heat = heatMap();
  private written = 0;
  private unpainted = COLUMNS;
  private labels: string[] = [];
  private words: string[] = [];
  private bars: Bar[] = [];
  private rows: { seconds: number; values: Float32Array }[] = [];
  private events: Detection[] = [];
  private seconds = 0;
  private level = FLOOR_DB;
  private costs: { busyMs: number; soundMs: number; delayMs: number }[] = [];
  private drawnMs: number[] = []; // what each picture since the last figures took
  private pictureMs = 0; // that one takes, on average
  private readonly last = { picture: 0, stats: 0 };
  private isDrawing = false;
  private readonly painted = new MessageChannel();
  private fading: number | undefined;

  constructor() {
    const redraw = () => {
      this.heat = heatMap();
      this.unpainted = COLUMNS;
      this.colourBars();
      this.draw();
    };
    onTheme(redraw);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** The model's labels, and those of them that can be events. */
  setLabels(labels: string[], words: string[]): void {
    if (JSON.stringify(labels) !== JSON.stringify(this.labels)) this.restart();
    [this.labels, this.words] = [labels, words];
    this.bars = labels.map((label) => {
      const fill = make("i", { class: "fill" });
      const tick = make("i", { class: "tick" });
      const peak = make("i", { class: "peak" });
      const number = make("output", { "aria-live": "off" }, "0.00") as HTMLOutputElement;
      const track = make("span", { class: "track" }, fill, peak, tick);
      const item = make("li", {}, make("span", {}, make("bdi", {}, label)), track, number);
      tick.hidden = !words.includes(label);
      return { fill, tick, peak, number, item };
    });
    const bars = byId("bars");
    bars.replaceChildren(...this.bars.map(({ item }) => item));
    bars.classList.toggle("long", labels.some((label) => label.length > SHORT_LABEL));
    bars.scrollTop = 0;
    if (bars.scrollHeight > bars.clientHeight) bars.tabIndex = 0; // the keyboard can scroll it, too
    else bars.removeAttribute("tabindex");
    const more = words.length - MAX_SAID;
    const said = words.slice(0, MAX_SAID).map((word) => make("li", { "--word": this.colour(word) }, make("bdi", {}, word)));
    if (more > 0) said.push(make("li", { class: "dim" }, `and ${more} more`));
    byId("say").replaceChildren(...said);
    byId("say").style.setProperty("--letters", String(words.slice(0, MAX_SAID).join("  ").length));
    this.colourBars();
  }

  /** Where each label's threshold stands. */
  setThresholds(of: (label: string) => number): void {
    this.bars.forEach(({ tick }, i) => (tick.style.left = `calc(${100 * of(this.labels[i])}% - 2px)`));
  }

  /** The colour of a word. */
  colour(label: string): string {
    const index = this.words.indexOf(label);
    return index < 0 ? cssColour("--dim") : wordColour(index, this.words.length);
  }

  /** The picture as before the first sound; the words heard stay in their list. */
  restart(): void {
    [this.rows, this.events, this.costs, this.seconds, this.level] = [[], [], [], 0, FLOOR_DB];
    this.columns.fill(0);
    [this.written, this.unpainted] = [0, COLUMNS];
    byId("word").classList.remove("fresh");
    this.drawSoon();
  }

  /** Forget the words heard. */
  clear(): void {
    byId("heard").replaceChildren();
    byId<HTMLButtonElement>("clear").disabled = true;
    byId("word").classList.remove("fresh");
  }

  /** Show which words can be said, or the picture alone. */
  setIdle(isIdle: boolean): void {
    if (this.idle.hidden === isIdle) this.idle.hidden = !isIdle; // to write it again would cost a frame
  }

  /** Take in what came of the latest sound. */
  show(report: LiveReport): void {
    this.setIdle(false);
    this.preview(report);
    this.level = Math.max(report.level, this.level - 3);
    for (const event of report.events) this.addWord(event);
    this.costs.push(report);
  }

  /** Draw what came of a sound, and report no words. */
  preview(report: LiveReport): void {
    this.seconds = report.seconds;
    this.addColumns(report.columns);
    this.rows.push({ seconds: report.seconds, values: report.probabilities });
    while (this.rows.length && this.rows[0].seconds < this.seconds - SPAN_S) this.rows.shift();
    this.events = this.events.filter((event) => event.end_s > this.seconds - SPAN_S - 2);
    this.events.push(...report.events);
    this.drawSoon();
  }

  /** No more sound comes: bars and level go down. */
  settle(): void {
    this.level = FLOOR_DB;
    if (this.rows.length > 0) this.rows.push({ seconds: this.seconds, values: new Float32Array(this.labels.length) });
    this.costs = [];
    this.last.picture = 0;
    byId("cpu").textContent = byId("delay").textContent = "–";
    this.drawSoon();
  }

  private addColumns(columns: Uint8Array): void {
    for (let at = 0; at < columns.length; at += BANDS) {
      this.columns.set(columns.subarray(at, at + BANDS), this.written * BANDS);
      this.written = (this.written + 1) % COLUMNS;
      this.unpainted++;
    }
  }

  private addWord(event: Detection): void {
    this.reveal(event.label);
    log(`${event.label}, at ${clock(event.end_s, 1)}`);
    byId<HTMLButtonElement>("clear").disabled = false;
    const word = byId("word");
    word.textContent = event.label;
    word.style.setProperty("--word", this.colour(event.label));
    word.style.setProperty("--letters", String([...event.label].length));
    word.classList.remove("fresh");
    void word.offsetWidth; // so that the animation starts anew
    word.classList.add("fresh");
    clearTimeout(this.fading);
    this.fading = setTimeout(() => word.classList.remove("fresh"), FRESH_MS);
    const small = make("small", {}, `${clock(event.end_s, 1)} · ${event.confidence.toFixed(2)}`);
    const chip = make("li", { class: "chip", "--word": this.colour(event.label) }, make("bdi", {}, event.label), small);
    Object.assign(chip.dataset, { label: event.label, end: event.end_s, confidence: event.confidence });
    const list = byId("heard");
    list.prepend(chip);
    list.scrollTop = 0;
    while (list.children.length > MAX_HEARD) list.lastElementChild?.remove();
  }

  /** Scroll a label's bar into sight, if it is not. */
  private reveal(label: string): void {
    const list = byId("bars");
    const { offsetTop, offsetHeight } = this.bars[this.labels.indexOf(label)].item;
    const isInSight = offsetTop >= list.scrollTop && offsetTop + offsetHeight <= list.scrollTop + list.clientHeight;
    if (!isInSight) list.scrollTop = offsetTop - list.clientHeight / 2;
  }

  private colourBars(): void {
    this.bars.forEach(({ item }, i) => item.style.setProperty("--word", this.colour(this.labels[i])));
    for (const chip of byId("heard").children as HTMLCollectionOf<HTMLElement>) {
      chip.style.setProperty("--word", this.colour(chip.dataset.label ?? ""));
    }
  }

  /** Bring the picture up to date with the columns. */
  private paint(): void {
    const n = Math.min(COLUMNS, this.unpainted);
    const from = (this.written - n + COLUMNS) % COLUMNS;
    const first = Math.min(n, COLUMNS - from);
    this.paintColumns(from, first);
    this.paintColumns(0, n - first);
    this.unpainted = 0;
  }

  private paintColumns(from: number, n: number): void {
    if (n === 0) return;
    const image = new ImageData(n, BANDS);
    for (let x = 0; x < n; x++) {
      for (let band = 0; band < BANDS; band++) {
        const at = 4 * ((BANDS - 1 - band) * n + x);
        const colour = 3 * this.columns[(from + x) * BANDS + band];
        for (let c = 0; c < 3; c++) image.data[at + c] = this.heat[colour + c];
        image.data[at + 3] = 255;
      }
    }
    this.picture.getContext("2d")!.putImageData(image, from, 0);
  }

  /** Draw when it is time to. Frames in which nothing is drawn cost, too, so none is asked for. */
  private drawSoon(): void {
    if (this.isDrawing) return;
    this.isDrawing = true;
    const pause = this.reducedMotion.matches ? REDUCED_MOTION_MS : Math.min(SLOWEST_MS, this.pictureMs / BUDGET);
    setTimeout(() => requestAnimationFrame((now) => this.drawNow(now)), this.last.picture + pause - performance.now());
  }

  private drawNow(now: number): void {
    this.isDrawing = false;
    this.last.picture = now;
    const started = performance.now();
    this.draw();
    this.drawBars();
    // What comes by a channel comes after the browser has painted: that is part of the cost.
    this.painted.port2.onmessage = () => {
      const took = performance.now() - started;
      this.drawnMs.push(took);
      this.pictureMs += 0.1 * (took - this.pictureMs);
    };
    this.painted.port1.postMessage(null);
    this.tellCosts(now);
  }

  private draw(): void {
    const { to, width, height } = sized(this.canvas);
    const [soundTo, wordsFrom] = [height * 0.64, height - 30];
    this.paint();
    const older = COLUMNS - this.written;
    const x = (width * older) / COLUMNS;
    if (older) to.drawImage(this.picture, this.written, 0, older, BANDS, 0, 0, x, soundTo);
    if (this.written) to.drawImage(this.picture, 0, 0, this.written, BANDS, x, 0, width - x, soundTo);
    this.drawGrid(to, width, soundTo, wordsFrom);
    this.drawProbabilities(to, width, soundTo + 20, wordsFrom - 3);
    this.drawWords(to, width, wordsFrom);
  }

  private drawGrid(to: CanvasRenderingContext2D, width: number, soundTo: number, wordsFrom: number): void {
    to.strokeStyle = cssColour("--line");
    to.lineWidth = 1;
    to.beginPath();
    for (const y of [soundTo + 0.5, wordsFrom - 2.5]) {
      to.moveTo(0, y);
      to.lineTo(width, y);
    }
    to.stroke();
    to.fillStyle = cssColour("--dim");
    to.font = "11px system-ui, sans-serif";
    to.textAlign = "left";
    for (let second = Math.ceil(this.seconds - SPAN_S); second <= this.seconds; second++) {
      if (second < 0 || second % 2) continue;
      const at = this.x(second, width);
      if (at < width - 30) to.fillText(clock(second), at + 3, soundTo + 14);
      to.fillRect(at, soundTo, 1, 5);
    }
  }

  private drawProbabilities(to: CanvasRenderingContext2D, width: number, top: number, bottom: number): void {
    if (this.rows.length < 2) return;
    for (const [column, label] of this.labels.entries()) {
      if (!this.words.includes(label) || !this.rows.some(({ values }) => values[column] > 0.02)) continue;
      const colour = this.colour(label);
      to.beginPath();
      to.moveTo(this.x(this.rows[0].seconds, width), bottom);
      for (const { seconds, values } of this.rows) to.lineTo(this.x(seconds, width), bottom - values[column] * (bottom - top));
      to.lineTo(this.x(this.rows[this.rows.length - 1].seconds, width), bottom);
      to.globalAlpha = isDark() ? 0.28 : 0.2;
      to.fillStyle = colour;
      to.fill();
      to.globalAlpha = 1;
      to.strokeStyle = colour;
      to.lineWidth = 1.5;
      to.beginPath();
      for (const [i, { seconds, values }] of this.rows.entries()) {
        const isLow = values[column] < 0.01 && (this.rows[i - 1]?.values[column] ?? 0) < 0.01;
        const [x, y] = [this.x(seconds, width), bottom - values[column] * (bottom - top)];
        if (isLow || i === 0) to.moveTo(x, y);
        else to.lineTo(x, y);
      }
      to.stroke();
    }
  }

  private drawWords(to: CanvasRenderingContext2D, width: number, top: number): void {
    to.font = "600 13px system-ui, sans-serif";
    to.textAlign = "center";
    let free = Infinity; // up to where an older word finds room
    for (const { label, end_s } of [...this.events].reverse()) {
      const right = this.x(end_s, width);
      const text = shortened(to, label, MAX_WORD * width);
      const half = to.measureText(text).width / 2 + 9;
      const middle = Math.min(right, width - half - 4);
      to.fillStyle = this.colour(label);
      to.fillRect(right - 0.75, top - 6, 1.5, 9);
      if (middle + half > free || middle < half) continue;
      free = middle - half - 2;
      to.beginPath();
      to.roundRect(middle - half, top + 2, 2 * half, 22, 11);
      to.fill();
      to.fillStyle = cssColour("--stage");
      to.fillText(text, middle, top + 17.5);
    }
  }

  private x(second: number, width: number): number {
    return width * (1 - (this.seconds - second) / SPAN_S);
  }

  private drawBars(): void {
    const part = Math.max(0, Math.min(1, 1 - this.level / FLOOR_DB));
    const meter = byId("level");
    (meter.firstElementChild as HTMLElement).style.clipPath = `inset(0 ${100 * (1 - part)}% 0 0)`;
    meter.setAttribute("aria-valuenow", Math.max(FLOOR_DB, this.level).toFixed(0));
    const recent = this.rows.filter(({ seconds }) => seconds > this.seconds - PEAK_S);
    const values = this.rows.at(-1)?.values;
    this.bars.forEach(({ fill, peak, number }, i) => {
      // Of many labels few change, and what is not written costs nothing.
      const value = (values?.[i] ?? 0).toFixed(2);
      if (number.textContent !== value) {
        number.textContent = value;
        fill.style.transform = `scaleX(${value})`;
      }
      const highest = `${Math.round(100 * recent.reduce((most, row) => Math.max(most, row.values[i]), 0))}%`;
      if (peak.style.left !== highest) peak.style.left = highest;
    });
  }

  private tellCosts(now: number): void {
    const passed = now - this.last.stats;
    if (passed < STATS_MS || this.costs.length === 0) return;
    // Medians, since a clock also counts the time in which the processor was with others.
    const detected = median(this.costs.map(({ busyMs, soundMs }) => busyMs / soundMs));
    const drawn = (median(this.drawnMs) * this.drawnMs.length) / passed;
    const share = detected + Math.min(1, drawn);
    const delay = median(this.costs.map(({ delayMs }) => delayMs));
    const [cpu, late] = [byId("cpu"), byId("delay")];
    if (this.last.stats > 0) cpu.textContent = `${(100 * share).toFixed(1)} %`;
    late.textContent = `${delay.toFixed(0)} ms`;
    Object.assign(cpu.dataset, { detected, drawn }); // its two parts
    late.dataset.ms = String(delay);
    this.last.stats = now;
    [this.costs, this.drawnMs] = [[], []];
  }
}

/** Tell screen readers, in a line of its own. */
export function log(line: string): void {
  const lines = byId("log");
  lines.append(make("p", {}, line));
  while (lines.children.length > MAX_LOG) lines.firstElementChild?.remove();
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
