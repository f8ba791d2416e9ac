import { invariant } from "../../common/assert.js";
import type { Clock } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError, errorNameOf, errorReport } from "../../protocol/error-codes.js";
import type { ErrorReport } from "../../protocol/error-codes.js";
import type { IsrAnswer } from "../../protocol/messages.js";
import { readBatch } from "../../protocol/record-batch.js";
import type { BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId } from "../../protocol/types.js";
import { acksCodes, toOffset } from "../../protocol/types.js";
import type { TopicConfig } from "../config.js";
import type { Log, LogRead } from "../log/log.js";
import type { DeadlineWheel } from "./deadline-wheel.js";
import type { IsrState, ReplicaPosition } from "./isr.js";
import { laggingMembers, maximalIsr, mayJoin, nextHighWatermark, sameMembers } from "./isr.js";
import type { IsrProposals, ProposalListener } from "./isr-proposals.js";
import type { CommittedState } from "./partition-state.js";
import { committedState, isAtLeastAsNew } from "./partition-state.js";
import type { ReplicaActivity } from "./replica-activity.js";
import { ReplicationWaiters } from "./replication-waiters.js";

/** How long a leader lets the controller alone after in-sync replicas were refused. */
const REFUSED_PAUSE_MS = 200;
/** Readers have the disk read again no more often: it takes as long as a segment is. */
const VERIFY_INTERVAL_MS = 10_000;

/** Who reads from a partition and wants to know when there is more. Told in the turn in which it happens. */
export interface PartitionObserver {
  /** The log has grown: for followers. */
  onAppended(partition: Partition): void;
  /** The high watermark has moved: for consumers. */
  onHighWatermark(partition: Partition): void;
  /** Its leader, epoch or log start changed. */
  onRoleChanged(partition: Partition): void;
}

/** What a partition needs of its broker. */
export interface PartitionParts {
  readonly brokerId: BrokerId;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly wheel: DeadlineWheel;
  readonly proposals: IsrProposals;
  readonly activity: ReplicaActivity;
  /** The epoch under which this broker is registered now; undefined: it is not. */
  readonly brokerEpoch: () => BrokerEpoch | undefined;
  /** The epoch under which a broker is registered, as the controller said last. */
  readonly registeredEpochOf: (brokerId: BrokerId) => BrokerEpoch | undefined;
  /** Whether ZooKeeper has confirmed this broker's registration lately. */
  readonly leaseValid: () => boolean;
  readonly sessionTimeoutMs: () => number;
  readonly replicaLagTimeMaxMs: () => number;
  /** A partition leads, follows or does neither from now on. */
  readonly onRoleChanged: (partition: Partition) => void;
  /** Records of a replica turned out to be damaged on this disk. */
  readonly onDamaged: (partition: Partition) => void;
}

/** A follower as its leader knows it. */
interface FollowerProgress extends ReplicaPosition {
  readonly brokerEpoch: BrokerEpoch;
  /** When it last held everything that the leader had at that time. */
  readonly caughtUpMs: number;
  readonly fetchedMs: number;
  /** The leader's log end offset when it fetched. */
  readonly leaderEndOffset: Offset;
  /** It has lost records, and says so until it has fetched them again. */
  readonly damaged: boolean;
  readonly diskFull: boolean;
}

interface LeaderRole {
  readonly kind: "leader";
  readonly epoch: LeaderEpoch;
  /** The log end offset when this epoch began here. */
  readonly epochStart: Offset;
  readonly followers: Map<BrokerId, FollowerProgress>;
  readonly waiters: ReplicationWaiters;
  isrState: IsrState;
  /** False for a moment after the controller refused in-sync replicas: asked again at each fetch it would do nothing else. */
  mayExpand: boolean;
  readonly sinceMs: number;
}
interface FollowerRole {
  readonly kind: "follower";
  readonly epoch: LeaderEpoch;
  readonly leaderId: BrokerId;
}
/** It has not been told its role, has lost it, or the partition has no leader. */
interface NoRole {
  readonly kind: "none";
}
export type PartitionRole = LeaderRole | FollowerRole | NoRole;

