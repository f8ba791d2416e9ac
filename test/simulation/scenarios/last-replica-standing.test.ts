import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";

describe("the last in-sync replica", () => {
  it("loses its power, and an eligible one that only crashed leads when it is back, so that nothing is lost", async () => {
    await withCluster({ seed: 11 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      // 3 leaves the in-sync replicas; then 2 does, which makes them fewer than two, and stays eligible.
      cluster.crash(3);
      await cluster.until(() => cluster.stateOf("letters", 0)?.isr.length === 2, "two are in sync");
      await letters.write(20);
      cluster.crash(2);
      await cluster.until(() => cluster.stateOf("letters", 0)?.isr.length === 1, "one is in sync");
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [1], elr: [2] });
      cluster.powerCut(1);
      await cluster.run(500);
      cluster.start(1);
      await cluster.run(3000);
      expect(cluster.stateOf("letters", 0)?.leader).toBe(-1);
      cluster.start(2);
      await cluster.until(() => cluster.stateOf("letters", 0)?.leader === 2, "the eligible replica leads");
      cluster.start(3);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("crashes and comes back alone, and leads with all it had, because its page cache survived", async () => {
    await withCluster({ seed: 12 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      for (const id of [3, 2, 1]) {
        cluster.crash(id);
        await cluster.run(3000);
      }
      cluster.start(1);
      await cluster.until(() => cluster.stateOf("letters", 0)?.leader === 1, "the last replica leads");
      cluster.start(2);
      cluster.start(3);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is elected by what it holds when all lost their power, once all have said what that is", async () => {
    await withCluster({ seed: 13 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      letters.invariants.lossAllowed = true;
      await letters.write(20);
      // Everything is on every disk, so that a correct election loses nothing.
      await cluster.run(3000);
      cluster.powerCut(1, 2, 3);
      await cluster.run(500);
      cluster.start(1);
      cluster.start(2);
      await cluster.run(2500);
      expect(cluster.stateOf("letters", 0)?.leader).toBe(-1);
      cluster.start(3);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});
