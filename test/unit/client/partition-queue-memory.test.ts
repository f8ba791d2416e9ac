import { BufferPool } from "../../../client/buffer-pool.js";
import { LeaderTurns } from "../../../client/leader-turns.js";
import { PartitionQueue } from "../../../client/partition-queue.js";
import { topicReplacedError } from "../../../client/errors.js";
import type { ProducerBatch } from "../../../client/producer-batch.js";
import { errorReport } from "../../../protocol/error-codes.js";
import type { ErrorName } from "../../../protocol/error-codes.js";
import { nothing, queueHost, TOPIC } from "./queue-fixtures.js";

/** Goal: each buffer is given back once, and used again only when nobody can read it. */
describe("the memory of a partition's batches", () => {
  const setUp = () => {
    const time = { nowMs: 1000 };
    const pool = new BufferPool(2048, 1 << 20);
    const turns = new LeaderTurns();
    const answers: ((answer: unknown) => void)[] = [];
    const homeless: ProducerBatch[] = [];
    const host = queueHost(pool, {
      env: { clock: { monotonicMs: () => time.nowMs }, random: { float: () => 0.5 } },
      connectionTo: () => ({
        send: (_: string, __: unknown, ___: unknown, onAnswer: (answer: unknown) => void) => answers.push(onAnswer),
      }),
      turnsAt: () => turns,
      onHomeless: (batches: readonly ProducerBatch[]) => homeless.push(...batches),
    });
    const share = pool.shareOf(1);
    const queue = new PartitionQueue(host, TOPIC, 0, share);
    const answer = (index: number, error: ErrorName | null): void =>
      answers[index]?.({
        body: { partitions: [{ error: error && errorReport(error), baseOffset: 0, leader: null }] },
        records: [],
      });
    const add = (count: number): void => {
      for (let index = 0; index < count; index += 1) queue.accumulator.append({ value: "x" }, 1000, undefined, nothing);
    };
    return { time, pool, turns, share, queue, answers, answer, add, homeless };
  };

  it("is used again once the leader has answered", () => {
    const { pool, share, queue, answer, add } = setUp();
    add(1);
    queue.pump();
    answer(0, null);
    expect([share.takenBytes, pool.keptBytes > 0, pool.openBytes]).toEqual([0, true, 0]);
  });

  it("is not used again while a request with it may still be sent", () => {
    const { time, pool, share, queue, add } = setUp();
    add(1);
    queue.pump();
    time.nowMs = 3000;
    queue.check(time.nowMs);
    expect([share.takenBytes, pool.keptBytes]).toEqual([0, 0]);
  });

  it("is not used again for records that are handed back, which are views of it", () => {
    const { pool, share, queue, add, homeless } = setUp();
    add(2);
    queue.leave(topicReplacedError({ topic: "t", partition: 0 }));
    expect(homeless[0]?.recordsBack()).toHaveLength(2);
    expect([share.takenBytes, pool.keptBytes]).toEqual([0, 0]);
  });

  it("is free when both halves of a batch that was too large are acknowledged", () => {
    const { time, share, queue, answers, answer, add } = setUp();
    add(4);
    queue.pump();
    answer(0, "MESSAGE_TOO_LARGE");
    time.nowMs += 300;
    queue.pump();
    for (let index = 1; index < 5; index += 1) answer(index, null);
    expect(answers).toHaveLength(3);
    expect([queue.isEmpty, share.takenBytes]).toEqual([true, 0]);
  });

  it("belongs to no batch under way once its time is over, so that another one has its turn", () => {
    const { time, turns, queue, add } = setUp();
    add(1);
    queue.pump();
    for (let index = 1; index < 16; index += 1) turns.onSent(time.nowMs);
    const taker = { pump: () => undefined };
    expect(turns.isTurnOf(taker, time.nowMs)).toBe(false);
    queue.failAll(topicReplacedError({ topic: "t", partition: 0 }));
    let isCalled = false;
    taker.pump = () => void (isCalled = true);
    turns.callNext(time.nowMs);
    expect(isCalled).toBe(true);
  });
});
