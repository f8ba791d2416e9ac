import type { Env } from "../../common/env/env.js";
import type { RecordBatch } from "../../protocol/record-batch.js";
import { toOffset } from "../../protocol/types.js";
import type { Offset } from "../../protocol/types.js";
import {
  removeOldSnapshots,
  removeSnapshots,
  restoreSnapshot,
  syncSnapshot,
  takeSnapshot,
  writeSnapshot,
} from "./producer-snapshots.js";
import type { ProducerSnapshot } from "./producer-snapshots.js";
import { ProducerStates } from "./producer-states.js";
import type { EarlierAppend, ProducerStateLimits } from "./producer-states.js";
import type { SegmentList } from "./segment-list.js";
import { surveySegment } from "./segment-scan.js";
import type { Segment, SegmentFiles } from "./segment.js";

/**
 * The idempotent producers of a log and the snapshots of them on disk: one at the base of each segment, where a truncation
 * may need it, and the newest two. Producers can always be made anew from a snapshot and the batches behind it: where batches
 * are removed, the snapshot behind them is synced before.
 */
export class LogProducers {
  /** Taken and not written yet. */
  #pending: ProducerSnapshot[] = [];

  constructor(
    private readonly env: Env,
    private readonly directory: string,
    private states: ProducerStates,
  ) {}

  /** As ProducerStates.check. */
  check(batch: RecordBatch): EarlierAppend | undefined {
    return this.states.check(batch);
  }

  /** As ProducerStates.update. */
  update(batch: RecordBatch, wallMs: number, limits: ProducerStateLimits): void {
    this.states.update(batch, wallMs, limits);
  }

  /** A segment begins at the offset, where the log ends now. */
  snapshotAt(baseOffset: Offset): void {
    this.#pending.push(takeSnapshot(this.states, baseOffset));
  }

  /** Snapshots of what is cut off are of no use. The producers themselves are restored later. */
  cutEnd(offset: Offset): void {
    this.#pending = this.#pending.filter((snapshot) => snapshot.offset <= offset);
  }

  /** The log is emptied; `removeSnapshots` follows. */
  clear(): void {
    this.#pending = [];
    this.states.clear();
  }

  /** All of them, durably. */
  async removeSnapshots(): Promise<void> {
    await removeSnapshots(this.env.files, this.directory);
  }

  async writePending(): Promise<void> {
    for (let snapshot = this.#pending.shift(); snapshot !== undefined; snapshot = this.#pending.shift())
      await writeSnapshot(this.env.files, this.directory, snapshot);
  }

  /** The producers as of now, when the log ends at the offset; `write` follows. */
  snapshot(offset: Offset): ProducerSnapshot {
    return takeSnapshot(this.states, offset);
  }

  async write(snapshot: ProducerSnapshot): Promise<void> {
    await writeSnapshot(this.env.files, this.directory, snapshot);
  }

  /** The batches in front of the offset are about to go: what they said of their producers is durable when this resolves. */
  async syncBefore(offset: Offset): Promise<void> {
    await this.writePending();
    await syncSnapshot(this.env.files, this.directory, offset);
  }

  async removeOld(segments: SegmentList): Promise<void> {
    await removeOldSnapshots(this.env.files, this.directory, (offset) =>
      segments.all.some((segment) => segment.baseOffset === offset),
    );
  }

  /** Makes the producers anew after the log was cut to end here. */
  async restore(segments: SegmentList, logEnd: Offset, limits: ProducerStateLimits): Promise<void> {
    if (segments.isEmpty) {
      await this.clear();
      return;
    }
    const rebuilt = { segments: segments.all, logEnd, limits };
    this.states = await rebuildProducers(this.env, this.directory, rebuilt, (segment, task) =>
      segments.use(segment, ({ file, index }) => task(file, index)),
    );
  }
}

/**
 * Makes the producers of a log that ends at the offset: from the last snapshot and the batches behind it. Where batches are
 * missing (damaged, or removed since the snapshot) nothing is known of what came before: a producer may have gone on there.
 */
export async function rebuildProducers(
  { files, clock }: Env,
  directory: string,
  log: { readonly segments: readonly Segment[]; readonly logEnd: Offset; readonly limits: ProducerStateLimits },
  use: (
    segment: Segment,
    task: (file: SegmentFiles["file"], index: SegmentFiles["index"]) => Promise<void>,
  ) => Promise<void>,
): Promise<ProducerStates> {
  const snapshot = await restoreSnapshot(files, directory, log.logEnd);
  const states = snapshot?.producers ?? new ProducerStates();
  const from = snapshot?.offset ?? toOffset(0);
  const wallMs = clock.wallMs();
  let known = snapshot?.offset;
  const goOnAt = (offset: Offset): void => {
    if (known !== undefined && known !== offset) states.clear();
  };
  for (const segment of log.segments) {
    if (segment.endOffset <= from || segment.sizeBytes === 0) continue;
    await use(segment, (file, index) =>
      replay(segment, file, index, from, (batch) => {
        goOnAt(batch.baseOffset);
        states.update(batch, wallMs, log.limits);
        known = batch.endOffset;
      }),
    );
  }
  goOnAt(log.logEnd);
  return states;
}

/** Feeds the batches of a segment from an offset on, over damage. */
async function replay(
  segment: Segment,
  file: SegmentFiles["file"],
  index: SegmentFiles["index"],
  from: Offset,
  update: (batch: RecordBatch) => void,
): Promise<void> {
  const indexed = from <= segment.baseOffset ? undefined : index.floor(from - segment.baseOffset);
  await surveySegment(file, segment.scanFrom(indexed), segment.endOffset, (batch) => {
    if (batch.baseOffset >= from) update(batch);
  });
}
