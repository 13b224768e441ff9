/** The waveform of a recording with the words heard in it; it can be zoomed and scrolled. */
import { cssColour } from "./colours";
import type { Detection } from "./decoder";
import { byId, clock, shortened, sized } from "./dom";
import type { Overview } from "./protocol";

const SHORTEST_VIEW_S = 2;
const WIDEST_PX = 4e6; // of the scrolled room; browsers place nothing beyond some ten million
const ZOOM_STEP = 2;
const MAX_WORD = 0.45; // of the picture's width
const LEAST_GAP_PX = 3; // between two marks of words; denser ones are left out
const ROOMY_PX = 14; // for each word, and its line may cross the waveform; where it has less it is a short mark
const LEAST_TICK_PX = 70;
const TICKS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
const [TOP, FOOT] = [30, 50]; // above the waveform, for words; beneath it, for the score and the time

interface Shown {
  overview: Overview;
  total: number; // seconds
  events: readonly Detection[];
}

type ToX = (second: number) => number;

export class WaveView {
  private readonly scroller = byId("wave-scroll");
  private readonly canvas = byId<HTMLCanvasElement>("wave");
  private shown: Shown | undefined;
  private loudest = 1;
  private zoom = 1;
  private playheadS = 0;

  /** `colour` gives the colour of a word; `pick` is told the second that was clicked. */
  constructor(
    private readonly colour: (label: string) => string,
    pick: (second: number) => void,
  ) {
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.scroller.onscroll = () => this.draw();
    this.canvas.onclick = ({ offsetX }) => this.shown && pick(this.fromS + (offsetX / this.width) * this.spanS);
    this.scroller.onkeydown = ({ key }) => this.onKey(key);
    this.scroller.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    byId("zoom-in").onclick = () => this.zoomBy(ZOOM_STEP);
    byId("zoom-out").onclick = () => this.zoomBy(1 / ZOOM_STEP);
    byId("zoom-whole").onclick = () => this.zoomBy(0);
  }

  /** Nothing to show yet. */
  clear(): void {
    [this.shown, this.playheadS] = [undefined, 0];
    this.zoomBy(0);
  }

  show(shown: Shown): void {
    this.shown = shown;
    const { low, high } = shown.overview;
    this.loudest = Math.max(0.05, largest(high, 0, high.length), -smallest(low, 0, low.length));
    this.zoomBy(1);
  }

  /** Where the player is; `isPlaying` keeps it in sight. */
  movePlayhead(second: number, isPlaying: boolean): void {
    this.playheadS = second;
    if (isPlaying && (second < this.fromS || second > this.fromS + this.spanS)) this.scrollTo(second, 0.1);
    this.draw();
  }

  private get width(): number {
    return this.scroller.clientWidth;
  }

  private get total(): number {
    return Math.max(this.shown?.total ?? 0, 1e-3);
  }

  private get spanS(): number {
    return this.total / this.zoom;
  }

  private get fromS(): number {
    return (this.scroller.scrollLeft / Math.max(1, this.width * this.zoom)) * this.total;
  }

  /** Zoom so that the second at `anchor`, a share of the width, stays where it is. */
  private zoomBy(factor: number, anchor = 0.5): void {
    const atS = this.fromS + anchor * this.spanS;
    const most = Math.max(1, Math.min(this.total / SHORTEST_VIEW_S, WIDEST_PX / Math.max(1, this.width)));
    this.zoom = Math.min(most, Math.max(1, this.zoom * factor));
    byId("wave-room").style.width = `${100 * this.zoom}%`;
    this.scrollTo(atS, anchor);
    byId<HTMLButtonElement>("zoom-in").disabled = this.zoom >= most;
    byId<HTMLButtonElement>("zoom-out").disabled = byId<HTMLButtonElement>("zoom-whole").disabled = this.zoom <= 1;
    this.draw();
  }

  private scrollTo(second: number, anchor: number): void {
    this.scroller.scrollLeft = ((second / this.total) * this.zoom - anchor) * this.width;
  }

  private onKey(key: string): void {
    if (key === "+" || key === "=") this.zoomBy(ZOOM_STEP);
    if (key === "-") this.zoomBy(1 / ZOOM_STEP);
    if (key === "0") this.zoomBy(0);
  }

