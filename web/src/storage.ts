/** Choices that the browser remembers, where it lets a page remember anything. */

/** What was remembered under a name; empty if nothing, or if storage is refused. */
export function recall(name: string): string {
  try {
    return localStorage.getItem(`tiny-kws ${name}`) ?? "";
  } catch {
    return "";
  }
}

/** Remember it; where storage is full or refused the choice holds until the page is closed. */
export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`tiny-kws ${name}`, value);
  } catch {
    // The choice holds on this page all the same.
  }
}
