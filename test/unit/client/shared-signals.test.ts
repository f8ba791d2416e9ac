import { getEventListeners } from "node:events";
import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import { FakeCluster, until } from "../../support/fake-broker.js";

/** Goal: a signal that many share, here or outside, is no leak to Node, which warns from eleven listeners on. */
describe("signals of the client", () => {
  let fake: FakeCluster;
  let cluster: Cluster;
  let most: number;
  const original = EventTarget.prototype.addEventListener;

  beforeEach(async () => {
    most = 0;
    EventTarget.prototype.addEventListener = function (this: EventTarget, ...args): void {
      original.apply(this, args as Parameters<typeof original>);
      if (this instanceof AbortSignal) most = Math.max(most, getEventListeners(this, "abort").length);
    };
    fake = await FakeCluster.start(1);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
  });

  afterEach(async () => {
    EventTarget.prototype.addEventListener = original;
    await cluster.close();
    await fake[Symbol.asyncDispose]();
  });

  it("have few listeners, however many consumers and calls share one", async () => {
    fake.createTopic("t");
    const controller = new AbortController();
    const { signal } = controller;
    const consumers = Array.from({ length: 30 }, () => cluster.consumer({ topics: ["t"], from: "earliest", signal }));
    const loops = consumers.map(async (consumer) => {
      for await (const record of consumer) expect(record.topic).toBe("t");
    });
    const admin = cluster.admin();
    await Promise.all(
      Array.from({ length: 30 }, () => admin.listOffsets([{ topic: "t", partition: 0, query: "latest" }], { signal })),
    );
    await Promise.all(
      Array.from({ length: 15 }, async () => {
        await using other = await connect({ bootstrapBrokers: fake.bootstrapBrokers, signal });
        expect(other.clusterId).toBe("fake-cluster");
      }),
    );
    controller.abort(new Error("enough"));
    for (const outcome of await Promise.allSettled(loops)) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { message: "enough" } });
    }
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
    expect(most).toBeLessThanOrEqual(10);
  });

  it("have few listeners when a consumer gains many partitions", async () => {
    fake.createTopic("t", 1);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const reading = (async () => {
      for await (const record of consumer) expect(record.topic).toBe("t");
    })();
    await consumer.partitions();
    fake.addPartitions("t", 40);
    await until(
      () =>
        fake
          .broker(1)
          .bodies("fetch")
          .some(({ partitions }) => partitions.length > 1),
      "all are read",
    );
    await consumer.close();
    await reading.catch(() => undefined);
    expect(most).toBeLessThanOrEqual(10);
  });
});
