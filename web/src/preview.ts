/** What listening looks like: a few of the page's recordings, heard once without a sound and shown over and over. */
import type { Example } from "./examples";
import { fetchFile } from "./files";
import type { LiveReport } from "./protocol";

const RECORDINGS = 4;
const GAP_S = 0.4; // of silence around each
const TURNS = 6; // then the picture rests, so that a forgotten page costs nothing
const STEP_MS = 80;

/** A few of the examples as one sound at `rate` Hz, the first ones that say one of the words. */
export async function previewSound(examples: readonly Example[], words: readonly string[], rate: number): Promise<Float32Array> {
  const said = examples.filter(({ word }) => words.includes(word));
  const chosen = (said.length > 0 ? said : examples).slice(0, RECORDINGS);
  const decoder = new OfflineAudioContext(1, 1, rate);
  const sounds = await Promise.all(chosen.map(async ({ url }) => decoder.decodeAudioData((await fetchFile(url)).slice(0))));
  const gap = Math.round(GAP_S * rate);
  const whole = new Float32Array(sounds.reduce((length, sound) => length + gap + sound.length, gap));
  let at = gap;
  for (const sound of sounds) {
    whole.set(sound.getChannelData(0), at);
    at += sound.length + gap;
  }
  return whole;
}

export class Preview {
  private reports: LiveReport[] = [];
  private next = 0;
  private timer: number | undefined;
  private readonly reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

  /** `show` draws one report; they come in the order of their time, as if the sound went on. */
  constructor(private readonly show: (report: LiveReport) => void) {}

  /** Begin to show these reports. */
  start(reports: LiveReport[]): void {
    this.stop();
    this.reports = reports;
    this.next = 0;
    if (reports.length === 0) return;
    if (this.reducedMotion.matches) this.advance(reports.length);
    else this.timer = setInterval(() => this.step(), STEP_MS);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** The next few reports, as many as their sound is long. */
  private step(): void {
    if (document.hidden) return;
    this.advance(Math.max(1, Math.round((STEP_MS / 1000 / this.lengthS) * this.reports.length)));
    if (this.next >= TURNS * this.reports.length) this.stop();
  }

  private get lengthS(): number {
    return this.reports[this.reports.length - 1].seconds;
  }

  private advance(n: number): void {
    for (const until = this.next + n; this.next < until; this.next++) {
      const later = this.lengthS * Math.floor(this.next / this.reports.length);
      const report = this.reports[this.next % this.reports.length];
      const events = report.events.map((event) => ({ ...event, end_s: event.end_s + later }));
      this.show({ ...report, seconds: report.seconds + later, events });
    }
  }
}
