import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";

/** How soon clients must have noticed that brokers are back. */
const NOTICED_MS = 1500;
const OUTAGE_MS = 2000;

const libraryOf = (cluster: SimCluster): Promise<Cluster> =>
  cluster.complete(
    connect({
      env: cluster.client().env,
      bootstrapBrokers: [...cluster.brokers.values()].map(({ address }) => address),
    }),
  );

/** What is sent from now on arrives and is not answered; then power fails, so that no connection is ended; then all are up. */
async function outage(cluster: SimCluster): Promise<void> {
  const ids = [...cluster.brokers.keys()];
  cluster.powerCut(...ids);
  await cluster.run(OUTAGE_MS);
  for (const id of ids) cluster.start(id);
  await cluster.untilUp();
}

const hold = (cluster: SimCluster): void => {
  for (const id of cluster.brokers.keys()) cluster.pause(id);
};

/** Goal: nobody waits for an answer of a process that is gone without a word, once its successor is there. */
describe.each([1, 3])("when all of %i brokers lose power and are back", (brokers) => {
  const onTopic = async (body: (cluster: SimCluster) => Promise<void>): Promise<void> => {
    for (const seed of [71, 72, 73]) {
      await withCluster({ seed, brokers }, async (cluster) => {
        // What the producer wrote before is remembered.
        const config = { durability: "fsync" };
        await cluster.createTopic({ name: "t", partitions: 1, replicationFactor: brokers, config });
        await body(cluster);
      });
    }
  };

  it("a producer sends again what was not answered", async () => {
    await onTopic(async (cluster) => {
      const producer = (await libraryOf(cluster)).producer();
      await cluster.complete(producer.send("t", { value: "a" }));
      hold(cluster);
      const sent = producer.send("t", { value: "b" });
      await cluster.run(300);
      await outage(cluster);
      await cluster.untilSettled("t");
      expect(await cluster.complete(sent, NOTICED_MS)).toMatchObject({ topic: "t", partition: 0 });
    });
  });

  it("a consumer asks again for what it waited for", async () => {
    await onTopic(async (cluster) => {
      const library = await libraryOf(cluster);
      const writer = library.producer();
      await cluster.complete(writer.send("t", { value: "old" }));
      const values: string[] = [];
      const consumer = library.consumer({ topics: ["t"], from: "latest" });
      const read = async (): Promise<void> => {
        for await (const { value } of consumer.records()) values.push(String(value));
      };
      const reading = read();
      await cluster.run(1000);
      // With two questions under way it asks nothing more, of which it would hear that the connection is gone.
      hold(cluster);
      await cluster.complete(consumer.seek({ topic: "t", partition: 0 }, { offset: 0 }));
      await cluster.run(300);
      await outage(cluster);
      await cluster.untilSettled("t");
      await cluster.until(() => values.includes("old"), "the consumer reads on", NOTICED_MS);
      await cluster.complete(writer.send("t", { value: "news" }), NOTICED_MS);
      await cluster.until(() => values.includes("news"), "the consumer has it", NOTICED_MS);
      await cluster.complete(consumer.close());
      await cluster.complete(reading);
    });
  });

  it("a call of the admin goes on", async () => {
    await onTopic(async (cluster) => {
      const admin = (await libraryOf(cluster)).admin();
      const lookups = [{ topic: "t", partition: 0, query: "latest" as const }];
      await cluster.complete(admin.listOffsets(lookups));
      hold(cluster);
      const asked = admin.listOffsets(lookups);
      await cluster.run(300);
      await outage(cluster);
      await cluster.untilSettled("t");
      expect(await cluster.complete(asked, NOTICED_MS)).toHaveLength(1);
    });
  });
});
