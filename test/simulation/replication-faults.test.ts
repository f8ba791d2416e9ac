import type { SimCluster } from "./cluster.js";
import { runWithFaults } from "./faults.js";

/** `SEEDS=17` or `SEEDS=1..500`: these instead of the fixed ones. */
const [first, last] = (process.env["SEEDS"] ?? "1..20").split("..").map(Number);
const seeds = Array.from({ length: (last ?? first ?? 1) - (first ?? 1) + 1 }, (_, index) => (first ?? 1) + index);

describe("random faults", () => {
  it.each(seeds)(
    "lose, duplicate and reorder nothing, and leave a cluster that converges: seed %i",
    async (seed) => {
      let cluster: SimCluster | undefined;
      try {
        const run = await runWithFaults(seed, undefined, (made) => (cluster = made));
        if (run.violations.length > 0)
          throw new Error(
            run.violations
              .slice(0, 10)
              .map(({ id, sentence }) => `${id}: ${sentence}`)
              .join("\n"),
          );
        if (process.env["SIM_REPORT"] !== undefined)
          console.log(seed, run.counts, run.eventCount, run.virtualMs, Object.fromEntries(run.injected));
      } catch (error) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        const lines = cluster?.lines.slice(-Number(process.env["SIM_LINES"] ?? 60)).join("\n");
        throw new Error(`replay with: SEEDS=${seed} npx jest replication-faults\n${text}\n--- logs:\n${lines}`, {
          cause: error,
        });
      }
    },
    60_000,
  );

  it("happen alike when a seed is run again", async () => {
    const [one, two] = [await runWithFaults(3), await runWithFaults(3)];
    expect([two.traceHash, two.eventCount, two.counts]).toEqual([one.traceHash, one.eventCount, one.counts]);
  }, 60_000);
});
