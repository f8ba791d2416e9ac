import { withCluster } from "../cluster.js";

describe("a broker whose machine loses power", () => {
  it.each([5, 20, 35, 40, 45, 50, 60, 100, 500])(
    "comes up again from its new data directory, when that happens %i ms after its first start",
    async (delayMs) => {
      for (const seed of [1, 2, 3]) {
        await withCluster({ seed, brokers: 1, startBrokers: false }, async (cluster) => {
          cluster.start(1);
          await cluster.run(delayMs);
          cluster.powerCut(1);
          await cluster.run(100);
          cluster.start(1);
          await cluster.untilUp();
        });
      }
    },
  );
});
