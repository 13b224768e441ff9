/**
 * A band-limited resampler for streams: windowed sinc (Kaiser), one set of taps for each place an output sample can
 * have between two input samples (Smith & Gossett 1984, "A flexible sampling-rate conversion method").
 *
 * Flat to 0.9 of the lower rate's half, down 90 dB from there on up. The same samples give the same output, to the
 * last bit, however they are divided into chunks.
 */
const PASS = 0.9; // of the lower of both Nyquist frequencies
const STOP_DB = 90;
const MAX_PHASES = 2048; // rates with no small ratio take the nearest of so many places; an error of -80 dB at most

export class Resampler {
  private readonly up: number;
  private readonly down: number;
  private readonly half: number; // taps on either side
  private readonly cutoff: number; // in cycles per input sample
  private readonly phases: (Float32Array | undefined)[];
  private held: Float32Array;
  private heldFrom: number; // the number of the first sample held; silence lies before 0
  private received = 0;
  private produced = 0;

  /** From `rate` to `target`, both in Hz, above 0. */
  constructor(
    readonly rate: number,
    readonly target: number,
  ) {
    const divisor = greatestCommonDivisor(Math.round(rate), Math.round(target));
    this.up = Math.round(target) / divisor;
    this.down = Math.round(rate) / divisor;
    const nyquist = Math.min(0.5, (0.5 * target) / rate);
    this.cutoff = (nyquist * (1 + PASS)) / 2;
    // Kaiser's estimate of the length that gives STOP_DB over so wide a transition.
    this.half = Math.ceil((STOP_DB - 7.95) / (2.285 * 2 * Math.PI * nyquist * (1 - PASS)) / 2);
    this.phases = new Array<Float32Array | undefined>(Math.min(this.up, MAX_PHASES));
    this.heldFrom = -this.half;
    this.held = new Float32Array(this.half);
  }

  /** How long a sample waits for those after it. */
  get delayS(): number {
    return (this.half + 1) / this.rate;
  }

  /** What `chunk` completes; the output lines up with the input, and waits for `half` + 1 input samples beyond it. */
  process(chunk: Float32Array): Float32Array {
    const joined = new Float32Array(this.held.length + chunk.length);
    joined.set(this.held);
    joined.set(chunk, this.held.length);
    this.received += chunk.length;
    const until = Math.max(this.produced, Math.ceil(((this.received - this.half - 1) * this.up) / this.down));
    const output = new Float32Array(until - this.produced);
    for (let i = 0; i < output.length; i++) output[i] = this.at(joined, this.produced + i);
    this.produced = until;
    const needed = Math.floor((until * this.down) / this.up) - this.half + 1;
    const kept = Math.min(joined.length, Math.max(0, needed - this.heldFrom));
    this.held = joined.slice(kept);
    this.heldFrom += kept;
    return output;
  }

  /** What is still to come, with silence after the end. The stream ends here. */
  finish(): Float32Array {
    const total = Math.round((this.received * this.up) / this.down);
    const rest = this.process(new Float32Array(this.half + 1 + Math.ceil(this.down / this.up)));
    return rest.subarray(0, Math.max(0, total - (this.produced - rest.length)));
  }

  private at(joined: Float32Array, number: number): number {
    const position = (number * this.down) / this.up;
    let whole = Math.floor(position);
    let phase = Math.round((position - whole) * this.phases.length);
    if (phase === this.phases.length) [whole, phase] = [whole + 1, 0];
    const taps = (this.phases[phase] ??= this.makeTaps(phase / this.phases.length));
    const from = whole - this.half + 1 - this.heldFrom;
    let [even, odd] = [0, 0]; // taps come in pairs; two sums are faster than one
    for (let i = 0, j = from; i < taps.length; i += 2, j += 2) {
      even += taps[i] * joined[j];
      odd += taps[i + 1] * joined[j + 1];
    }
    return even + odd;
  }

  /** Taps for an output `fraction` of a sample after the `half`th of those they are laid on. */
  private makeTaps(fraction: number): Float32Array {
    const beta = 0.1102 * (STOP_DB - 8.7);
    const taps = Float64Array.from({ length: 2 * this.half }, (_, i) => {
      const distance = i - (this.half - 1) - fraction;
      const x = 2 * Math.PI * this.cutoff * distance;
      const sinc = Math.abs(x) < 1e-9 ? 1 : Math.sin(x) / x;
      const edge = Math.min(1, Math.abs(distance) / this.half);
      return (sinc * bessel(beta * Math.sqrt(1 - edge * edge))) / bessel(beta);
    });
    const sum = taps.reduce((total, tap) => total + tap, 0);
    return Float32Array.from(taps, (tap) => tap / sum);
  }
}

/** The modified Bessel function of order zero. */
function bessel(x: number): number {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
