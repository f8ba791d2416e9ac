import { join } from "node:path";
import { invariant } from "../../../common/assert.js";
import { StorageFailure } from "../../../common/env/files.js";
import type { File, FileSystem } from "../../../common/env/files.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";
import type { Offset } from "../../../protocol/types.js";
import { segmentFileName } from "../files/names.js";
import type { SegmentFileKind } from "../files/names.js";
import { OFFSET_INDEX_ENTRY_BYTES, OffsetIndex } from "./offset-index.js";
import type { RollFacts } from "./roll.js";
import { scanBatches, surveySegment } from "./scan.js";
import type { DamagedRange, ScanStart } from "./scan.js";
import { SegmentFiles } from "./segment-files.js";
import { TIME_INDEX_ENTRY_BYTES, TimeIndex } from "./time-index.js";

/**
 * One `.log` file and its two indexes. Knows how far the file goes, what is on its way into it, and what of the indexes is
 * on disk. Does not write batches itself: LogWriter does, and tells.
 *
 *   0            syncedBytes        sizeBytes            plannedBytes
 *   |  durable       |    written       |  queued, no reader sees it  |
 */
export class Segment {
  /** Offset of the next batch, counting the queued ones. At a roll it becomes the base offset of the next segment. */
  endOffset: Offset;
  sizeBytes = 0;
  plannedBytes = 0;
  syncedBytes = 0;
  /** -1 while there is no record. Never less than the true one; may be more after a cut, which only keeps records longer. */
  maxTimestamp = -1;
  firstTimestamp: number | undefined;
  /** Whether `maxTimestamp` speaks of all records; not so for a closed segment of an earlier run until its index is read. */
  timesKnown = true;
  /** Open files: always those of the active segment, those of others while the cache has them. */
  files: SegmentFiles | undefined;
  /** Closed for good: both indexes are on disk, each with its last entry at the end offset. */
  sealed = false;
  #indexedUpTo = 0;
  /** How far the segment was planned when the index files were last written. */
  #indexesWrittenTo = 0;
  #indexEntriesOnDisk = 0;
  #timeEntriesOnDisk = 0;

  constructor(
    private readonly fileSystem: FileSystem,
    private readonly directory: string,
    readonly baseOffset: Offset,
  ) {
    this.endOffset = baseOffset;
  }

  /** An empty segment with its file. Synchronous: a roll stands in the middle of an append. Throws StorageFailure. */
  static create(fileSystem: FileSystem, directory: string, baseOffset: Offset): Segment {
    const segment = new Segment(fileSystem, directory, baseOffset);
    const file = fileSystem.openSync(segment.path("log"), "create");
    // A file of that name is what a crash left of a removed segment.
    if (file.size() > 0) file.truncateSync(0);
    segment.files = new SegmentFiles(file, new OffsetIndex(), new TimeIndex());
    return segment;
  }

  path(kind: SegmentFileKind): string {
    return join(this.directory, segmentFileName(this.baseOffset, kind));
  }

  /** The files of a segment that is written to, or will be. */
  get openFiles(): SegmentFiles {
    const { files } = this;
    invariant(files !== undefined, () => `${this.path("log")} is written to, but not open`);
    return files;
  }

  /** Where a scan begins that an entry of the index leads to; without one, at the first batch. */
  scanFrom(entry: { readonly position: number; readonly relativeOffset: number } | undefined): ScanStart {
    return {
      position: entry?.position ?? 0,
      offset: toOffset(this.baseOffset + (entry?.relativeOffset ?? 0)),
      endPosition: this.sizeBytes,
    };
  }

  /** What `shouldRoll` asks for. */
  get rollFacts(): RollFacts {
    return {
      sizeBytes: this.plannedBytes,
      indexEntries: this.files?.index.count ?? 0,
      baseOffset: this.baseOffset,
      firstTimestamp: this.firstTimestamp,
    };
  }

  /** Takes note of a batch (stamped) that will stand behind all others; the indexes get an entry when one is due. */
  plan(batch: RecordBatch, indexIntervalBytes: number, forceEntry = false): void {
    const relativeOffset = batch.baseOffset - this.baseOffset;
    if (forceEntry || this.plannedBytes - this.#indexedUpTo >= indexIntervalBytes) {
      const { index, timeIndex } = this.openFiles;
      index.append(relativeOffset, this.plannedBytes);
      appendTime(timeIndex, this.maxTimestamp, relativeOffset);
      this.#indexedUpTo = this.plannedBytes;
    }
    const { maxTimestamp } = batch;
    if (maxTimestamp > this.maxTimestamp) this.maxTimestamp = maxTimestamp;
    this.firstTimestamp ??= maxTimestamp;
    this.plannedBytes += batch.sizeBytes;
    this.endOffset = batch.endOffset;
  }

