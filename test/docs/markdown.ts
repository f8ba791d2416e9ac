import { readFileSync, readdirSync } from "node:fs";

/** A fenced block of a document. */
export interface Block {
  readonly document: string;
  /** Of the opening fence, from 1. */
  readonly line: number;
  /** The word behind the opening fence; empty for a drawing. */
  readonly language: string;
  readonly text: string;
  /** Of a comment `<!-- not run: why -->` right before the block. */
  readonly notRunBecause: string | undefined;
  /** The `text` block that follows with nothing but blank lines between: what the block prints. */
  readonly output: string | undefined;
}

/** README.md, CONTRIBUTING.md, CHANGELOG.md and everything below docs/, as paths from the top of the checkout. */
export function documents(): string[] {
  const below = (folder: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? below(`${folder}/${entry.name}`) : [`${folder}/${entry.name}`],
    );
  return ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", ...below("docs").filter((path) => path.endsWith(".md"))];
}

/** The fenced blocks of a document in their order. Throws when a fence is not closed. */
export function blocksOf(document: string): Block[] {
  const lines = readFileSync(document, "utf8").split("\n");
  const blocks: Block[] = [];
  let before: string[] = [];
  for (let at = 0; at < lines.length; at += 1) {
    const fence = /^```(\w*)\s*$/.exec(lines[at] as string);
    if (fence === null) {
      before.push(lines[at] as string);
      continue;
    }
    const end = lines.indexOf("```", at + 1);
    if (end < 0) throw new Error(`${document}:${at + 1}: the block is not closed`);
    const language = fence[1] as string;
    const text = lines.slice(at + 1, end).join("\n");
    const between = before.filter((line) => line.trim() !== "");
    const previous = blocks.at(-1);
    if (language === "text" && between.length === 0 && previous !== undefined) {
      blocks[blocks.length - 1] = { ...previous, output: text };
    } else {
      const notRunBecause = /^<!-- not run: (.+) -->$/.exec(between.at(-1) ?? "")?.[1];
      blocks.push({ document, line: at + 1, language, text, notRunBecause, output: undefined });
    }
    before = [];
    at = end;
  }
  return blocks;
}

/** The cells of the rows of the first table whose heading begins with these cells; without the heading. */
export function tableOf(document: string, heading: readonly string[]): string[][] {
  const lines = readFileSync(document, "utf8").split("\n");
  const cells = (line: string): string[] =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
  const start = lines.findIndex((line) => heading.every((cell, index) => cells(line)[index] === cell));
  if (start < 0) throw new Error(`${document} has no table that begins with ${heading.join(" | ")}`);
  const rows: string[][] = [];
  for (const line of lines.slice(start + 2)) {
    if (!line.startsWith("|")) break;
    rows.push(cells(line));
  }
  return rows;
}
