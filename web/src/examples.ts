/** The recordings to click: those of the repository's `examples` folder. */
const files = import.meta.glob("../../examples/*", { query: "?url", import: "default", eager: true }) as Record<string, string>;

export interface Example {
  url: string;
  title: string;
  word: string; // that is said in it, or empty
}

export const examples: Example[] = Object.values(files)
  .map((url) => {
    const name = url.split("/").pop()!.replace(/\.\w+$/, "");
    const title = name.replace(/^other_/, "").replaceAll("_", " ");
    const word = /^(other_music|silence)$/.test(name) ? "" : title.split(" ")[0];
    return { url: url.replace(/^\//, ""), title, word, isOther: /^(other_|silence)/.test(name) };
  })
  .sort((a, b) => Number(a.isOther) - Number(b.isOther) || a.title.length - b.title.length || a.title.localeCompare(b.title));
