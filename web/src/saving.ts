/** Files of events, as other programs read them. */
import { eventJson, type Detection } from "./decoder";
import { make } from "./dom";

export interface Format {
  suffix: string;
  type: string;
  /** The file's lines for events found in the recording `name`. */
  lines: (events: readonly Detection[], name: string) => string[];
}

/** By what the button is called. */
export const FORMATS = {
  /** A label track for Audacity, as `tiny-kws detect --labels` writes it. */
  labels: { suffix: "txt", type: "text/plain", lines: (events) => events.map(labelLine) },
  csv: { suffix: "csv", type: "text/csv", lines: (events) => ["label,start_s,end_s,confidence\r\n", ...events.map(csvLine)] },
  /** One event per line, as `tiny-kws detect --json` prints them. */
  json: { suffix: "jsonl", type: "application/jsonl", lines: (events, name) => events.map((event) => `${eventJson(event, name)}\n`) },
} satisfies Record<string, Format>;

/** Have the browser save events found in the recording `name`. */
export function save({ suffix, type, lines }: Format, events: readonly Detection[], name: string): void {
  const link = make("a", { download: `${name.replace(/\.\w+$/, "")}.${suffix}` }) as HTMLAnchorElement;
  link.href = URL.createObjectURL(new Blob(lines(events, name), { type }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function labelLine({ start_s, end_s, label }: Detection): string {
  return `${start_s.toFixed(6)}\t${end_s.toFixed(6)}\t${label}\n`;
}

/** RFC 4180; a label that a spreadsheet would take for a formula gets an apostrophe. */
function csvLine({ label, start_s, end_s, confidence }: Detection): string {
  const plain = /^[=+\-@\t\r]/.test(label) ? `'${label}` : label;
  const quoted = /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  return `${[quoted, start_s, end_s, confidence].join()}\r\n`;
}
