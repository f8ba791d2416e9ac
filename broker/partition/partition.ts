import { counted } from "../../common/counted.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError, errorReport } from "../../protocol/error-codes.js";
import type { ErrorReport } from "../../protocol/error-codes.js";
import { readBatch } from "../../protocol/record-batch.js";
import type { BrokerId, LeaderEpoch, Offset, TopicId } from "../../protocol/types.js";
import { acksCodes } from "../../protocol/types.js";
import type { TopicConfig } from "../config.js";
import type { Log, LogAppend, LogRead } from "../log/index.js";
import type { FollowerFetch } from "./followers.js";
import type { Divergence, LeadershipParts } from "./leadership.js";
import { Leadership } from "./leadership.js";
import type { CommittedState } from "./partition-state.js";
import { isAtLeastAsNew } from "./partition-state.js";

/** Readers have the disk read again no more often: it takes as long as a segment is. */
const VERIFY_INTERVAL_MS = 10_000;

/** Who reads from a partition and wants to know when there is more. Told in the turn in which it happens. */
export interface PartitionObserver {
  /** The log has grown: for followers. */
  onAppended(partition: Partition): void;
  /** The high watermark has moved: for consumers. */
  onHighWatermark(partition: Partition): void;
  /** The log begins later now: for followers. */
  onLogStart(partition: Partition): void;
  /** Its leader or epoch changed. */
  onRoleChanged(partition: Partition): void;
}

/** What a partition needs of its broker. */
export interface PartitionParts extends LeadershipParts {
  /** A partition leads, follows or does neither from now on. */
  readonly onRoleChanged: (partition: Partition) => void;
  /** Something happened to a replica on this disk that a fetch does not bring about, and that its leader waits for. */
  readonly onReportDue: (partition: Partition) => void;
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
export type PartitionRole = Leadership | FollowerRole | NoRole;

/**
 * One replica, here. It learns its role from the controller's orders and never asks ZooKeeper. As leader it gives records
 * their offsets and lets others read, and a Leadership looks after its followers; as follower it holds what a fetcher
 * appends. Everything that changes state happens within one turn of the event loop.
 */
export class Partition {
  readonly #parts: PartitionParts;
  readonly #observers = new Set<PartitionObserver>();
  #config: TopicConfig;
  #state: CommittedState | undefined;
  #role: PartitionRole = { kind: "none" };
  /** Why this replica takes no role in the newest state; undefined when it does as it is told. */
  #unfit: string | undefined;
  /** Looks at the disk of the last while, by the base offset of the segment. */
  readonly #verifications = new Map<Offset | undefined, { readonly sinceMs: number; readonly done: Promise<void> }>();
  /** Resolves when none is under way. */
  #verified: Promise<void> = Promise.resolve();

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
      onFlushed: () => {
        this.#leadership?.maybeAdvanceHighWatermark();
        this.#reportFlush();
      },
      onLogStart: () => {
        this.#leadership?.maybeFinishDeletions();
        for (const observer of this.#observers) observer.onLogStart(this);
        parts.onReportDue(this);
      },
      onFull: () => this.#leadership?.isr.maybeResign(),
      onDamaged: () => {
        this.#leadership?.isr.maybeResign();
        parts.onReportDue(this);
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
  get highWatermark(): Offset {
    return this.log.highWatermark;
  }
  /**
   * How many replicas must be in sync before anything counts as replicated. The controller's number and not this broker's:
   * were it smaller here, a replica could be elected as eligible that lacks what was acknowledged.
   */
  get minInsyncReplicas(): number {
    return this.#state?.minInsyncReplicas ?? this.#config.minInsyncReplicas(this.#state?.replicas.length ?? 1);
  }
  get #leadership(): Leadership | undefined {
    return this.#role.kind === "leader" ? this.#role : undefined;
  }

  setConfig(config: TopicConfig): void {
    this.#config = config;
    this.#leadership?.maybeAdvanceHighWatermark();
    this.#reportFlush();
  }

  /** The high watermark waits for it; records that were appended before durability became fsync were reported unsynced. */
  #reportFlush(): void {
    if (this.#role.kind === "follower" && this.log.settings.durability === "fsync") this.#parts.onReportDue(this);
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
   * memory first, disk after, so that nothing is half a leader. No role is taken in a state that is older than the log.
   */
  applyState(state: CommittedState): void {
    const before = this.#state;
    if (before !== undefined && !isAtLeastAsNew(state, before)) return;
    this.#state = state;
    const leads = state.leaderId === this.#parts.brokerId;
    const role = this.#role;
    if (role.kind === "leader" && leads && role.epoch === state.leaderEpoch) {
      // A pending proposal ends only when the partition epoch grows; the state it builds on may be told again.
      if (before === undefined || state.partitionEpoch > before.partitionEpoch) role.onCommitted(state);
      // min.insync.replicas may have become smaller, with the same members; or the controller is another, in the same epoch.
      role.maybeAdvanceHighWatermark();
      role.maybeFinishDeletions();
      return;
    }
    if (role.kind === "follower" && role.epoch === state.leaderEpoch && role.leaderId === state.leaderId) return;
    this.#leaveRole(`leader is ${state.leaderId ?? "none"} at epoch ${state.leaderEpoch}`);
    if (this.#isBehindLog(state)) {
      this.#tellRole();
      return;
    }
    if (leads) this.#lead(state);
    else if (state.leaderId !== undefined)
      this.#role = { kind: "follower", epoch: state.leaderEpoch, leaderId: state.leaderId };
    this.#parts.logger.info(`${this.name}: ${this.#roleSentence(state)}`, {
      leaderEpoch: state.leaderEpoch,
      partitionEpoch: state.partitionEpoch,
    });
    this.#tellRole();
  }

