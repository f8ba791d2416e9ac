// The planted bugs: which there are, and whether their places in the code are still there. Run by itself
// (`npm run plants`) it puts each in and lets random seeds of the swarm look for it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./prepare.mjs";

/** Reads test/plants/plants.json: `{ name: { breaks, caughtBy, edits: [{ file, from, to }] } }`. */
export function readPlants() {
  return JSON.parse(readFileSync(join(root, "test/plants/plants.json"), "utf8"));
}

/** The edits of one plant, with files as absolute paths. Throws when a place is not there exactly once. */
export function plantEdits(name) {
  const plant = readPlants()[name];
  if (plant === undefined) throw new Error(`there is no plant ${name} in test/plants/plants.json`);
  return plant.edits.map(({ file, from, to }) => {
    const text = readFileSync(join(root, file), "utf8");
    const count = text.split(from).length - 1;
    if (count !== 1) throw new Error(`plant ${name}: its place is in ${file} ${count} times, not once: ${from}`);
    return { file: join(root, file), from, to };
  });
}
