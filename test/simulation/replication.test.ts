import { withCluster } from "./cluster.js";

describe("a cluster in the simulator", () => {
  it("comes up, creates a topic, and settles it", async () => {
    await withCluster({ seed: 1 }, async (cluster) => {
      await cluster.createTopic({ name: "letters", partitions: 3, replicationFactor: 3 });
      expect([1, 2, 3]).toContain(cluster.controllerId);
    });
  });
});
