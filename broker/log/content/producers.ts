import type { Env } from "../../../common/env/env.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";
import type { Offset } from "../../../protocol/types.js";
import { surveySegment } from "../segment/scan.js";
import type { SegmentFiles } from "../segment/segment-files.js";
import type { Segment } from "../segment/segment.js";
import {
  newestSnapshot,
  removeOldSnapshots,
  removeSnapshots,
  syncSnapshot,
  takeSnapshot,
  writeSnapshot,
} from "./producer-snapshots.js";
import type { ProducerSnapshot } from "./producer-snapshots.js";
import { ProducerStates } from "./producer-states.js";
import type { EarlierAppend, ProducerStateLimits } from "./producer-states.js";
import type { SegmentList } from "./segment-list.js";

/**
 * The idempotent producers of a log and the snapshots of them on disk: one at the base of each segment, where a truncation
 * may need it, and the newest two. Producers can always be made anew from a snapshot and the batches behind it: where batches
 * are removed, the snapshot behind them is synced before.
 */
export class LogProducers {
  /** Taken and not written yet. */
  #pending: ProducerSnapshot[] = [];
  /** Batches were taken back that the states still know of: no snapshot may say so. */
  #isAhead = false;

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
    if (this.#isAhead) return;
    this.#pending.push(takeSnapshot(this.states, baseOffset));
  }

  /** Snapshots of what is cut off are of no use. The producers themselves are restored later. */
  cutEnd(offset: Offset): void {
    this.#pending = this.#pending.filter((snapshot) => snapshot.offset <= offset);
    this.#isAhead = true;
  }

  /** The log is emptied; `removeSnapshots` follows. */
  clear(): void {
    this.#pending = [];
    this.states.clear();
    this.#isAhead = false;
  }

  /** All of them, durably. */
  async removeSnapshots(): Promise<void> {
    await removeSnapshots(this.env.files, this.directory);
  }

  async writePending(): Promise<void> {
    for (let snapshot = this.#pending.shift(); snapshot !== undefined; snapshot = this.#pending.shift())
      await writeSnapshot(this.env.files, this.directory, snapshot);
  }

  /** The producers as of now, when the log ends at the offset; `write` follows. Undefined: they are not known now. */
  snapshot(offset: Offset): ProducerSnapshot | undefined {
    return this.#isAhead ? undefined : takeSnapshot(this.states, offset);
  }

  async write(snapshot: ProducerSnapshot | undefined): Promise<void> {
    if (snapshot !== undefined) await writeSnapshot(this.env.files, this.directory, snapshot);
  }

  /** The segments in front of the offset, where one begins, are about to go: what they say is in a snapshot afterwards. */
  async keepBefore(offset: Offset, segments: SegmentList, limits: ProducerStateLimits): Promise<void> {
    await this.writePending();
    await snapshotProducers(this.env, this.directory, { segments: segments.all, offset, limits }, useOf(segments));
  }

  /** That snapshot is durable when this resolves. */
  async sync(offset: Offset): Promise<void> {
    await syncSnapshot(this.env.files, this.directory, offset);
  }

  async removeOld(segments: SegmentList): Promise<void> {
    await removeOldSnapshots(this.env.files, this.directory, (offset) =>
      segments.all.some((segment) => segment.baseOffset === offset),
    );
  }

  /** Makes the producers anew after the log was cut to end here. */
  async restore(segments: SegmentList, logEnd: Offset, limits: ProducerStateLimits): Promise<void> {
    if (segments.all.length === 0) {
      this.clear();
      return;
    }
    const rebuilt = { segments: segments.all, logEnd, limits };
    this.states = await rebuildProducers(this.env, this.directory, rebuilt, useOf(segments));
    this.#isAhead = false;
  }
}

/** Runs the task with the files of a segment. */
type UseSegment = (
  segment: Segment,
  task: (file: SegmentFiles["file"], index: SegmentFiles["index"]) => Promise<void>,
) => Promise<void>;

function useOf(segments: SegmentList): UseSegment {
  return (segment, task) => segments.use(segment, ({ file, index }) => task(file, index));
}

interface ProducerSource {
  readonly segments: readonly Segment[];
  readonly logEnd: Offset;
  readonly limits: ProducerStateLimits;
}

/**
 * Makes the producers of a log that ends at the offset. Newer snapshots are of a past that was cut: removed, durably, or one
 * could come back by a power cut when the log has grown beyond it again.
 */
export async function rebuildProducers(
  env: Env,
  directory: string,
  log: ProducerSource,
  use: UseSegment,
): Promise<ProducerStates> {
  await removeSnapshots(env.files, directory, (offset) => offset > log.logEnd);
  return (await producersAt(env, directory, log, use)).states;
}

/** There is a snapshot at the offset, where a segment begins, when this resolves. */
export async function snapshotProducers(
  env: Env,
  directory: string,
  { segments, offset, limits }: Omit<ProducerSource, "logEnd"> & { readonly offset: Offset },
  use: UseSegment,
): Promise<void> {
  const log = { segments: segments.filter(({ baseOffset }) => baseOffset < offset), logEnd: offset, limits };
  const { states, snapshotAt } = await producersAt(env, directory, log, use);
  if (snapshotAt !== offset) await writeSnapshot(env.files, directory, takeSnapshot(states, offset));
}

/**
 * The producers when the log ended at the offset: from the last snapshot and the batches behind it. Where batches are missing
 * (damaged, or removed since the snapshot) nothing is known of what came before: a producer may have gone on there.
 */
async function producersAt(
  { files, clock }: Env,
  directory: string,
  log: ProducerSource,
  use: UseSegment,
): Promise<{ readonly states: ProducerStates; readonly snapshotAt: Offset | undefined }> {
  const snapshot = await newestSnapshot(files, directory, log.logEnd);
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
  return { states, snapshotAt: snapshot?.offset };
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
