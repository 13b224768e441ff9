/** The recordings to click: those of the repository's `examples` folder. */
const files = import.meta.glob("../../examples/*", { query: "?url", import: "default", eager: true }) as Record<string, string>;

export interface Example {
  url: string;
  title: string;
  isWord: boolean;
}

export const examples: Example[] = Object.values(files)
  .map((url) => {
    const name = url.split("/").pop()!.replace(/\.\w+$/, "");
    const isWord = !/^(other_|silence)/.test(name);
    return { url: url.replace(/^\//, ""), title: name.replace(/^other_/, "").replaceAll("_", " "), isWord };
  })
  .sort((a, b) => Number(b.isWord) - Number(a.isWord) || a.title.length - b.title.length || a.title.localeCompare(b.title));
