import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";

/** What a client has to show for itself in a second after the way to its brokers is free again. */
const SOON_MS = 1200;

interface World {
  readonly cluster: SimCluster;
  readonly library: Cluster;
  readonly clientHost: string;
}

/** A client of the library on a host of its own, and a topic that broker 1 leads. */
async function withClient(seed: number, body: (world: World) => Promise<void>): Promise<void> {
  await withCluster({ seed }, async (cluster) => {
    await cluster.createTopic({ name: "letters", assignment: [{ brokerIds: [1, 2, 3] }] });
    const bootstrapBrokers = [...cluster.brokers.values()].map(({ address }) => address);
    const library = await cluster.complete(connect({ env: cluster.client().env, bootstrapBrokers }));
    await body({ cluster, library, clientHost: `client-${cluster.clientCount}` });
    await cluster.complete(library.close());
  });
}

describe("a client that was cut off from a leader for eight seconds", () => {
  it.each([
    ["the leader", 91, [1]],
    ["the leader", 92, [1]],
    ["everybody", 93, [1, 2, 3]],
    ["everybody", 94, [1, 2, 3]],
  ] as const)(
    "writes and reads again within a second of the healing (cut off from %s, seed %i)",
    async (_, seed, ids) => {
      await withClient(seed, async ({ cluster, library, clientHost }) => {
        const { network } = cluster.simulation;
        const producer = library.producer();
        const consumer = library.consumer({ topics: ["letters"], from: "earliest" });
        const delivered: string[] = [];
        const reading = (async () => {
          for await (const { value } of consumer) delivered.push(String(value));
        })();
        const failures: unknown[] = [];
        const sent: string[] = [];
        const send = (value: string): void => {
          producer.send("letters", { value }).then(
            () => sent.push(value),
            (error: unknown) => failures.push(error),
          );
        };
        send("before");
        await cluster.until(() => delivered.includes("before"), "the first record is delivered");
        for (const id of ids) network.partition(clientHost, `broker-${id}`);
        send("during");
        await cluster.run(8000);
        expect(cluster.leaderOf("letters")).toBe(1);
        network.heal();
        send("after");
        await cluster.until(() => sent.includes("after"), "the record is acknowledged", SOON_MS);
        await cluster.until(() => delivered.includes("after"), "the record is delivered", SOON_MS);
        expect(delivered).toEqual(["before", "during", "after"]);
        expect(failures).toEqual([]);
        await cluster.complete(consumer.close());
        await cluster.complete(reading);
      });
    },
  );

  it.each([99, 100])("writes again as soon though much was on its way (seed %i)", async (seed) => {
    await withClient(seed, async ({ cluster, library, clientHost }) => {
      const { network } = cluster.simulation;
      const producer = library.producer({ batchBytes: 50_000 });
      let acknowledged = 0;
      const sendMuch = (): void => {
        for (let index = 0; index < 20; index += 1) {
          void producer.send("letters", { value: "x".repeat(40_000) }).then(() => (acknowledged += 1));
        }
      };
      sendMuch();
      await cluster.until(() => acknowledged === 20, "the first ones are acknowledged");
      network.partition(clientHost, "broker-1");
      sendMuch();
      await cluster.run(4000);
      network.heal();
      await cluster.until(() => acknowledged === 40, "all are acknowledged", SOON_MS);
    });
  });

  it.each([95, 96])("is answered by the controller within a second of the healing (seed %i)", async (seed) => {
    await withClient(seed, async ({ cluster, library, clientHost }) => {
      const { network } = cluster.simulation;
      const admin = library.admin();
      await cluster.complete(admin.createTopics([{ name: "first", partitions: 1 }]));
      network.partition(clientHost, `broker-${cluster.controllerId}`);
      let isMade = false;
      const making = admin.createTopics([{ name: "second", partitions: 1 }]).then(() => (isMade = true));
      await cluster.run(8000);
      network.heal();
      await cluster.until(() => isMade, "the topic is made", SOON_MS);
      await cluster.complete(making);
    });
  });
});

describe("a broker", () => {
  it("answers a handshake at once on a connection where a fetch waits", async () => {
    await withCluster({ seed: 97 }, async (cluster) => {
      const topicId = await cluster.createTopic({ name: "letters", assignment: [{ brokerIds: [1, 2, 3] }] });
      const client = cluster.client();
      await cluster.complete(client.refresh());
      let isFetchAnswered = false;
      const partitions = [{ topicId, partition: 0, maxBytes: 1000 }];
      const fetching = client
        .request(1, "fetch", { minBytes: 1, maxBytes: 1000, maxWaitMs: 1000, partitions })
        .then(() => (isFetchAnswered = true));
      await cluster.run(100);
      const connection = await cluster.complete(client.connection(1));
      const { body } = await cluster.complete(connection.request("handshake", { clientId: "again" }), 100);
      expect(body.brokerId).toBe(1);
      expect(isFetchAnswered).toBe(false);
      await cluster.complete(fetching);
    });
  });
});
