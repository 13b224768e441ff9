/** Sound that goes on, in batches, to what is heard in it; and a whole recording, to the same. */
import { Decoder, type Detection, type DetectorConfig } from "./decoder";
import { LogMel } from "./logmel";
import { OverviewMaker } from "./overview";
import type { Batch, Heard, Settings } from "./protocol";
import { Resampler } from "./resample";
import type { Stream, StreamModel } from "./stream";

const SILENT_S = 10; // of digital silence from the start, and it is said
const QUIET_DB = -120;

/** A model with its detector's settings. */
export interface Ear {
  model: StreamModel;
  settings: Settings;
  config: DetectorConfig;
}

/** A decoder of what an ear's model gives. */
export function decoderOf({ model, settings, config }: Ear): Decoder {
  const { labels, hop, window, rate } = model.metadata;
  return new Decoder(labels, settings.not_words, hop / rate, window / rate, config);
}

/** Listens to a stream from a device at `rate` Hz. */
export class Live {
  private stream!: Stream;
  private decoder!: Decoder;
  private pieceS = 0; // where this model began
  private readonly resampler: Resampler | undefined;
  private readonly picture: LogMel;
  private samples = 0; // heard, at the model's rate
  private hops = 0; // answered since the piece began
  private columns: Uint8Array[] = [];
  private power = { sum: 0, n: 0 };
  private busyMs = 0;
  private isSilent = true;
  private ear: Ear;

  constructor(ear: Ear, rate: number) {
    this.ear = ear;
    const target = ear.model.metadata.rate;
    this.resampler = rate === target ? undefined : new Resampler(rate, target);
    this.picture = new LogMel(target);
    this.use(ear);
  }

  /** Go on with another model, or the same with other thresholds. */
  use(ear: Ear): void {
    if (this.stream && ear.model === this.ear.model) {
      this.decoder.setThresholds(ear.config);
    } else {
      this.stream = ear.model.stream();
      this.decoder = decoderOf(ear);
      this.pieceS = this.samples / ear.model.metadata.rate;
      this.hops = 0;
    }
    this.ear = ear;
  }

  /** What a batch brings: nothing, if it completes no hop, or a report; and a problem, if there is one. */
  async process(batch: Batch): Promise<{ heard?: Heard; note?: string }> {
    const started = performance.now();
    const rows = await this.hear(this.resampler?.process(batch.samples) ?? batch.samples);
    const note = this.minded();
    const events: Detection[] = rows.flatMap((row) => this.decoder.process(row) ?? []).map((event) => this.inTime(event));
    this.busyMs += performance.now() - started;
    return { heard: rows.length > 0 ? this.report(rows, events, batch.arrived) : undefined, note };
  }

  /** The silence that lets a last word be heard out. */
  async finish(): Promise<Heard | undefined> {
    const { rate } = this.ear.model.metadata;
    const rest = this.resampler?.finish() ?? new Float32Array(0);
    const tail = new Float32Array(rest.length + (rate * this.ear.settings.tail_ms) / 1000);
    tail.set(rest);
    const rows = await this.hear(tail);
    const events = rows.flatMap((row) => this.decoder.process(row) ?? []).map((event) => this.inTime(event));
    return rows.length > 0 ? this.report(rows, events, Date.now()) : undefined;
  }

  private async hear(audio: Float32Array): Promise<Float32Array[]> {
    for (const sample of audio) this.power.sum += sample * sample;
    this.power.n += audio.length;
    this.samples += audio.length;
    this.columns.push(this.picture.process(audio));
    const rows = await this.stream.process(audio);
    this.hops += rows.length;
    return rows;
  }

  private minded(): string | undefined {
    if (!this.isSilent) return undefined;
    this.isSilent = this.power.sum === 0;
    if (!this.isSilent || this.samples < SILENT_S * this.ear.model.metadata.rate) return undefined;
    this.isSilent = false;
    return `${SILENT_S} s of nothing but digital silence: is the microphone muted, or switched off in the system's settings?`;
  }

