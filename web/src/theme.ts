/** Light or dark: the system's choice, or one's own. */
import { byId } from "./dom";
import { recall, remember } from "./storage";

const system = matchMedia("(prefers-color-scheme: dark)");
const redraws: (() => void)[] = [];
let chosen = "";

/** Whether the page is dark now. */
export function isDark(): boolean {
  return chosen ? chosen === "dark" : system.matches;
}

/** Call `redraw` when light becomes dark or dark light. */
export function onTheme(redraw: () => void): void {
  redraws.push(redraw);
}

/** Let the menu choose the theme, beginning with what was chosen before. */
export function offerThemes(): void {
  const menu = byId<HTMLSelectElement>("theme");
  menu.value = recall("theme");
  menu.onchange = () => {
    remember("theme", menu.value);
    use(menu.value);
  };
  use(menu.value);
}

function use(theme: string): void {
  chosen = theme;
  document.documentElement.dataset.theme = theme;
  redraw();
}

function redraw(): void {
  for (const one of redraws) one();
}

system.addEventListener("change", redraw);
