import CliTable from "cli-table3";
import pc from "picocolors";

/** Columns that line up, without borders: what people read and what `awk` can cut. Colour on a terminal only. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const plain = new CliTable({
    head: head.map((name) => pc.bold(name)),
    chars: {
      top: "",
      "top-mid": "",
      "top-left": "",
      "top-right": "",
      bottom: "",
      "bottom-mid": "",
      "bottom-left": "",
      "bottom-right": "",
      left: "",
      "left-mid": "",
      mid: "",
      "mid-mid": "",
      right: "",
      "right-mid": "",
      middle: "  ",
    },
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  for (const row of rows) plain.push(row.map(String));
  return plain
    .toString()
    .split("\n")
    .map((line) => `${line.trimEnd()}\n`)
    .join("");
}
