/** The panel of a dropped recording: its waveform, with the words heard marked on it. */
import { cssColour, onScheme } from "./colours";
import { eventJson, type Detection } from "./decoder";
import { byId, clock, make, shortened, sized } from "./dom";
import type { FileReport } from "./protocol";

const MAX_BUTTONS = 500;
const MAX_WORD = 0.45; // of the picture's width

export class RecordingView {
  private readonly canvas = byId<HTMLCanvasElement>("wave");
  private readonly player = byId<HTMLAudioElement>("player");
  private report: FileReport | undefined;
  private name = "";
  private listed = "";

  /** `colour` gives the colour of a word. */
  constructor(private readonly colour: (label: string) => string) {
    onScheme(() => {
      this.listed = "";
      this.show();
    });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.player.ontimeupdate = () => this.draw();
    this.player.onseeked = () => this.draw();
    this.player.onerror = () => (this.player.hidden = true); // a kind that is heard, but cannot be played
    this.canvas.onclick = ({ offsetX }) => {
      if (this.report) this.playFrom((offsetX / this.canvas.clientWidth) * this.report.total);
    };
    byId("save").onclick = () => this.saveLabels();
    byId("save-json").onclick = () => this.saveJson();
  }

  /** A new file, of which nothing is known yet. */
  begin(file: File): void {
    [this.name, this.report] = [file.name, undefined];
    URL.revokeObjectURL(this.player.src);
    this.player.hidden = false;
    this.player.src = URL.createObjectURL(file);
    byId("recording").hidden = false;
    byId("recording").dataset.state = "running";
    byId("recording-name").textContent = file.name;
    byId("recording-state").textContent = "Reading…";
    byId("found").replaceChildren();
    this.listed = "";
    this.setRunning(true);
    byId<HTMLProgressElement>("recording-progress").removeAttribute("value");
    this.draw();
  }

  /** What came of it so far, or what other thresholds make of it. */
  update(report: FileReport): void {
    this.report = report;
    this.show();
  }

  /** It goes no further; `why` says so. */
  end(why: string): void {
    byId("recording").dataset.state = "ended";
    byId("recording-state").textContent = why;
    this.setRunning(false);
  }

  private show(): void {
    if (!this.report) return;
    const { seconds, total, isDone, tookMs, events } = this.report;
    byId<HTMLProgressElement>("recording-progress").value = total > 0 ? seconds / total : 0;
    const words = events.length === 1 ? "1 word" : `${events.length || "no"} words`;
    const speed = `${Math.round((1000 * seconds) / Math.max(1, tookMs))} times as fast as it was spoken`;
    byId("recording-state").textContent = isDone
      ? `${words} in ${clock(total)}, heard ${speed}`
      : `${words} in ${clock(seconds)} of ${clock(total)}, ${speed}`;
    if (isDone) {
      byId("recording").dataset.state = "done";
      this.setRunning(false);
    }
    this.list(events);
    this.draw();
  }

  private setRunning(isRunning: boolean): void {
    byId("cancel").hidden = !isRunning;
    byId("recording-progress").hidden = !isRunning;
    byId("save").hidden = byId("save-json").hidden = isRunning || !this.report;
  }

  private list(events: Detection[]): void {
    const known = events.map(({ label, end_s }) => label + end_s).join();
    if (known === this.listed) return;
    this.listed = known;
    const items = events.slice(0, MAX_BUTTONS).map((event) => {
      const button = make(
        "button",
        { type: "button", class: "chip", "--word": this.colour(event.label), title: "Play it" },
        make("bdi", {}, event.label),
        make("small", {}, `${clock(event.end_s, 1)} · ${event.confidence.toFixed(2)}`),
      );
      button.onclick = () => this.playFrom(event.start_s);
      const item = make("li", {}, button);
      Object.assign(item.dataset, {
        label: event.label,
        start: event.start_s,
        end: event.end_s,
        confidence: event.confidence,
      });
      return item;
    });
    const rest = events.length - items.length;
    if (rest > 0) items.push(make("li", { class: "dim" }, `and ${rest} more, all of them in what is saved`));
    byId("found").replaceChildren(...items);
  }

