/** A log-mel picture of a stream, for the eye only: what the model hears is computed inside its own graph. */
export const BANDS = 64;
export const COLUMN_S = 0.02;

const SIZE = 512;
const [F_MIN, F_MAX] = [20, 7600];
const [FLOOR_DB, CEILING_DB] = [-85, -15];

export class LogMel {
  private readonly hop: number;
  private readonly window = Float64Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  private readonly real = new Float64Array(SIZE);
  private readonly imaginary = new Float64Array(SIZE);
  private readonly cosines = Float64Array.from({ length: SIZE / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
  private readonly sines = Float64Array.from({ length: SIZE / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / SIZE));
  private readonly bands: { from: number; weights: number[] }[];
  private readonly recent = new Float32Array(SIZE);
  private filled = 0;

  constructor(rate: number) {
    this.hop = Math.round(COLUMN_S * rate);
    const mel = (hz: number) => Math.log(1 + hz / 700);
    const edges = Array.from({ length: BANDS + 2 }, (_, i) => {
      const at = mel(F_MIN) + ((mel(F_MAX) - mel(F_MIN)) * i) / (BANDS + 1);
      return ((Math.exp(at) - 1) * 700 * SIZE) / rate;
    });
    this.bands = Array.from({ length: BANDS }, (_, b) => triangle(edges[b], edges[b + 1], edges[b + 2]));
  }

  /** Columns of BANDS bytes, low frequencies first, one for every COLUMN_S of sound that `audio` completes. */
  process(audio: Float32Array): Uint8Array {
    const columns = new Uint8Array(BANDS * Math.floor((this.filled + audio.length) / this.hop));
    let taken = 0;
    for (let at = 0; at < columns.length; at += BANDS) {
      const needed = this.hop - this.filled;
      this.push(audio.subarray(taken, taken + needed));
      taken += needed;
      this.filled = 0;
      this.column(columns.subarray(at, at + BANDS));
    }
    this.push(audio.subarray(taken));
    this.filled += audio.length - taken;
    return columns;
  }

  private push(audio: Float32Array): void {
    this.recent.copyWithin(0, audio.length);
    this.recent.set(audio, SIZE - audio.length);
  }

  private column(into: Uint8Array): void {
    for (let i = 0; i < SIZE; i++) this.real[i] = this.recent[i] * this.window[i];
    this.imaginary.fill(0);
    this.transform();
    for (let b = 0; b < BANDS; b++) {
      const { from, weights } = this.bands[b];
      let power = 1e-12;
      for (let i = 0; i < weights.length; i++) {
        power += weights[i] * (this.real[from + i] ** 2 + this.imaginary[from + i] ** 2);
      }
      const db = 10 * Math.log10(power / (SIZE / 4) ** 2);
      into[b] = Math.max(0, Math.min(255, (255 * (db - FLOOR_DB)) / (CEILING_DB - FLOOR_DB)));
    }
  }

  /** The discrete Fourier transform in place, radix 2. */
  private transform(): void {
    const { real, imaginary } = this;
    for (let i = 1, j = 0; i < SIZE; i++) {
      let bit = SIZE >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) [real[i], real[j]] = [real[j], real[i]]; // the imaginary parts are all zero
    }
    for (let length = 2; length <= SIZE; length *= 2) {
      const step = SIZE / length;
      for (let start = 0; start < SIZE; start += length) {
        for (let k = 0; k < length / 2; k++) {
          const [a, b] = [start + k, start + k + length / 2];
          const [cosine, sine] = [this.cosines[k * step], this.sines[k * step]];
          const re = real[b] * cosine - imaginary[b] * sine;
          const im = real[b] * sine + imaginary[b] * cosine;
          real[b] = real[a] - re;
          imaginary[b] = imaginary[a] - im;
          real[a] += re;
          imaginary[a] += im;
        }
      }
    }
  }
}

/** Weights of the bins between two edges; a band narrower than a bin takes the nearest. */
function triangle(low: number, middle: number, high: number): { from: number; weights: number[] } {
  const from = Math.ceil(low);
  const weights: number[] = [];
  for (let bin = from; bin < high; bin++) {
    weights.push(bin < middle ? (bin - low) / (middle - low) : (high - bin) / (high - middle));
  }
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return sum > 0.3 ? { from, weights: weights.map((w) => w / sum) } : { from: Math.round(middle), weights: [1] };
}
