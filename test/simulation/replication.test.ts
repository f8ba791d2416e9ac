import { withCluster } from "./cluster.js";
import { brokenPromises, History } from "./history.js";
import { IdempotentWriter, Reader, readToEnd } from "./workload.js";

describe("a cluster in the simulator", () => {
  it("comes up, creates a topic, and settles it", async () => {
    await withCluster({ seed: 1 }, async (cluster) => {
      await cluster.createTopic({ name: "letters", partitions: 3, replicationFactor: 3 });
      expect([1, 2, 3]).toContain(cluster.controllerId);
    });
  });

  it("delivers every acknowledged record in order, and loses none when the leader is killed", async () => {
    await withCluster({ seed: 2 }, async (cluster) => {
      const topicId = await cluster.createTopic({ name: "letters", partitions: 1, replicationFactor: 3 });
      const target = { topicId, partition: 0 };
      const history = new History(() => cluster.nowMs);
      const client = cluster.client();
      const writer = new IdempotentWriter(client, history, "writer", target);
      const reader = new Reader(cluster.client(), history, "reader", target);
      reader.start();
      for (let count = 0; count < 40; count += 1) {
        if (count === 20) cluster.crash(cluster.leaderOf("letters"));
        await cluster.complete(writer.write([`${count}a`, `${count}b`]));
        await cluster.run(20);
      }
      await cluster.until(() => writer.isIdle, "everything is written");
      await cluster.until(() => reader.position === 80, "everything is read");
      for (const id of cluster.upIds)
        history.finalRead(await cluster.complete(readToEnd(cluster.client(id), `broker ${id}`, target)));
      expect(history.counts()).toEqual({ ok: 40, fail: 0, info: 0, delivered: 80 });
      expect(brokenPromises(history, 0)).toEqual([]);
    });
  });
});
