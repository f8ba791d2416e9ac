import { ApiError } from "../../protocol/error-codes.js";
import type { BrokerEpoch, BrokerId, LeaderEpoch, Offset } from "../../protocol/types.js";
import { isOlderBrokerEpoch } from "../../protocol/types.js";
import type { ReplicaPosition } from "./isr.js";

/** What a follower says of itself when it fetches. */
export interface FollowerFetch {
  readonly brokerId: BrokerId;
  readonly brokerEpoch: BrokerEpoch;
  readonly fetchOffset: Offset;
  readonly flushedOffset: Offset;
  readonly durableLogStart: Offset;
  readonly lastFetchedEpoch: LeaderEpoch | undefined;
  /** From here on records are damaged on its disk; undefined: none are. */
  readonly damagedFrom: Offset | undefined;
  readonly diskFull: boolean;
}

/** A follower as its leader knows it. */
export interface FollowerProgress extends ReplicaPosition {
  /** Its log does not begin earlier any more, not even after a power cut. */
  readonly durableLogStart: Offset;
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

/** The followers of one leader, in one epoch, as far as their fetches tell. */
export class Followers {
  readonly #progress = new Map<BrokerId, FollowerProgress>();

  constructor(
    /** When the epoch began here: nobody is accused of an earlier silence. */
    private readonly sinceMs: number,
  ) {}

  /** Undefined: it has not fetched under this leader. */
  get(brokerId: BrokerId): FollowerProgress | undefined {
    return this.#progress.get(brokerId);
  }

  /**
   * As the process that is registered has told. What the one before it had told counts no more: a power cut may have left
   * less of it.
   */
  getAs(brokerId: BrokerId, registered: BrokerEpoch | undefined): FollowerProgress | undefined {
    const follower = this.#progress.get(brokerId);
    if (follower === undefined || registered === undefined) return follower;
    return isOlderBrokerEpoch(follower.brokerEpoch, registered) ? undefined : follower;
  }

  get ids(): IterableIterator<BrokerId> {
    return this.#progress.keys();
  }

  /** Those that said that they have lost records. */
  get damagedIds(): BrokerId[] {
    return [...this.#progress].filter(([, follower]) => follower.damaged).map(([id]) => id);
  }

  /**
   * Throws ApiError STALE_BROKER_EPOCH for a late fetch of a process before the one that has fetched last: its successor may
   * have less (KIP-903).
   */
  note(fetch: FollowerFetch, leaderEndOffset: Offset, nowMs: number): void {
    const before = this.#progress.get(fetch.brokerId);
    if (before !== undefined && isOlderBrokerEpoch(fetch.brokerEpoch, before.brokerEpoch)) {
      throw new ApiError(
        "STALE_BROKER_EPOCH",
        `broker ${fetch.brokerId} has fetched under epoch ${before.brokerEpoch}, which is newer than ${fetch.brokerEpoch}`,
      );
    }
    this.#progress.set(fetch.brokerId, {
      brokerEpoch: fetch.brokerEpoch,
      logEndOffset: fetch.fetchOffset,
      flushedOffset: fetch.flushedOffset,
      durableLogStart: fetch.durableLogStart,
      caughtUpMs: this.#caughtUpAtMs(fetch.fetchOffset, leaderEndOffset, before, nowMs),
      fetchedMs: nowMs,
      leaderEndOffset,
      damaged: fetch.damagedFrom !== undefined,
      diskFull: fetch.diskFull,
    });
  }

  /**
   * When a follower last had everything. An idle partition does not travel in fetches, so one that has everything is as
   * fresh as its last fetch of any partition.
   */
  caughtUpMs(brokerId: BrokerId, leaderEndOffset: Offset, lastFetchMs: number): number {
    const follower = this.#progress.get(brokerId);
    if (follower === undefined) return this.sinceMs;
    if (follower.logEndOffset < leaderEndOffset) return follower.caughtUpMs;
    return Math.max(follower.caughtUpMs, lastFetchMs);
  }

  /**
   * Under load a follower is always a little behind the leader's present end, so having reached the end of the time of its
   * fetch before counts as having been caught up then.
   */
  #caughtUpAtMs(
    fetchOffset: Offset,
    leaderEndOffset: Offset,
    before: FollowerProgress | undefined,
    nowMs: number,
  ): number {
    if (fetchOffset >= leaderEndOffset) return nowMs;
    if (before === undefined) return this.sinceMs;
    return fetchOffset >= before.leaderEndOffset ? before.fetchedMs : before.caughtUpMs;
  }
}
