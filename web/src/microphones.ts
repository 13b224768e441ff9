/** The menu of microphones. Browsers give their names only after one of them was allowed. */
import { byId, make } from "./dom";

const menu = byId<HTMLSelectElement>("microphone");

/** The id of the microphone that is chosen; empty for the default one. */
export function chosenMicrophone(): string {
  return menu.value;
}

/** Call `change` when another one is chosen; keep the list up to date. */
export function offerMicrophones(change: () => void): void {
  menu.onchange = change;
  navigator.mediaDevices?.addEventListener("devicechange", () => void listMicrophones());
  void listMicrophones();
}

/** List those there are now. */
export async function listMicrophones(): Promise<void> {
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => undefined)) ?? [];
  const named = devices.filter(({ kind, label, deviceId }) => kind === "audioinput" && label && deviceId !== "default");
  const before = menu.value;
  menu.replaceChildren(
    make("option", { value: "" }, "Default"),
    ...named.map(({ deviceId, label }) => make("option", { value: deviceId }, label)),
  );
  menu.value = named.some(({ deviceId }) => deviceId === before) ? before : "";
}
