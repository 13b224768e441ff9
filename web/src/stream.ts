/** Runs a stream artefact with onnxruntime's WebAssembly, hop by hop, as `tiny_kws.artefact.runtime.Stream` does. */
import * as ort from "onnxruntime-web/wasm";
import { type Artefact, type Metadata, OPEN, type Value, parseArtefact, verifyChecksum } from "./artefact";
import { KwsError, messageOf } from "./errors";
import { wasmBinary } from "./wasm";

ort.env.wasm.numThreads = 1; // one is fastest for networks this small, and needs no cross-origin isolation
ort.env.logLevel = "error";

const STATE_WRITTEN = "next_";

/** A loaded stream artefact; any number of streams share it, one call at a time. */
export class StreamModel {
  private constructor(
    readonly metadata: Metadata,
    readonly session: ort.InferenceSession,
    /** State inputs, each with the name of the output that gives its next value. */
    readonly states: readonly (Value & { written: string })[],
  ) {}

  /** Throws KwsError, naming `where`, if the bytes are no artefact for streams that onnxruntime can run. */
  static async load(bytes: Uint8Array, where: string): Promise<StreamModel> {
    const artefact = parseArtefact(bytes, where);
    await verifyChecksum(bytes, where);
    const states = statesOf(artefact, where);
    ort.env.wasm.wasmBinary ??= await wasmBinary();
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    } catch (error) {
      const reason = messageOf(error).replace(/\s+/g, " ").slice(0, 160);
      throw new KwsError(`${where}: onnxruntime cannot load it (${reason}); export it again.`);
    }
    return new StreamModel(artefact.metadata, session, states);
  }

  /** A new stream, in the state of silence. */
  stream(): Stream {
    return new Stream(this);
  }

  /** Give its memory back. */
  async release(): Promise<void> {
    await this.session.release();
  }
}

/** One stream of sound: samples at the model's rate in, a row of probabilities for each whole hop out. */
export class Stream {
  private readonly hop: Float32Array<ArrayBuffer>;
  private readonly audio: ort.Tensor;
  private filled = 0;
  private states!: Record<string, ort.Tensor>;

  constructor(private readonly model: StreamModel) {
    this.hop = new Float32Array(model.metadata.hop);
    this.audio = new ort.Tensor("float32", this.hop, [1, this.hop.length]);
    this.reset();
  }

  /** Back to the start: silence before the next samples, and no part of a hop waiting. */
  reset(): void {
    this.filled = 0;
    this.states = Object.fromEntries(
      this.model.states.map(({ name, shape }) => {
        const zeros = new Float32Array(shape.reduce((product, n) => product * n, 1));
        return [name, new ort.Tensor("float32", zeros, shape)];
      }),
    );
  }

  /** Rows of probabilities (labels) at the end of every hop that `audio` completes; the rest waits. */
  async process(audio: Float32Array): Promise<Float32Array[]> {
    const rows: Float32Array[] = [];
    for (let taken = 0; taken < audio.length; ) {
      const part = audio.subarray(taken, taken + this.hop.length - this.filled);
      this.hop.set(part, this.filled);
      this.filled += part.length;
      taken += part.length;
      if (this.filled < this.hop.length) break;
      this.filled = 0;
      const found = await this.model.session.run({ audio: this.audio, ...this.states }, this.outputs);
      for (const { name, written } of this.model.states) this.states[name] = found[written];
      rows.push(found.probabilities.data as Float32Array);
    }
    return rows;
  }

  private get outputs(): string[] {
    return ["probabilities", ...this.model.states.map(({ written }) => written)];
  }
}

/** The graph's states. Throws KwsError if its inputs and outputs are not those that its metadata speak of. */
function statesOf({ metadata, inputs, outputs }: Artefact, where: string): (Value & { written: string })[] {
  const written = new Set(outputs.map(({ name }) => name));
  const audio = inputs.find(({ name }) => name === "audio");
  const probabilities = outputs.find(({ name }) => name === "probabilities");
  const [hop, columns] = [audio, probabilities].map((value) => value?.shape.at(-1) ?? "no");
  if (hop !== metadata.hop || columns !== metadata.labels.length) {
    throw new KwsError(
      `${where}: its graph takes ${hop} samples and gives ${columns} probabilities, expected a hop of ${metadata.hop} and ${metadata.labels.length} labels; export it again.`,
    );
  }
  return inputs
    .filter((input) => input !== audio)
    .map(({ name, shape: [batch, ...sizes] }) => {
      const state = { name, shape: [batch === OPEN ? 1 : batch, ...sizes] };
      if (!written.has(STATE_WRITTEN + state.name) || state.shape.some((n) => n < 1)) {
        throw new KwsError(`${where}: its graph takes ${state.name} of shape (${state.shape}) and does not give its next value; export it again.`);
      }
      return { ...state, written: STATE_WRITTEN + state.name };
    });
}
