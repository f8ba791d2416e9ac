import { BufferPool, MemoryAccount } from "../../../client/buffer-pool.js";
import { LeaderTurns } from "../../../client/leader-turns.js";
import type { QueueHost } from "../../../client/partition-queue.js";
import { PartitionQueue } from "../../../client/partition-queue.js";
import type { ProducerBatch } from "../../../client/producer-batch.js";
import { RecordAccumulator } from "../../../client/record-accumulator.js";
import { errorReport } from "../../../protocol/error-codes.js";
import type { ErrorName } from "../../../protocol/error-codes.js";

/** Goal: a batch has the time of its oldest record, whenever that came in. */
describe("records that come back behind younger ones", () => {
  const setUp = (lingerMs = 0) => {
    const time = { nowMs: 1000 };
    const nothing = (): undefined => undefined;
    const pool = new BufferPool(2048, 1 << 20);
    const turns = new LeaderTurns();
    const lingering: number[] = [];
    const sequences: number[] = [];
    const answers: ((answer: unknown) => void)[] = [];
    const host = {
      env: { clock: { monotonicMs: () => time.nowMs }, random: { float: () => 0.5 } },
      settings: { acks: "all", idempotent: true, maxInFlight: 5, lingerMs, deliveryTimeoutMs: 1000 },
      pool,
      isMemoryTight: () => false,
      onLingering: (untilMs: number) => lingering.push(untilMs),
      refresh: nothing,
      leaderOf: () => ({ leaderId: 1, leaderEpoch: 1, partition: 0 }),
      connectionTo: () => ({
        send: (_: string, __: unknown, ___: unknown, onAnswer: (answer: unknown) => void) => answers.push(onAnswer),
      }),
      turnsAt: () => turns,
      identity: () => ({ producerId: 1, producerEpoch: 0 }),
      discardIdentity: nothing,
      onMoved: nothing,
      wakeAt: nothing,
      onClosedBatch: nothing,
      onDoneBatch: (batch: ProducerBatch, run: (onThrown: () => void) => void) => {
        if (batch.failure === undefined) sequences.push(batch.baseSequence);
        run(nothing);
      },
    } as unknown as QueueHost;
    return { time, pool, host, lingering, sequences, answers };
  };

  const setUpAccumulator = (lingerMs?: number) => {
    const world = setUp(lingerMs);
    const nothing = (): undefined => undefined;
    const account = new MemoryAccount(world.pool.shareOf(1));
    const events = { onClosed: nothing, onFull: nothing };
    const accumulator = new RecordAccumulator(world.host, { topic: "t", partition: 0 }, account, 2048, events);
    return { ...world, accumulator };
  };

  it("go into open batches whose memory counts as such, with what they grew by, until they are closed", () => {
    const { accumulator, pool } = setUpAccumulator();
    const seen: number[] = [];
    for (let count = 0; count < 12; count += 1) {
      accumulator.append({ value: "x".repeat(100) }, 1000, undefined, undefined);
      expect(pool.openBytes).toBe(pool.shareOf(1).takenBytes);
      seen.push(pool.openBytes);
    }
    expect(new Set(seen).size).toBeGreaterThan(1);
    accumulator.closeOpen();
    expect(pool.openBytes).toBe(0);
  });

  it("keep their deadline in an open batch", () => {
    const { accumulator } = setUpAccumulator();
    accumulator.append({ value: "young" }, 1000, undefined, undefined);
    // Its partition is gone, and 200 ms are left of its time.
    accumulator.append({ value: "old" }, 300, 1200, undefined);
    expect(accumulator.takeExpired(1199)).toBeUndefined();
    expect(accumulator.takeExpired(1200)).toBeDefined();
  });

  it("keep it in a batch that waits behind a younger one", () => {
    const { accumulator } = setUpAccumulator();
    accumulator.append({ value: "young" }, 1000, undefined, undefined);
    accumulator.closeOpen();
    accumulator.append({ value: "old" }, 300, 1200, undefined);
    accumulator.closeOpen();
    expect(accumulator.takeExpired(1200)?.deadlineMs).toBe(1200);
    expect(accumulator.takeExpired(1200)).toBeUndefined();
    expect(accumulator.takeAll()).toHaveLength(1);
  });

  it("do not linger until it is over", () => {
    const { accumulator, lingering } = setUpAccumulator(500);
    accumulator.append({ value: "young" }, 1000, undefined, undefined);
    accumulator.append({ value: "old" }, 300, 1200, undefined);
    expect(lingering).toEqual([1500, 1100]);
    expect(accumulator.hasDue(1099)).toBe(false);
    expect(accumulator.hasDue(1100)).toBe(true);
  });

  it("keep it when they were sent behind a younger batch, which has its own sequence then as before", () => {
    const { time, pool, host, sequences, answers } = setUp();
    const queue = new PartitionQueue(
      host,
      { name: "t", topicId: "x", batchBytesMax: 2048, partitions: [] },
      0,
      pool.shareOf(1),
    );
    const errors: string[] = [];
    const add = (value: string, deadlineMs?: number): void => {
      const noteError = (...[error]: [unknown, unknown]): void => void (error && errors.push(value));
      queue.accumulator.append({ value }, 1000, deadlineMs, noteError);
      queue.accumulator.closeOpen();
    };
    const answer = (error: ErrorName | null): void =>
      answers.shift()?.({
        body: { partitions: [{ error: error && errorReport(error), baseOffset: 0, leader: null }] },
        records: [],
      });
    add("first");
    queue.pump();
    answer(null);
    add("young");
    add("old", 1200);
    add("youngest");
    queue.pump();
    expect(answers).toHaveLength(3);
    for (let count = 0; count < 3; count += 1) answer("NOT_ENOUGH_REPLICAS");
    time.nowMs = 1199;
    queue.check(time.nowMs);
    expect(errors).toEqual([]);
    time.nowMs = 1200;
    queue.check(time.nowMs);
    expect(errors).toEqual(["old"]);
    answers.length = 0;
    time.nowMs = 1900;
    queue.pump();
    while (answers.length > 0) answer(null);
    expect(sequences).toEqual([0, 1, 2]);
    expect(queue.isEmpty).toBe(true);
  });
});
