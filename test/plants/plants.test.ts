import { existsSync, readFileSync } from "node:fs";

interface Plant {
  readonly breaks: string;
  readonly caughtBy: string;
  readonly reason?: string;
  readonly seconds?: number;
  readonly edits: readonly { readonly file: string; readonly from: string; readonly to: string }[];
}

const plants = JSON.parse(readFileSync("test/plants/plants.json", "utf8")) as Record<string, Plant>;

describe.each(Object.entries(plants))("the planted bug %s", (name, plant) => {
  it("has each of its places in the code once", () => {
    const counts = plant.edits.map(({ file, from }) => ({ file, from, count: countOf(file, from) }));
    expect(counts.filter(({ count }) => count !== 1)).toEqual([]);
    expect(counts).not.toEqual([]);
  });

  it("changes the code", () => {
    expect(plant.edits.filter(({ from, to }) => from === to)).toEqual([]);
  });

  it("says what it breaks and who catches it", () => {
    expect(name).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
    expect(plant.breaks).toMatch(/\.$/);
    if (plant.caughtBy === "swarm") return;
    expect(existsSync(plant.caughtBy)).toBe(true);
    expect(plant.reason).toMatch(/\.$/);
    expect(plant.seconds).toBeUndefined();
  });
});

it("is said in the documents how many there are, and who catches how many", () => {
  const all = Object.values(plants);
  const bySwarm = all.filter(({ caughtBy }) => caughtBy === "swarm").length;
  const text = readFileSync("docs/testing.md", "utf8").replace(/\s+/g, " ");
  expect(text).toContain(`Of ${all.length} plants random seeds have caught ${bySwarm},`);
  expect(text).toContain(`The other ${all.length - bySwarm} are left to named tests.`);
});

function countOf(file: string, text: string): number {
  return readFileSync(file, "utf8").split(text).length - 1;
}
