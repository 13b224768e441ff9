/** Sound that goes on, in batches, to what is found in it; and a whole recording, to the same. */
import { Decoder, tailSamples, type Detection, type DetectorConfig } from "./decoder";
import { LogMel } from "./logmel";
import { OverviewMaker } from "./overview";
import type { Batch, LiveReport, Settings } from "./protocol";
import { Resampler } from "./resample";
import type { Stream, StreamModel } from "./stream";

const SILENT_S = 10; // of digital silence from the start, and it is said
const QUIET_DB = -120;

/** What a detector is made of: a model, the package's settings and those of the detector. */
export interface Setup {
  model: StreamModel;
  settings: Settings;
  config: DetectorConfig;
}

/** A decoder of what the model gives; hop and window are the model's. */
export function decoderOf({ model, settings, config }: Setup): Decoder {
  const { labels, hop, window, rate } = model.metadata;
  return new Decoder(labels, settings.not_words, hop / rate, window / rate, config);
}

/** The silence after the end in which a last word is found. */
function tailOf({ model, config }: Setup): Float32Array {
  return new Float32Array(tailSamples(model.metadata, config));
}

/** Detects words in a stream from a device at `rate` Hz. */
export class Live {
  private stream!: Stream;
  private decoder!: Decoder;
  private pieceS = 0; // where this model began
  private readonly resampler: Resampler | undefined;
  private readonly picture: LogMel;
  private samples = 0; // so far, at the model's rate
  private hops = 0; // answered since the piece began
  private columns: Uint8Array[] = [];
  private power = { sum: 0, n: 0 };
  private busyMs = 0;
  private isSilent = true;
  private setup: Setup;

  constructor(setup: Setup, rate: number) {
    this.setup = setup;
    const target = setup.model.metadata.rate;
    this.resampler = rate === target ? undefined : new Resampler(rate, target);
    this.picture = new LogMel(target);
    this.use(setup);
  }

  /** Go on with another model, or the same with other thresholds. */
  use(setup: Setup): void {
    if (this.stream && setup.model === this.setup.model) {
      this.decoder.setThresholds(setup.config);
    } else {
      this.stream = setup.model.stream();
      this.decoder = decoderOf(setup);
      this.pieceS = this.samples / setup.model.metadata.rate;
      this.hops = 0;
    }
    this.setup = setup;
  }

  /** What a batch brings: nothing, if it completes no hop, or a report; and a problem, if there is one. */
  async process(batch: Batch): Promise<{ report?: LiveReport; note?: string }> {
    const started = performance.now();
    const rows = await this.rowsOf(this.resampler?.process(batch.samples) ?? batch.samples);
    const note = this.noteOfSilence();
    const events = this.decide(rows);
    this.busyMs += performance.now() - started;
    return { report: rows.length > 0 ? this.report(rows, events, batch.arrived) : undefined, note };
  }

  /** What is left in the resampler, and the silence after the end. */
  async finish(): Promise<LiveReport | undefined> {
    const rows = this.resampler ? await this.rowsOf(this.resampler.finish()) : [];
    rows.push(...(await this.rowsOf(tailOf(this.setup))));
    return rows.length > 0 ? this.report(rows, this.decide(rows), Date.now()) : undefined;
  }

  private async rowsOf(audio: Float32Array): Promise<Float32Array[]> {
    for (const sample of audio) this.power.sum += sample * sample;
    this.power.n += audio.length;
    this.samples += audio.length;
    this.columns.push(this.picture.process(audio));
    const rows = await this.stream.process(audio);
    this.hops += rows.length;
    return rows;
  }

  /** The events of rows of probabilities, in seconds since the start. */
  private decide(rows: Float32Array[]): Detection[] {
    return rows
      .flatMap((row) => this.decoder.process(row) ?? [])
      .map((event) => ({ ...event, start_s: event.start_s + this.pieceS, end_s: event.end_s + this.pieceS }));
  }

  private noteOfSilence(): string | undefined {
    if (!this.isSilent) return undefined;
    this.isSilent = this.power.sum === 0;
    if (!this.isSilent || this.samples < SILENT_S * this.setup.model.metadata.rate) return undefined;
    this.isSilent = false;
    return `${SILENT_S} s of digital silence: is the microphone muted, or access to it denied in the system’s settings?`;
  }

  private report(rows: Float32Array[], events: Detection[], arrived: number): LiveReport {
    const { rate, hop } = this.setup.model.metadata;
    const answeredS = this.pieceS + (this.hops * hop) / rate;
    const seconds = this.samples / rate;
    const columns = new Uint8Array(this.columns.reduce((n, part) => n + part.length, 0));
    let at = 0;
    for (const part of this.columns) columns.set(part, (at += part.length) - part.length);
    const level = Math.max(QUIET_DB, 10 * Math.log10(this.power.sum / Math.max(1, this.power.n) + 1e-30));
    const report: LiveReport = {
      kind: "live",
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
    return report;
  }

  /** How long the resampler holds a sample back. */
  private get resampledMs(): number {
    return this.resampler ? 1000 * this.resampler.delayS : 0;
  }
}

/** Detects words in a whole recording; what the model gave is kept, so that other thresholds need no second run. */
export class Recording {
  readonly overview: OverviewMaker;
  samples = 0;
  private readonly resampler: Resampler | undefined;
  private readonly stream: Stream;
  private readonly rows: Rows;
  private decoder: Decoder;
  events: Detection[] = [];

  constructor(
    private setup: Setup,
    rate: number,
  ) {
    const { metadata } = setup.model;
    this.resampler = rate === metadata.rate ? undefined : new Resampler(rate, metadata.rate);
    this.overview = new OverviewMaker(metadata.rate);
    this.stream = setup.model.stream();
    this.decoder = decoderOf(setup);
    this.rows = new Rows(metadata.labels.length);
  }

  /** Seconds so far. */
  get seconds(): number {
    return this.samples / this.setup.model.metadata.rate;
  }

  async process(block: Float32Array): Promise<void> {
    await this.take(this.resampler?.process(block) ?? block);
  }

  /** What is left in the resampler, and the silence after the end. */
  async finish(): Promise<void> {
    if (this.resampler) await this.take(this.resampler.finish());
    for (const row of await this.stream.process(tailOf(this.setup))) this.decide(row);
  }

  /** Decide by other thresholds what the events are. */
  decideAnew(config: DetectorConfig): void {
    this.setup = { ...this.setup, config };
    this.decoder = decoderOf(this.setup);
    this.events = [];
    for (let i = 0; i < this.rows.length; i++) {
      const event = this.decoder.process(this.rows.at(i));
      if (event) this.events.push(event);
    }
  }

  private async take(audio: Float32Array): Promise<void> {
    this.overview.addSamples(audio);
    this.samples += audio.length;
    for (const row of await this.stream.process(audio)) this.decide(row);
  }

  private decide(row: Float32Array): void {
    this.rows.push(row);
    const event = this.decoder.process(row);
    if (event) this.events.push(event);
    const { hop, rate } = this.setup.model.metadata;
    const second = (this.rows.length * hop) / rate;
    if (second <= this.seconds) this.overview.addScore(second - hop / rate, second, Math.max(0, ...this.decoder.averages));
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
