/** The recordings to click: those of the repository's `examples` folder. */
const files = import.meta.glob("../../examples/*", { query: "?url", import: "default", eager: true }) as Record<string, string>;

export interface Example {
  url: string;
  title: string;
  word: string; // said in it, or empty
}

export const examples: Example[] = Object.values(files)
  .map((url) => {
    const name = url.split("/").pop()!.replace(/\.\w+$/, "");
    const word = /^(other_|silence)/.test(name) ? "" : name.split("_")[0];
    return { url: url.replace(/^\//, ""), title: name.replace(/^other_/, "").replaceAll("_", " "), word };
  })
  .sort((a, b) => Number(b.word !== "") - Number(a.word !== "") || a.title.length - b.title.length || a.title.localeCompare(b.title));
