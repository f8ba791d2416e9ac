import { connect } from "../../../client/index.js";
import type { ClientError, Cluster, Consumer } from "../../../client/index.js";
import { silentLogger } from "../../../common/logger.js";
import { errorReport } from "../../../protocol/error-codes.js";
import type { FetchRequest } from "../../../protocol/messages.js";
import type { FakeAnswer } from "../../support/fake-broker.js";
import { FakeCluster, until } from "../../support/fake-broker.js";

const DEADLINE_MS = 600;

/**
 * Goal: a consumer that waits is never silent about it. A loop to the end has a deadline on what is still missing; an
 * endless one says in the log why nothing comes.
 */
describe("a consumer of which one leader delivers nothing any more", () => {
  let fake: FakeCluster;
  let cluster: Cluster;
  let lines: Record<string, unknown>[];
  /** What broker 2 answers to fetches; undefined: as usual. */
  let fetched: ((request: FetchRequest) => FakeAnswer) | undefined;

  /** Partition 0 is led by broker 1, partition 1 by broker 2. Both have four batches of one record. */
  beforeEach(async () => {
    fetched = undefined;
    lines = [];
    fake = await FakeCluster.start(2);
    fake.createTopic("t", 2);
    const logger = { ...silentLogger, warn: (_: string, fields = {}): void => void lines.push({ ...fields }) };
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: DEADLINE_MS, logger });
    const producer = cluster.producer();
    for (let index = 0; index < 4; index += 1)
      for (const partition of [0, 1]) await producer.send("t", { value: `${partition}${index}`, partition });
    await producer.close();
    lines = [];
    fake.broker(2).answer = ({ kind, body }) => (kind === "fetch" ? fetched?.(body as FetchRequest) : undefined);
  });

  afterEach(async () => {
    await cluster.close();
    await fake[Symbol.asyncDispose]();
  });

  const refused = (request: FetchRequest): FakeAnswer => ({
    body: {
      sessionId: 0,
      partitions: request.partitions.map(({ topicId, partition }) => ({
        topicId,
        partition,
        error: errorReport("NOT_LEADER_OR_FOLLOWER", "broker 2 does not lead it"),
      })),
    },
  });
  const empty = (request: FetchRequest): FakeAnswer => ({
    body: {
      sessionId: 0,
      partitions: request.partitions.map(({ topicId, partition }) => ({ topicId, partition, highWatermark: 4 })),
    },
  });

  /** What a leader does from some moment on that has answered before, and what is told of it then. */
  const troubles: [string, () => Promise<void> | void, RegExp, ClientError["code"]][] = [
    ["that dies, so that its partition has no leader", () => fake.broker(2).kill(), /leader/, "LEADER_NOT_AVAILABLE"],
    ["that refuses", () => void (fetched = refused), /broker 2 does not lead it/, "DEADLINE_EXCEEDED"],
    ["that stays silent", () => void (fetched = () => "silence"), /broker 2.*not answered/, "DEADLINE_EXCEEDED"],
    ["that hangs up", () => void (fetched = () => "hang-up"), /ended|closed|reached/, "DEADLINE_EXCEEDED"],
    ["that answers without records", () => void (fetched = empty), /without/, "DEADLINE_EXCEEDED"],
  ];

  const recover = async (): Promise<void> => {
    fetched = undefined;
    // What it did not answer it never will.
    if (fake.broker(2).isAlive) fake.broker(2).hangUp();
    else await fake.broker(2).restart();
  };

  const consumerOf = (more: object = {}): Consumer =>
    // One batch an answer, one answer ahead: the rest is asked for when something has been read.
    cluster.consumer({ topic: "t", from: "earliest", prefetchBytes: 1, partitionBytes: 1, fetchWaitMs: 10, ...more });

  it.each(troubles)("ends a loop to the end, one %s", async (_, begin, reason, code) => {
    const consumer = consumerOf({ partitions: [1] });
    const read: string[] = [];
    const error = await (async () => {
      for await (const { value } of consumer.records({ untilEnd: true })) {
        read.push(String(value));
        if (read.length === 1) await begin();
      }
    })().catch((thrown: unknown) => thrown as ClientError);
    expect(error).toMatchObject({ code, topic: "t", partition: 1, message: expect.stringMatching(reason) });
    expect(error).toMatchObject({ what: expect.stringContaining(`for ${DEADLINE_MS} ms`) });
    expect((error as ClientError).message.match(/t-1/g)).toHaveLength(1);
    // Where it ended another loop goes on.
    await recover();
    for await (const { value } of consumer.records({ untilEnd: true })) read.push(String(value));
    expect(read).toEqual(["10", "11", "12", "13"]);
  });

  it.each(troubles)("says in the log why an endless loop gets nothing, from one %s", async (_, begin, reason) => {
    const consumer = consumerOf({ partitions: [1], stallMs: 100 });
    const read: string[] = [];
    const reading = (async () => {
      for await (const { value } of consumer) {
        read.push(String(value));
        if (read.length === 1) await begin();
        if (read.length === 4) break;
      }
    })();
    const said = (): Record<string, unknown>[] => lines.filter(({ reasons }) => reasons !== undefined);
    await until(() => said().length > 0, "it is said");
    expect(said()).toMatchObject([
      { partitions: 1, reasons: [expect.stringMatching(reason)], forMs: expect.any(Number) },
    ]);
    await recover();
    await reading;
    expect(read).toEqual(["10", "11", "12", "13"]);
    // Not with each attempt.
    expect(said()).toHaveLength(1);
  });

  it("ends nothing that the leaders answer", async () => {
    const read: string[] = [];
    for await (const { value } of consumerOf().records({ untilEnd: true })) read.push(String(value));
    expect(read.sort()).toEqual(["00", "01", "02", "03", "10", "11", "12", "13"]);
  });
});
