/** Sound files in: blocks of mono samples, decoded as they are needed, so that a file's length does not matter. */
import {
  ADTS,
  AudioSampleSink,
  BlobSource,
  FLAC,
  Input,
  MATROSKA,
  MP3,
  MP4,
  OGG,
  QTFF,
  WAVE,
  WEBM,
  type AudioSample,
} from "mediabunny";
import { KwsError } from "./errors";

/** A file that this browser's stream decoders do not know. */
export class Undecodable extends Error {}

export interface SoundFile {
  rate: number;
  totalS: number | null;
  blocks: AsyncIterable<Float32Array>;
}

/** Open a sound file. Throws KwsError if it is empty or has no soundtrack, Undecodable if it is of no kind that can be read as a stream. */
export async function openSound(file: Blob, name: string): Promise<SoundFile> {
  if (file.size === 0) throw new KwsError(`${name}: is empty (0 bytes), expected a sound file; download or record it again.`);
  const input = new Input({
    source: new BlobSource(file),
    formats: [WAVE, MP3, FLAC, OGG, MP4, QTFF, WEBM, MATROSKA, ADTS],
  });
  const tracks = await input.getAudioTracks().catch(() => undefined);
  if (tracks?.length === 0) {
    throw new KwsError(`${name}: found no sound in it (no soundtrack), expected a recording or a film with sound; choose another file.`);
  }
  const track = await input.getPrimaryAudioTrack().catch(() => null);
  if (!track || !(await track.canDecode().catch(() => false))) throw new Undecodable(name);
  const totalS = await track.getDurationFromMetadata().catch(() => null);
  return { rate: await track.getSampleRate(), totalS, blocks: monoBlocks(new AudioSampleSink(track)) };
}

async function* monoBlocks(sink: AudioSampleSink): AsyncGenerator<Float32Array> {
  for await (const sample of sink.samples()) {
    const mono = mixDown(sample);
    sample.close();
    yield mono;
  }
}

/** The mean of all channels. */
function mixDown(sample: AudioSample): Float32Array {
  const mono = new Float32Array(sample.numberOfFrames);
  const plane = new Float32Array(sample.numberOfFrames);
  for (let channel = 0; channel < sample.numberOfChannels; channel++) {
    sample.copyTo(channel === 0 ? mono : plane, { planeIndex: channel, format: "f32-planar" });
    if (channel > 0) for (let i = 0; i < mono.length; i++) mono[i] += plane[i];
  }
  if (sample.numberOfChannels > 1) for (let i = 0; i < mono.length; i++) mono[i] /= sample.numberOfChannels;
  return mono;
}
