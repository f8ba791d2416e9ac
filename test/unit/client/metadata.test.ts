import { Metadata, mergeTopic } from "../../../client/metadata.js";
import type { KnownPartition } from "../../../client/metadata.js";
import { parseAddresses } from "../../../client/options.js";
import { Deadline } from "../../../client/retry.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import { silentLogger } from "../../../common/logger.js";
import { errorCodes } from "../../../protocol/error-codes.js";
import { codecs } from "../../../protocol/messages.js";
import type { MetadataResponse, TopicMetadata } from "../../../protocol/messages.js";
import { FakeCluster, surfacingIn, until } from "../../support/fake-broker.js";
import { ManualTime } from "../../support/manual-time.js";

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

/** Time that a test moves, in the real event loop. */
function slowEnv(time: ManualTime) {
  const real = nodeEnv();
  const { timers } = real;
  return nodeEnv({
    clock: time,
    timers: {
      after: (delayMs, callback) => time.after(delayMs, callback),
      soon: (callback) => timers.soon(callback),
      afterThisTurn: (callback) => timers.afterThisTurn(callback),
    },
  });
}

describe("Metadata, when no broker answers a question", () => {
  const settings = { clientId: "c", requestTimeoutMs: 30_000, connectTimeoutMs: 1000, metadataMaxAgeMs: 600_000 };
  const time = new ManualTime();
  let fake: FakeCluster;
  let metadata: Metadata;
  let answered: boolean;

  const start = async (brokers: number): Promise<void> => {
    fake = await FakeCluster.start(brokers);
    metadata = new Metadata(slowEnv(time), silentLogger, settings, parseAddresses(fake.bootstrapBrokers));
    await metadata.start(new Deadline(time, 1000));
    answered = false;
    metadata.onChange(() => (answered = true));
  };
  const questions = (): number =>
    fake.brokers.reduce((sum, { requests }) => sum + requests.filter(({ kind }) => kind === "metadata").length, 0);
  /** Lets time pass in small steps, each with some turns of the event loop. */
  const pass = async (forMs: number): Promise<void> => {
    for (let passedMs = 0; passedMs < forMs; passedMs += 50) {
      time.advance(50);
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
  };

  afterEach(async () => {
    metadata.close();
    await fake[Symbol.asyncDispose]();
  });

  it.each([1, 3])("goes round again over fresh connections until one of %i does", async (brokers) => {
    await start(brokers);
    const before = questions();
    // Those that were there are gone without a word; what was asked of them is never answered.
    for (const broker of fake.brokers) broker.isSilent = true;
    metadata.refreshSoon();
    await pass(4000);
    expect(answered).toBe(false);
    // A handshake that is not answered takes no question.
    expect(questions() - before).toBe(1);
    for (const broker of fake.brokers) broker.isSilent = false;
    await pass(2000);
    expect(answered).toBe(true);
  });

  it("gives slow ones their time, asks each but little meanwhile, and ends no connection", async () => {
    await start(3);
    for (const broker of fake.brokers) {
      broker.answer = ({ kind }) =>
        kind === "metadata" ? new Promise((resolve) => time.after(2000, () => resolve(undefined))) : undefined;
    }
    const before = questions();
    metadata.refreshSoon();
    await pass(1950);
    expect(answered).toBe(false);
    expect(questions() - before).toBeLessThanOrEqual(2 * 3);
    const kept = fake.brokers.filter(({ id }) => metadata.control.isOpen(id));
    expect(kept).toHaveLength(3);
    await pass(300);
    expect(answered).toBe(true);
    expect(fake.brokers.map(({ id }) => metadata.control.isOpen(id))).toEqual([true, true, true]);
    await until(
      () => fake.brokers.every(({ connectionCount }) => connectionCount === 1),
      "only those that are kept stay",
    );
  });

  it("asks no more than two at a time of each, however long it lasts", async () => {
    await start(1);
    const before = questions();
    const held: (() => void)[] = [];
    fake.broker(1).answer = ({ kind }) =>
      kind === "metadata" ? new Promise((resolve) => held.push(() => resolve(undefined))) : undefined;
    metadata.refreshSoon();
    await pass(25_000);
    expect(fake.broker(1).connectionCount).toBe(2);
    expect(questions() - before).toBeLessThanOrEqual(6);
    for (const answer of held) answer();
    await pass(100);
    expect(answered).toBe(true);
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

describe("Metadata, of topics that do not exist", () => {
  const settings = { clientId: "c", requestTimeoutMs: 1000, connectTimeoutMs: 1000, metadataMaxAgeMs: 60_000 };
  const refused = { code: errorCodes.UNKNOWN_TOPIC_OR_PARTITION.code, message: "there is none" };
  const setUp = (): { time: ManualTime; metadata: Metadata; deny: () => void; isWanted: () => boolean } => {
    const time = new ManualTime();
    const metadata = new Metadata(nodeEnv({ clock: time, timers: time }), silentLogger, settings, []);
    const answer = (told: Partial<TopicMetadata>): void => {
      const response = { clusterId: "x", controllerEpoch: 1, controllerId: 1, brokers: [], topics: [told] };
      metadata.apply(response as unknown as MetadataResponse, time.monotonicMs());
    };
    return {
      time,
      metadata,
      deny: () => answer({ name: "t", error: refused }),
      isWanted: () => {
        answer(topic("id", partition(1, 1)));
        return metadata.topic("t") !== undefined;
      },
    };
  };

  it("tells each who waits for one, and wants it again when the last word is too old for the next", () => {
    const { time, metadata, deny, isWanted } = setUp();
    metadata.want("t");
    deny();
    const laterMs = time.monotonicMs() + 100;
    time.advance(500);
    deny();
    expect(metadata.refusalOf("t", 500)).toBeDefined();
    expect(metadata.refusalOf("t", 500)).toBeDefined();
    expect(isWanted()).toBe(false);
    expect(metadata.refusalOf("t", 500, laterMs)).toBeUndefined();
    expect(isWanted()).toBe(true);
  });

  it("wants one that is waited for however long ago somebody else was told", () => {
    const { time, metadata, deny, isWanted } = setUp();
    metadata.want("t");
    deny();
    expect(metadata.refusalOf("t", 0)).toBeDefined();
    expect(isWanted()).toBe(false);
    time.advance(10_000);
    expect(metadata.refusalOf("t", 0)).toBeUndefined();
    expect(isWanted()).toBe(true);
  });

  it("does not ask for ever about one that nobody has used since", () => {
    const { time, metadata, deny, isWanted } = setUp();
    metadata.want("t");
    deny();
    time.advance(59_000);
    deny();
    expect(isWanted()).toBe(true);
    deny();
    time.advance(59_000);
    expect(metadata.refusalOf("t", 60_000)).toBeUndefined();
    time.advance(59_000);
    deny();
    expect(isWanted()).toBe(true);
    deny();
    time.advance(60_000);
    deny();
    expect(isWanted()).toBe(false);
  });

  it("goes on asking about one that is refused for another reason, which may pass", () => {
    const { time, metadata, isWanted } = setUp();
    metadata.want("t");
    const error = { code: errorCodes.LEADER_NOT_AVAILABLE.code, message: "not yet" };
    const response = {
      clusterId: "x",
      controllerEpoch: 1,
      controllerId: 1,
      brokers: [],
      topics: [{ name: "t", error }],
    };
    metadata.apply(response as unknown as MetadataResponse, time.monotonicMs());
    expect(metadata.refusalOf("t", 0)).toBeDefined();
    expect(isWanted()).toBe(true);
  });
});

describe("Metadata, of topics that calls have borrowed", () => {
  it("knows one until the last of them has given it back, or longer if it is wanted meanwhile", () => {
    const settings = { clientId: "c", requestTimeoutMs: 1000, connectTimeoutMs: 1000, metadataMaxAgeMs: 60_000 };
    const time = new ManualTime();
    const metadata = new Metadata(nodeEnv({ clock: time, timers: time }), silentLogger, settings, []);
    const told = topic("id", partition(1, 1)) as unknown as TopicMetadata;
    const isKnown = (): boolean => metadata.topic("t") !== undefined;
    const [first, second] = [metadata.borrow([told]), metadata.borrow([told])];
    first();
    expect(isKnown()).toBe(true);
    second();
    expect(isKnown()).toBe(false);
    const third = metadata.borrow([told]);
    metadata.want("t");
    third();
    expect(isKnown()).toBe(true);
  });
});
