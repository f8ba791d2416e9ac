import { BufferPool } from "../../../client/buffer-pool.js";
import { PartitionQueue } from "../../../client/partition-queue.js";
import type { RecordsInPlace } from "../../../protocol/message-codec.js";
import { errorReport } from "../../../protocol/error-codes.js";
import { readBatch } from "../../../protocol/record-batch.js";
import { nothing, queueHost, TOPIC } from "./queue-fixtures.js";

describe("a queue of a partition whose leader refuses and names another one", () => {
  it.each([true, false])("sends what was refused before anything new (idempotent %s)", (idempotent) => {
    const pool = new BufferPool(2048, 1 << 20);
    const answers: ((answer: unknown) => void)[] = [];
    /** To which leader how many records went. */
    const sent: [leaderEpoch: number, records: number][] = [];
    let leader = { leaderId: 1, leaderEpoch: 1, partition: 0 };
    const connection = {
      send: (_: string, __: unknown, { inPlace }: { inPlace: RecordsInPlace }, onAnswer: (answer: unknown) => void) => {
        sent.push([
          leader.leaderEpoch,
          readBatch(Buffer.from(inPlace.buffer.subarray(inPlace.start, inPlace.end)), 0).recordCount,
        ]);
        answers.push(onAnswer);
      },
    };
    const parts = {
      leaderOf: () => leader,
      connectionTo: () => connection,
      // As a producer does: the hint is believed, and all queues are told of it at once.
      onMoved: () => {
        leader = { ...leader, leaderId: 2, leaderEpoch: 2 };
        queue.onMetadata(TOPIC);
      },
    };
    const host = queueHost(pool, parts, { idempotent });
    const queue = new PartitionQueue(host, TOPIC, 0, pool.shareOf(1));
    const add = (count: number): void => {
      for (let index = 0; index < count; index += 1) queue.accumulator.append({ value: "x" }, 1000, undefined, nothing);
    };
    add(3);
    queue.pump();
    answers[0]?.({ body: { partitions: [{ error: null, baseOffset: 0 }] }, records: [] });
    add(1);
    queue.pump();
    // Handed over in the turn of the refusal, to be sent at its end.
    add(2);
    const error = errorReport("NOT_LEADER_OR_FOLLOWER");
    answers[1]?.({ body: { partitions: [{ error, leader: { leaderId: 2, leaderEpoch: 2 } }] }, records: [] });
    expect(sent.filter(([leaderEpoch]) => leaderEpoch === 2)[0]).toEqual([2, 1]);
  });
});
