/** Colours of words and of the log-mel picture, in light and in dark. */
import { isDark, onTheme } from "./theme";

const MANY = 12;
const GOLDEN_ANGLE = 137.508;

/** The colour of the `index`th of `n` words; they lie evenly around the circle, or, if many, far from their neighbours. */
export function wordColour(index: number, n: number): string {
  const hue = (25 + index * (n > MANY ? GOLDEN_ANGLE : 360 / n)) % 360;
  return isDark() ? `oklch(0.78 0.14 ${hue})` : `oklch(0.51 0.15 ${hue})`;
}

const resolved = new Map<string, string>();
onTheme(() => resolved.clear());

/** A colour of the style sheet as it stands now, for a canvas. */
export function cssColour(name: string): string {
  let colour = resolved.get(name);
  if (!colour) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    resolved.set(name, (colour = getComputedStyle(probe).color));
    probe.remove();
  }
  return colour;
}

const STOPS = {
  dark: ["#0a0b10", "#2a1a5e", "#7b2a8b", "#dd4f5d", "#ffb45a", "#fff6c8"],
  light: ["#fafaff", "#dcd8fb", "#aaa0f4", "#6a55e8", "#3b1fa8", "#1a0b52"],
};

/** 256 colours (red, green, blue) from silence to loud. */
export function heatMap(): Uint8Array {
  const stops = STOPS[isDark() ? "dark" : "light"].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const map = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const below = Math.min(stops.length - 2, Math.floor(at));
    for (let c = 0; c < 3; c++) map[3 * i + c] = stops[below][c] + (at - below) * (stops[below + 1][c] - stops[below][c]);
  }
  return map;
}
