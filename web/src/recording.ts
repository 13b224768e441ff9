/** The panel of a dropped recording: its waveform, and the words heard in it, to count, filter, play and save. */
import type { Detection } from "./decoder";
import { byId, clock, make } from "./dom";
import type { FileReport } from "./protocol";
import { FORMATS, save } from "./saving";
import { onTheme } from "./theme";
import { WaveView } from "./wave";

const FIRST_SHOWN = 60; // words; the rest comes when asked for
const [BEFORE_S, AFTER_S] = [0.1, 0.2]; // around a word that is played alone

export class RecordingView {
  private readonly player = byId<HTMLAudioElement>("player");
  private readonly wave: WaveView;
  private report: FileReport | undefined;
  private name = "";
  private listed = "";
  private wanted = ""; // the only word to be shown; empty for all
  private showsAll = false;
  private stopAtS = Infinity; // where the word that is played alone ends

  /** `colour` gives the colour of a word. */
  constructor(private readonly colour: (label: string) => string) {
    this.wave = new WaveView(colour, (second) => this.play(second));
    onTheme(() => {
      this.listed = "";
      this.show();
    });
    const { player } = this;
    player.ontimeupdate = player.onseeked = () => this.onTime();
    player.onplay = () => this.follow();
    player.onpause = () => (this.stopAtS = Infinity);
    player.onerror = () => (player.hidden = true); // a kind that is heard, but cannot be played
    for (const [name, format] of Object.entries(FORMATS)) {
      byId(`save-${name}`).onclick = () => save(format, this.events, this.name);
    }
    byId("show-all").onclick = () => {
      this.showsAll = true;
      this.list();
    };
  }

  /** A new file, of which nothing is known yet. */
  begin(file: File): void {
    [this.name, this.report, this.wanted, this.showsAll, this.listed] = [file.name, undefined, "", false, ""];
    URL.revokeObjectURL(this.player.src);
    this.player.hidden = false;
    this.player.src = URL.createObjectURL(file);
    byId("recording").hidden = false;
    byId("recording").dataset.state = "running";
    byId("recording-name").textContent = file.name;
    byId("recording-state").textContent = "Reading…";
    byId("counts").replaceChildren();
    byId("found").replaceChildren();
    byId("show-all").hidden = true;
    this.setRunning(true);
    byId<HTMLProgressElement>("recording-progress").removeAttribute("value");
    this.wave.clear();
    byId("drop").classList.add("folded");
    byId("file-panel").scrollIntoView(); // smoothly or at once, as the style sheet has it
  }

  /** What came of it so far, or what other thresholds make of it. */
  update(report: FileReport): void {
    this.report = report;
    this.show();
  }

  /** It goes no further; `why` says so. */
  end(why: string): void {
    byId("recording").dataset.state = this.report ? "ended" : "failed";
    byId("recording-state").textContent = why;
    this.setRunning(false);
  }

  /** Those that the filter lets through. */
  private get events(): Detection[] {
    return (this.report?.events ?? []).filter(({ label }) => !this.wanted || label === this.wanted);
  }

  private show(): void {
    if (!this.report) return;
    const { seconds, total, isDone, tookMs, events } = this.report;
    byId<HTMLProgressElement>("recording-progress").value = total > 0 ? seconds / total : 0;
    const words = events.length === 1 ? "1 word" : `${events.length || "no"} words`;
    const speed = `${Math.round((1000 * seconds) / Math.max(1, tookMs))} times faster than real time`;
    byId("recording-state").textContent = isDone
      ? `${words} in ${clock(total)}, ${speed}`
      : `${words} in ${clock(seconds)} of ${clock(total)}, ${speed}`;
    if (isDone) {
      byId("recording").dataset.state = "done";
      this.setRunning(false);
    }
    this.list();
  }

  private setRunning(isRunning: boolean): void {
    byId("cancel").hidden = !isRunning;
    byId("recording-progress").hidden = !isRunning;
    byId("saves").hidden = isRunning || !this.report;
  }

  /** The counts, the words found and the picture of both, unless they are shown already. */
  private list(): void {
    if (!this.report) return;
    const { overview, total, events } = this.report;
    if (!events.some(({ label }) => label === this.wanted)) this.wanted = "";
    this.wave.show({ overview, total, events: this.events });
    const known = [this.wanted, this.showsAll, ...events.map(({ label, end_s }) => label + end_s)].join();
    if (known === this.listed) return;
    this.listed = known;
    byId("counts").replaceChildren(...this.countButtons(events));
    const shown = this.showsAll ? this.events : this.events.slice(0, FIRST_SHOWN);
    byId("found").replaceChildren(...shown.map((event) => this.item(event)));
    const rest = this.events.length - shown.length;
    byId("show-all").hidden = rest === 0;
    byId("show-all").textContent = `Show ${rest} more`;
  }

  /** How often each word was heard, the most frequent first; a click shows that word alone. */
  private countButtons(events: readonly Detection[]): HTMLElement[] {
    const counts = new Map<string, number>();
    for (const { label } of events) counts.set(label, (counts.get(label) ?? 0) + 1);
    if (counts.size < 2) return [];
    const byCount = [...counts].sort(([, a], [, b]) => b - a);
    return [this.countButton("", events.length), ...byCount.map(([label, n]) => this.countButton(label, n))];
  }

  private countButton(label: string, n: number): HTMLElement {
    const isWanted = label === this.wanted;
    const attributes = { type: "button", class: "chip", "aria-pressed": String(isWanted), "--word": label ? this.colour(label) : "var(--dim)" };
    const button = make("button", attributes, make("bdi", {}, label || "All words"), make("small", {}, String(n)));
    button.dataset.count = label;
    button.onclick = () => {
      this.wanted = label;
      this.list();
      byId("counts").querySelector<HTMLElement>("[aria-pressed=true]")?.focus(); // its button was made anew
    };
    return button;
  }

  private item(event: Detection): HTMLElement {
    const { label, start_s, end_s, confidence } = event;
    const button = make(
      "button",
      { type: "button", class: "chip", "--word": this.colour(label), title: "Play this word" },
      make("bdi", {}, label),
      make("small", {}, `${clock(end_s, 1)} · ${confidence.toFixed(2)}`),
    );
    button.onclick = () => this.play(Math.max(0, start_s - BEFORE_S), end_s + AFTER_S);
    const item = make("li", {}, button);
    Object.assign(item.dataset, { label, start: start_s, end: end_s, confidence });
    return item;
  }

  /** Play from one second, to another if that is given. */
  private play(second: number, until = Infinity): void {
    const { player } = this;
    if (player.hidden) return;
    player.currentTime = second;
    this.stopAtS = until;
    void player.play().catch(() => undefined);
  }

  private onTime(): void {
    if (!this.player.paused && this.player.currentTime >= this.stopAtS) this.player.pause();
    this.wave.movePlayhead(this.player.currentTime, !this.player.paused);
  }

  /** Look at the time frame by frame while it plays: the player itself tells it four times a second only. */
  private follow(): void {
    this.onTime();
    if (!this.player.paused) requestAnimationFrame(() => this.follow());
  }
}
