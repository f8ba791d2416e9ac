import type { BufferPool } from "../../../client/buffer-pool.js";
import { LeaderTurns } from "../../../client/leader-turns.js";
import type { PartitionQueue, QueueHost } from "../../../client/partition-queue.js";

export const nothing = (): undefined => undefined;

/** What a queue is told of its topic. */
export type QueueTopic = ConstructorParameters<typeof PartitionQueue>[1];

export const TOPIC = { name: "t", topicId: "x", batchBytesMax: 2048, partitions: [] } as unknown as QueueTopic;

/** A producer around one queue, at a moment that stands still and with a leader that is there; `parts` say what is otherwise. */
export function queueHost(pool: BufferPool, parts: object, settings: object = {}): QueueHost {
  const turns = new LeaderTurns();
  return {
    env: { clock: { monotonicMs: () => 1000 }, random: { float: () => 0.5 } },
    settings: {
      acks: "all",
      idempotent: true,
      maxInFlight: 5,
      lingerMs: 0,
      deliveryTimeoutMs: 1000,
      requestTimeoutMs: 30_000,
      ...settings,
    },
    pool,
    isMemoryTight: () => false,
    onLingering: nothing,
    refresh: nothing,
    leaderOf: () => ({ leaderId: 1, leaderEpoch: 1, partition: 0 }),
    connectionFailure: nothing,
    dropConnection: nothing,
    turnsAt: () => turns,
    identity: () => ({ producerId: 1, producerEpoch: 0 }),
    identityFailure: undefined,
    discardIdentity: nothing,
    onMoved: nothing,
    onTrouble: nothing,
    wakeAt: nothing,
    onClosedBatch: nothing,
    onHomeless: nothing,
    pumpDuringAppend: nothing,
    onDoneBatch: (_: unknown, run: (onThrown: () => void) => void) => run(nothing),
    ...parts,
  } as unknown as QueueHost;
}
