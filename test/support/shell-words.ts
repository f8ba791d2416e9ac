import { execFileSync } from "node:child_process";

/** The words behind `ottla` that a shell makes of each line: what is shown to be pasted is taken apart as it would be. */
export function shellWords(lines: readonly string[]): string[][] {
  const script = ['ottla() { for word in "$@"; do printf "%s\\0" "$word"; done; printf "\\n\\0"; }', ...lines].join(
    "\n",
  );
  const printed = execFileSync("sh", ["-c", script], { encoding: "utf8", input: "", stdio: ["pipe", "pipe", "pipe"] });
  const taken: string[][] = [[]];
  for (const word of printed.split("\0").slice(0, -1)) {
    if (word === "\n") taken.push([]);
    else taken.at(-1)?.push(word);
  }
  return taken.slice(0, -1);
}
