/** Any failure the page explains: one complete line that says what was found, what was expected and what to do. */
export class KwsError extends Error {}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
