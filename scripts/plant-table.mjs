// The table of planted bugs (docs/testing.md), and where each goes into the code.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./prepare.mjs";

const TABLE = "test/plants/plants.json";

/**
 * Reads the table: by name, what is broken and what follows (`breaks`), who must catch it (`caughtBy`: `swarm` or the path
 * of a test, with the `reason` why the swarm cannot), how many seconds of CPU time it took the swarm (`seconds`, the average
 * of some hunts), and the replacements (`edits`: `file`, `from`, `to`).
 */
export function readPlants() {
  return JSON.parse(readFileSync(join(root, TABLE), "utf8"));
}

/** The edits of one plant, with files as absolute paths. Throws when a place is not there exactly once. */
export function plantEdits(name) {
  const plant = readPlants()[name];
  if (plant === undefined) throw new Error(`there is no plant ${name} in ${TABLE}`);
  return plant.edits.map(({ file, from, to }) => {
    const text = readFileSync(join(root, file), "utf8");
    const count = text.split(from).length - 1;
    if (count !== 1) throw new Error(`plant ${name}: its place is in ${file} ${count} times, not once: ${from}`);
    return { file: join(root, file), from, to };
  });
}
