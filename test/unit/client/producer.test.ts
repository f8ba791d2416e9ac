import fc from "fast-check";
import { connect, ClientError, partitionOfKey } from "../../../client/index.js";
import type { Cluster, Producer, ProducerOptions, RecordMetadata } from "../../../client/index.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import { errorReport } from "../../../protocol/error-codes.js";
import type { ErrorName } from "../../../protocol/error-codes.js";
import { readBatches } from "../../../protocol/record-batch.js";
import { RecordCursor } from "../../../protocol/record-cursor.js";
import type { FakeAnswer, FakePartition, FakeRequest } from "../../support/fake-broker.js";
import { eventually } from "../../support/eventually.js";
import { FakeCluster, batchesOf, surfacingIn, until } from "../../support/fake-broker.js";
import { ClockAhead } from "../../support/manual-time.js";

/** What is in a log, read without the client. */
function valuesOf(partition: FakePartition): string[] {
  const values: string[] = [];
  for (const batch of partition.batches.flatMap((bytes) => readBatches(bytes))) {
    const cursor = new RecordCursor(batch);
    while (cursor.next()) values.push(batch.buffer.toString("utf8", cursor.valueStart, cursor.valueEnd));
  }
  return values;
}

const refusal = (name: ErrorName): FakeAnswer => ({ body: { partitions: [{ error: errorReport(name) }] } });

