/** The element of the page with this id. */
export function byId<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found as T;
}

/** A new element with attributes, style properties (their names start with --) and children. */
export function make(tag: string, attributes: Record<string, string> = {}, ...children: (Node | string)[]): HTMLElement {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A canvas's context with its size in CSS pixels; sharp on dense screens. */
export function sized(canvas: HTMLCanvasElement): { to: CanvasRenderingContext2D; width: number; height: number } {
  const { clientWidth: width, clientHeight: height } = canvas;
  const density = Math.min(2, devicePixelRatio);
  if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
  }
  const to = canvas.getContext("2d", { alpha: true })!;
  to.setTransform(density, 0, 0, density, 0, 0);
  to.clearRect(0, 0, width, height);
  return { to, width, height };
}

/** `text`, or so much of it with … behind it as a canvas shows in `width` pixels. */
export function shortened(to: CanvasRenderingContext2D, text: string, width: number): string {
  if (to.measureText(text).width <= width) return text;
  const letters = [...text];
  while (letters.length > 1 && to.measureText(`${letters.join("")}…`).width > width) letters.pop();
  return `${letters.join("")}…`;
}

/** Minutes and seconds with so many decimals, hours if there are any. */
export function clock(seconds: number, decimals = 0): string {
  const units = Math.floor(seconds * 10 ** decimals + 1e-6);
  const whole = Math.floor(units / 10 ** decimals);
  const part = decimals ? `.${String(units % 10 ** decimals).padStart(decimals, "0")}` : "";
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return (h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`) + part;
}