  private playFrom(second: number): void {
    if (this.player.hidden) return;
    this.player.currentTime = second;
    void this.player.play().catch(() => undefined);
  }

  private draw(): void {
    const { to, width, height } = sized(this.canvas);
    if (!this.report || width === 0) return;
    const { overview, total, events } = this.report;
    const [top, bottom] = [30, height - 34];
    const middle = (top + bottom) / 2;
    const x = (second: number) => (width * second) / Math.max(total, 1e-3);
    const loudest = Math.max(0.05, ...overview.high, ...overview.low.map((v) => -v));
    const half = (bottom - top) / 2 / loudest;
    to.fillStyle = cssColour("--accent");
    to.globalAlpha = 0.85;
    // A pixel shows all the bins that lie in it.
    const bins = overview.high.length;
    for (let pixel = 0; pixel < Math.min(width, x(bins * overview.binS)); pixel++) {
      const from = Math.floor(((pixel / width) * total) / overview.binS);
      const until = Math.min(bins, Math.max(from + 1, Math.ceil((((pixel + 1) / width) * total) / overview.binS)));
      const high = Math.max(...overview.high.subarray(from, until), 0);
      const low = Math.min(...overview.low.subarray(from, until), 0);
      to.fillRect(pixel, middle - high * half - 0.5, 1, (high - low) * half + 1);
    }
    to.globalAlpha = 1;
    this.drawScore(to, x, bottom + 6, height - 6);
    this.drawWords(to, events, x, width, height);
    if (this.player.currentTime > 0) {
      to.fillStyle = cssColour("--live");
      to.fillRect(x(this.player.currentTime) - 1, 0, 2, height);
    }
  }

  /** The likeliest word's probability, beneath the waveform. */
  private drawScore(to: CanvasRenderingContext2D, x: (s: number) => number, top: number, bottom: number): void {
    const { score, binS } = this.report!.overview;
    to.beginPath();
    to.moveTo(0, bottom);
    score.forEach((value, bin) => {
      to.lineTo(x(bin * binS), bottom - value * (bottom - top));
      to.lineTo(x((bin + 1) * binS), bottom - value * (bottom - top));
    });
    to.lineTo(x(score.length * binS), bottom);
    to.fillStyle = cssColour("--dim");
    to.globalAlpha = 0.45;
    to.fill();
    to.globalAlpha = 1;
  }

  private drawWords(to: CanvasRenderingContext2D, events: Detection[], x: (s: number) => number, width: number, height: number): void {
    to.font = "600 12px system-ui, sans-serif";
    to.textAlign = "center";
    let free = -Infinity; // where the next label finds room
    for (const { label, end_s } of events) {
      const at = x(end_s);
      to.fillStyle = this.colour(label);
      to.fillRect(at - 0.75, 22, 1.5, height - 22);
      const text = shortened(to, label, MAX_WORD * width);
      const half = to.measureText(text).width / 2 + 8;
      const middle = Math.min(Math.max(at, half + 2), width - half - 2);
      if (middle - half < free) continue;
      free = middle + half + 2;
      to.beginPath();
      to.roundRect(middle - half, 3, 2 * half, 20, 10);
      to.fill();
      to.fillStyle = cssColour("--stage");
      to.fillText(text, middle, 17);
    }
  }

  /** A label track for Audacity, as `tiny-kws detect --labels` writes it. */
  private saveLabels(): void {
    const events = this.report?.events ?? [];
    const lines = events.map((e) => `${e.start_s.toFixed(6)}\t${e.end_s.toFixed(6)}\t${e.label}\n`);
    this.download(lines, "txt", "text/plain");
  }

  /** An event a line, as `tiny-kws detect --json` prints them. */
  private saveJson(): void {
    const events = this.report?.events ?? [];
    this.download(events.map((event) => `${eventJson(event, this.name)}\n`), "jsonl", "application/jsonl");
  }

  private download(lines: string[], suffix: string, type: string): void {
    const link = make("a", { download: `${this.name.replace(/\.\w+$/, "")}.${suffix}` }) as HTMLAnchorElement;
    link.href = URL.createObjectURL(new Blob(lines, { type }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
