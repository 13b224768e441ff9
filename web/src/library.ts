/** tiny-kws as a library, in Node and in browsers: an artefact and chunks of sound in, events out. */
import { Decoder, detectorConfig, tailSamples, type Detection, type DetectorConfig } from "./decoder.js"; // with its suffix: so it stands in the types, where Node wants it
import defaults from "./defaults.json";
import { Resampler } from "./resample";
import { Stream, StreamModel } from "./stream";

export { KwsError } from "./errors.js";
export type { Detection, DetectorConfig };

export interface Options {
  /** Sample rate of the sound in Hz; by default that of the model. */
  rate?: number;
  /** The average probability from which a word counts, from 0 to 1; replaces the model's own thresholds. */
  threshold?: number;
  /** What error messages call the model. */
  name?: string;
}

/** Finds words in a stream of sound. Calls of `process` and `finish` may not overlap: await each before the next. */
export class Detector {
  private readonly stream: Stream;
  private readonly decoder: Decoder;
  private resampler: Resampler | undefined;

  private constructor(
    private readonly model: StreamModel,
    /** The settings that decide which probabilities become events. */
    readonly config: DetectorConfig,
    private readonly rate: number,
  ) {
    const { labels, hop, window, rate: own } = model.metadata;
    this.stream = model.stream();
    this.decoder = new Decoder(labels, defaults.not_words, hop / own, window / own, config);
    this.reset();
  }

  /**
   * Load a stream artefact: the bytes of a file made by `tiny-kws export --stream` or `tiny-kws enroll`.
   *
   * Throws KwsError if the bytes are not a stream artefact, or if its settings make no sense.
   */
  static async load(artefact: Uint8Array<ArrayBuffer>, options: Options = {}): Promise<Detector> {
    const { threshold, name = "the model" } = options;
    const model = await StreamModel.load(artefact, name);
    const { labels, detector, rate } = model.metadata;
    const words = labels.filter((label) => !defaults.not_words.includes(label));
    const own = threshold === undefined ? detector : { ...detector, threshold, thresholds: {} };
    return new Detector(model, detectorConfig(defaults.detector, own, words, name), options.rate ?? rate);
  }

  /** The words that can be events. */
  get words(): readonly string[] {
    return this.decoder.words;
  }

  /** Take the next samples, mono and from -1 to 1, in chunks of any length; returns the words heard in them. */
  async process(audio: Float32Array): Promise<Detection[]> {
    return this.eventsIn(this.resampler?.process(audio) ?? audio);
  }

  /** End a recording: returns the words at its very end, as if silence followed it, and starts over. */
  async finish(): Promise<Detection[]> {
    const rest = this.resampler ? await this.eventsIn(this.resampler.finish()) : [];
    const tail = await this.eventsIn(new Float32Array(tailSamples(this.model.metadata, this.config)));
    this.reset();
    return [...rest, ...tail];
  }

  /** Go back to the start of a stream. */
  reset(): void {
    const { rate } = this.model.metadata;
    this.resampler = this.rate === rate ? undefined : new Resampler(this.rate, rate);
    this.stream.reset();
    this.decoder.reset();
  }

  /** Free the model's memory; the detector cannot be used afterwards. */
  async release(): Promise<void> {
    await this.model.release();
  }

  private async eventsIn(audio: Float32Array): Promise<Detection[]> {
    return (await this.stream.process(audio)).flatMap((row) => this.decoder.process(row) ?? []);
  }
}