  private report(rows: Float32Array[], events: Detection[], arrived: number): Heard {
    const { rate, hop } = this.ear.model.metadata;
    const answeredS = this.pieceS + (this.hops * hop) / rate;
    const seconds = this.samples / rate;
    const columns = new Uint8Array(this.columns.reduce((n, part) => n + part.length, 0));
    let at = 0;
    for (const part of this.columns) columns.set(part, (at += part.length) - part.length);
    const level = Math.max(QUIET_DB, 10 * Math.log10(this.power.sum / Math.max(1, this.power.n) + 1e-30));
    const heard: Heard = {
      kind: "heard",
      seconds,
      probabilities: rows[rows.length - 1],
      columns,
      level,
      events,
      busyMs: this.busyMs,
      soundMs: (1000 * this.power.n) / rate,
      delayMs: Date.now() - arrived + 1000 * (seconds - answeredS) + this.resampledMs,
    };
    [this.columns, this.power, this.busyMs] = [[], { sum: 0, n: 0 }, 0];
    return heard;
  }

  /** How long the resampler holds a sample back. */
  private get resampledMs(): number {
    return this.resampler ? 1000 * this.resampler.delayS : 0;
  }

  private inTime(event: Detection): Detection {
    return { ...event, start_s: event.start_s + this.pieceS, end_s: event.end_s + this.pieceS };
  }
}

/** Hears a whole recording; what the model gave is kept, so that other thresholds need no second hearing. */
export class Recording {
  readonly overview: OverviewMaker;
  samples = 0;
  private readonly resampler: Resampler | undefined;
  private readonly stream: Stream;
  private readonly rows: Rows;
  private decoder: Decoder;
  events: Detection[] = [];

  constructor(
    private ear: Ear,
    rate: number,
  ) {
    const { metadata } = ear.model;
    this.resampler = rate === metadata.rate ? undefined : new Resampler(rate, metadata.rate);
    this.overview = new OverviewMaker(metadata.rate);
    this.stream = ear.model.stream();
    this.decoder = decoderOf(ear);
    this.rows = new Rows(metadata.labels.length);
  }

  /** Seconds heard so far. */
  get seconds(): number {
    return this.samples / this.ear.model.metadata.rate;
  }

  async process(block: Float32Array): Promise<void> {
    await this.hear(this.resampler?.process(block) ?? block);
  }

  /** What is left in the resampler, and the silence that lets a last word be heard out. */
  async finish(): Promise<void> {
    if (this.resampler) await this.hear(this.resampler.finish());
    const { rate } = this.ear.model.metadata;
    const tail = new Float32Array((rate * this.ear.settings.tail_ms) / 1000);
    for (const row of await this.stream.process(tail)) this.decide(row);
  }

  /** Judge by other thresholds what was heard. */
  judge(config: DetectorConfig): void {
    this.ear = { ...this.ear, config };
    this.decoder = decoderOf(this.ear);
    this.events = [];
    for (let i = 0; i < this.rows.length; i++) {
      const event = this.decoder.process(this.rows.at(i));
      if (event) this.events.push(event);
    }
  }

  private async hear(audio: Float32Array): Promise<void> {
    this.overview.addSamples(audio);
    this.samples += audio.length;
    for (const row of await this.stream.process(audio)) this.decide(row);
  }

  private decide(row: Float32Array): void {
    this.rows.push(row);
    const event = this.decoder.process(row);
    if (event) this.events.push(event);
    const { hop, rate } = this.ear.model.metadata;
    const second = (this.rows.length * hop) / rate;
    if (second <= this.seconds) this.overview.addScore(second - hop / rate, second, Math.max(...this.decoder.averages));
  }
}

/** Rows of numbers, one after another in one growing array. */
class Rows {
  length = 0;
  private values: Float32Array;

  constructor(private readonly width: number) {
    this.values = new Float32Array(1024 * width);
  }

  push(row: Float32Array): void {
    if ((this.length + 1) * this.width > this.values.length) {
      const grown = new Float32Array(2 * this.values.length);
      grown.set(this.values);
      this.values = grown;
    }
    this.values.set(row, this.length++ * this.width);
  }

  at(index: number): Float32Array {
    return this.values.subarray(index * this.width, (index + 1) * this.width);
  }
}