  /**
   * Leader epochs only grow, so a state with an older one than the log's is not the successor of what the log went through.
   * A leader could give the offsets of newer records to others, and a follower would cut them off. Said once.
   */
  #isBehindLog(state: CommittedState): boolean {
    const { lastEpoch } = this.log;
    if (state.leaderId === undefined) return false;
    if (lastEpoch === undefined || state.leaderEpoch >= lastEpoch) {
      this.#unfit = undefined;
      return false;
    }
    const isNew = this.#unfit === undefined;
    this.#unfit =
      `ZooKeeper holds leader epoch ${state.leaderEpoch}, the log of broker ${this.#parts.brokerId} has records of ` +
      `epoch ${lastEpoch}: ZooKeeper was restored from a backup, or the data directory is of a newer cluster`;
    if (isNew) {
      this.#parts.logger.error(
        `${this.name}: ${this.#unfit}. This replica neither leads nor follows. Restore ZooKeeper and the data ` +
          `directories to the same time, or delete the topic and create it again.`,
      );
    }
    return true;
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

  #lead(state: CommittedState): void {
    const leadership = new Leadership(this.#parts, this, state, () => {
      for (const observer of this.#observers) observer.onHighWatermark(this);
    });
    this.#role = leadership;
    leadership.begin();
  }

  #leaveRole(reason: string): void {
    const leadership = this.#leadership;
    this.#role = { kind: "none" };
    leadership?.end(reason);
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
  append(records: Buffer, acks: number, leaderEpoch: LeaderEpoch | undefined): LogAppend {
    const role = this.assertLeader(leaderEpoch);
    this.#assertAcksPossible(role, records, acks);
    const { logEndOffset } = this.log;
    const appended = this.log.appendAsLeader(records, role.epoch);
    // What is written later is told by the log's listener; what is written already is told here, synced or not.
    if (this.log.logEndOffset > logEndOffset) this.#onWritten();
    return appended;
  }

  /** Calls back once the records below `endOffset` are replicated, or with why that is not known. */
  whenReplicated(endOffset: Offset, timeoutMs: number, onOutcome: (refusal: ErrorReport | undefined) => void): void {
    const leadership = this.#leadership;
    if (leadership === undefined) onOutcome(this.notLeader().report);
    else leadership.whenReplicated(endOffset, timeoutMs, onOutcome);
  }

  #assertAcksPossible(leadership: Leadership, records: Buffer, acks: number): void {
    if (acks === acksCodes.all) {
      if (leadership.isBelowMinimum) {
        throw new ApiError(
          "NOT_ENOUGH_REPLICAS",
          `${this.name}: ${counted(leadership.isr.members.size, "replica", "are")} in sync, min.insync.replicas is ${this.minInsyncReplicas}; wait for brokers to return`,
        );
      }
      return;
    }
    if (acks !== acksCodes.leader && acks !== acksCodes.none)
      throw new ApiError("INVALID_REQUIRED_ACKS", `acks ${acks} is none of 0, 1 and -1 (all)`);
    if (records.length > 0 && isIdempotent(records))
      throw new ApiError("INVALID_REQUIRED_ACKS", "an idempotent producer needs acks=all");
    if (leadership.mayBeReplaced) {
      throw new ApiError(
        "LEADERSHIP_UNCERTAIN",
        `${this.name}: no word from ZooKeeper and no fetch by in-sync followers for ${this.#parts.sessionTimeoutMs()} ms; another leader may have been elected`,
      );
    }
  }

  // -- Deletion of records --------------------------------------------------------------------------------------------

  /**
   * Records below the offset are deleted (undefined: all that consumers may read), and `onOutcome` is called once no
   * replica that may be elected has them, or with why that is not known. Throws ApiError; then nothing was deleted.
   */
  deleteBefore(
    offset: Offset | undefined,
    timeoutMs: number,
    onOutcome: (outcome: { readonly logStartOffset: Offset } | { readonly error: ErrorReport }) => void,
  ): void {
    const role = this.assertLeader(undefined);
    const before = offset ?? this.latestOffset(undefined);
    if (before > this.log.highWatermark) {
      // Committed perhaps, by the leader before: then this one is about to know.
      if (before <= role.epochStart) this.latestOffset(undefined);
      throw new ApiError(
        "OFFSET_OUT_OF_RANGE",
        `${this.name}: ${before} is above the high watermark ${this.log.highWatermark}; only replicated records can be deleted`,
      );
    }
    this.log.advanceLogStart(before).catch((error: unknown) => {
      // Who waits hears of it when the time is over; until then another attempt may succeed.
      this.#parts.logger.warn(`${this.name}: the log start offset could not be made durable: ${reasonOf(error)}`);
    });
    role.whenDeleted(before, timeoutMs, (refusal) =>
      onOutcome(refusal === undefined ? { logStartOffset: role.replicatedLogStart ?? before } : { error: refusal }),
    );
  }

  // -- Fetch ----------------------------------------------------------------------------------------------------------

  /** Throws ApiError NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH (KIP-320). */
  assertLeader(leaderEpoch: LeaderEpoch | undefined): Leadership {
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
    if (this.#unfit !== undefined) return new ApiError("NOT_LEADER_OR_FOLLOWER", `${this.name}: ${this.#unfit}`);
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
    const leadership = this.assertLeader(leaderEpoch);
    const end = this.log.highWatermark;
    if (offset < this.log.logStartOffset || offset > this.log.logEndOffset) throw this.#outOfRange(offset);
    return offset >= end ? undefined : asLeader(leadership, this.log.read(offset, { maxBytes, end }));
  }

  /**
   * Notes how far a follower is: this moves the high watermark and may make it a member of the ISR. Returns where its log
   * must be cut, when it and this one part. Throws ApiError.
   */
  noteFollower(fetch: FollowerFetch, leaderEpoch: LeaderEpoch | undefined): Divergence | undefined {
    const leadership = this.assertLeader(leaderEpoch);
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
    return leadership.noteFollower(fetch);
  }

  /** What a follower may read: everything that is written here. Throws ApiError. */
  readAppended(
    offset: Offset,
    leaderEpoch: LeaderEpoch | undefined,
    maxBytes: number,
  ): LogRead | Promise<LogRead> | undefined {
    const leadership = this.assertLeader(leaderEpoch);
    return offset >= this.log.logEndOffset ? undefined : asLeader(leadership, this.log.read(offset, { maxBytes }));
  }

  /**
   * A reader got a damaged batch from here: resolves when the disk was read again. Damage that this finds is not served any
   * more. One look answers all who ask about a segment within a while, and there is one at a time.
   */
  verify(offset: Offset): Promise<void> {
    const nowMs = this.#parts.clock.monotonicMs();
    for (const [segment, { sinceMs }] of this.#verifications)
      if (nowMs - sinceMs > VERIFY_INTERVAL_MS) this.#verifications.delete(segment);
    const segment = this.log.segmentOf(offset);
    const known = this.#verifications.get(segment);
    if (known !== undefined) return known.done;
    this.#parts.logger.warn(`${this.name}: a reader got a damaged batch at offset ${offset}; the disk is read again`);
    const done = this.#verified.then(() => this.#verifyNow(offset));
    this.#verified = done;
    this.#verifications.set(segment, { sinceMs: nowMs, done });
    return done;
  }

  async #verifyNow(offset: Offset): Promise<void> {
    try {
      const damage = await this.log.verifyRange(offset);
      if (damage.length === 0) this.#parts.logger.info(`${this.name}: the disk has no damage at offset ${offset}`);
    } catch (error) {
      this.#parts.logger.warn(`${this.name}: the disk could not be read again: ${reasonOf(error)}`);
    }
  }

  /** What a reader is told of an error of reading. Damage here is final only where no other replica is about to lead. */
  readRefusal(error: ApiError): ErrorReport {
    const others = this.#leadership?.isr.otherMembers ?? [];
    if (error.errorName !== "CORRUPT_LOG" || others.length === 0) return error.report;
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
    if (here === undefined) {
      // All is deleted that it could be compared with. What a member of the ISR holds below the log start is what was there.
      const { logStartOffset } = this.log;
      if (fetch.fetchOffset === logStartOffset && this.#leadership?.isr.members.has(fetch.brokerId)) return undefined;
      return { leaderEpoch: undefined, endOffset: logStartOffset };
    }
    if (here.epoch === fetch.lastFetchedEpoch && here.endOffset >= fetch.fetchOffset) return undefined;
    return { leaderEpoch: here.epoch, endOffset: here.endOffset };
  }

  #onWritten(): void {
    this.#leadership?.maybeAdvanceHighWatermark();
    for (const observer of this.#observers) observer.onAppended(this);
  }

  /** As follower: what the leader said, as far as it is here. */
  followHighWatermark(leaderHighWatermark: Offset): void {
    this.log.advanceHighWatermark(leaderHighWatermark);
  }

  /**
   * Called every now and then: who lags for too long is proposed to leave the ISR, a leader that cannot go on leaves, and
   * who keeps up again is proposed to join.
   */
  reviewIsr(judgeAwakeSinceMs: number): void {
    const isr = this.#leadership?.isr;
    // In this order: a resignation that is refused must not keep those in that nobody hears of.
    isr?.maybeShrink(judgeAwakeSinceMs);
    isr?.maybeResign();
    isr?.maybeExpandAny();
  }
}

/** A read that takes its time is an answer of this leadership and of no other. */
function asLeader(leadership: Leadership, read: LogRead | Promise<LogRead>): LogRead | Promise<LogRead> {
  return read instanceof Promise ? leadership.during(read, (unused) => unused.release()) : read;
}

function isIdempotent(records: Buffer): boolean {
  try {
    return readBatch(records, 0).producerId >= 0;
  } catch {
    // Not a batch at all: the log says so, with the reason.
    return false;
  }
}
