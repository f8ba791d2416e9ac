import { join } from "node:path";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";
import type { Offset } from "../../../protocol/types.js";
import { EPOCHS_FILE } from "../files/names.js";
import type { LogSettings } from "../log-settings.js";
import type { DamagedRange } from "../segment/scan.js";
import type { Segment } from "../segment/segment.js";
import { LogDamage } from "./damage.js";
import { LogDirectory } from "./directory.js";
import type { LogDisk } from "./disk.js";
import { LogEpochs } from "./epochs.js";
import type { LeaderEpochCache } from "./leader-epoch-cache.js";
import type { LogContext, LogIdentity } from "./log-context.js";
import type { LogOffsets } from "./offsets.js";
import type { ProducerStates } from "./producer-states.js";
import { LogProducers } from "./producers.js";
import { SegmentList } from "./segment-list.js";
import type { PlannedWrite } from "./segment-list.js";
import { LogTail } from "./tail.js";

const TAIL_BYTES_PER_LOG_MAX = 16 * 1024 * 1024;

/** What recovery found, and a new log begins with. */
export interface RecoveredLog {
  /** In order; the last one is active and has its files open. Empty: there are no files yet. */
  readonly segments: Segment[];
  readonly offsets: LogOffsets;
  readonly epochs: LeaderEpochCache;
  readonly producers: ProducerStates;
  readonly damage: readonly DamagedRange[];
  /** Whether the log has a directory on the disk. */
  readonly hasDirectory: boolean;
  /** The directory, and the names in it, are there after any power cut. */
  readonly isDirectoryDurable: boolean;
  readonly wasCut: boolean;
}

/**
 * What a log holds, as far as memory knows: segments, offsets, epochs, producers, damage and the tail. Here are the changes
 * that concern several of them at once. Each is made in one turn of the event loop, so that no reader sees them disagree;
 * files follow, or have gone ahead.
 */
export class LogContent {
  /** For messages: the name of its directory. */
  readonly name: string;
  readonly directory: LogDirectory;
  readonly segments: SegmentList;
  readonly offsets: LogOffsets;
  readonly epochs: LogEpochs;
  readonly producers: LogProducers;
  readonly damage: LogDamage;
  readonly tail: LogTail;
  #cuts = 0;
  /** The log start that the checkpoint knows; it must know the true one before the flushed offset moves beyond it. */
  durableStart = toOffset(0);

  constructor(
    private readonly context: LogContext,
    identity: LogIdentity,
    disk: LogDisk,
    /** Replaced as a whole. */
    public settings: LogSettings,
    recovered: RecoveredLog,
    onDamage: () => void,
  ) {
    const { env } = context;
    this.name = identity.directoryName;
    this.offsets = recovered.offsets;
    this.directory = new LogDirectory(context, identity, disk, recovered);
    this.damage = new LogDamage(this.name, context.logger, this.offsets, recovered.damage, onDamage);
    this.segments = new SegmentList(
      context,
      this.directory,
      recovered.segments,
      this.damage,
      () => this.settings,
      () => this.cuts,
    );
    this.epochs = new LogEpochs(env.files, join(this.directory.path, EPOCHS_FILE), recovered.epochs);
    this.producers = new LogProducers(env, this.directory.path, recovered.producers);
    this.tail = new LogTail(context.tailBudget, TAIL_BYTES_PER_LOG_MAX);
  }

  /** Counts cuts, so that a read that was under way notices one. */
  get cuts(): number {
    return this.#cuts;
  }

  /**
   * Gives batches (checked and stamped) their place behind all others. They are part of the log when they are written.
   * Throws StorageFailure and leaves everything as it was.
   */
  plan(records: Buffer, batches: readonly RecordBatch[], wallMs: number): PlannedWrite[] {
    const { all } = this.segments;
    let begun = all.length;
    const writes = this.segments.plan(records, batches);
    const { baseOffset } = batches[0] as RecordBatch;
    const { endOffset } = batches[batches.length - 1] as RecordBatch;
    this.offsets.plannedTo(endOffset);
    for (const batch of batches) {
      // The producers as they are where a segment begins: once it is the first one, nothing else says what they sent before.
      const base = all[begun]?.baseOffset;
      if (base !== undefined && base <= batch.baseOffset) {
        this.producers.snapshotAt(base);
        begun += 1;
      }
      this.epochs.assign(batch.leaderEpoch, batch.baseOffset);
      this.producers.update(batch, wallMs, this.settings);
    }
    this.tail.append(baseOffset, endOffset, records);
    return writes;
  }

  /** Takes back all that was planned and not written. Returns segments that have no batch left; they are off the list. */
  dropPlanned(): Segment[] {
    const { logEnd } = this.offsets;
    this.offsets.dropPlanned();
    this.#cutEnd(logEnd);
    return this.segments.takeUnwritten();
  }

  /** Forgets what is at or behind the offset, but for the segments. */
  forgetFrom(offset: Offset): void {
    this.offsets.truncateTo(offset);
    this.#cutEnd(offset);
    this.damage.cutEnd(offset);
  }

  #cutEnd(offset: Offset): void {
    this.#cuts += 1;
    this.tail.cutEnd(offset);
    this.epochs.cutEnd(offset);
    this.producers.cutEnd(offset);
  }

  /**
   * An empty log begins at the offset, before the checkpoint knows; perhaps in front of where it began: what was said to be
   * deleted for good may come again.
   */
  startAt(offset: Offset): void {
    this.offsets.startAt(offset);
    if (offset < this.durableStart) this.durableStart = offset;
  }

  /** Forgets what is below the offset, but for the segments. */
  advanceLogStart(offset: Offset): void {
    this.offsets.advanceLogStart(offset);
    this.epochs.cutStart(this.offsets.logStart);
    this.damage.cutStart(this.offsets.logStart);
  }

  /** The log start as it is now is durable when this resolves, whoever moved it. Returns whether it was not. */
  async checkpointStart(checkpoint: () => Promise<void> = () => this.context.checkpointNow()): Promise<boolean> {
    if (this.offsets.logStart <= this.durableStart) return false;
    await checkpoint();
    return true;
  }

  /** The log is emptied: nothing of its producers is left, in memory or durably. */
  async clearProducers(): Promise<void> {
    this.producers.clear();
    if (this.directory.exists) await this.producers.removeSnapshots();
  }

  /** The epochs as they are now are durable when this resolves. A log without a directory has none to remember. */
  async saveEpochs(): Promise<void> {
    if (this.directory.exists) await this.epochs.save();
  }

  async close(): Promise<void> {
    await this.directory.close();
    await this.segments.close();
  }
}
