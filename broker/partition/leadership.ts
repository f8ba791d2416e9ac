import { invariant } from "../../common/assert.js";
import { counted } from "../../common/counted.js";
import type { ErrorReport } from "../../protocol/error-codes.js";
import { ApiError, errorReport } from "../../protocol/error-codes.js";
import type { BrokerId, LeaderEpoch, Offset, TopicId } from "../../protocol/types.js";
import type { Log } from "../log/index.js";
import type { FollowerFetch, FollowerProgress } from "./followers.js";
import { Followers } from "./followers.js";
import type { ReplicaPosition } from "./isr.js";
import { maximalIsr, nextHighWatermark, replicatedLogStart } from "./isr.js";
import type { IsrMembershipParts, LedPartition } from "./isr-membership.js";
import { IsrMembership } from "./isr-membership.js";
import type { CommittedState } from "./partition-state.js";
import { ReplicationWaiters } from "./replication-waiters.js";

export interface LeadershipParts extends IsrMembershipParts {
  /** Whether ZooKeeper has confirmed this broker's registration lately. */
  readonly leaseValid: () => boolean;
  readonly sessionTimeoutMs: () => number;
}

/** The partition that is led. */
export interface Led {
  readonly name: string;
  readonly topicId: TopicId;
  readonly partition: number;
  readonly log: Log;
  readonly state: CommittedState | undefined;
  readonly role: object;
  readonly minInsyncReplicas: number;
  applyState(state: CommittedState): void;
}

/** Where a follower's log and the leader's part. */
export interface Divergence {
  readonly leaderEpoch: LeaderEpoch | undefined;
  readonly endOffset: Offset;
}

/**
 * One replica's time as leader, one leader epoch long: how far its followers are, and with that the high watermark and who
 * waits for it. What it knows is void when the epoch ends; a leader that is elected again begins anew.
 */
export class Leadership implements LedPartition {
  readonly kind = "leader";
  readonly epoch: LeaderEpoch;
  readonly epochStart: Offset;
  readonly followers: Followers;
  readonly isr: IsrMembership;
  readonly #parts: LeadershipParts;
  readonly #led: Led;
  readonly #waiters: ReplicationWaiters;
  readonly #deletions: ReplicationWaiters;
  /** Where the records end that may have been acknowledged before they were synced; while the controller asks for it. */
  #unsyncedTo: Offset | undefined;

  constructor(
    parts: LeadershipParts,
    led: Led,
    state: CommittedState,
    private readonly onHighWatermark: () => void,
  ) {
    this.#parts = parts;
    this.#led = led;
    this.epoch = state.leaderEpoch;
    // What was fetched and is not written yet has its place, and an older epoch.
    this.epochStart = led.log.nextOffset;
    this.followers = new Followers(parts.clock.monotonicMs());
    this.isr = new IsrMembership(parts, this, state.isr);
    this.#waiters = new ReplicationWaiters(parts.wheel, state.leaderEpoch);
    this.#deletions = new ReplicationWaiters(parts.wheel, state.leaderEpoch);
  }

  get name(): string {
    return this.#led.name;
  }
  get topicId(): TopicId {
    return this.#led.topicId;
  }
  get partition(): number {
    return this.#led.partition;
  }
  get log(): Log {
    return this.#led.log;
  }
  get isCurrent(): boolean {
    return this.#led.role === this;
  }
  get committed(): CommittedState {
    const { state } = this.#led;
    invariant(state !== undefined, () => `${this.name} leads without a state`);
    return state;
  }

  /**
   * What is found out over a while counts only while the leadership lasts in which it was begun: by then the log may hold
   * other records, of another epoch. Rejects with ApiError NOT_LEADER_OR_FOLLOWER, else as `work` does.
   */
  async during<T>(work: Promise<T>, discard: (found: T) => void = () => undefined): Promise<T> {
    const [outcome] = await Promise.allSettled([work]);
    if (!this.isCurrent) {
      if (outcome.status === "fulfilled") discard(outcome.value);
      throw new ApiError(
        "NOT_LEADER_OR_FOLLOWER",
        `${this.name}: leadership at epoch ${this.epoch} ended while this was looked for; ask the new leader`,
      );
    }
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  }

