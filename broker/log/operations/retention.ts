import type { Offset } from "../../../protocol/types.js";
import type { LogSettings } from "../log-settings.js";

/** A wall clock that moved this much more or less than the monotonic one has been set. */
const WALL_JUMP_MS = 5 * 60_000;

/** What retention needs to know of a segment. */
export interface SegmentFacts {
  readonly endOffset: Offset;
  readonly sizeBytes: number;
  /** -1 when the segment is empty. */
  readonly maxTimestamp: number;
}

/** A wall and a monotonic clock, read together. */
export interface ClockReading {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

/**
 * How many of the oldest segments may go. Never one with records at or above the high watermark: they are not known to be
 * anywhere else. Time counts by the newest record of a segment, so nothing goes early; sizes count so that what stays is
 * `retentionBytes` or more. The last segment goes by time only.
 */
export function expiredSegments(
  segments: readonly SegmentFacts[],
  bounds: { readonly logStartOffset: Offset; readonly highWatermark: Offset },
  settings: Pick<LogSettings, "retentionMs" | "retentionBytes">,
  wallMs: number,
): number {
  let leftBytes = segments.reduce((sum, segment) => sum + segment.sizeBytes, 0);
  let expired = 0;
  for (const segment of segments) {
    if (segment.endOffset > bounds.highWatermark || segment.sizeBytes === 0) break;
    const isLast = expired === segments.length - 1;
    const behindLogStart = segment.endOffset <= bounds.logStartOffset && !isLast;
    const tooOld = settings.retentionMs >= 0 && wallMs - segment.maxTimestamp > settings.retentionMs;
    const tooMuch = settings.retentionBytes >= 0 && leftBytes - segment.sizeBytes >= settings.retentionBytes && !isLast;
    if (!behindLogStart && !tooOld && !tooMuch) break;
    leftBytes -= segment.sizeBytes;
    expired += 1;
  }
  return expired;
}

/** Whether the wall clock was set between two readings: ages are not to be believed in this run. */
export function wallClockJumped(before: ClockReading, now: ClockReading): boolean {
  return Math.abs(now.wallMs - before.wallMs - (now.monotonicMs - before.monotonicMs)) > WALL_JUMP_MS;
}

/** What decides whether the active segment is closed before a batch. */
export interface RollFacts {
  readonly sizeBytes: number;
  readonly indexEntries: number;
  readonly baseOffset: Offset;
  /** The greatest timestamp of its first batch; undefined when it is empty. */
  readonly firstTimestamp: number | undefined;
}

/** Index entries of one segment, so that neither index file grows over 10 MiB or so. */
const INDEX_ENTRIES_MAX = 655_360;
/** Offsets in the indexes are relative and have 32 bits. */
export const RELATIVE_OFFSET_MAX = 2 ** 32 - 1;

/** Whether a batch goes to a new segment. An empty segment takes any batch whose offsets it can express. */
export function shouldRoll(
  segment: RollFacts,
  batch: { readonly sizeBytes: number; readonly endOffset: Offset; readonly maxTimestamp: number },
  settings: Pick<LogSettings, "segmentBytes" | "segmentMs">,
): boolean {
  if (batch.endOffset - segment.baseOffset > RELATIVE_OFFSET_MAX) return true;
  if (segment.firstTimestamp === undefined) return false;
  return (
    segment.sizeBytes + batch.sizeBytes > settings.segmentBytes ||
    segment.indexEntries >= INDEX_ENTRIES_MAX ||
    batch.maxTimestamp - segment.firstTimestamp > settings.segmentMs
  );
}
