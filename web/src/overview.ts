/** A recording of any length in so many bins at most: whenever they are full, pairs are joined. */
import type { Overview } from "./protocol";

const MAX_BINS = 2 ** 16; // of two hours, nine in a second
const FIRST_BIN_S = 0.01;

export class OverviewMaker {
  private binS = FIRST_BIN_S;
  private low = new Float32Array(MAX_BINS);
  private high = new Float32Array(MAX_BINS);
  private score = new Float32Array(MAX_BINS);
  private received = 0;

  constructor(private readonly rate: number) {}

  /** Samples that follow those before. */
  addSamples(audio: Float32Array): void {
    while ((this.received + audio.length) / this.rate > this.binS * MAX_BINS) this.join();
    const perBin = this.binS * this.rate;
    for (let i = 0; i < audio.length; i++) {
      const bin = Math.min(MAX_BINS - 1, Math.floor((this.received + i) / perBin));
      if (audio[i] < this.low[bin]) this.low[bin] = audio[i];
      if (audio[i] > this.high[bin]) this.high[bin] = audio[i];
    }
    this.received += audio.length;
  }

  /** The likeliest word's probability from one second to another, within the samples so far. */
  addScore(fromS: number, toS: number, score: number): void {
    const last = Math.min(MAX_BINS - 1, Math.ceil(toS / this.binS) - 1);
    for (let bin = Math.floor(fromS / this.binS); bin <= last; bin++) this.score[bin] = Math.max(this.score[bin], score);
  }

  /** A copy of what there is. */
  snapshot(): Overview {
    const n = Math.min(MAX_BINS, Math.ceil(this.received / this.rate / this.binS));
    const [low, high, score] = [this.low, this.high, this.score].map((values) => values.slice(0, n));
    return { binS: this.binS, low, high, score };
  }

  private join(): void {
    this.binS *= 2;
    const joined = (values: Float32Array, of: (a: number, b: number) => number) =>
      Float32Array.from({ length: MAX_BINS }, (_, i) => (2 * i < MAX_BINS ? of(values[2 * i], values[2 * i + 1]) : 0));
    this.low = joined(this.low, Math.min);
    this.high = joined(this.high, Math.max);
    this.score = joined(this.score, Math.max);
  }
}
