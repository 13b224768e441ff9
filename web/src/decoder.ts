/** Words in probabilities over time: the same decisions, to the last bit, as `tiny_kws.listening.decoder.Decoder` makes. */
import { KwsError } from "./errors";

/** Of a window: from a word's start to when its probability rises. */
const ONSET_SHARE = 1 / 3;
const SHARE = "a number above 0, at most 1"; // what a threshold must be

/** How probabilities become events; thresholds are probabilities. */
export interface DetectorConfig {
  hop_ms: number;
  smoothing_ms: number;
  threshold: number;
  thresholds: Record<string, number>;
  min_duration_ms: number;
  rise_ms: number;
  release: number;
  refractory_ms: number;
  words: string[]; // the only ones that can be events; none stands for all
}

/** A word that was heard; seconds count from the start of the stream. */
export interface Detection {
  label: string;
  start_s: number;
  end_s: number;
  confidence: number;
}

/**
 * An event as one JSON object on one line, letter by letter as `Detection.to_json` of Python writes it.
 *
 * `file` is the recording it was heard in, `time` when it was heard at a microphone, in UTC.
 */
export function eventJson(event: Detection, file: string | null = null, time: string | null = null): string {
  const { label, start_s, end_s, confidence } = event;
  const text = (value: unknown) => (Number.isInteger(value) ? (value as number).toFixed(1) : ascii(JSON.stringify(value)));
  const fields = Object.entries({ file, time, label, start_s, end_s, confidence });
  return `{${fields.map(([name, value]) => `"${name}": ${text(value)}`).join(", ")}}`;
}