/** An accepted produce. `replicated` calls back once, with undefined or with why the outcome is not known to be good. */
export interface PartitionAppend {
  readonly baseOffset: Offset;
  readonly endOffset: Offset;
  /** undefined: already written. */
  readonly written: Promise<void> | undefined;
}

/** What a follower says of itself when it fetches. */
export interface FollowerFetch {
  readonly brokerId: BrokerId;
  readonly brokerEpoch: BrokerEpoch;
  readonly fetchOffset: Offset;
  readonly flushedOffset: Offset;
  readonly lastFetchedEpoch: LeaderEpoch | undefined;
  /** From here on records are damaged on its disk; undefined: none are. */
  readonly damagedFrom: Offset | undefined;
  readonly diskFull: boolean;
}

/** Where a follower's log and the leader's part. */
export interface Divergence {
  readonly leaderEpoch: LeaderEpoch | undefined;
  readonly endOffset: Offset;
}

/**
 * One replica, here. It learns its role from the controller's orders and never asks ZooKeeper. As leader it gives records
 * their offsets, knows how far each follower is, moves the high watermark and proposes in-sync replicas; as follower it
 * holds what a fetcher appends. Everything that changes state happens within one turn of the event loop.
 */
export class Partition {
  readonly #parts: PartitionParts;
  readonly #observers = new Set<PartitionObserver>();
  #config: TopicConfig;
  #state: CommittedState | undefined;
  #role: PartitionRole = { kind: "none" };
  #verification: { readonly sinceMs: number; readonly done: Promise<void> } | undefined;

  constructor(
    parts: PartitionParts,
    readonly topicId: TopicId,
    readonly topic: string,
    readonly partition: number,
    readonly log: Log,
    config: TopicConfig,
  ) {
    this.#parts = parts;
    this.#config = config;
    log.setListener({
      onWritten: () => this.#onWritten(),
      onFlushed: () => this.#maybeAdvanceHighWatermark(),
      onFull: () => this.#maybeResign(),
      onDamaged: () => {
        this.#maybeResign();
        parts.onDamaged(this);
      },
    });
  }

  /** For people: topic and partition. */
  get name(): string {
    return `${this.topic}-${this.partition}`;
  }
  get role(): PartitionRole {
    return this.#role;
  }
  get state(): CommittedState | undefined {
    return this.#state;
  }
  get config(): TopicConfig {
    return this.#config;
  }
  get highWatermark(): Offset {
    return this.log.highWatermark;
  }

  setConfig(config: TopicConfig): void {
    this.#config = config;
    this.#maybeAdvanceHighWatermark();
  }

  observe(observer: PartitionObserver): void {
    this.#observers.add(observer);
  }
  unobserve(observer: PartitionObserver): void {
    this.#observers.delete(observer);
  }

  // -- Roles ----------------------------------------------------------------------------------------------------------

