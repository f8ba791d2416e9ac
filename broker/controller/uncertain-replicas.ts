import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import type { PartitionName } from "../../protocol/messages.js";
import type { BrokerId, PartitionKey } from "../../protocol/types.js";
import { partitionKey } from "../../protocol/types.js";
import type { LastStop } from "../zookeeper/znodes.js";
import { NO_LEADER } from "../zookeeper/znodes.js";
import type { BrokerChannel } from "./broker-channel.js";
import type { ClusterState, Partition, Topic } from "./cluster-state.js";
import type { ControllerSettings } from "./controller-settings.js";
import type { ReplicaReport } from "./leader-election.js";
import { unverifiedCandidates } from "./leader-election.js";

export interface UncertainReplicasParts {
  readonly state: ClusterState;
  readonly settings: ControllerSettings;
  readonly channels: ReadonlyMap<BrokerId, BrokerChannel>;
  readonly isElectable: (brokerId: BrokerId) => boolean;
  /** What the replicas said; partitions whose replicas did not answer are missing, and are asked again. */
  readonly onDescribed: (reports: ReadonlyMap<PartitionKey, readonly ReplicaReport[]>) => void;
  /** It is time to look again. */
  readonly onLookAgain: () => void;
}

const LOOK_AGAIN_MS = 1000;
const DESCRIBE_TIMEOUT_MS = 5000;
/** In one question. */
const PARTITIONS_MAX = 1000;

/**
 * Partitions that only replicas could lead which lost their power or their disk, so that nobody knows who holds most. It
 * waits for every member of the ISR to be back, because the one that is missing may hold what the others lost, and for the
 * eligible ones, which lost nothing; after a while for those that are, of whom one that lost its disk does not count. That
 * while goes on only as long as one of them is there: else the first to be back at its end would lead by itself. Then it asks
 * each what it holds. It elects nobody: the answers go to the controller as an event.
 */