  /** The log takes its place as the leader's. To be called once the partition has this role. */
  begin(): void {
    const { log } = this;
    log.assignEpochStart(this.epoch, this.epochStart);
    // A new leader syncs first: with fsync its own records count only once they are on its disk.
    if (log.settings.durability === "fsync" && log.flushedOffset < log.logEndOffset) void log.flush();
    this.maybeAdvanceHighWatermark();
  }

  /** Whoever waits fails, with an unknown outcome. */
  end(reason: string): void {
    this.isr.end();
    this.#waiters.failAll(
      errorReport(
        "NOT_LEADER_OR_FOLLOWER",
        `${this.name}: leadership at epoch ${this.epoch} ended before the records were replicated (${reason}); ask the new leader`,
      ),
    );
    this.#deletions.failAll(
      errorReport(
        "NOT_LEADER_OR_FOLLOWER",
        `${this.name}: leadership at epoch ${this.epoch} ended before all in-sync replicas had deleted the records (${reason}); ask the new leader`,
      ),
    );
  }

  /** The same process leads on: the controller has committed another state in this epoch. */
  onCommitted(state: CommittedState): void {
    this.isr.onCommitted(state);
  }

  applyState(state: CommittedState): void {
    this.#led.applyState(state);
  }

  onMembersChanged(): void {
    this.maybeAdvanceHighWatermark();
    this.maybeFinishDeletions();
  }

  /** The lease has lapsed and the other in-sync replicas have stopped fetching: they have probably moved on. */
  get mayBeReplaced(): boolean {
    if (this.#parts.leaseValid()) return false;
    const others = this.isr.otherMembers;
    if (others.length === 0) return false;
    const silentSinceMs = this.#parts.clock.monotonicMs() - this.#parts.sessionTimeoutMs();
    return others.every((id) => this.#parts.activity.lastFetchMs(id) < silentSinceMs);
  }

  /** Fewer replicas are in sync than an acknowledgement needs. */
  get isBelowMinimum(): boolean {
    return this.isr.members.size < this.#led.minInsyncReplicas;
  }

  /** Calls back once the records below `endOffset` are replicated, or with why that is not known. */
  whenReplicated(endOffset: Offset, timeoutMs: number, onOutcome: (refusal: ErrorReport | undefined) => void): void {
    if (this.log.highWatermark >= endOffset) onOutcome(undefined);
    else this.#waiters.add(endOffset, timeoutMs, () => this.#timeout(), onOutcome);
  }

  #timeout(): ErrorReport {
    const { name, isr } = this;
    if (this.isCurrent && this.isBelowMinimum) {
      return errorReport(
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        `${name}: appended, but ${counted(isr.members.size, "replica", "are")} in sync and min.insync.replicas is ${this.#led.minInsyncReplicas}`,
      );
    }
    return errorReport("REQUEST_TIMED_OUT", `${name}: appended, but not replicated in the time given`);
  }

  /**
   * Notes how far a follower is: this moves the high watermark and may change the ISR. Returns where its log must be cut to
   * repair it, when it has lost records and may.
   */
  noteFollower(fetch: FollowerFetch): Divergence | undefined {
    const { isr, log } = this;
    const { brokerId, damagedFrom } = fetch;
    this.followers.note(fetch, log.logEndOffset, this.#parts.clock.monotonicMs());
    isr.maybeExpand(brokerId);
    this.maybeAdvanceHighWatermark();
    this.maybeFinishDeletions();
    if (damagedFrom !== undefined)
      return isr.mayRepair(brokerId, damagedFrom)
        ? { leaderEpoch: fetch.lastFetchedEpoch, endOffset: damagedFrom }
        : undefined;
    if (fetch.diskFull) isr.maybeExpel(brokerId);
    return undefined;
  }

  /** Something it depends on has changed: a position, the ISR, the settings, what is written or flushed here. */
  maybeAdvanceHighWatermark(): void {
    const { log } = this;
    const next = nextHighWatermark({
      current: log.highWatermark,
      state: this.isr.state,
      minInsyncReplicas: this.#led.minInsyncReplicas,
      durability: log.settings.durability,
      positionOf: (id: BrokerId) => this.#positionOf(id),
    });
    this.#maybeConfirmSync();
    if (!log.advanceHighWatermark(next)) return;
    this.#waiters.reached(log.highWatermark);
    this.onHighWatermark();
  }

  #positionOf(brokerId: BrokerId): ReplicaPosition | undefined {
    return brokerId === this.#parts.brokerId ? this.log : this.#presentProcessOf(brokerId);
  }

  #presentProcessOf(brokerId: BrokerId): FollowerProgress | undefined {
    return this.followers.getAs(brokerId, this.#parts.registeredEpochOf(brokerId));
  }

  /**
   * The stronger durability begins when every in-sync replica has synced what was there when this leader took it over: until
   * then the leader acknowledged what was only written.
   */
  #maybeConfirmSync(): void {
    const { log, isr } = this;
    if (this.#led.state?.syncing !== true || log.settings.durability !== "fsync") {
      this.#unsyncedTo = undefined;
      return;
    }
    const unsyncedTo = (this.#unsyncedTo ??= log.logEndOffset);
    const hasSynced = (id: BrokerId): boolean => (this.#positionOf(id)?.flushedOffset ?? -1) >= unsyncedTo;
    if ([...maximalIsr(isr.state)].every(hasSynced)) isr.maybeConfirmSync();
  }

  // -- Deletion of records --------------------------------------------------------------------------------------------

  /** Where the log begins on every replica that may be elected; undefined: not known of all of them. */
  get replicatedLogStart(): Offset | undefined {
    return replicatedLogStart({
      state: this.isr.state,
      minInsyncReplicas: this.#led.minInsyncReplicas,
      durableLogStartOf: (id) => (id === this.#parts.brokerId ? this.log : this.#presentProcessOf(id))?.durableLogStart,
    });
  }

  /**
   * Calls back once no replica that may be elected has records below the offset, or with why that is not known. A leader
   * alone could be replaced by one that still has them, and a replaced one would not know; so nothing is acknowledged that
   * is not on all of them, as with records.
   */
  whenDeleted(before: Offset, timeoutMs: number, onOutcome: (refusal: ErrorReport | undefined) => void): void {
    this.#deletions.add(before, timeoutMs, () => this.#deletionTimeout(before), onOutcome);
    this.maybeFinishDeletions();
  }

  /** Something it depends on has changed: a log start, here or of a follower, or the ISR. */
  maybeFinishDeletions(): void {
    if (this.#deletions.size === 0) return;
    const start = this.replicatedLogStart;
    if (start !== undefined) this.#deletions.reached(start);
  }

  #deletionTimeout(before: Offset): ErrorReport {
    const { name, isr } = this;
    const { minInsyncReplicas } = this.#led;
    const missing = isr.otherMembers.filter((id) => (this.#presentProcessOf(id)?.durableLogStart ?? 0) < before);
    const why =
      isr.members.size < minInsyncReplicas
        ? `${counted(isr.members.size, "replica", "are")} in sync and min.insync.replicas is ${minInsyncReplicas}`
        : missing.length > 0
          ? `in-sync replicas ${missing.join(",")} have not confirmed it`
          : "its own disk has not";
    return errorReport(
      "REQUEST_TIMED_OUT",
      `${name}: the records below ${before} are deleted on their leader, but ${why}; try again`,
    );
  }
}
