import { join } from "node:path";
import { StorageFailure } from "../../common/env/files.js";
import type { FileSystem } from "../../common/env/files.js";
import type { Offset } from "../../protocol/types.js";
import { decodeCheckpoint, encodeCheckpoint } from "./checkpoint-file.js";
import { parseSegmentFileName, segmentFileName } from "./partition-directory.js";
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

/** Not synced: a snapshot that a power cut damages is noticed, and an older one with a longer replay serves as well. */
export async function writeSnapshot(files: FileSystem, directory: string, snapshot: ProducerSnapshot): Promise<void> {
  await files.writeFile(join(directory, segmentFileName(snapshot.offset, "snapshot")), snapshot.content);
}

/** The newest usable snapshot at or before the offset, if there is one. Newer ones are of a past that was cut: removed. */
export async function restoreSnapshot(
  files: FileSystem,
  directory: string,
  logEndOffset: Offset,
): Promise<{ offset: Offset; producers: ProducerStates } | undefined> {
  for (const offset of (await snapshotOffsets(files, directory)).reverse()) {
    const path = join(directory, segmentFileName(offset, "snapshot"));
    if (offset > logEndOffset) {
      await files.remove(path);
      continue;
    }
    const lines = decodeCheckpoint(await files.readFile(path));
    const producers = lines && ProducerStates.fromLines(lines);
    if (producers !== undefined) return { offset, producers };
  }
  return undefined;
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

/** Returns whether there was one. Fine when there is no directory yet. */
export async function removeSnapshots(files: FileSystem, directory: string): Promise<boolean> {
  try {
    const offsets = await snapshotOffsets(files, directory);
    for (const offset of offsets) await files.remove(join(directory, segmentFileName(offset, "snapshot")));
    return offsets.length > 0;
  } catch (error) {
    if (error instanceof StorageFailure && error.reason === "not-found") return false;
    throw error;
  }
}

async function snapshotOffsets(files: FileSystem, directory: string): Promise<Offset[]> {
  return (await files.list(directory))
    .map((name) => parseSegmentFileName(name))
    .filter((file) => file?.kind === "snapshot")
    .map((file) => (file as { offset: Offset }).offset);
}
