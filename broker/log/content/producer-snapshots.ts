import { join } from "node:path";
import type { FileSystem } from "../../../common/env/files.js";
import type { Offset } from "../../../protocol/types.js";
import { decodeCheckpoint, encodeCheckpoint } from "../files/checkpoint-file.js";
import { parseSegmentFileName, segmentFileName } from "../files/names.js";
import { ProducerStates } from "./producer-states.js";

/** The producers as they were when the log ended at the offset. */
export interface ProducerSnapshot {
  readonly offset: Offset;
  readonly content: string;
}

/** Taken in one turn of the event loop; written later. */
export function takeSnapshot(producers: ProducerStates, offset: Offset): ProducerSnapshot {
  return { offset, content: encodeCheckpoint(producers.toLines()) };
}

/**
 * Not synced: a snapshot that a power cut damages is noticed, and an older one with a longer replay serves as well, for as long
 * as the batches are there (`syncSnapshot`).
 */
export async function writeSnapshot(files: FileSystem, directory: string, snapshot: ProducerSnapshot): Promise<void> {
  await files.writeFile(join(directory, segmentFileName(snapshot.offset, "snapshot")), snapshot.content);
}

/** The snapshot at the offset is there for good. */
export async function syncSnapshot(files: FileSystem, directory: string, offset: Offset): Promise<void> {
  const file = await files.open(join(directory, segmentFileName(offset, "snapshot")), "write");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await files.syncDirectory(directory);
}

/** The newest usable snapshot at or before the offset, if there is one. */
export async function newestSnapshot(
  files: FileSystem,
  directory: string,
  before: Offset,
): Promise<{ offset: Offset; producers: ProducerStates } | undefined> {
  const offsets = (await snapshotOffsets(files, directory)).filter((offset) => offset <= before);
  for (const offset of offsets.reverse()) {
    const path = join(directory, segmentFileName(offset, "snapshot"));
    const lines = decodeCheckpoint(await files.readFile(path));
    const producers = lines && ProducerStates.fromLines(lines);
    if (producers !== undefined) return { offset, producers };
  }
  return undefined;
}

/** Removes the snapshots that `which` names, all if it is not given, durably. */
export async function removeSnapshots(
  files: FileSystem,
  directory: string,
  which: (offset: Offset) => boolean = () => true,
): Promise<void> {
  const removed = (await snapshotOffsets(files, directory)).filter(which);
  for (const offset of removed) await files.remove(join(directory, segmentFileName(offset, "snapshot")));
  if (removed.length > 0) await files.syncDirectory(directory);
}

/**
 * Removes snapshots that are neither at the base of a segment (there a truncation may need them) nor among the newest
 * two.
 */
export async function removeOldSnapshots(
  files: FileSystem,
  directory: string,
  isSegmentBase: (offset: Offset) => boolean,
): Promise<void> {
  const offsets = await snapshotOffsets(files, directory);
  for (const offset of offsets.slice(0, -2)) {
    if (!isSegmentBase(offset)) await files.remove(join(directory, segmentFileName(offset, "snapshot")));
  }
}

async function snapshotOffsets(files: FileSystem, directory: string): Promise<Offset[]> {
  return (await files.list(directory))
    .map((name) => parseSegmentFileName(name))
    .filter((file) => file?.kind === "snapshot")
    .map((file) => (file as { offset: Offset }).offset);
}
