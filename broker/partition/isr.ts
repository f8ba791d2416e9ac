import type { BrokerId, Offset } from "../../protocol/types.js";
import { toOffset } from "../../protocol/types.js";

/**
 * What the leader believes of the in-sync replicas, and what it has asked the controller for and not yet heard of.
 * A pending proposal ends when the partition epoch grows: whoever changed the state, the proposal is void or done.
 */
export type IsrState =
  | { readonly kind: "committed"; readonly isr: ReadonlySet<BrokerId> }
  | { readonly kind: "pending"; readonly isr: ReadonlySet<BrokerId>; readonly proposed: ReadonlySet<BrokerId> };

/**
 * The replicas to wait for. One asked to join already counts and one asked to leave still counts, because the controller
 * may grant or refuse either: waiting for both is safe, waiting for one of them is not (KIP-497).
 */
export function maximalIsr(state: IsrState): ReadonlySet<BrokerId> {
  return state.kind === "committed" ? state.isr : new Set([...state.isr, ...state.proposed]);
}

/** How far a replica is, as its leader knows. */
export interface ReplicaPosition {
  readonly logEndOffset: Offset;
  /** Everything below is synced to its disk. */
  readonly flushedOffset: Offset;
}

/**
 * The high watermark: the smallest position over the maximal ISR, never going back. It stands still while the committed
 * ISR is smaller than min.insync.replicas, so that what it passes is on enough replicas (KIP-966). A replica that has not
 * been heard of under this leader holds it where it is.
 */
export function nextHighWatermark(input: {
  readonly current: Offset;
  readonly state: IsrState;
  readonly minInsyncReplicas: number;
  /** With `fsync` a record counts where it is synced, with `page-cache` where it is written. */
  readonly durability: "page-cache" | "fsync";
  readonly positionOf: (brokerId: BrokerId) => ReplicaPosition | undefined;
}): Offset {
  if (input.state.isr.size < input.minInsyncReplicas) return input.current;
  let least = Number.POSITIVE_INFINITY;
  for (const brokerId of maximalIsr(input.state)) {
    const position = input.positionOf(brokerId);
    if (position === undefined) return input.current;
    least = Math.min(least, input.durability === "fsync" ? position.flushedOffset : position.logEndOffset);
  }
  return toOffset(Math.max(input.current, least === Number.POSITIVE_INFINITY ? 0 : least));
}

/**
 * Up to where records are deleted for good: the smallest durable log start over the maximal ISR. Undefined while somebody
 * may be elected of whom that is not known: the same conditions as for the high watermark.
 */
export function replicatedLogStart(input: {
  readonly state: IsrState;
  readonly minInsyncReplicas: number;
  readonly durableLogStartOf: (brokerId: BrokerId) => Offset | undefined;
}): Offset | undefined {
  if (input.state.isr.size < input.minInsyncReplicas) return undefined;
  let least: Offset | undefined;
  for (const brokerId of maximalIsr(input.state)) {
    const start = input.durableLogStartOf(brokerId);
    if (start === undefined) return undefined;
    if (least === undefined || start < least) least = start;
  }
  return least;
}

/** What a follower is measured by that wants to join. */
export interface LeaderPosition {
  readonly logStartOffset: Offset;
  readonly highWatermark: Offset;
  readonly epochStart: Offset;
  readonly durability: "page-cache" | "fsync";
}

/**
 * Whether a follower may be proposed: it has all that is committed, and it has reached the leader's own epoch. The high
 * watermark alone would not do, because that of a new leader lags (data would be lost by joining at a lagging one). And it
 * has nothing that is deleted: elected, it would bring it back.
 */
export function mayJoin(
  follower: ReplicaPosition & { readonly durableLogStart: Offset },
  leader: LeaderPosition,
): boolean {
  const reached = leader.durability === "fsync" ? follower.flushedOffset : follower.logEndOffset;
  const hasDeleted = follower.durableLogStart >= leader.logStartOffset;
  return hasDeleted && reached >= leader.highWatermark && reached >= leader.epochStart;
}

/**
 * The members that have lagged for too long. `judgeAwakeSinceMs`: a leader that did not run cannot know who fetched
 * meanwhile, so nobody is accused of more than the time since it woke.
 */
export function laggingMembers(input: {
  readonly isr: ReadonlySet<BrokerId>;
  readonly self: BrokerId;
  readonly nowMs: number;
  readonly judgeAwakeSinceMs: number;
  readonly lagMaxMs: number;
  readonly caughtUpMs: (brokerId: BrokerId) => number;
}): BrokerId[] {
  return [...input.isr].filter(
    (id) => id !== input.self && input.nowMs - Math.max(input.caughtUpMs(id), input.judgeAwakeSinceMs) > input.lagMaxMs,
  );
}

export const sameMembers = (left: ReadonlySet<BrokerId>, right: ReadonlySet<BrokerId>): boolean =>
  left.size === right.size && [...left].every((id) => right.has(id));