  /**
   * Takes over a state that the controller committed, if it is as new as the one known. The role changes within this call:
   * memory first, disk after, so that nothing is half a leader.
   */
  applyState(state: CommittedState): void {
    const before = this.#state;
    if (before !== undefined && !isAtLeastAsNew(state, before)) return;
    this.#state = state;
    const leads = state.leaderId === this.#parts.brokerId;
    const role = this.#role;
    if (role.kind === "leader" && leads && role.epoch === state.leaderEpoch) {
      // A pending proposal ends only when the partition epoch grows; the state it builds on may be told again.
      if (before === undefined || state.partitionEpoch > before.partitionEpoch) this.#onIsrCommitted(role, state);
      return;
    }
    if (role.kind === "follower" && role.epoch === state.leaderEpoch && role.leaderId === state.leaderId) return;
    this.#leaveRole(`leader is ${state.leaderId ?? "none"} at epoch ${state.leaderEpoch}`);
    if (leads) this.#becomeLeader(state);
    else if (state.leaderId !== undefined)
      this.#role = { kind: "follower", epoch: state.leaderEpoch, leaderId: state.leaderId };
    this.#parts.logger.info(`${this.name}: ${this.#roleSentence(state)}`, {
      leaderEpoch: state.leaderEpoch,
      partitionEpoch: state.partitionEpoch,
    });
    this.#tellRole();
  }

  /** This broker was fenced or is stopping: whatever it was, it is nothing now, and what it knew of the state is void. */
  dropRole(reason: string): void {
    this.#state = undefined;
    if (this.#role.kind === "none") return;
    this.#leaveRole(reason);
    this.#tellRole();
  }

  /** Whoever brought the change, an order or the answer to a proposal: the fetchers hear of it here. */
  #tellRole(): void {
    this.#parts.onRoleChanged(this);
    for (const observer of this.#observers) observer.onRoleChanged(this);
  }

  #becomeLeader(state: CommittedState): void {
    const epochStart = this.log.logEndOffset;
    this.log.assignEpochStart(state.leaderEpoch, epochStart);
    this.#role = {
      kind: "leader",
      epoch: state.leaderEpoch,
      epochStart,
      followers: new Map(),
      waiters: new ReplicationWaiters(this.#parts.wheel, state.leaderEpoch),
      isrState: { kind: "committed", isr: new Set(state.isr) },
      mayExpand: true,
      sinceMs: this.#parts.clock.monotonicMs(),
    };
    // A new leader syncs first: with fsync its own records count only once they are on its disk.
    if (this.log.settings.durability === "fsync" && this.log.flushedOffset < this.log.logEndOffset)
      void this.log.flush();
    this.#maybeAdvanceHighWatermark();
  }

  #leaveRole(reason: string): void {
    const role = this.#role;
    this.#role = { kind: "none" };
    if (role.kind !== "leader") return;
    this.#parts.proposals.withdraw(this);
    role.waiters.failAll(
      errorReport(
        "NOT_LEADER_OR_FOLLOWER",
        `${this.name}: leadership at epoch ${role.epoch} ended before the records were replicated (${reason}); ask the new leader`,
      ),
    );
  }

  #roleSentence(state: CommittedState): string {
    switch (this.#role.kind) {
      case "leader":
        return `leads at epoch ${state.leaderEpoch} from offset ${this.#role.epochStart}, in-sync replicas ${state.isr.join(",")}`;
      case "follower":
        return `follows broker ${this.#role.leaderId} at epoch ${state.leaderEpoch}`;
      case "none":
        return `has no leader (epoch ${state.leaderEpoch})`;
    }
  }

  // -- Produce --------------------------------------------------------------------------------------------------------

  /**
   * Gives the records their place in the log, within this turn. Throws ApiError; then nothing was appended.
   * `leaderEpoch` is the one that the producer knows, if it knows one.
   */
  append(records: Buffer, acks: number, leaderEpoch: LeaderEpoch | undefined): PartitionAppend {
    const role = this.assertLeader(leaderEpoch);
    this.#assertAcksPossible(role, records, acks);
    const { logEndOffset } = this.log;
    const appended = this.log.appendAsLeader(records, role.epoch);
    // What is written later is told by the log's listener; what is written already is told here, synced or not.
    if (this.log.logEndOffset > logEndOffset) this.#onWritten();
    return { baseOffset: appended.baseOffset, endOffset: appended.endOffset, written: appended.written };
  }

  /** Calls back once the records below `endOffset` are replicated, or with why that is not known. */
  whenReplicated(endOffset: Offset, timeoutMs: number, onOutcome: (refusal: ErrorReport | undefined) => void): void {
    const role = this.#role;
    if (role.kind !== "leader") onOutcome(this.notLeader().report);
    else if (this.log.highWatermark >= endOffset) onOutcome(undefined);
    else role.waiters.add(endOffset, timeoutMs, () => this.#replicationTimeout(), onOutcome);
  }

  #assertAcksPossible(role: LeaderRole, records: Buffer, acks: number): void {
    if (acks === acksCodes.all) {
      const least = this.#minInsyncReplicas();
      if (role.isrState.isr.size < least) {
        throw new ApiError(
          "NOT_ENOUGH_REPLICAS",
          `${this.name}: ${role.isrState.isr.size} replicas are in sync, min.insync.replicas is ${least}; wait for brokers to return`,
        );
      }
      return;
    }
    if (acks !== acksCodes.leader && acks !== acksCodes.none)
      throw new ApiError("INVALID_REQUIRED_ACKS", `acks ${acks} is none of 0, 1 and -1 (all)`);
    if (records.length > 0 && isIdempotent(records))
      throw new ApiError("INVALID_REQUIRED_ACKS", "an idempotent producer needs acks=all");
    if (this.#mayBeReplaced(role)) {
      throw new ApiError(
        "LEADERSHIP_UNCERTAIN",
        `${this.name}: no word from ZooKeeper and no fetch by in-sync followers for ${this.#parts.sessionTimeoutMs()} ms; another leader may have been elected`,
      );
    }
  }

  /** The lease has lapsed and the other in-sync replicas have stopped fetching: they have probably moved on. */
  #mayBeReplaced(role: LeaderRole): boolean {
    if (this.#parts.leaseValid()) return false;
    const others = [...role.isrState.isr].filter((id) => id !== this.#parts.brokerId);
    if (others.length === 0) return false;
    const silentSinceMs = this.#parts.clock.monotonicMs() - this.#parts.sessionTimeoutMs();
    return others.every((id) => this.#parts.activity.lastFetchMs(id) < silentSinceMs);
  }

  #replicationTimeout(): ErrorReport {
    const role = this.#role;
    const least = this.#minInsyncReplicas();
    if (role.kind === "leader" && role.isrState.isr.size < least) {
      return errorReport(
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        `${this.name}: appended, but ${role.isrState.isr.size} replicas are in sync and min.insync.replicas is ${least}`,
      );
    }
    return errorReport("REQUEST_TIMED_OUT", `${this.name}: appended, but not replicated in the time given`);
  }

  // -- Fetch ----------------------------------------------------------------------------------------------------------

  /** Throws ApiError NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH (KIP-320). */
  assertLeader(leaderEpoch: LeaderEpoch | undefined): LeaderRole {
    const role = this.#role;
    const known = this.#state?.leaderEpoch ?? -1;
    if (leaderEpoch !== undefined && leaderEpoch > known) {
      throw new ApiError(
        "UNKNOWN_LEADER_EPOCH",
        `${this.name}: epoch ${leaderEpoch} is not known here yet (newest: ${known}); try again`,
      );
    }
    if (role.kind !== "leader") throw this.notLeader();
    if (leaderEpoch !== undefined && leaderEpoch < role.epoch) {
      throw new ApiError(
        "FENCED_LEADER_EPOCH",
        `${this.name}: epoch ${leaderEpoch} is over, the leader is at ${role.epoch}; refresh metadata`,
      );
    }
    return role;
  }

  notLeader(): ApiError {
    const leader = this.#state?.leaderId;
    return new ApiError(
      "NOT_LEADER_OR_FOLLOWER",
      `broker ${this.#parts.brokerId} does not lead ${this.name}; ${leader === undefined ? "it has no leader now" : `broker ${leader} does`}`,
    );
  }

  /** What a consumer may read: committed records from `offset` on. Empty above the high watermark. Throws ApiError. */
  readCommitted(
    offset: Offset,
    leaderEpoch: LeaderEpoch | undefined,
    maxBytes: number,
  ): LogRead | Promise<LogRead> | undefined {
    this.assertLeader(leaderEpoch);
    const end = this.log.highWatermark;
    if (offset < this.log.logStartOffset || offset > this.log.logEndOffset) throw this.#outOfRange(offset);
    return offset >= end ? undefined : this.log.read(offset, { maxBytes, end });
  }

  /**
   * Notes how far a follower is: this moves the high watermark and may make it a member of the ISR. Returns where its log
   * must be cut, when it and this one part. Throws ApiError.
   */
  noteFollower(fetch: FollowerFetch, leaderEpoch: LeaderEpoch | undefined): Divergence | undefined {
    const role = this.assertLeader(leaderEpoch);
    if (this.#state?.replicas.includes(fetch.brokerId) !== true) {
      throw new ApiError(
        "UNKNOWN_TOPIC_OR_PARTITION",
        `${this.name}: broker ${fetch.brokerId} is not one of its replicas`,
      );
    }
    const divergence = this.#divergence(fetch);
    if (divergence !== undefined) return divergence;
    if (fetch.fetchOffset < this.log.logStartOffset || fetch.fetchOffset > this.log.logEndOffset)
      throw this.#outOfRange(fetch.fetchOffset);
    this.#notePosition(role, fetch);
    if (fetch.damagedFrom !== undefined) return this.#repair(role, fetch, fetch.damagedFrom);
    if (fetch.diskFull && role.isrState.isr.has(fetch.brokerId))
      this.#maybeExpel(role, fetch.brokerId, `the disk of ${fetch.brokerId} is full`);
    return undefined;
  }

  /** What a follower may read: everything that is written here. Throws ApiError. */
  readAppended(
    offset: Offset,
    leaderEpoch: LeaderEpoch | undefined,
    maxBytes: number,
  ): LogRead | Promise<LogRead> | undefined {
    this.assertLeader(leaderEpoch);
    return offset >= this.log.logEndOffset ? undefined : this.log.read(offset, { maxBytes });
  }

  /**
   * A reader got a damaged batch from here: resolves when the disk was read again. Damage that this finds is not served any
   * more. One look answers all who ask within a while.
   */
  verify(offset: Offset): Promise<void> {
    const nowMs = this.#parts.clock.monotonicMs();
    if (this.#verification === undefined || nowMs - this.#verification.sinceMs > VERIFY_INTERVAL_MS) {
      this.#parts.logger.warn(`${this.name}: a reader got a damaged batch at offset ${offset}; the disk is read again`);
      const done = this.log.verifyRange(offset).then(
        (damage) => {
          if (damage.length === 0) this.#parts.logger.info(`${this.name}: the disk has no damage at offset ${offset}`);
        },
        (error: unknown) =>
          this.#parts.logger.warn(`${this.name}: the disk could not be read again: ${reasonOf(error)}`),
      );
      this.#verification = { sinceMs: nowMs, done };
    }
    return this.#verification.done;
  }

  /** What a reader is told of an error of reading. Damage here is final only where no other replica is about to lead. */
  readRefusal(error: ApiError): ErrorReport {
    const role = this.#role;
    if (error.errorName !== "CORRUPT_LOG" || role.kind !== "leader" || role.isrState.isr.size < 2) return error.report;
    return errorReport("STORAGE_ERROR", `${error.message}; another replica is about to lead`);
  }

  /** The latest offset for a consumer that wants only new records (KIP-207). Throws ApiError. */
  latestOffset(leaderEpoch: LeaderEpoch | undefined): Offset {
    const role = this.assertLeader(leaderEpoch);
    if (this.log.highWatermark < role.epochStart) {
      throw new ApiError(
        "OFFSET_NOT_AVAILABLE",
        `${this.name}: the new leader does not know yet how far the records are replicated; try again`,
      );
    }
    return this.log.highWatermark;
  }

  #outOfRange(offset: Offset): ApiError {
    return new ApiError(
      "OFFSET_OUT_OF_RANGE",
      `${this.name}: offset ${offset} is outside ${this.log.logStartOffset} to ${this.log.logEndOffset}`,
    );
  }

  #divergence(fetch: FollowerFetch): Divergence | undefined {
    if (fetch.lastFetchedEpoch === undefined) return undefined;
    const here = this.log.endOffsetForEpoch(fetch.lastFetchedEpoch);
    if (here === undefined) return { leaderEpoch: undefined, endOffset: this.log.logStartOffset };
    if (here.epoch === fetch.lastFetchedEpoch && here.endOffset >= fetch.fetchOffset) return undefined;
    return { leaderEpoch: here.epoch, endOffset: here.endOffset };
  }

  #notePosition(role: LeaderRole, fetch: FollowerFetch): void {
    const nowMs = this.#parts.clock.monotonicMs();
    const before = role.followers.get(fetch.brokerId);
    role.followers.set(fetch.brokerId, {
      brokerEpoch: fetch.brokerEpoch,
      logEndOffset: fetch.fetchOffset,
      flushedOffset: fetch.flushedOffset,
      caughtUpMs: this.#caughtUpAtMs(role, fetch.fetchOffset, before, nowMs),
      fetchedMs: nowMs,
      leaderEndOffset: this.log.logEndOffset,
      damaged: fetch.damagedFrom !== undefined,
      diskFull: fetch.diskFull,
    });
    this.#maybeExpandIsr(role, fetch.brokerId);
    this.#maybeAdvanceHighWatermark();
  }

  /**
   * Under load a follower is always a little behind the leader's present end, so having reached the end of the time of its
   * fetch before counts as having been caught up then.
   */
  #caughtUpAtMs(role: LeaderRole, fetchOffset: Offset, before: FollowerProgress | undefined, nowMs: number): number {
    if (fetchOffset >= this.log.logEndOffset) return nowMs;
    if (before === undefined) return role.sinceMs;
    return fetchOffset >= before.leaderEndOffset ? before.fetchedMs : before.caughtUpMs;
  }

  // -- High watermark -------------------------------------------------------------------------------------------------

  #onWritten(): void {
    this.#maybeAdvanceHighWatermark();
    for (const observer of this.#observers) observer.onAppended(this);
  }

  #maybeAdvanceHighWatermark(): void {
    const role = this.#role;
    if (role.kind !== "leader") return;
    const current = this.log.highWatermark;
    const next = nextHighWatermark({
      current,
      state: role.isrState,
      minInsyncReplicas: this.#minInsyncReplicas(),
      durability: this.log.settings.durability,
      positionOf: (id) => (id === this.#parts.brokerId ? this.log : role.followers.get(id)),
    });
    if (next <= current) return;
    // A follower may have been ahead of this leader's own writes only if it holds another log.
    const bounded = toOffset(Math.min(next, this.log.logEndOffset));
    if (bounded <= current) return;
    this.log.advanceHighWatermark(bounded);
    role.waiters.onHighWatermark(bounded);
    for (const observer of this.#observers) observer.onHighWatermark(this);
  }

  /** As follower: what the leader said, as far as it is here. */
  followHighWatermark(leaderHighWatermark: Offset): void {
    const bounded = toOffset(Math.min(leaderHighWatermark, this.log.logEndOffset));
    if (bounded > this.log.highWatermark) this.log.advanceHighWatermark(bounded);
  }

  #minInsyncReplicas(): number {
    return this.#config.minInsyncReplicas(this.#state?.replicas.length ?? 1);
  }

  // -- In-sync replicas -----------------------------------------------------------------------------------------------

  /** Called every now and then: a follower that lags for too long is proposed to leave, and a leader that cannot go on leaves. */
  reviewIsr(judgeAwakeSinceMs: number): void {
    this.#maybeResign();
    const role = this.#role;
    if (role.kind !== "leader" || role.isrState.kind === "pending") return;
    const lagMaxMs = this.#parts.replicaLagTimeMaxMs();
    const lagging = laggingMembers({
      isr: role.isrState.isr,
      self: this.#parts.brokerId,
      nowMs: this.#parts.clock.monotonicMs(),
      judgeAwakeSinceMs,
      lagMaxMs,
      caughtUpMs: (id) => this.#caughtUpMs(role, id),
    });
    if (lagging.length === 0) return;
    const proposed = new Set([...role.isrState.isr].filter((id) => !lagging.includes(id)));
    this.#propose(role, proposed, `${lagging.join(",")} did not catch up for ${lagMaxMs} ms`);
  }

  /** An idle partition does not travel in fetches, so a follower that has everything is as fresh as its last fetch. */
  #caughtUpMs(role: LeaderRole, brokerId: BrokerId): number {
    const follower = role.followers.get(brokerId);
    if (follower === undefined) return role.sinceMs;
    if (follower.logEndOffset < this.log.logEndOffset) return follower.caughtUpMs;
    return Math.max(follower.caughtUpMs, this.#parts.activity.lastFetchMs(brokerId));
  }

  #maybeExpandIsr(role: LeaderRole, brokerId: BrokerId): void {
    if (!role.mayExpand || role.isrState.kind === "pending" || role.isrState.isr.has(brokerId)) return;
    const follower = role.followers.get(brokerId);
    // Its position may be one of long ago: only who keeps up joins.
    const nowMs = this.#parts.clock.monotonicMs();
    if (follower === undefined || follower.damaged || follower.diskFull) return;
    if (nowMs - this.#caughtUpMs(role, brokerId) > this.#parts.replicaLagTimeMaxMs()) return;
    const leader = {
      highWatermark: this.log.highWatermark,
      epochStart: role.epochStart,
      durability: this.log.settings.durability,
    };
    if (!mayJoin(follower, leader)) return;
    this.#propose(role, new Set([...role.isrState.isr, brokerId]), `${brokerId} has caught up`);
  }

  /** A leader that cannot write, or has lost records, lets another one lead that is in sync. */
  #maybeResign(): void {
    const role = this.#role;
    if (role.kind !== "leader" || role.isrState.kind === "pending") return;
    const isDamaged = this.log.damage.length > 0;
    if (!isDamaged && !this.log.isFull) return;
    const others = [...role.isrState.isr].filter((id) => id !== this.#parts.brokerId);
    if (others.length === 0) return;
    const why = isDamaged ? "records are damaged on its disk" : "its disk is full";
    this.#propose(role, new Set(others), `${why}, and another replica is to lead`);
  }

  /**
   * A follower that has lost records is to count neither as in sync nor as eligible. Only once it does not, and nothing is
   * on its way that would change that, may it cut them off and fetch them again.
   */
  #repair(role: LeaderRole, fetch: FollowerFetch, damagedFrom: Offset): Divergence | undefined {
    if (role.isrState.kind === "pending") return undefined;
    const { brokerId, lastFetchedEpoch } = fetch;
    if (!role.isrState.isr.has(brokerId) && !this.#committed().elr.includes(brokerId))
      return { leaderEpoch: lastFetchedEpoch, endOffset: damagedFrom };
    this.#maybeExpel(role, brokerId, `records are damaged on the disk of ${brokerId}`);
    return undefined;
  }

  #maybeExpel(role: LeaderRole, brokerId: BrokerId, why: string): void {
    const { isrState } = role;
    if (isrState.kind === "committed")
      this.#propose(role, new Set([...isrState.isr].filter((id) => id !== brokerId)), why);
  }

  /** Of all replicas, those that said that they have lost records. */
  #damagedReplicas(role: LeaderRole): BrokerId[] {
    const damaged = [...role.followers].filter(([, follower]) => follower.damaged).map(([id]) => id);
    return this.log.damage.length > 0 ? [...damaged, this.#parts.brokerId] : damaged;
  }

  #propose(role: LeaderRole, proposed: ReadonlySet<BrokerId>, why: string): void {
    const { isr } = role.isrState;
    role.isrState = { kind: "pending", isr, proposed };
    this.#parts.logger.info(
      `${this.name}: proposes in-sync replicas ${[...proposed].join(",")} instead of ${[...isr].join(",")}, because ${why}`,
      { leaderEpoch: role.epoch, partitionEpoch: this.#committed().partitionEpoch },
    );
    this.#send(role, proposed, (answer, onlyCopy) => this.#onProposalAnswer(role, answer, onlyCopy));
  }

  #send(role: LeaderRole, members: ReadonlySet<BrokerId>, onAnswer: ProposalListener): void {
    this.#parts.proposals.propose(
      {
        topicId: this.topicId,
        partition: this.partition,
        leaderEpoch: role.epoch,
        partitionEpoch: this.#committed().partitionEpoch,
        isr: [...members].map((brokerId) => ({ brokerId, brokerEpoch: this.#memberEpoch(role, brokerId) })),
        damaged: this.#damagedReplicas(role),
      },
      onAnswer,
    );
  }

  #committed(): CommittedState {
    invariant(this.#state !== undefined, () => `${this.name} leads without a state`);
    return this.#state;
  }

  /**
   * The process that is meant by a member. One that never fetched under this leader has its seat from the leader before; it
   * is named as it is registered. "0" is nobody.
   */
  #memberEpoch(role: LeaderRole, brokerId: BrokerId): BrokerEpoch {
    if (brokerId === this.#parts.brokerId) return this.#parts.brokerEpoch() ?? "0";
    const seen = role.followers.get(brokerId)?.brokerEpoch;
    return seen ?? this.#parts.registeredEpochOf(brokerId) ?? "0";
  }

  #onProposalAnswer(role: LeaderRole, answer: IsrAnswer, onlyCopy: boolean): void {
    if (this.#role !== role || this.#tookOver(answer)) return;
    if (answer.error !== null) {
      this.#parts.logger.info(
        `${this.name}: the controller refused the proposed in-sync replicas: ${errorNameOf(answer.error.code)}: ${answer.error.message}`,
      );
      this.#pauseExpansion(role);
      if (!onlyCopy) {
        this.#voidCopies(role);
        return;
      }
    }
    // Refused, or equal to what was committed already.
    role.isrState = { kind: "committed", isr: role.isrState.isr };
    this.#maybeAdvanceHighWatermark();
  }

  /**
   * An earlier copy of a refused proposal may still be on its way and be granted when it arrives, so the proposal keeps
   * counting. Proposing what is committed makes the controller begin a new partition epoch, and older copies void.
   */
  #voidCopies(role: LeaderRole): void {
    this.#send(role, role.isrState.isr, (answer) => {
      if (this.#role !== role || this.#tookOver(answer)) return;
      this.#parts.wheel.after(REFUSED_PAUSE_MS, () => {
        if (this.#role === role && role.isrState.kind === "pending") this.#voidCopies(role);
      });
    });
  }

  /** Whether the answer brought a newer state. */
  #tookOver(answer: IsrAnswer): boolean {
    if (answer.state === null || answer.state.partitionEpoch <= (this.#state?.partitionEpoch ?? -1)) return false;
    this.applyState(committedState(answer.state));
    return true;
  }

  #pauseExpansion(role: LeaderRole): void {
    role.mayExpand = false;
    this.#parts.wheel.after(REFUSED_PAUSE_MS, () => {
      if (this.#role !== role) return;
      role.mayExpand = true;
      for (const id of role.followers.keys()) this.#maybeExpandIsr(role, id);
    });
  }

  #onIsrCommitted(role: LeaderRole, state: CommittedState): void {
    const isr = new Set(state.isr);
    if (role.isrState.kind === "committed" && sameMembers(isr, role.isrState.isr)) return;
    const before = maximalIsr(role.isrState);
    role.isrState = { kind: "committed", isr };
    this.#parts.proposals.withdraw(this);
    if (!sameMembers(before, isr)) {
      this.#parts.logger.info(`${this.name}: in-sync replicas are ${state.isr.join(",")}`, {
        leaderEpoch: role.epoch,
        partitionEpoch: state.partitionEpoch,
      });
    }
    this.#maybeAdvanceHighWatermark();
    for (const id of role.followers.keys()) this.#maybeExpandIsr(role, id);
  }
}

function isIdempotent(records: Buffer): boolean {
  try {
    return readBatch(records, 0).producerId >= 0;
  } catch {
    // Not a batch at all: the log says so, with the reason.
    return false;
  }
}
