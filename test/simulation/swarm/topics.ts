import type { TopicId } from "../../../protocol/types.js";

/**
 * A topic as its administrator and its clients know it, and what may be expected of it: which of its settings were in
 * force when, and what was asked to be deleted. One incarnation; a topic created again is another one.
 */
export class SwarmTopic {
  /** Acts of administration on it that are under way or whose outcome is unknown keep both values in force. */
  readonly minimums: { readonly value: number; readonly sinceMs: number; untilMs: number }[];
  /** How many changes of it are under way. */
  #minimumChanges = 0;
  #isMinimumClear = true;
  /** Records may go by themselves. */
  hasRetention: boolean;
  /** Clients use it. One that was created again waits until no broker knows the former one only. */
  isServed = false;
  /** It took the place of one that was deleted by name: when that was asked for again and arrives late, it goes too. */
  mayVanish = false;
  /** It is being deleted: clients leave it alone. */
  isLeaving = false;
  /** By partition: the greatest offset below which records were asked to be deleted, and that was answered. */
  readonly askedDeletions = new Map<number, number>();
  readonly answeredDeletions = new Map<number, number>();

  constructor(
    readonly name: string,
    readonly topicId: TopicId,
    public partitions: number,
    readonly replicationFactor: number,
    config: Readonly<Record<string, string>>,
    nowMs: number,
  ) {
    this.minimums = [{ value: Number(config["min.insync.replicas"] ?? 1), sinceMs: nowMs, untilMs: Infinity }];
    this.hasRetention = config["retention.ms"] !== undefined || config["retention.bytes"] !== undefined;
  }

  /** The smallest number of in-sync replicas that may have counted as enough lately. */
  leastMinimum(nowMs: number): number {
    return Math.min(...this.minimums.filter(({ untilMs }) => untilMs >= nowMs).map(({ value }) => value));
  }

  /** From now on this value may be in force. */
  beginMinimum(value: number, nowMs: number): void {
    this.#minimumChanges += 1;
    this.#isMinimumClear = this.#minimumChanges === 1;
    this.minimums.push({ value, sinceMs: nowMs, untilMs: Infinity });
  }

  /**
   * The change has ended. If it was certainly made, and by itself, what was in force before is for a while only. Of changes
   * that overlap, and are repeated when their answers are lost, nobody knows which was the last.
   */
  endMinimum(isMade: boolean, nowMs: number, spreadMs: number): void {
    this.#minimumChanges -= 1;
    if (!isMade) this.#isMinimumClear = false;
    if (this.#minimumChanges > 0 || !this.#isMinimumClear) return;
    for (const each of this.minimums.slice(0, -1)) each.untilMs = Math.min(each.untilMs, nowMs + spreadMs);
  }

  noteDeletionAsked(partition: number, before: number): void {
    this.askedDeletions.set(partition, Math.max(before, this.askedDeletions.get(partition) ?? 0));
  }

  noteDeletionAnswered(partition: number, before: number): void {
    this.answeredDeletions.set(partition, Math.max(before, this.answeredDeletions.get(partition) ?? 0));
  }
}

/** All topics that exist, or may, by name. */
export class SwarmTopics {
  readonly #byName = new Map<string, SwarmTopic>();
  readonly #byId = new Map<TopicId, SwarmTopic>();

  get live(): SwarmTopic[] {
    return [...this.#byName.values()].filter(({ isLeaving }) => !isLeaving);
  }

  /** What a client that comes now uses. */
  get served(): SwarmTopic[] {
    return this.live.filter(({ isServed }) => isServed);
  }

  get all(): SwarmTopic[] {
    return [...this.#byName.values()];
  }

  named(name: string): SwarmTopic | undefined {
    return this.#byName.get(name);
  }

  /** Also one that was deleted. */
  byId(topicId: TopicId): SwarmTopic | undefined {
    return this.#byId.get(topicId);
  }

  /** The topic of a partition's key, also one that was deleted. */
  byPartition(key: string): SwarmTopic | undefined {
    return this.#byId.get(key.slice(0, key.lastIndexOf(":")));
  }

  add(topic: SwarmTopic): void {
    this.#byName.set(topic.name, topic);
    this.#byId.set(topic.topicId, topic);
  }

  remove(topic: SwarmTopic): void {
    if (this.#byName.get(topic.name) === topic) this.#byName.delete(topic.name);
  }
}
