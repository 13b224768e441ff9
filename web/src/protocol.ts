/** What page and worker tell one another. */
import type { Metadata } from "./artefact";
import type { Detection, DetectorConfig } from "./decoder";

/** What `models/index.json` says: the package's defaults and the models beside it. */
export interface Settings {
  detector: DetectorConfig;
  not_words: string[];
  default: string;
  models: { name: string; file: string; bytes: number; listens: boolean }[]; // listens: tuned for it, not for single clips
  links: Record<string, string>; // of the project, by what they are called
}

export type Request =
  | { kind: "model"; name: string; bytes: Uint8Array; settings: Settings }
  | { kind: "threshold"; value: number | null } // null: the model's own
  | { kind: "start"; rate: number; port: MessagePort } // the port brings Batches
  | { kind: "stop"; withTail: boolean } // with the silence that lets a last word be found, or at once
  | { kind: "file"; id: number; name: string; file: Blob }
  | { kind: "samples"; id: number; name: string; samples: Float32Array; rate: number } // a file that the page decoded
  | { kind: "cancel" }
  | { kind: "preview"; id: number; samples: Float32Array }; // at the model's rate; what listening would show of it

/** Sound from the audio thread: mono samples, and when the last of them came, by the wall clock in ms. */
export interface Batch {
  samples: Float32Array;
  arrived: number;
}

export type Report =
  | ModelReport
  | Failure
  | LiveReport
  | { kind: "note"; message: string } // listening goes on, but
  | { kind: "stopped" }
  | { kind: "decode"; id: number } // this worker cannot read the file: let the page try
  | { kind: "preview"; id: number; reports: LiveReport[] }
  | FileReport;

/** A model was loaded; `words` are those that can be events, `config` the settings that it carries. */
export interface ModelReport {
  kind: "model";
  name: string;
  metadata: Metadata;
  words: string[];
  config: DetectorConfig;
}

export interface Failure {
  kind: "failed";
  what: "model" | "file";
  name: string;
  message: string;
}

/** What came of live sound since the last report, up to the end of a hop. */
export interface LiveReport {
  kind: "live";
  seconds: number; // since the start
  probabilities: Float32Array; // of each label, at the last hop
  columns: Uint8Array; // of the log-mel picture
  level: number; // RMS in dB under full scale
  events: Detection[];
  busyMs: number; // what all this took
  soundMs: number; // of how much sound
  delayMs: number; // from the arrival of the hop's last sample to its probabilities
}

/** What came of a file so far. */
export interface FileReport {
  kind: "file";
  id: number;
  seconds: number; // so far
  total: number; // of the whole, if known, or so far
  isDone: boolean;
  tookMs: number;
  overview: Overview;
  events: Detection[];
}

/** A recording in a few bins of `binS` seconds: its waveform, and the likeliest word's probability. */
export interface Overview {
  binS: number;
  low: Float32Array;
  high: Float32Array;
  score: Float32Array;
}