/** JSON in ASCII alone, which every terminal and encoding leaves as it is. */
function ascii(json: string): string {
  return json.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** What the average of a word must reach. */
export function thresholdOf(config: DetectorConfig, word: string): number {
  return Object.hasOwn(config.thresholds, word) ? config.thresholds[word] : config.threshold;
}

/** How much silence after the end lets a last word be found: as much as sound before it counts, in whole hops. */
export function tailSamples(
  { window, hop, rate }: { window: number; hop: number; rate: number },
  { smoothing_ms, min_duration_ms }: DetectorConfig,
): number {
  const samples = window + Math.ceil(((smoothing_ms + min_duration_ms) * rate) / 1000);
  return Math.ceil(samples / hop) * hop;
}

/** The settings that an artefact carries over the package's defaults. Throws KwsError if they make no sense. */
export function detectorConfig(
  defaults: DetectorConfig,
  own: Record<string, unknown>,
  words: readonly string[],
  where: string,
): DetectorConfig {
  const config = { ...defaults, ...own } as DetectorConfig;
  const refuse = (what: string): never => {
    throw new KwsError(`${where}: holds unusable detector settings (${what}), export it again.`);
  };
  for (const [name, value] of Object.entries(config)) {
    if (!Object.hasOwn(defaults, name)) refuse(`found ${name}, expected one of ${Object.keys(defaults).join(", ")}`);
    if (name === "thresholds" || name === "words") continue;
    if (typeof value !== "number" || !(value >= 0 && value < Infinity)) refuse(`${name} is ${value}, expected a number from 0`);
  }
  if (typeof config.thresholds !== "object" || !config.thresholds) refuse(`thresholds are ${config.thresholds}, expected numbers by label`);
  for (const [label, value] of Object.entries(config.thresholds)) {
    if (!words.includes(label)) refuse(`found a threshold for ${label}, expected one of ${words.join(", ")}`);
    if (!(value > 0 && value <= 1)) refuse(`the threshold for ${label} is ${value}, expected ${SHARE}`);
  }
  if (!Array.isArray(config.words)) refuse(`words are ${config.words}, expected a list of them`);
  const strange = config.words.find((word) => !words.includes(word));
  if (strange !== undefined) refuse(`found the word ${strange} to listen for, expected one or more of ${words.join(", ")}`);
  for (const name of ["threshold", "release"] as const) {
    if (!(config[name] > 0 && config[name] <= 1)) refuse(`${name} is ${config[name]}, expected ${SHARE}`);
  }
  if (config.rise_ms > 0 && config.rise_ms < config.min_duration_ms) {
    refuse(`rise_ms is ${config.rise_ms}, expected 0 or no less than min_duration_ms, ${config.min_duration_ms}`);
  }
  if (!(config.hop_ms >= 10 && config.hop_ms <= 1000)) refuse(`hop_ms is ${config.hop_ms}, expected 10 to 1000`);
  return config;
}

/** Rows of class probabilities to events, one row at a time. See the Python class for what the settings mean. */
export class Decoder {
  readonly words: string[];
  /** What the latest row was judged by: the average of each word. */
  readonly averages: Float64Array;
  private readonly columns: number[];
  private readonly counts: { smoothed: number; held: number; rise: number; refractory: number };
  private thresholds!: number[];
  private releases!: number[];
  private past!: Float64Array[];
  private row!: number;
  private lastEvent!: number;
  private lastShort!: Int32Array;
  private lastLow!: Int32Array;
  private reported!: Int32Array;

  /**
   * `labels` name the columns, in any order. Those in `notWords` are never events, nor, if the settings name words, any
   * others. `hopS` is the time from row to row, `windowS` that of the sound that a row rests on.
   */
  constructor(
    labels: readonly string[],
    notWords: readonly string[],
    private readonly hopS: number,
    private readonly windowS: number,
    config: DetectorConfig,
  ) {
    const chosen = config.words.length > 0 ? config.words : labels.filter((label) => !notWords.includes(label));
    this.columns = labels.flatMap((label, i) => (chosen.includes(label) ? [i] : []));
    this.words = this.columns.map((i) => labels[i]);
    this.averages = new Float64Array(this.words.length);
    const rows = (ms: number) => Math.max(1, roundHalfEven(ms / (1000.0 * hopS)));
    this.counts = {
      smoothed: rows(config.smoothing_ms),
      held: rows(config.min_duration_ms),
      rise: config.rise_ms ? rows(config.rise_ms) : Infinity,
      refractory: rows(config.refractory_ms),
    };
    this.setThresholds(config);
    this.reset();
  }

  /** Decide what comes next by other thresholds. */
  setThresholds(config: DetectorConfig): void {
    this.thresholds = this.words.map((word) => thresholdOf(config, word));
    this.releases = this.thresholds.map((threshold) => threshold * config.release);
  }

  /** Back to the start of a stream, with silence before it. */
  reset(): void {
    const n = this.words.length;
    this.past = Array.from({ length: this.counts.smoothed - 1 }, () => new Float64Array(n));
    this.row = 0;
    this.lastEvent = -this.counts.refractory;
    this.lastShort = new Int32Array(n).fill(-1);
    this.lastLow = new Int32Array(n).fill(-1);
    this.reported = new Int32Array(n).fill(-2);
  }

  /** The event that the next row of probabilities (labels) brings about, if any. */
  process(row: ArrayLike<number>): Detection | undefined {
    this.past.push(Float64Array.from(this.columns, (column) => row[column]));
    let best = -1;
    for (let word = 0; word < this.words.length; word++) {
      let total = 0.0;
      for (const values of this.past) total += values[word];
      const average = total / this.counts.smoothed;
      this.averages[word] = average;
      if (average < this.thresholds[word]) this.lastShort[word] = this.row;
      if (average < this.releases[word]) this.lastLow[word] = this.row;
      const isReady =
        this.row - this.lastShort[word] >= this.counts.held &&
        this.row - this.lastLow[word] <= this.counts.rise &&
        this.lastLow[word] > this.reported[word];
      if (isReady && (best < 0 || average > this.averages[best])) best = word;
    }
    this.past.shift();
    const number = this.row++;
    if (best < 0 || number - this.lastEvent < this.counts.refractory) return undefined;
    this.lastEvent = this.reported[best] = number;
    const end = (number + 1) * this.hopS;
    const risen = this.lastLow[best] + 1;
    return {
      label: this.words[best],
      start_s: rounded(Math.max(0.0, end - this.windowS, (risen + 1) * this.hopS - this.windowS * ONSET_SHARE)),
      end_s: rounded(end),
      confidence: rounded(this.averages[best]),
    };
  }
}

/** To six decimals, as Python rounds: halves, which among doubles are the odd multiples of 1/128, to even. */
function rounded(value: number): number {
  const isHalf = Number.isInteger(128 * value) && !Number.isInteger(64 * value);
  return isHalf ? roundHalfEven(1e6 * value) / 1e6 : Number(value.toFixed(6));
}

/** Halves to the even neighbour. */
function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const part = value - below;
  return part < 0.5 || (part === 0.5 && below % 2 === 0) ? below : below + 1;
}
