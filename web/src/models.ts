/** The models that can be chosen: those beside the page, and files of one's own; and which of them is wanted. */
import { checkSize } from "./artefact";
import { byId, make } from "./dom";
import { KwsError } from "./errors";
import { fetchFile } from "./files";
import type { Settings } from "./protocol";

type Source = () => Promise<ArrayBuffer>;

export class ModelMenu {
  /** The model that answers; empty before one was loaded. */
  current = "";
  private readonly menu = byId<HTMLSelectElement>("model");
  private readonly sources = new Map<string, Source>(); // of those in the menu
  private readonly loading: { name: string; source: Source }[] = []; // in the order of the answers
  private advised: string | undefined; // one that is tuned for listening
  private turn = 0; // a later choice has precedence over those still on their way

  /** `load` is given the bytes of a model, to be kept; `fail` what went wrong before. */
  constructor(
    private readonly load: (name: string, bytes: Uint8Array<ArrayBuffer>) => void,
    private readonly fail: (error: unknown) => void,
  ) {
    this.menu.onchange = () => void this.choose(this.menu.value);
  }

  /** Offer the models beside the page. */
  offer({ models, default: preferred }: Settings): void {
    for (const { name, file, listens } of models) this.add(name, () => fetchFile(`models/${encodeURIComponent(file)}`), listens);
    const tuned = models.filter(({ listens }) => listens).map(({ name }) => name);
    this.advised = tuned.includes(preferred) ? preferred : tuned[0];
  }

  /** What the current model is for, and a warning if it is not for listening. */
  note(listens: boolean): string {
    if (listens) return `${this.current} is tuned for listening.`;
    const advice = this.advised ? ` To listen to people talking, choose ${this.advised}.` : "";
    return `Careful: ${this.current} is made for recordings of one word and has not been tuned for listening. In running speech it reports words that nobody said.${advice}`;
  }

  /** Fetch what can be chosen, for when there is no network. */
  fetchAll(): void {
    for (const source of this.sources.values()) source().catch(() => undefined);
  }

  /** Have a model loaded that is in the menu. */
  async choose(name: string): Promise<void> {
    await this.ask(name, this.sources.get(name) ?? (() => this.refuse(name)));
  }

  /** Have a file loaded, whatever it is; if it is a model, it goes into the menu. */
  async open(file: File): Promise<void> {
    const bytes = readModel(file); // once: what lies on the disk may change
    await this.ask(file.name, () => bytes);
  }

  /** What `load` was given first was loaded: it is the current model; `listens` says whether it is tuned for that. */
  loaded(listens: boolean): void {
    const { name, source } = this.loading.shift()!;
    this.add(name, source, listens);
    this.current = this.menu.value = name;
  }

  /** What `load` was given first could not be loaded. */
  refused(): void {
    this.loading.shift();
  }

  /** Show which model is current, whatever was asked for. */
  goBack(): void {
    if (this.current) this.menu.value = this.current;
    this.menu.disabled = false;
  }

  private async ask(name: string, source: Source): Promise<void> {
    const turn = ++this.turn;
    try {
      const bytes = new Uint8Array(await source()).slice();
      if (turn !== this.turn) return;
      this.loading.push({ name, source });
      this.load(name, bytes);
    } catch (error) {
      if (turn === this.turn) this.fail(error);
    }
  }

  private add(name: string, source: Source, listens: boolean): void {
    if (!this.sources.has(name)) this.group(listens).append(make("option", { value: name }, name));
    this.sources.set(name, source);
  }

  /** The part of the menu that says what its models are for. */
  private group(listens: boolean): HTMLElement {
    const label = listens ? "For listening" : "For single words; false alarms in speech";
    const found = [...this.menu.querySelectorAll("optgroup")].find((group) => group.label === label);
    return found ?? this.menu.appendChild(make("optgroup", { label }));
  }

  private async refuse(name: string): Promise<never> {
    throw new KwsError(`${name}: is not among the models here, expected one of ${[...this.sources.keys()].join(", ")}.`);
  }
}

async function readModel(file: File): Promise<ArrayBuffer> {
  checkSize(file.size, file.name);
  return file.arrayBuffer().catch(() => {
    throw new KwsError(`${file.name}: cannot be read, expected a file written by \`tiny-kws export --stream\`; choose it again.`);
  });
}