  /** A read that begins at the batch must not walk over what is in front of it: that is damaged. For open segments. */
  indexBehindDamage(offset: Offset, position: number): void {
    const before = this.files?.index.insert(offset - this.baseOffset, position);
    if (before !== undefined) this.#indexEntriesOnDisk = Math.min(this.#indexEntriesOnDisk, before);
  }

  /** Forgets what stands at or behind the position. Memory only. */
  cut(offset: Offset, position: number): void {
    this.endOffset = offset;
    this.plannedBytes = position;
    this.sizeBytes = Math.min(this.sizeBytes, position);
    this.syncedBytes = Math.min(this.syncedBytes, position);
    this.#indexesWrittenTo = Math.min(this.#indexesWrittenTo, position);
    this.sealed = false;
    this.files?.index.cut(offset - this.baseOffset, position);
    this.files?.timeIndex.cut(offset - this.baseOffset);
    this.#indexedUpTo = this.files?.index.entry(this.files.index.count - 1)?.position ?? 0;
    if (position === 0) {
      this.firstTimestamp = undefined;
      this.maxTimestamp = -1;
    }
  }

  /** Brings the index files up to the indexes in memory. Not synced: a bad entry is noticed and costs a longer walk. */
  async writeIndexes(): Promise<void> {
    const { index, timeIndex } = this.openFiles;
    const { plannedBytes } = this;
    const indexCount = index.count;
    const timeCount = timeIndex.count;
    const indexFrom = Math.min(this.#indexEntriesOnDisk, indexCount);
    const timeFrom = Math.min(this.#timeEntriesOnDisk, timeCount);
    const indexBytes = index.encode(indexFrom);
    const timeBytes = timeIndex.encode(timeFrom);
    await replaceEnd(this.fileSystem, this.path("index"), indexBytes, indexFrom * OFFSET_INDEX_ENTRY_BYTES, false);
    await replaceEnd(this.fileSystem, this.path("timeindex"), timeBytes, timeFrom * TIME_INDEX_ENTRY_BYTES, false);
    this.#indexEntriesOnDisk = indexCount;
    this.#timeEntriesOnDisk = timeCount;
    this.#indexesWrittenTo = plannedBytes;
  }

  /** Planned bytes that the index files know nothing of. */
  get unindexedBytes(): number {
    return this.plannedBytes - this.#indexesWrittenTo;
  }

  /**
   * Cuts the index files to what is in memory, durably. Needed whenever the log itself is cut: entries of the old end
   * would come back after a power cut and point into the middle of new batches.
   */
  async cutIndexFiles(): Promise<void> {
    const { index, timeIndex } = this.openFiles;
    const indexCount = Math.min(this.#indexEntriesOnDisk, index.count);
    const timeCount = Math.min(this.#timeEntriesOnDisk, timeIndex.count);
    await this.#cutIndexFile("index", indexCount * OFFSET_INDEX_ENTRY_BYTES);
    await this.#cutIndexFile("timeindex", timeCount * TIME_INDEX_ENTRY_BYTES);
    this.#indexEntriesOnDisk = indexCount;
    this.#timeEntriesOnDisk = timeCount;
  }

  /** What is not there needs no cut, and a full disk might not let it be made. */
  async #cutIndexFile(kind: "index" | "timeindex", lengthBytes: number): Promise<void> {
    const path = this.path(kind);
    if (await this.fileSystem.exists(path)) await replaceEnd(this.fileSystem, path, Buffer.alloc(0), lengthBytes, true);
  }

  /** The last step of a closed segment, once all its bytes are written: completes the indexes and writes them. */
  async seal(): Promise<void> {
    const { index, timeIndex } = this.openFiles;
    const relativeEnd = this.endOffset - this.baseOffset;
    if (this.plannedBytes > 0) index.append(relativeEnd, this.plannedBytes);
    appendTime(timeIndex, this.maxTimestamp, relativeEnd);
    await this.writeIndexes();
    this.sealed = true;
  }

  /**
   * Opens the files of a closed segment. Indexes that are not complete are rebuilt from the batches, and damage that this
   * brings to light is returned.
   */
  async open(indexIntervalBytes: number): Promise<{ files: SegmentFiles; damage: readonly DamagedRange[] }> {
    const file = await this.fileSystem.open(this.path("log"), "read");
    try {
      const files = new SegmentFiles(file, await this.readIndex(), await this.readTimeIndex());
      const lastTime = files.timeIndex.last();
      const relativeEnd = this.endOffset - this.baseOffset;
      const last = files.index.entry(files.index.count - 1);
      const complete =
        last?.relativeOffset === relativeEnd &&
        last.position === file.size() &&
        lastTime?.relativeOffset === relativeEnd;
      if (complete) {
        this.maxTimestamp = lastTime.maxTimestampBefore;
        this.timesKnown = true;
        this.sealed = true;
        this.#indexEntriesOnDisk = files.index.count;
        this.#timeEntriesOnDisk = files.timeIndex.count;
        return { files, damage: [] };
      }
      return await this.rebuild(file, indexIntervalBytes);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Makes the indexes of a closed segment anew, by reading all of it. */
  async rebuild(
    file: File,
    indexIntervalBytes: number,
  ): Promise<{ files: SegmentFiles; damage: readonly DamagedRange[] }> {
    const files = new SegmentFiles(file, new OffsetIndex(), new TimeIndex());
    const model = new Segment(this.fileSystem, this.directory, this.baseOffset);
    model.files = files;
    const survey = await surveySegment(
      file,
      { position: 0, endPosition: file.size(), offset: this.baseOffset, endOffset: this.endOffset },
      this.endOffset,
      (batch, position, afterDamage) => {
        model.plannedBytes = position;
        model.plan(batch, indexIntervalBytes, afterDamage);
      },
    );
    files.index.append(this.endOffset - this.baseOffset, Math.max(file.size(), 1));
    appendTime(files.timeIndex, model.maxTimestamp, this.endOffset - this.baseOffset);
    this.maxTimestamp = Math.max(this.maxTimestamp, model.maxTimestamp);
    this.timesKnown = true;
    this.#indexEntriesOnDisk = 0;
    this.#timeEntriesOnDisk = 0;
    return { files, damage: survey.damage };
  }

  /** Adopts indexes that were read from disk, as far as they reach into what is good. For recovery. */
  resumeIndexes(files: SegmentFiles, indexEntriesOnDisk: number, timeEntriesOnDisk: number): void {
    this.files = files;
    this.#indexEntriesOnDisk = indexEntriesOnDisk;
    this.#timeEntriesOnDisk = timeEntriesOnDisk;
    this.#indexedUpTo = files.index.entry(files.index.count - 1)?.position ?? 0;
    const last = files.timeIndex.last();
    if (last !== undefined && last.maxTimestampBefore > this.maxTimestamp) this.maxTimestamp = last.maxTimestampBefore;
  }

  async readIndex(): Promise<OffsetIndex> {
    return OffsetIndex.decode(await readWhole(this.fileSystem, this.path("index")));
  }

  async readTimeIndex(): Promise<TimeIndex> {
    return TimeIndex.decode(await readWhole(this.fileSystem, this.path("timeindex")));
  }

  /** Reads the first batch again, for the time by which the segment is rolled. */
  async readFirstTimestamp(): Promise<void> {
    const { file, index } = this.openFiles;
    const start = { position: 0, endPosition: index.entry(0)?.position ?? this.sizeBytes, offset: this.baseOffset };
    await scanBatches(file, start, (batch) => {
      this.firstTimestamp = batch.maxTimestamp;
      return false;
    });
  }

  /** Removes the files, the log last: an index without a log is no segment. */
  async removeFiles(): Promise<void> {
    for (const kind of ["index", "timeindex", "snapshot", "log"] as const)
      await this.fileSystem.remove(this.path(kind));
  }
}

function appendTime(timeIndex: TimeIndex, maxTimestampBefore: number, relativeOffset: number): void {
  // After a cut there may be an entry at this offset already; it says the same.
  const last = timeIndex.last();
  if (last === undefined || last.relativeOffset < relativeOffset) timeIndex.append(maxTimestampBefore, relativeOffset);
}

async function readWhole(fileSystem: FileSystem, path: string): Promise<Buffer> {
  try {
    const bytes = await fileSystem.readFile(path);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  } catch (error) {
    if (error instanceof StorageFailure && error.reason === "not-found") return Buffer.alloc(0);
    throw error;
  }
}

async function replaceEnd(
  fileSystem: FileSystem,
  path: string,
  bytes: Buffer,
  position: number,
  durably: boolean,
): Promise<void> {
  const file = await fileSystem.open(path, "create");
  try {
    if (file.size() > position) await file.truncate(position);
    if (bytes.length > 0) await file.write([bytes], position);
    if (durably) await file.sync();
  } finally {
    await file.close();
  }
}
