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
