import type { SimCluster } from "./cluster.js";
import type { FaultModel } from "./faults.js";
import { diskFaultModelOf, faultModelOf, runWithFaults } from "./faults.js";
import { regressions } from "./regressions.js";

const FIXED_SEEDS = 20;
const FIXED_DISK_SEEDS = 8;

/** `SEEDS=17` or `SEEDS=1..500`: these instead of the fixed ones. */
function chosenSeeds(): number[] {
  const [first, last] = (process.env["SEEDS"] ?? `1..${FIXED_SEEDS}`).split("..").map(Number);
  if (first === undefined) return [];
  const range = Array.from({ length: (last ?? first) - first + 1 }, (_, index) => first + index);
  return process.env["SEEDS"] === undefined ? [...range, ...regressions.map(({ seed }) => seed)] : range;
}

/** What must hold in every run; an error says how to see it again. */
async function expectPromisesKept(seed: number, model: FaultModel): Promise<void> {
  let cluster: SimCluster | undefined;
  try {
    const run = await runWithFaults(seed, model, (made) => (cluster = made));
    if (run.violations.length > 0)
      throw new Error(run.violations.map(({ id, sentence }) => `${id}: ${sentence}`).join("\n"));
    // A run in which little happened proves little.
    expect(run.counts.ok).toBeGreaterThan(100);
    expect(run.counts.delivered).toBeGreaterThan(100);
    // Whatever the faults, no broker meets what it did not expect.
    expect(cluster?.lines.filter((line) => line.includes("in an unexpected way"))).toEqual([]);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const lines = cluster?.lines.slice(-Number(process.env["SIM_LINES"] ?? 60)).join("\n") ?? "";
    const report = `replay with: SEEDS=${seed} npm test -- replication-faults\n${text}\n--- logs:\n${lines}`;
    throw new Error(report, { cause: error });
  }
}

describe("random faults", () => {
  it.each(chosenSeeds())(
    "lose, duplicate and reorder nothing, and leave a cluster that converges: seed %i",
    (seed) => expectPromisesKept(seed, faultModelOf(seed)),
    120_000,
  );

  it.each(chosenSeeds().slice(0, process.env["SEEDS"] === undefined ? FIXED_DISK_SEEDS : undefined))(
    "of disks as well lose, duplicate and reorder nothing: seed %i",
    (seed) => expectPromisesKept(seed, diskFaultModelOf(seed)),
    120_000,
  );

  it("happen alike when a seed is run again", async () => {
    const model = { ...faultModelOf(3), safetyMs: 3000 };
    const [one, two] = [await runWithFaults(3, model), await runWithFaults(3, model)];
    expect([two.traceHash, two.eventCount, two.counts]).toEqual([one.traceHash, one.eventCount, one.counts]);
  }, 120_000);
});