  /** With Ctrl, as where two fingers pinch, the wheel zooms; without, it scrolls what it always does. */
  private onWheel(event: WheelEvent): void {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const { left } = this.scroller.getBoundingClientRect();
    this.zoomBy(2 ** (-event.deltaY / 100), (event.clientX - left) / this.width);
  }

  private draw(): void {
    const { to, width, height } = sized(this.canvas);
    if (!this.shown || width === 0) return;
    const [fromS, spanS] = [this.fromS, this.spanS];
    const x: ToX = (second) => ((second - fromS) / spanS) * width;
    this.drawSound(to, width, height, x);
    this.drawTimes(to, width, height, x);
    this.drawWords(to, width, height, x);
    if (this.playheadS > 0) {
      to.fillStyle = cssColour("--live");
      to.fillRect(x(this.playheadS) - 1, 0, 2, height);
    }
  }

  /** The waveform, and beneath it the likeliest word's probability; a pixel shows all the bins that lie in it. */
  private drawSound(to: CanvasRenderingContext2D, width: number, height: number, x: ToX): void {
    const { low, high, score, binS } = this.shown!.overview;
    const bottom = height - FOOT;
    const [middle, half] = [(TOP + bottom) / 2, (bottom - TOP) / 2 / this.loudest];
    const perPixel = this.spanS / width / binS;
    const first = this.fromS / binS;
    const last = Math.min(width, x(high.length * binS));
    const accent = cssColour("--accent");
    const dim = cssColour("--dim");
    for (let pixel = 0; pixel < last; pixel++) {
      const from = Math.floor(first + pixel * perPixel);
      const until = Math.min(high.length, Math.max(from + 1, Math.ceil(first + (pixel + 1) * perPixel)));
      const [top, foot] = [largest(high, from, until), smallest(low, from, until)];
      to.fillStyle = accent;
      to.fillRect(pixel, middle - top * half - 0.5, 1, (top - foot) * half + 1);
      const likely = 24 * largest(score, from, until);
      to.fillStyle = dim;
      to.fillRect(pixel, height - 20 - likely, 1, likely);
    }
  }

  private drawTimes(to: CanvasRenderingContext2D, width: number, height: number, x: ToX): void {
    const step = TICKS_S.find((seconds) => (seconds / this.spanS) * width >= LEAST_TICK_PX) ?? this.total;
    to.font = "11px system-ui, sans-serif";
    to.textAlign = "left";
    to.fillStyle = cssColour("--dim");
    for (let second = Math.ceil(this.fromS / step) * step; x(second) < width; second += step) {
      to.fillRect(x(second), height - 19, 1, 5);
      if (x(second) < width - LEAST_TICK_PX / 2) to.fillText(clock(second, step < 1 ? 1 : 0), x(second) + 3, height - 5);
    }
  }

  private drawWords(to: CanvasRenderingContext2D, width: number, height: number, x: ToX): void {
    to.font = "600 12px system-ui, sans-serif";
    to.textAlign = "center";
    const inView = this.shown!.events.filter(({ end_s }) => x(end_s) >= 0 && x(end_s) <= width);
    const length = width / inView.length > ROOMY_PX ? height - 42 : 8;
    let [line, free] = [-Infinity, -Infinity]; // the last mark, and from where on the next label finds room
    for (const { label, end_s } of inView) {
      const at = x(end_s);
      if (at - line < LEAST_GAP_PX) continue;
      line = at;
      to.fillStyle = this.colour(label);
      to.fillRect(at - 0.75, 22, 1.5, length);
      const text = shortened(to, label, MAX_WORD * width);
      const half = to.measureText(text).width / 2 + 8;
      const middle = Math.min(Math.max(at, half + 2), width - half - 2);
      if (middle - half < free) continue;
      free = middle + half + 2;
      to.beginPath();
      to.roundRect(middle - half, 3, 2 * half, 20, 10);
      to.fill();
      to.fillStyle = cssColour("--stage");
      to.fillText(text, middle, 17);
    }
  }
}

/** The largest of the values from one index up to another, at least 0. */
function largest(values: Float32Array, from: number, until: number): number {
  let found = 0;
  for (let i = from; i < until; i++) if (values[i] > found) found = values[i];
  return found;
}

/** The smallest, at most 0. */
function smallest(values: Float32Array, from: number, until: number): number {
  let found = 0;
  for (let i = from; i < until; i++) if (values[i] < found) found = values[i];
  return found;
}
