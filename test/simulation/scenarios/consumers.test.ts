import { connect } from "../../../client/index.js";
import type { BrokerId } from "../../../protocol/types.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import { LibraryReader } from "../workload.js";

describe("a fetch", () => {
  it("waits for as many bytes as it asks for, and no longer than it says", async () => {
    await withCluster({ seed: 81 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(1);
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const fetch = async (minBytes: number) => {
        const startedMs = cluster.nowMs;
        const partitions = [{ ...letters.target, maxBytes: 100_000 }];
        const request = { minBytes, maxBytes: 100_000, maxWaitMs: 600, sessionId: 0, sessionEpoch: 1, partitions };
        const { body } = await cluster.complete(client.request(cluster.leaderOf("letters"), "fetch", request));
        return { tookMs: cluster.nowMs - startedMs, bytes: body.partitions[0]?.recordBytes ?? 0 };
      };
      const some = await fetch(1);
      expect(some.bytes).toBeGreaterThan(0);
      expect(some.tookMs).toBeLessThan(20);
      const more = await fetch(some.bytes + 1);
      expect(more.bytes).toBe(some.bytes);
      expect(more.tookMs).toBeGreaterThanOrEqual(600);
    });
  });

  it("waits as long when there is nothing to read: without a session, as the first of one, and in one", async () => {
    await withCluster({ seed: 82 }, async (cluster) => {
      const topicId = await cluster.createTopic({
        name: "quiet",
        assignment: [{ brokerIds: [1] }, { brokerIds: [1] }],
      });
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const fetch = async (sessionId: number, sessionEpoch: number, partition: number) => {
        const partitions = [{ topicId, partition, maxBytes: 100_000 }];
        const request = { minBytes: 1, maxBytes: 100_000, maxWaitMs: 600, partitions, sessionId, sessionEpoch };
        const startedMs = cluster.nowMs;
        const { body } = await cluster.complete(client.request(1, "fetch", request));
        expect(cluster.nowMs - startedMs).toBeGreaterThanOrEqual(600);
        return body;
      };
      await fetch(0, 0, 0);
      const first = await fetch(0, 1, 0);
      expect(first.partitions.map(({ partition }) => partition)).toEqual([0]);
      // The first partition has no news; the second is named for the first time.
      const second = await fetch(first.sessionId, 2, 1);
      expect(second.partitions.map(({ partition }) => partition)).toEqual([1]);
    });
  });
});

describe("a consumer of the library", () => {
  it("is not led back to a leader of the past by a broker that has not heard of its end", async () => {
    await withCluster({ seed: 71 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const { network } = cluster.simulation;
      const library = await cluster.complete(
        connect({
          env: cluster.client().env,
          bootstrapBrokers: [...cluster.brokers.values()].map(({ address }) => address),
          requestTimeoutMs: 1000,
          metadataMaxAgeMs: 300,
        }),
      );
      const clientHost = `client-${cluster.clientCount}`;
      const reader = new LibraryReader(library, letters.history, "consumer", "letters", letters.target);
      reader.start();
      const delivered = (count: number): Promise<void> =>
        cluster.until(() => letters.history.counts().delivered === count, `${count} records are delivered`);
      const leaves = (id: BrokerId): Promise<void> =>
        cluster.until(() => ![id, -1].includes(cluster.leaderOf("letters")), `broker ${id} is replaced`);
      await letters.write(10);
      await delivered(10);
      // The first leader is cut off from everybody but clients, and goes on believing in itself.
      const first = cluster.leaderOf("letters");
      for (const id of [1, 2, 3]) if (id !== first) network.partition(`broker-${first}`, `broker-${id}`);
      network.partition(`broker-${first}`, "zk1");
      await leaves(first);
      await letters.write(10);
      await delivered(20);
      // The second one hints at the third.
      const second = cluster.leaderOf("letters");
      cluster.zookeeper.expireSession(cluster.zookeeper.node(`/brokers/ids/${second}`)?.ephemeralOwner ?? "");
      await leaves(second);
      await letters.write(10);
      await delivered(30);
      // Now only the first one can be asked, and it tells what was true once.
      for (const id of [1, 2, 3]) if (id !== first) network.partition(clientHost, `broker-${id}`);
      await cluster.run(10_000);
      network.heal();
      await letters.write(10);
      await delivered(40);
      expect(reader.failure).toBeUndefined();
      reader.stop();
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it.each(["earliest", { last: 3 }] as const)(
    "reads the partitions that have a leader from %j while another has none, and that one when it is back",
    async (from) => {
      await withCluster({ seed: 72 }, async (cluster) => {
        await cluster.createTopic({ name: "half", assignment: [{ brokerIds: [1] }, { brokerIds: [2] }] });
        const bootstrapBrokers = [...cluster.brokers.values()].map(({ address }) => address);
        const open = () => cluster.complete(connect({ env: cluster.client().env, bootstrapBrokers }));
        const first = await open();
        const producer = first.producer();
        for (const partition of [0, 1])
          for (const value of ["a", "b", "c"]) await cluster.complete(producer.send("half", { partition, value }));
        await cluster.complete(first.close());
        cluster.crash(2);
        await cluster.until(() => cluster.stateOf("half", 1)?.leader === -1, "one of them has no leader");
        const library = await open();
        const consumer = library.consumer({ topics: ["half"], from });
        const read: string[] = [];
        const reading = (async () => {
          for await (const { partition, value } of consumer) read.push(`${partition}${String(value)}`);
        })();
        await cluster.until(() => read.length === 3, "the others are read", 1000);
        expect(read).toEqual(["0a", "0b", "0c"]);
        // Longer than the deadline of a call.
        await cluster.run(40_000);
        cluster.start(2);
        await cluster.until(() => read.length === 6, "that one is read");
        expect(read.slice(3)).toEqual(["1a", "1b", "1c"]);
        await cluster.complete(library.close());
        await cluster.complete(reading);
      });
    },
  );
});