/** Goal: what a producer promises, against brokers that a test can bend. */
describe("Producer", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  const start = async (brokers = 1): Promise<void> => {
    fake = await FakeCluster.start(brokers);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, unknownTopicTimeoutMs: 100 });
  };

  /** Lets broker 1 answer produce requests in its own way; undefined means as usual. */
  const onProduce = (answer: (request: FakeRequest<"produce">) => FakeAnswer | Promise<FakeAnswer>): void => {
    fake.broker(1).answer = (request) =>
      request.kind === "produce" ? answer(request as FakeRequest<"produce">) : undefined;
  };

  /** Appends as usual, and gives another answer, or none. */
  const appendAnd = (request: FakeRequest<"produce">, answer: FakeAnswer): FakeAnswer => {
    fake.broker(1).append(fake.partition("t"), request.records[0]!);
    return answer;
  };

  afterEach(async () => {
    await cluster?.close();
    await fake?.[Symbol.asyncDispose]();
  });

  it("keeps a record that a callback hands over in the middle of an append, behind the one being appended", async () => {
    const clock = new ClockAhead(nodeEnv().clock);
    fake = await FakeCluster.start(1);
    cluster = await connect({ env: nodeEnv({ clock }), bootstrapBrokers: fake.bootstrapBrokers });
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    await producer.send("t", { value: "known" });
    let answers = 0;
    onProduce(() => {
      answers += 1;
      return answers === 1 ? refusal("INVALID_RECORD") : answers === 2 ? refusal("REQUEST_TIMED_OUT") : undefined;
    });
    const outcomes: string[] = [];
    const note = (name: string) => (error: ClientError | undefined) =>
      void outcomes.push(`${name} ${error?.code ?? "ok"}`);
    const full = (name: string): string => name.padEnd(800, ".");
    void producer.produce("t", { value: full("refused") }, note("refused"));
    void producer.produce("t", { value: full("unknown") }, (error) => {
      note("unknown")(error);
      void producer.produce("t", { value: "again" }, note("again"));
    });
    await until(() => answers === 2 && outcomes.length === 1, "both are answered");
    // Its outcome is unknown and cannot be asked for any more: that is found when the next batch is closed.
    void producer.produce("t", { value: full("open") }, note("open"));
    clock.aheadMs = 1000;
    void producer.produce("t", { value: full("next") }, note("next"));
    await until(() => outcomes.length === 5, "all have an outcome");
    expect(outcomes.sort()).toEqual([
      "again ok",
      "next ok",
      "open ok",
      "refused INVALID_RECORD",
      "unknown OUTCOME_UNKNOWN",
    ]);
    const written = valuesOf(fake.partition("t")).map((value) => value.replace(/\.*$/, ""));
    expect(written).toEqual(["known", "open", "next", "again"]);
  });

  it("resolves with the place of each record", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    expect(await producer.send("t", { value: "a", timestamp: 17 })).toEqual({
      topic: "t",
      partition: 0,
      offset: 0,
      timestamp: 17,
    });
    const places = await producer.sendBatch("t", [{ value: "b" }, { value: "c", timestamp: 18 }]);
    expect(places.map(({ offset }) => offset)).toEqual([1, 2]);
    expect(places[1]?.timestamp).toBe(18);
    expect(Math.abs(places[0]!.timestamp - Date.now())).toBeLessThan(5000);
  });

  it("puts the records of one turn into one batch, and sends it at the end of the turn", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "first" });
    await Promise.all(Array.from({ length: 50 }, (_, index) => producer.send("t", { value: `v${index}` })));
    expect(batchesOf(fake.partition("t")).map(({ recordCount }) => recordCount)).toEqual([1, 50]);
  });

  it("waits for lingerMs for more records, and not when flushed", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ lingerMs: 40 });
    await cluster.partitionsOf("t");
    const begun = performance.now();
    const first = producer.send("t", { value: "a" });
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.all([first, producer.send("t", { value: "b" })]);
    expect(batchesOf(fake.partition("t")).map(({ recordCount }) => recordCount)).toEqual([2]);
    expect(performance.now() - begun).toBeGreaterThanOrEqual(40);
    const slow = cluster.producer({ lingerMs: 60_000 });
    const sent = slow.send("t", { value: "c" });
    await slow.flush();
    expect((await sent).offset).toBe(2);
  });

  it("sends a full batch at once, and numbers batches without gaps", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    const values = Array.from({ length: 40 }, (_, index) => `${index}:`.padEnd(100, "x"));
    await producer.sendBatch(
      "t",
      values.map((value) => ({ value })),
    );
    const batches = batchesOf(fake.partition("t"));
    expect(batches.length).toBeGreaterThan(3);
    let sequence = 0;
    for (const batch of batches) {
      expect(batch.baseSequence).toBe(sequence);
      sequence += batch.recordCount;
    }
    expect(new Set(batches.map(({ producerId }) => producerId)).size).toBe(1);
    expect(valuesOf(fake.partition("t"))).toEqual(values);
  });

  it("keeps at most five batches in flight for a partition", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    let held: (() => void)[] = [];
    let most = 0;
    onProduce(async () => {
      await new Promise<void>((resolve) => held.push(resolve));
      return undefined;
    });
    let isSent = false;
    const sent = producer.sendBatch(
      "t",
      Array.from({ length: 30 }, () => ({ value: "x".repeat(800) })),
    );
    void sent.then(() => (isSent = true));
    while (!isSent) {
      await until(() => held.length > 0 || isSent, "a batch arrives");
      await new Promise((resolve) => setTimeout(resolve, 5));
      most = Math.max(most, held.length);
      const release = held;
      held = [];
      for (const resolve of release) resolve();
    }
    await sent;
    expect(most).toBe(5);
  });

  it("sends nothing behind the first batch under a producer id before that is acknowledged", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    // Its answer is lost, and the broker forgets the producer: it is there twice, and what comes behind it is not.
    onProduce(async (request) => {
      if (request.count > 1) return undefined;
      appendAnd(request, "hang-up");
      for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      fake.partition("t").producers.clear();
      return "hang-up";
    });
    const values = Array.from({ length: 4 }, (_, index) => `${index}`.padEnd(800, "x"));
    await producer.sendBatch(
      "t",
      values.map((value) => ({ value })),
    );
    expect(valuesOf(fake.partition("t")).map((value) => value[0])).toEqual(["0", "0", "1", "2", "3"]);
    expect(fake.broker(1).bodies("produce")).toHaveLength(5);
  });

  it("sends a batch again whose answer was lost, and has it in the log once, at its first offset", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    onProduce((request) => (request.count === 1 ? appendAnd(request, "hang-up") : undefined));
    expect((await producer.send("t", { value: "a" })).offset).toBe(0);
    expect((await producer.send("t", { value: "b" })).offset).toBe(1);
    expect(valuesOf(fake.partition("t"))).toEqual(["a", "b"]);
    const [first, second] = fake.broker(1).requests.filter(({ kind }) => kind === "produce");
    expect(Buffer.compare(first!.records[0]!, second!.records[0]!)).toBe(0);
  });

  it("keeps the order when the first of several batches in flight is refused for a while", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    await producer.send("t", { value: "0" });
    onProduce(({ count }) => (count === 2 ? refusal("NOT_ENOUGH_REPLICAS") : undefined));
    const values = Array.from({ length: 5 }, (_, index) => `${index}`.padEnd(900, "x"));
    await producer.sendBatch(
      "t",
      values.map((value) => ({ value })),
    );
    expect(valuesOf(fake.partition("t"))).toEqual(["0", ...values]);
    // One more for each of the five: the other four were out of order.
    expect(fake.broker(1).bodies("produce")).toHaveLength(11);
  });

  it("keeps the oldest batch without an outcome among the last five, by which brokers recognize repetitions", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    await producer.send("t", { value: "0" });
    let refusals = 0;
    onProduce((request) => {
      const isOldest = readBatches(Buffer.from(request.records[0]!))[0]?.baseSequence === 1;
      if (!isOldest || refusals >= 4) return undefined;
      refusals += 1;
      return appendAnd(request, refusal("NOT_ENOUGH_REPLICAS_AFTER_APPEND"));
    });
    const values = Array.from({ length: 20 }, (_, index) => `${index}`.padEnd(800, "x"));
    await producer.sendBatch(
      "t",
      values.map((value) => ({ value })),
    );
    expect(refusals).toBe(4);
    expect(valuesOf(fake.partition("t"))).toEqual(["0", ...values]);
  });

  it("does not wait out a pause between attempts once a new leader is known", async () => {
    await start(2);
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    onProduce(() => refusal("NOT_LEADER_OR_FOLLOWER"));
    const pending = producer.send("t", { value: "b" });
    // The fifth attempt was just now, and the next one would be in 187 to 250 ms.
    await until(() => fake.broker(1).bodies("produce").length >= 6, "several attempts were refused");
    fake.moveLeader("t", 0, 2);
    const begun = performance.now();
    expect((await pending).offset).toBe(1);
    expect(performance.now() - begun).toBeLessThan(160);
  });

  it("keeps its connection to a leader that is slow and still the leader", async () => {
    await start(2);
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    const connections = fake.broker(1).connectionCount;
    onProduce(async () => {
      await new Promise((resolve) => setTimeout(resolve, 900));
      return undefined;
    });
    expect((await producer.send("t", { value: "b" })).offset).toBe(1);
    expect(fake.broker(1).connectionCount).toBe(connections);
    expect(fake.broker(1).bodies("produce")).toHaveLength(2);
    // It asked somebody else meanwhile.
    expect(fake.broker(2).bodies("metadata").length).toBeGreaterThan(0);
  });

  it("follows the hint of a broker that leads no more", async () => {
    await start(2);
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    fake.moveLeader("t", 0, 2);
    const begun = Date.now();
    expect((await producer.send("t", { value: "b" })).offset).toBe(1);
    expect(Date.now() - begun).toBeLessThan(200);
    expect(fake.broker(2).bodies("produce")).toHaveLength(1);
  });

  it("goes on at the new leader within 100 ms of its election when the old one dies", async () => {
    await start(3);
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    onProduce((request) => appendAnd(request, "silence"));
    const pending = producer.send("t", { value: "b" });
    await until(() => fake.partition("t").batches.length === 2, "the batch is appended");
    await fake.broker(1).kill();
    await new Promise((resolve) => setTimeout(resolve, 200));
    fake.moveLeader("t", 0, 2);
    const begun = Date.now();
    expect((await pending).offset).toBe(1);
    expect(Date.now() - begun).toBeLessThan(100);
    expect(valuesOf(fake.partition("t"))).toEqual(["a", "b"]);
  });

  it("leaves a silent leader after half a second, once another one leads, and never waits for the request to time out", async () => {
    await start(2);
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    fake.broker(1).isSilent = true;
    const begun = Date.now();
    const pending = producer.send("t", { value: "b" });
    fake.moveLeader("t", 0, 2);
    expect((await pending).offset).toBe(1);
    expect(Date.now() - begun).toBeGreaterThanOrEqual(450);
    expect(Date.now() - begun).toBeLessThan(1500);
  });

  it("delivers to one partition while the leader of another stays silent", async () => {
    await start(2);
    fake.createTopic("t", 2);
    const producer = cluster.producer();
    await producer.sendBatch("t", [
      { value: "a", partition: 0 },
      { value: "a", partition: 1 },
    ]);
    fake.broker(1).isSilent = true;
    const stuck = producer.send("t", { value: "b", partition: 0 });
    const begun = Date.now();
    for (let index = 0; index < 20; index += 1) await producer.send("t", { value: "c", partition: 1 });
    expect(Date.now() - begun).toBeLessThan(400);
    fake.moveLeader("t", 0, 2);
    expect((await stuck).offset).toBe(1);
  });

  it("delivers to many partitions of a leader that leaves the first requests without an answer", async () => {
    await start();
    fake.createTopic("t", 20);
    await cluster.partitionsOf("t");
    const producer = cluster.producer();
    const partitions = Array.from({ length: 20 }, (_, partition) => partition);
    let isSilent = true;
    onProduce(({ count }) => (isSilent && count <= 16 ? "silence" : undefined));
    const acknowledged: number[] = [];
    const sent = partitions.map((partition) =>
      producer.send("t", { value: "x", partition }).then(() => acknowledged.push(partition)),
    );
    await until(() => acknowledged.length === 4, "those that had to wait for their turn are sent");
    isSilent = false;
    fake.broker(1).hangUp();
    await Promise.all(sent);
  });

  it("fails a batch of unknown outcome and all behind it when time is up, and begins anew under another producer id", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ deliveryTimeoutMs: 300, batchBytes: 1024 });
    await producer.send("t", { value: "a" });
    onProduce(() => "silence");
    const outcomes = await Promise.allSettled(
      ["b", "c"].map((letter) => producer.send("t", { value: letter.padEnd(900, "x") })),
    );
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({
        status: "rejected",
        reason: { code: "OUTCOME_UNKNOWN", topic: "t", partition: 0 },
      });
    }
    onProduce(() => undefined);
    fake.broker(1).hangUp();
    expect((await producer.send("t", { value: "d" })).offset).toBe(1);
    expect(valuesOf(fake.partition("t"))).toEqual(["a", "d"]);
    const [before, after] = batchesOf(fake.partition("t"));
    expect(after?.producerId).not.toBe(before?.producerId);
    expect(after?.baseSequence).toBe(0);
  });

  it("says that nothing was sent when the leader could not be reached in time", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ deliveryTimeoutMs: 200 });
    await cluster.partitionsOf("t");
    await fake.broker(1).kill();
    await expect(producer.send("t", { value: "b" })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      brokerId: 1,
      message: expect.stringMatching(
        /leader, broker 1, could not be reached \(no connection to .*or raise deliveryTimeoutMs/,
      ),
    });
  });

  it.each([
    ["ZOOKEEPER_UNAVAILABLE", /ZooKeeper does not answer/, /check that the ZooKeeper servers run/],
    ["UNKNOWN_SERVER_ERROR", /in a way it did not expect/, /log of the broker/],
  ] as const)(
    "says that no producer id could be had, and why, when that is refused with %s",
    async (name, why, hint) => {
      await start();
      fake.createTopic("t");
      fake.broker(1).answer = ({ kind }) => (kind === "initProducerId" ? { refuse: name } : undefined);
      const producer = cluster.producer({ deliveryTimeoutMs: 400 });
      const error = await producer.send("t", { value: "b" }).then(
        () => undefined,
        (reason: ClientError) => reason,
      );
      expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED", what: expect.stringMatching(/producer id/) });
      expect(error?.what).toMatch(why);
      expect(error?.hint).toMatch(hint);
      expect(error?.cause).toMatchObject({ code: name });
      // One who needs no id is not concerned.
      await cluster.producer({ idempotent: false }).send("t", { value: "c" });
    },
  );

  it("says that no broker has answered when none does about a producer id", async () => {
    await start();
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind }) => (kind === "initProducerId" ? "silence" : undefined);
    const producer = cluster.producer({ deliveryTimeoutMs: 300 });
    await expect(producer.send("t", { value: "b" })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      what: expect.stringMatching(/no broker has given out a producer id/),
    });
  });

  it("says that the partition had no leader when none was told of", async () => {
    await start(2);
    fake.createTopic("t", 2);
    fake.moveLeader("t", 0, 2);
    await fake.broker(2).kill();
    const producer = cluster.producer({ deliveryTimeoutMs: 300 });
    await expect(producer.send("t", { value: "b", partition: 0 })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      what: expect.stringMatching(/has no leader/),
      hint: expect.stringMatching(/start the brokers that hold its replicas/),
    });
  });

  it("says that records stood behind others when those were not answered", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ deliveryTimeoutMs: 300, batchBytes: 1024, maxInFlight: 1 });
    await producer.send("t", { value: "a" });
    onProduce(() => "silence");
    const [first, second] = await Promise.allSettled(
      ["b", "c"].map((letter) => producer.send("t", { value: letter.padEnd(900, "x") })),
    );
    expect(first).toMatchObject({ reason: { code: "OUTCOME_UNKNOWN" } });
    expect(second).toMatchObject({
      reason: { code: "DEADLINE_EXCEEDED", what: expect.stringMatching(/behind others that broker 1 has not/) },
    });
  });

  it("does not let a record linger for its whole time", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ lingerMs: 2000, deliveryTimeoutMs: 2001 });
    expect((await producer.send("t", { value: "a" })).offset).toBe(0);
  });

  it("keeps to deliveryTimeoutMs when no broker gives it a producer id", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ deliveryTimeoutMs: 1000 });
    await producer.send("t", { value: "a" });
    fake.broker(1).answer = ({ kind }) => (kind === "produce" || kind === "initProducerId" ? "silence" : undefined);
    // With this one the producer id is given up.
    await expect(producer.send("t", { value: "b" })).rejects.toMatchObject({ code: "OUTCOME_UNKNOWN" });
    let error: ClientError | undefined;
    void producer.produce("t", { value: "c" }, (failure) => {
      error = failure;
    });
    await until(() => error !== undefined, "time is up");
    expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  });

  it.each([
    ["a record", 1],
    ["one that has a batch of its own, larger than others,", 3000],
  ])("counts the time for which %s waited for its topic among that for its delivery", async (_, bytes) => {
    const clock = new ClockAhead(nodeEnv().clock);
    fake = await FakeCluster.start(1);
    cluster = await connect({
      env: nodeEnv({ clock }),
      bootstrapBrokers: fake.bootstrapBrokers,
      unknownTopicTimeoutMs: 60_000,
    });
    onProduce(() => "silence");
    const producer = cluster.producer({ deliveryTimeoutMs: 10_000, batchBytes: 1024 });
    let error: ClientError | undefined;
    void producer.produce("t", { value: "a".repeat(bytes) }, (failure) => {
      error = failure;
    });
    clock.aheadMs = 6000;
    fake.createTopic("t");
    await until(() => fake.broker(1).bodies("produce").length > 0, "it is sent");
    expect(error).toBeUndefined();
    clock.aheadMs = 12_000;
    await until(() => error !== undefined, "time is up", 2000);
    expect(error).toMatchObject({ code: "OUTCOME_UNKNOWN" });
  });

  it("says that the topic could not be looked up, and not that memory is short, when no broker answers", async () => {
    await start(2);
    const producer = cluster.producer({ deliveryTimeoutMs: 1500 });
    const other = cluster.producer({ deliveryTimeoutMs: 1500 });
    fake.createTopic("known");
    await other.send("known", { value: "x" });
    await fake.broker(1).kill();
    fake.broker(2).isSilent = true;
    const [gone, silent] = fake.brokers.map(({ port }) => `127.0.0.1:${port}`);
    const told = {
      code: "DEADLINE_EXCEEDED",
      hint: expect.stringContaining("brokers run"),
      cause: expect.objectContaining({ code: "CONNECTION_FAILED" }),
    };
    const outcomes = await Promise.allSettled([
      producer.send("t", { value: "b" }),
      other.send("known", { value: "b", partition: 7 }),
    ]);
    expect(outcomes).toMatchObject([
      { reason: { ...told, topic: "t", what: expect.stringMatching(/^t: the topic could not be looked up within/) } },
      { reason: { ...told, what: expect.stringMatching(/^known-7: the partition could not be looked up within/) } },
    ]);
    for (const outcome of outcomes) {
      const { message } = (outcome as PromiseRejectedResult).reason as Error;
      // Who was asked, and what became of it.
      expect(message).toContain(`${gone}: refused`);
      expect(message).toMatch(new RegExp(`${silent} (has|did) not answer`));
    }
  });

  it("closes the gap that a refused batch leaves, and delivers those behind it under the same producer id", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    await producer.send("t", { value: "0" });
    onProduce(({ count }) => (count === 2 ? refusal("INVALID_TIMESTAMP") : undefined));
    const outcomes = await Promise.allSettled(
      ["1", "2", "3"].map((letter) => producer.send("t", { value: letter.padEnd(900, "x") })),
    );
    expect(outcomes[0]).toMatchObject({ status: "rejected", reason: { code: "INVALID_TIMESTAMP", retriable: false } });
    expect(outcomes.slice(1)).toMatchObject([{ value: { offset: 1 } }, { value: { offset: 2 } }]);
    await producer.send("t", { value: "4" });
    expect(valuesOf(fake.partition("t")).map((value) => value[0])).toEqual(["0", "2", "3", "4"]);
    const batches = batchesOf(fake.partition("t"));
    expect(batches.map(({ baseSequence }) => baseSequence)).toEqual([0, 1, 2, 3]);
    expect(new Set(batches.map(({ producerId }) => producerId)).size).toBe(1);
  });

  it("takes another producer id when the broker has lost its memory of the old one, and loses nothing", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    onProduce(({ count }) => (count === 2 ? refusal("UNKNOWN_PRODUCER_ID") : undefined));
    expect((await producer.send("t", { value: "b" })).offset).toBe(1);
    expect(batchesOf(fake.partition("t"))[1]).toMatchObject({ producerId: 101, baseSequence: 0 });
  });

  it("takes another producer id with all that is in flight when the broker has forgotten it, and knows the outcome", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    await producer.send("t", { value: "0" });
    fake.partition("t").producers.clear();
    const values = Array.from({ length: 8 }, (_, index) => `${index}`.padEnd(800, "x"));
    const places = await producer.sendBatch(
      "t",
      values.map((value) => ({ value })),
    );
    expect(places.map(({ offset }) => offset)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(valuesOf(fake.partition("t"))).toEqual(["0", ...values]);
    expect(batchesOf(fake.partition("t"))[1]).toMatchObject({ producerId: 101, baseSequence: 0 });
  });

  it("sends a record whose answer was lost under no other producer id when the broker has forgotten it", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    onProduce((request) => {
      if (request.count !== 2) return undefined;
      appendAnd(request, "hang-up");
      fake.partition("t").producers.clear();
      return "hang-up";
    });
    await expect(producer.send("t", { value: "b" })).rejects.toMatchObject({ code: "OUTCOME_UNKNOWN" });
    expect((await producer.send("t", { value: "c" })).offset).toBe(2);
    expect(valuesOf(fake.partition("t"))).toEqual(["a", "b", "c"]);
  });

  it("does not take an answer without an offset for an acknowledgement", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    onProduce(({ count }) => (count === 2 ? refusal("DUPLICATE_SEQUENCE_NUMBER") : undefined));
    await expect(producer.send("t", { value: "b" })).rejects.toMatchObject({ code: "OUTCOME_UNKNOWN" });
    expect((await producer.send("t", { value: "c" })).offset).toBe(1);
  });

  it("gives up what another batch has overtaken, and does not send it behind that one", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    await producer.send("t", { value: "0" });
    onProduce((request) => {
      if (request.count === 2) return refusal("NOT_ENOUGH_REPLICAS");
      // A broker that forgot the producer, and lets it begin anywhere.
      if (request.count === 3) fake.partition("t").producers.set(100, [{ baseSequence: 1, count: 1, offset: -1 }]);
      return request.count === 4 ? refusal("UNKNOWN_PRODUCER_ID") : undefined;
    });
    const outcomes = await Promise.allSettled(
      ["1", "2"].map((letter) => producer.send("t", { value: letter.padEnd(900, "x") })),
    );
    expect(outcomes).toMatchObject([{ reason: { code: "UNKNOWN_PRODUCER_ID" } }, { value: { offset: 1 } }]);
    expect((await producer.send("t", { value: "3" })).offset).toBe(2);
    expect(valuesOf(fake.partition("t")).map((value) => value[0])).toEqual(["0", "2", "3"]);
  });

  it("returns a promise only when memory is used up, never holds more than its limit, and delivers all in order", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024, bufferBytes: 8 * 1024 });
    await producer.send("t", { value: "first" });
    let waits = 0;
    const values = Array.from({ length: 200 }, (_, index) => `${index}:`.padEnd(200, "x"));
    for (const value of values) {
      const room = producer.produce("t", { value });
      if (room !== undefined) {
        waits += 1;
        await room;
      }
    }
    await producer.flush();
    expect(waits).toBeGreaterThan(5);
    expect(waits).toBeLessThan(100);
    expect(valuesOf(fake.partition("t"))).toEqual(["first", ...values]);
  });

  it("keeps the order even of records whose promise of room nobody awaits", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024, bufferBytes: 2 * 1024 });
    const values = Array.from({ length: 100 }, (_, index) => `${index}:`.padEnd(200, "x"));
    const places = await Promise.all(values.map((value) => producer.send("t", { value })));
    expect(places.map(({ offset }) => offset)).toEqual(values.map((_, index) => index));
    expect(valuesOf(fake.partition("t"))).toEqual(values);
  });

  it("lets no small record overtake a large one that waits for memory", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024, bufferBytes: 3 * 1024 });
    await producer.send("t", { value: "first" });
    const values = ["a".repeat(700), "b".repeat(2400), "c"];
    await producer.sendBatch(
      "t",
      values.map((value) => ({ value })),
    );
    expect(valuesOf(fake.partition("t"))).toEqual(["first", ...values]);
  });

  it("sends a record that is larger than a batch by itself, and refuses one that the topic would not take", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 1024 });
    expect((await producer.send("t", { value: "x".repeat(100_000) })).offset).toBe(0);
    await expect(producer.send("t", { value: Buffer.alloc(2_000_000) })).rejects.toMatchObject({
      code: "RECORD_TOO_LARGE",
      limitBytes: 1 << 20,
      setting: "max.message.bytes of the topic",
    });
    expect((await producer.send("t", { value: "next" })).offset).toBe(1);
  });

  it("makes no batch that is larger than the topic accepts, and hears of it when the topic accepts more", async () => {
    await start();
    const topic = fake.createTopic("t");
    topic.maxBatchBytes = 4096;
    const producer = cluster.producer({ batchBytes: 16 * 1024 });
    await producer.sendBatch(
      "t",
      Array.from({ length: 40 }, () => ({ value: "x".repeat(500) })),
    );
    const large = { value: "x".repeat(8000) };
    await expect(producer.send("t", large)).rejects.toMatchObject({ code: "RECORD_TOO_LARGE", limitBytes: 4096 });
    const sizes = fake.partition("t").batches.map(({ length }) => length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4096);
    expect(Math.max(...sizes)).toBeGreaterThan(2048);
    topic.maxBatchBytes = 10_000;
    let offset: number | undefined;
    await eventually("the topic's new limit is known", async () => {
      offset = await producer.send("t", large).then(
        (place) => place.offset,
        () => undefined,
      );
      return offset !== undefined;
    });
    expect(offset).toBe(40);
  });

  it("sends a batch in halves that the topic finds too large, in order, and makes smaller ones from then on", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ batchBytes: 16 * 1024 });
    onProduce(({ records }) => (records[0]!.length > 3000 ? refusal("MESSAGE_TOO_LARGE") : undefined));
    const records = Array.from({ length: 60 }, (_, index) => ({
      key: `k${index}`,
      value: `${index}:`.padEnd(500, "x"),
      headers: { index: `${index}` },
    }));
    const flushed = producer.flush();
    const places = await producer.sendBatch("t", records);
    await flushed;
    expect(places.map(({ offset }) => offset)).toEqual(records.map((_, index) => index));
    expect(valuesOf(fake.partition("t"))).toEqual(records.map(({ value }) => value));
    expect(new Set(batchesOf(fake.partition("t")).map(({ producerId }) => producerId)).size).toBe(1);
    const refusedBefore = fake.broker(1).bodies("produce").length - fake.partition("t").batches.length;
    await producer.sendBatch("t", records);
    expect(fake.broker(1).bodies("produce").length - fake.partition("t").batches.length).toBe(refusedBefore);
    await expect(producer.send("t", { value: "x".repeat(4000) })).rejects.toMatchObject({
      code: "RECORD_TOO_LARGE",
      setting: "max.message.bytes of the topic",
    });
    expect((await producer.send("t", { value: "small" })).offset).toBe(120);
  });

  it("waits for the leader only, or for nothing, when told so", async () => {
    await start();
    fake.createTopic("t");
    expect((await cluster.producer({ acks: "leader" }).send("t", { value: "a" })).offset).toBe(0);
    expect((await cluster.producer({ acks: "none" }).send("t", { value: "b" })).offset).toBe(-1);
    await until(() => fake.partition("t").batches.length === 2, "the second record is appended");
    expect(
      fake
        .broker(1)
        .bodies("produce")
        .map(({ acks }) => acks),
    ).toEqual([1, 0]);
    expect(batchesOf(fake.partition("t"))[0]).toMatchObject({ producerId: -1, baseSequence: -1 });
  });

  it("sends records with a key where Java's clients send them, and others to one partition a batch", async () => {
    await start();
    fake.createTopic("t", 3);
    const producer = cluster.producer();
    // murmur2("21") & 0x7fffffff is 1173551340, "foobar" 1357151166, "abc" 479470107.
    const keys = ["21", "foobar", Buffer.from("abc")];
    const places = await producer.sendBatch(
      "t",
      keys.map((key) => ({ key, value: null })),
    );
    expect(places.map(({ partition }) => partition)).toEqual([1173551340 % 3, 1357151166 % 3, 479470107 % 3]);
    const batch = await producer.sendBatch(
      "t",
      Array.from({ length: 10 }, () => ({ value: "x" })),
    );
    expect(new Set(batch.map(({ partition }) => partition)).size).toBe(1);
    const partitions = new Set<number>();
    for (let index = 0; index < 40; index += 1) partitions.add((await producer.send("t", { value: "x" })).partition);
    expect(partitions.size).toBe(3);
  });

  it("rejects with UNKNOWN_TOPIC_OR_PARTITION when there is no such topic, and delivers when it comes in time", async () => {
    await start();
    const producer = cluster.producer();
    await expect(producer.send("nope", { value: "x" })).rejects.toMatchObject({
      code: "UNKNOWN_TOPIC_OR_PARTITION",
      topic: "nope",
    });
    const early = producer.send("soon", { value: "x" });
    fake.createTopic("soon");
    expect((await early).offset).toBe(0);
  });

  it("lets no record pass those that wait for their topic while another producer is told of it", async () => {
    await start();
    const failing = cluster.producer({
      partitioner: () => {
        throw new TypeError("the partitioner knows no such key");
      },
    });
    const producer = cluster.producer();
    const heard = new Promise<void>((resolve) => {
      void failing.produce("t", { key: "k", value: "x" }, () => {
        void producer.produce("t", { value: "second" });
        resolve();
      });
    });
    void producer.produce("t", { value: "first" });
    fake.createTopic("t");
    await heard;
    await producer.flush();
    expect(valuesOf(fake.partition("t"))).toEqual(["first", "second"]);
  });

  it("keeps the topic it writes to, though an administrator's look at it ends meanwhile", async () => {
    await start();
    fake.createTopic("t");
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    fake.broker(1).answer = async ({ kind }) => {
      if (kind === "listOffsets") await held;
      return undefined;
    };
    const looking = cluster.admin().listOffsets([{ topic: "t", partition: 0, query: "latest" }]);
    await until(() => fake.broker(1).bodies("listOffsets").length > 0, "the administrator looks");
    const producer = cluster.producer({ deliveryTimeoutMs: 2000 });
    expect((await producer.send("t", { value: "a" })).offset).toBe(0);
    release();
    await looking;
    expect((await producer.send("t", { value: "b" })).offset).toBe(1);
  });

  it("goes on in a topic that was deleted and created again", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "old" });
    fake.topics.delete("t");
    fake.createTopic("t");
    expect((await producer.send("t", { value: "new" })).offset).toBe(0);
    expect(valuesOf(fake.partition("t"))).toEqual(["new"]);
  });

  it("sends what was under way to a topic that was created again once the old one has refused it", async () => {
    await start();
    fake.createTopic("t");
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
    const producer = cluster.producer();
    await producer.send("t", { value: "old" });
    onProduce(async ({ count }) => {
      if (count !== 2) return undefined;
      fake.topics.delete("t");
      fake.createTopic("t");
      const asked = fake.broker(1).bodies("metadata").length;
      await until(() => fake.broker(1).bodies("metadata").length > asked + 2, "the client has heard of the new topic");
      return undefined;
    });
    expect((await producer.send("t", { value: "new" })).offset).toBe(0);
    expect(valuesOf(fake.partition("t"))).toEqual(["new"]);
  });

  it("uses the partitions of a topic that was created again with fewer, and gives up what was for the others", async () => {
    await start();
    fake.createTopic("t", 3);
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
    const producer = cluster.producer({ deliveryTimeoutMs: 3000 });
    onProduce(({ body }) => (body.partitions[0]?.partition === 2 ? "silence" : undefined));
    const lost = producer.send("t", { value: "lost", partition: 2 });
    await until(() => fake.broker(1).bodies("produce").length > 0, "it is sent");
    fake.topics.delete("t");
    fake.createTopic("t", 1);
    await expect(lost).rejects.toMatchObject({ code: "OUTCOME_UNKNOWN", message: expect.stringContaining("again") });
    const records = ["a", "b", "c", "d", "e"].map((key) => ({ key, value: key }));
    await producer.sendBatch("t", records);
    expect(valuesOf(fake.partition("t"))).toEqual(["a", "b", "c", "d", "e"]);
    await expect(producer.send("t", { value: "x", partition: 1 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("sends records that name no partition to one there is when the topic comes back with fewer", async () => {
    await start();
    fake.createTopic("t", 8);
    const producer = cluster.producer({ batchBytes: 1024 });
    await Promise.all(Array.from({ length: 8 }, (_, partition) => producer.send("t", { value: "old", partition })));
    fake.topics.delete("t");
    fake.createTopic("t", 2);
    // One of eight partitions is chosen for those without a key; keys are spread over all.
    const free = Array.from({ length: 40 }, (_, index) => ({
      value: `${index}`.padEnd(100, "."),
      headers: { h: "x" },
    }));
    const keyed = Array.from({ length: 40 }, (_, index) => ({ key: `k${index}`, value: `key ${index}` }));
    const named = producer.send("t", { value: "named", partition: 5 });
    void named.catch(() => undefined);
    const sent = [producer.sendBatch("t", free), producer.sendBatch("t", keyed)];
    await producer.flush().catch(() => undefined);
    const places = (await Promise.all(sent)).flat();
    expect(places.every(({ partition }) => partition < 2)).toBe(true);
    const values = [0, 1].flatMap((partition) => valuesOf(fake.partition("t", partition)));
    expect(values.sort()).toEqual([...free, ...keyed].map(({ value }) => value).sort());
    await expect(named).rejects.toMatchObject({ code: "INVALID_ARGUMENT", what: "t: there is no partition 5" });
  });

  it("waits for the answers of partitions that are gone before it sends their records elsewhere", async () => {
    await start();
    fake.createTopic("t", 2);
    const producer = cluster.producer({ batchBytes: 1024 });
    await Promise.all([0, 1].map((partition) => producer.send("t", { value: "old", partition })));
    fake.topics.delete("t");
    fake.createTopic("t", 1);
    const metadata = (): number => fake.broker(1).bodies("metadata").length;
    onProduce(async ({ body }) => {
      if (body.partitions[0]?.partition !== 1) return undefined;
      const asked = metadata();
      await until(() => metadata() > asked + 1, "the client has heard of the new topic");
      return undefined;
    });
    // Both partitions get some of these.
    const keyed = Array.from({ length: 40 }, (_, index) => ({ key: `k${index}`, value: `key ${index}` }));
    const places = await producer.sendBatch("t", keyed);
    expect(places.every(({ partition }) => partition === 0)).toBe(true);
    expect(valuesOf(fake.partition("t")).sort()).toEqual(keyed.map(({ value }) => value).sort());
  });

  it("has flushed the records of a partition that is gone once they have an outcome elsewhere", async () => {
    await start();
    fake.createTopic("t", 2);
    const producer = cluster.producer({ lingerMs: 60_000 });
    await Promise.all([producer.send("t", { value: "known", partition: 0 }), producer.flush()]);
    /** Of two partitions it belongs to the second one. */
    const key = Array.from({ length: 100 }, (_, index) => `k${index}`).find((one) => partitionOfKey(one, 2) === 1)!;
    onProduce(async ({ body }) => {
      if (body.partitions[0]?.partition !== 1) return undefined;
      fake.topics.delete("t");
      fake.createTopic("t", 1);
      const asked = fake.broker(1).bodies("metadata").length;
      void cluster.partitionsOf("t");
      await until(() => fake.broker(1).bodies("metadata").length > asked, "the client hears of the new topic");
      return undefined;
    });
    let isAcknowledged = false;
    void producer.produce("t", { key, value: "x" }, (error) => void (isAcknowledged = error === undefined));
    await producer.flush();
    expect(isAcknowledged).toBe(true);
  });

  describe("of a partition that is gone", () => {
    /** Of two partitions it belongs to the second one. */
    const key = Array.from({ length: 100 }, (_, index) => `k${index}`).find((one) => partitionOfKey(one, 2) === 1)!;
    const named = (values: readonly string[]): string[] => values.map((value) => value.replace(/\.*$/, ""));

    /** Two partitions, then one: what is under way to the second is refused once the client has heard of it. */
    const losePartition = async (options: ProducerOptions, produce: (producer: Producer) => void): Promise<void> => {
      fake = await FakeCluster.start(1);
      cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
      fake.createTopic("t", 2);
      const producer = cluster.producer({ batchBytes: 1024, ...options });
      await producer.send("t", { value: "known", partition: 0 });
      onProduce(async ({ body }) => {
        if (body.partitions[0]?.partition !== 1) return undefined;
        fake.topics.delete("t");
        fake.createTopic("t", 1);
        const asked = fake.broker(1).bodies("metadata").length;
        await until(
          () => fake.broker(1).bodies("metadata").length > asked + 2,
          "the client has heard of the new topic",
        );
        return undefined;
      });
      produce(producer);
      await producer.flush().catch(() => undefined);
    };

    it("sends records before what a callback hands over that hears of the loss of those in a batch before", async () => {
      await losePartition({}, (producer) => {
        void producer.produce("t", { value: "lost".padEnd(800, "."), partition: 1 }, () => {
          void producer.produce("t", { key, value: "late" });
        });
        void producer.produce("t", { key, value: "early".padEnd(800, ".") });
      });
      expect(named(valuesOf(fake.partition("t")))).toEqual(["early", "late"]);
    });

    it("sends records before what a callback hands over that hears of the loss of another partition", async () => {
      fake = await FakeCluster.start(1);
      cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
      fake.createTopic("t", 3);
      const producer = cluster.producer({ lingerMs: 60_000 });
      const known = producer.produce("t", { value: "known", partition: 0 });
      await Promise.all([known, producer.flush()]);
      const third = Array.from({ length: 100 }, (_, index) => `k${index}`).find((one) => partitionOfKey(one, 3) === 2)!;
      const told = new Promise<void>((resolve) => {
        void producer.produce("t", { value: "lost", partition: 1 }, () => {
          void producer.produce("t", { key: third, value: "late" });
          resolve();
        });
      });
      void producer.produce("t", { key: third, value: "early" });
      fake.topics.delete("t");
      fake.createTopic("t", 1);
      await told;
      await producer.flush();
      expect(valuesOf(fake.partition("t"))).toEqual(["early", "late"]);
    });

    it("sends records of all its batches before those that have waited for memory behind them", async () => {
      await losePartition({ bufferBytes: 2048 }, (producer) => {
        void producer.produce("t", { key, value: "1".padEnd(300, ".") });
        void producer.produce("t", { key, value: "2".padEnd(780, ".") });
        expect(producer.produce("t", { key, value: "3".padEnd(200, ".") })).toBeInstanceOf(Promise);
      });
      expect(named(valuesOf(fake.partition("t")))).toEqual(["1", "2", "3"]);
    });
  });

  it("uses partitions that are added later", async () => {
    await start();
    fake.createTopic("t");
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
    const producer = cluster.producer();
    await producer.send("t", { value: "x" });
    fake.addPartitions("t", 2);
    const asked = fake.broker(1).bodies("metadata").length;
    await until(() => fake.broker(1).bodies("metadata").length > asked + 1, "the new partition is known");
    await producer.send("t", { value: "y", partition: 1 });
    expect(valuesOf(fake.partition("t", 1))).toEqual(["y"]);
  });

  it("throws from flush what no callback was told about, once", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.send("t", { value: "a" });
    onProduce(() => refusal("INVALID_RECORD"));
    void producer.produce("t", { value: "b" });
    await expect(producer.flush()).rejects.toMatchObject({ code: "INVALID_RECORD" });
    let told: unknown;
    void producer.produce("t", { value: "c" }, (error) => {
      told = error;
    });
    await producer.flush();
    expect(told).toBeInstanceOf(ClientError);
  });

  it("tells each record of a batch its outcome, though the callback of another throws", async () => {
    fake = await FakeCluster.start();
    const surfaced: unknown[] = [];
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, env: surfacingIn(surfaced) });
    fake.createTopic("t");
    const producer = cluster.producer();
    const fault = new Error("a fault of the callback");
    for (const outcome of ["success", "failure"]) {
      if (outcome === "failure") onProduce(() => refusal("INVALID_RECORD"));
      const told: number[] = [];
      for (const index of [0, 1, 2])
        void producer.produce("t", { value: outcome }, () => {
          told.push(index);
          if (index < 2) throw fault;
        });
      await until(() => told.length > 0, "the outcome is told");
      expect(told).toEqual([0, 1, 2]);
    }
    await until(() => surfaced.length > 3, "the exceptions surface");
    expect(surfaced).toEqual([fault, fault, fault, fault]);
  });

  it("sends what of a batch can be sent, and rejects when that has an outcome", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    const records = [{ value: "a" }, { value: 5 as never }, { value: "c" }];
    await cluster.partitionsOf("t");
    await expect(producer.sendBatch("t", records)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(valuesOf(fake.partition("t"))).toEqual(["a", "c"]);
  });

  it("sends what it holds when closed, and refuses records afterwards", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer({ lingerMs: 60_000 });
    const sent = producer.send("t", { value: "a" });
    await producer.close();
    expect((await sent).offset).toBe(0);
    await expect(producer.send("t", { value: "b" })).rejects.toMatchObject({ code: "CLOSED" });
    await producer.close();
  });

  it("refuses options and records that can never work, before anything is sent", async () => {
    await start();
    fake.createTopic("t");
    const refused =
      (options: object): (() => unknown) =>
      () =>
        cluster.producer(options as ProducerOptions);
    expect(refused({ acks: "leader", idempotent: true })).toThrow(/use acks "all"/);
    expect(refused({ acks: "some" })).toThrow(/give "all" or "leader" or "none"/);
    expect(refused({ maxInFlight: 6 })).toThrow(/maxInFlight is 6/);
    expect(refused({ linger: 5 })).toThrow(/did you mean "lingerMs"/);
    const producer = cluster.producer();
    expect(() => producer.produce("t", { value: 5 } as never)).toThrow(/value of a record is a number/);
    expect(() => producer.produce("t", { value: { a: 1 } } as never)).toThrow(/JSON.stringify/);
    expect(() => producer.produce("t", { value: "x", timestamp: -1 })).toThrow(/timestamp is -1/);
    expect(() => producer.produce("", { value: "x" })).toThrow(/no name/);
    const withHeaders = (headers: unknown) => () => producer.produce("t", { value: "x", headers } as never);
    expect(withHeaders(null)).toThrow(/headers of a record are null/);
    expect(withHeaders([{ key: 1, value: "x" }])).toThrow(/name of a header is a number/);
    expect(withHeaders({ a: 1 })).toThrow(/header "a" of a record is a number/);
  });

  // Goal: whatever goes wrong at the brokers, an acknowledged record is in the log once, at its offset, and records are
  // in the order in which they were sent. Method: every produce request meets a random fate; at the end the log is compared.
  it("has every acknowledged record in the log once, in order, whatever happens to its requests", async () => {
    const fates = ["usual", "usual", "usual", "lost", "answer-lost", "refused", "moved", "appended-refused"] as const;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...fates), { minLength: 5, maxLength: 25 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 6 }),
        async (script, bursts) => {
          await using brokers = await FakeCluster.start(2);
          brokers.createTopic("t");
          const partition = brokers.partition("t");
          let turn = 0;
          for (const broker of brokers.brokers) {
            broker.answer = (request): FakeAnswer => {
              if (request.kind !== "produce") return undefined;
              const fate = script[turn++] ?? "usual";
              if (fate === "usual" || partition.leader !== broker.id) return undefined;
              if (fate === "lost") return "hang-up";
              if (fate === "refused") return refusal("NOT_ENOUGH_REPLICAS");
              if (fate === "moved") {
                brokers.moveLeader("t", 0, 3 - broker.id);
                return undefined;
              }
              const result = broker.append(partition, request.records[0]!);
              if (result.error) return { body: { partitions: [result] } };
              return fate === "answer-lost" ? "hang-up" : refusal("NOT_ENOUGH_REPLICAS_AFTER_APPEND");
            };
          }
          await using client = await connect({ bootstrapBrokers: brokers.bootstrapBrokers });
          const producer = client.producer({ batchBytes: 1024 });
          const sent: Promise<RecordMetadata>[] = [];
          let number = 0;
          for (const burst of bursts) {
            for (let index = 0; index < burst; index += 1) {
              sent.push(producer.send("t", { value: `${number++}`.padEnd(150, ".") }));
            }
            await new Promise((resolve) => setImmediate(resolve));
          }
          const outcomes = await Promise.allSettled(sent);
          const values = valuesOf(partition).map((value) => Number.parseInt(value, 10));
          expect(outcomes.filter(({ status }) => status === "rejected")).toEqual([]);
          expect(values).toEqual(Array.from({ length: number }, (_, index) => index));
          expect(outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value.offset : -1))).toEqual(
            values,
          );
        },
      ),
      { numRuns: 20 },
    );
  }, 30_000);
});
