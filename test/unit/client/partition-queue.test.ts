import { BufferPool } from "../../../client/buffer-pool.js";
import type { ProducerIdentity } from "../../../client/producer-sequence.js";
import { PartitionQueue } from "../../../client/partition-queue.js";
import { nothing, queueHost, TOPIC } from "./queue-fixtures.js";

describe("a queue of a partition whose oldest batch has an unknown outcome", () => {
  it("sends nothing more under an identity that it is about to give up, whoever hears of the failure", () => {
    let nowMs = 0;
    let identity: ProducerIdentity | undefined = { producerId: 1, producerEpoch: 0 };
    const answers: ((answer: unknown) => void)[] = [];
    const outcomes: string[] = [];
    const pool = new BufferPool(2048, 1 << 20);
    let onDone = (): void => undefined;
    const connection = {
      send: (_kind: string, _body: unknown, _options: unknown, onAnswer: (answer: unknown) => void) =>
        answers.push(onAnswer),
    };
    const parts = {
      env: { clock: { monotonicMs: () => nowMs }, random: { float: () => 0.5 } },
      connectionTo: () => connection,
      identity: () => identity,
      discardIdentity: () => (identity = undefined),
      pumpDuringAppend: (queue: PartitionQueue) => queue.pump(),
      onDoneBatch: (_batch: unknown, run: (onThrown: () => void) => void) => {
        run(nothing);
        onDone();
      },
    };
    const host = queueHost(pool, parts, { maxInFlight: 1 });
    const queue = new PartitionQueue(host, TOPIC, 0, pool.shareOf(1));
    const add = (count: number): void => {
      for (let index = 0; index < count; index += 1)
        queue.accumulator.append({ value: Buffer.alloc(1500) }, nowMs, undefined, (...[error]) => {
          outcomes.push(error?.code ?? "ok");
        });
    };
    add(1);
    queue.pump();
    answers[0]?.({ body: { partitions: [{ error: null, baseOffset: 0 }] }, records: [] });
    // One is under way to a leader that falls silent, four are of the same time; two young ones wait.
    nowMs = 1;
    add(5);
    queue.pump();
    nowMs = 900;
    add(2);
    const sent = answers.length;
    outcomes.length = 0;
    // The memory of the one that is over lets another record in.
    onDone = () => {
      onDone = nothing;
      add(1);
    };
    nowMs = 1001;
    queue.check(nowMs);
    queue.pump();
    expect(answers.length).toBe(sent);
    // The others were never sent, and nobody is in doubt about them.
    expect(outcomes).toEqual(["OUTCOME_UNKNOWN", ...Array.from({ length: 4 }, () => "DEADLINE_EXCEEDED")]);
  });
});
