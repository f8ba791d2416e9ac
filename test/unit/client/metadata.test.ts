import { Metadata, mergeTopic } from "../../../client/metadata.js";
import type { KnownPartition } from "../../../client/metadata.js";
import { parseAddresses } from "../../../client/options.js";
import { Deadline } from "../../../client/retry.js";
import { silentLogger } from "../../../common/logger.js";
import { codecs } from "../../../protocol/messages.js";
import { FakeCluster, surfacingIn, until } from "../../support/fake-broker.js";

const partition = (leaderId: number, leaderEpoch: number, partitionEpoch = 0): KnownPartition => ({
  partition: 0,
  leaderId,
  leaderEpoch,
  partitionEpoch,
  replicas: [1, 2],
  isr: [1, 2],
  elr: [],
});
const topic = (topicId: string, ...partitions: KnownPartition[]) => ({
  name: "t",
  topicId,
  partitions,
  error: null,
  maxBatchBytes: 1000,
  batchBytesMax: 1000,
});
const leaderAfter = (known: KnownPartition, told: KnownPartition): number | undefined =>
  mergeTopic(topic("id", known), topic("id", told)).partitions[0]?.leaderId;

describe("mergeTopic", () => {
  it("never goes back to an older leader, whoever tells of it", () => {
    expect(leaderAfter(partition(2, 5), partition(1, 4))).toBe(2);
    expect(leaderAfter(partition(2, 5), partition(1, 6))).toBe(1);
    expect(leaderAfter(partition(2, 5, 9), partition(-1, 5, 8))).toBe(2);
    expect(leaderAfter(partition(2, 5, 9), partition(-1, 5, 10))).toBe(-1);
  });

  it("believes everything of a topic that was created again, however young its epochs are", () => {
    const merged = mergeTopic(topic("old", partition(2, 50)), topic("new", partition(1, 0)));
    expect(merged).toMatchObject({ topicId: "new", partitions: [{ leaderId: 1, leaderEpoch: 0 }] });
  });

  it("keeps partitions that a broker has not heard of yet", () => {
    const second = { ...partition(1, 3), partition: 1 };
    const merged = mergeTopic(topic("id", partition(1, 3), second), topic("id", partition(1, 3)));
    expect(merged.partitions).toHaveLength(2);
  });

  it("knows which partition a decoded entry is of, though zeros are not fields of its own", () => {
    const told = codecs.TopicMetadata.decode(codecs.TopicMetadata.encode(topic("id", partition(2, 0))).finish());
    const [entry] = mergeTopic(undefined, told).partitions;
    expect({ ...entry }).toEqual(partition(2, 0));
  });
});

describe("Metadata", () => {
  it("goes on asking after a listener has thrown, and lets the exception surface", async () => {
    const fake = await FakeCluster.start();
    const surfaced: unknown[] = [];
    const env = surfacingIn(surfaced);
    const settings = { clientId: "c", requestTimeoutMs: 1000, connectTimeoutMs: 1000, metadataMaxAgeMs: 60_000 };
    const metadata = new Metadata(env, silentLogger, settings, parseAddresses(fake.bootstrapBrokers));
    try {
      await metadata.start(new Deadline(env.clock, 1000));
      const fault = new Error("a fault of the listener");
      const stop = metadata.onChange(() => {
        throw fault;
      });
      metadata.refreshSoon();
      await until(() => surfaced.length > 0, "the exception surfaces");
      expect(surfaced).toEqual([fault]);
      stop();
      const asked = fake.broker(1).bodies("metadata").length;
      metadata.refreshSoon();
      await until(() => fake.broker(1).bodies("metadata").length > asked, "the cluster is asked again", 2000);
    } finally {
      metadata.close();
      await fake[Symbol.asyncDispose]();
    }
  });
});