export class UncertainReplicas {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #parts: UncertainReplicasParts;
  readonly #sinceMs = new Map<PartitionKey, number>();
  readonly #asked = new Set<PartitionKey>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(env: Env, logger: Logger, parts: UncertainReplicasParts) {
    this.#env = env;
    this.#logger = logger;
    this.#parts = parts;
  }

  /** Looks at all partitions; called when somebody may lead who could not before. */
  look(): void {
    const nowMs = this.#env.clock.monotonicMs();
    const waiting = new Set<PartitionKey>();
    const questions = new Map<BrokerId, PartitionName[]>();
    for (const topic of this.#parts.state.topics.values()) {
      for (const partition of topic.partitions.values()) {
        if (partition.leader !== NO_LEADER || partition.unverified.length === 0) continue;
        const key = partitionKey(topic.topicId, partition.partition);
        waiting.add(key);
        if (this.#asked.has(key)) continue;
        for (const brokerId of this.#toAsk(key, topic, partition, nowMs)) {
          const names = questions.get(brokerId);
          const name = { topicId: topic.topicId, partition: partition.partition };
          if (names === undefined) questions.set(brokerId, [name]);
          else names.push(name);
          this.#asked.add(key);
        }
      }
    }
    for (const key of this.#sinceMs.keys()) if (!waiting.has(key)) this.#sinceMs.delete(key);
    if (questions.size > 0) void this.#ask(questions);
    this.#timer?.cancel();
    this.#timer = undefined;
    if (waiting.size > 0 && !this.#stopped) {
      this.#timer = this.#env.timers.after(LOOK_AGAIN_MS, () => this.#parts.onLookAgain());
    }
  }

  /** Whether somebody is registered who lost nothing, and leads as soon as it answers. */
  isCertainThere({ isr, elr, unverified }: Partition): boolean {
    return [...isr, ...elr].some((id) => !unverified.includes(id) && this.#parts.state.brokers.has(id));
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #toAsk(key: PartitionKey, topic: Topic, partition: Partition, nowMs: number): readonly BrokerId[] {
    const { settings, isElectable } = this.#parts;
    const candidates = unverifiedCandidates(partition);
    const present = candidates.filter(isElectable);
    const members = [...partition.isr, ...partition.elr, ...partition.unverified];
    const awaited = new Set([...members, ...candidates]);
    if (present.length === 0) {
      this.#sinceMs.delete(key);
      return [];
    }
    const since = this.#sinceMs.get(key);
    if (since === undefined) {
      this.#sinceMs.set(key, nowMs);
      this.#logger.warn(
        `${topic.name}-${partition.partition}: only replicas that may have lost records could lead (${partition.unverified.join()}); ` +
          `waiting for all of ${[...awaited].join()} to say what they hold.`,
      );
    }
    const waitedMs = nowMs - (since ?? nowMs);
    if (present.length === awaited.size) return present;
    if (waitedMs < settings.uncleanRecoveryWaitMs || this.isCertainThere(partition)) return [];
    // Who has lost its disk does not win by waiting for a member or an eligible replica: that one has more.
    return members.every(isElectable)
      ? present
      : present.filter((id) => members.includes(id) && !partition.lost.includes(id));
  }

  async #ask(questions: ReadonlyMap<BrokerId, readonly PartitionName[]>): Promise<void> {
    const reports = new Map<PartitionKey, ReplicaReport[]>();
    const silent = new Set<PartitionKey>();
    const keys = new Set<PartitionKey>();
    await Promise.all(
      [...questions].map(async ([brokerId, names]) => {
        for (const { topicId, partition } of names) keys.add(partitionKey(topicId, partition));
        for (let start = 0; start < names.length; start += PARTITIONS_MAX) {
          const part = names.slice(start, start + PARTITIONS_MAX);
          try {
            const channel = this.#parts.channels.get(brokerId);
            if (channel === undefined) throw new Error("it is gone");
            const brokerEpoch = channel.broker.epoch;
            const replicas = await channel.describeReplicas(part, DESCRIBE_TIMEOUT_MS);
            const answered = new Set<PartitionKey>();
            for (const { topicId, partition, lastEpochPlusOne, logEndOffset, cut } of replicas) {
              const key = partitionKey(topicId, partition);
              answered.add(key);
              const report = { brokerId, brokerEpoch, lastEpochPlusOne, logEndOffset, cut };
              reports.set(key, [...(reports.get(key) ?? []), report]);
            }
            for (const name of part) {
              const key = partitionKey(name.topicId, name.partition);
              if (!answered.has(key)) silent.add(key);
            }
          } catch (error) {
            this.#logger.info(`Broker ${brokerId} did not say what it holds (${reasonOf(error)}); asking again.`);
            for (const name of part) silent.add(partitionKey(name.topicId, name.partition));
          }
        }
      }),
    );
    for (const key of keys) this.#asked.delete(key);
    // A replica that was to be asked and did not answer may be the one that holds most.
    for (const key of silent) reports.delete(key);
    if (!this.#stopped && reports.size > 0) this.#parts.onDescribed(reports);
  }
}

/**
 * Of these brokers, those that may have lost acknowledged records of the partition, with their power or with their disk. By
 * the state and not by the setting, which says nothing of the records that were there before it.
 */
export function uncertainAmong(
  state: ClusterState,
  brokerIds: Iterable<BrokerId>,
  partition: Partition,
): { readonly cut: ReadonlySet<BrokerId>; readonly lost: ReadonlySet<BrokerId> } {
  const after = (lastStop: LastStop): BrokerId[] =>
    [...brokerIds].filter((id) => state.brokers.get(id)?.lastStop === lastStop);
  const lost = after("lost");
  return {
    cut: new Set(partition.durability === "fsync" ? lost : [...lost, ...after("power-cut")]),
    lost: new Set(lost),
  };
}
