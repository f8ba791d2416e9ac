import type { Offset } from "../../../protocol/types.js";
import type { LogSettings } from "../log-settings.js";

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
