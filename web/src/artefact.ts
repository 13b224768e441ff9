/**
 * The artefact: an ONNX file whose metadata, one JSON value, says all there is to know about the model.
 *
 * onnxruntime-web does not give out an ONNX file's metadata, so the few fields that are needed are read from the
 * protobuf itself: the metadata and the names and shapes of the graph's inputs and outputs.
 */
import { KwsError } from "./errors";
import { sha256 } from "./sha256";

const FORMAT = 1;
const METADATA_KEY = "tiny_kws";
const MAX_BYTES = 64 * 2 ** 20; // far above any keyword model, far below what would fill a memory

/** In a shape, the size of an axis that is not settled: that of a batch. */
export const OPEN = -1;

/** What an artefact says of itself; lengths in samples at `rate` Hz. */
export interface Metadata {
  name: string;
  kind: string;
  labels: string[];
  rate: number;
  window: number;
  hop: number;
  parameters: number;
  macs: number;
  detector: Record<string, unknown>;
  licence?: string;
  data?: { source?: string };
}

/** An input or output of the graph. */
export interface Value {
  name: string;
  shape: number[];
}

export interface Artefact {
  bytes: Uint8Array;
  metadata: Metadata;
  inputs: Value[];
  outputs: Value[];
}

/** Throw KwsError, naming `where`, for more bytes than a model can have. */
export function checkSize(bytes: number, where: string): void {
  if (bytes > MAX_BYTES) {
    throw new KwsError(`${where}: has ${bytes} bytes, expected a keyword model of at most ${MAX_BYTES}.`);
  }
}

/** Read an artefact. Throws KwsError, naming `where`, if it is foreign, damaged, too new or for other audio. */
export function parseArtefact(bytes: Uint8Array, where: string): Artefact {
  checkSize(bytes.length, where);
  const properties = new Map<string, string>();
  const inputs: Value[] = [];
  const outputs: Value[] = [];
  try {
    for (const [field, content] of messages(bytes)) {
      if (field === 7) {
        for (const [part, value] of messages(content)) {
          if (part === 11) inputs.push(parseValue(value));
          if (part === 12) outputs.push(parseValue(value));
        }
      } else if (field === 14) {
        properties.set(textOf(content, 1), textOf(content, 2));
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new KwsError(`${where}: is not an ONNX file or was cut short, expected a file written by \`tiny-kws export --stream\`.`);
  }
  return { bytes, metadata: parseMetadata(properties.get(METADATA_KEY), where), inputs, outputs };
}

/** Throw KwsError, naming `where`, unless the artefact's checksum fits: the SHA-256 of the file with its digits zero. */
export async function verifyChecksum(bytes: Uint8Array, where: string): Promise<void> {
  const text = new TextDecoder("latin1").decode(bytes);
  const found = [...text.matchAll(/"artefact_sha256": ?"([0-9a-f]{64})"/g)];
  if (found.length !== 1) {
    throw new KwsError(`${where}: is not a tiny-kws artefact (it has no checksum), expected a file written by \`tiny-kws export --stream\`.`);
  }
  const end = found[0].index + found[0][0].length - 1;
  const summed = bytes.slice();
  summed.fill("0".charCodeAt(0), end - 64, end);
  if ((await sha256(summed)) !== found[0][1]) {
    throw new KwsError(`${where}: was altered or damaged (its SHA-256 does not match), download or export it again.`);
  }
}

function parseMetadata(text: string | undefined, where: string): Metadata {
  if (text === undefined) {
    throw new KwsError(`${where}: has no tiny-kws metadata, expected a file written by \`tiny-kws export --stream\`.`);
  }
  let found: Metadata & { format?: number };
  try {
    found = JSON.parse(text) as typeof found;
  } catch {
    throw new KwsError(`${where}: its metadata is not a JSON object, export it again.`);
  }
  if (found?.format !== FORMAT) {
    throw new KwsError(`${where}: has format version ${found?.format}, expected ${FORMAT}; install a newer tiny-kws.`);
  }
  if (found.kind !== "stream") {
    throw new KwsError(`${where}: is a ${found.kind} artefact, expected one for streams (\`tiny-kws export --stream\`).`);
  }
  const areNames = Array.isArray(found.labels) && found.labels.every((label) => typeof label === "string");
  if (!areNames || found.labels.length === 0 || new Set(found.labels).size < found.labels.length) {
    throw new KwsError(`${where}: has the labels ${found.labels}, expected a list of different names; export it again.`);
  }
  const lengths = [found.rate, found.hop, found.window];
  if (!lengths.every((x) => Number.isInteger(x) && x > 0) || found.hop > found.window) {
    throw new KwsError(
      `${where}: has a rate, hop and window of ${lengths.join(", ")}; expected whole numbers above 0, and a hop no longer than the window; export it again.`,
    );
  }
  return found;
}

function parseValue(bytes: Uint8Array): Value {
  const shape: number[] = [];
  for (const [field, type] of messages(bytes)) {
    if (field !== 2) continue;
    for (const [, tensor] of messages(type)) {
      for (const [part, dimensions] of messages(tensor)) {
        if (part !== 2) continue;
        for (const [, dimension] of messages(dimensions)) shape.push(firstVarint(dimension) ?? OPEN);
      }
    }
  }
  return { name: textOf(bytes, 1), shape };
}

function textOf(bytes: Uint8Array, wanted: number): string {
  for (const [field, content] of messages(bytes)) if (field === wanted) return new TextDecoder().decode(content);
  return "";
}

/** The value of field 1 if it is a number. */
function firstVarint(bytes: Uint8Array): number | undefined {
  for (const [field, , number] of fields(bytes)) if (field === 1) return number;
  return undefined;
}

/** The fields of a protobuf message that are messages, texts or bytes, with their numbers. */
function* messages(bytes: Uint8Array): Generator<[number, Uint8Array]> {
  for (const [field, content] of fields(bytes)) if (content) yield [field, content];
}

/** All fields: number, content (if of the kind that has a length) and value (if a varint). Throws RangeError. */
function* fields(bytes: Uint8Array): Generator<[number, Uint8Array | undefined, number | undefined]> {
  let at = 0;
  const varint = (): number => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || scale > 2 ** 63) throw new RangeError("cut short");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const wire = tag % 8;
    const field = Math.floor(tag / 8);
    if (field === 0) throw new RangeError("no such field");
    if (wire === 0) {
      yield [field, undefined, varint()];
      continue;
    }
    const length = wire === 2 ? varint() : { 1: 8, 5: 4 }[wire];
    if (length === undefined || at + length > bytes.length) throw new RangeError("cut short");
    yield [field, wire === 2 ? bytes.subarray(at, at + length) : undefined, undefined];
    at += length;
  }
}
