import { StorageFailure } from "../../../common/env/files.js";
import type { FileSystem } from "../../../common/env/files.js";
import { parseOffset } from "../../../protocol/types.js";
import type { Offset, TopicId } from "../../../protocol/types.js";
import { decodeCheckpoint, encodeCheckpoint } from "./checkpoint-file.js";

/*
 * Names inside a log directory.
 *
 *   orders-3/                          one partition
 *     partition.metadata               which incarnation of the topic it belongs to
 *     leader-epoch-checkpoint
 *     00000000000000000000.log         and .index, .timeindex, .snapshot
 *   orders-3~deleted-0/                renamed before it is removed
 *   orders-3~leaving-0/                a replica that does not belong here, and the checkpoints may know it yet
 *   orders-3~stray-0/                  the same, kept for a person to look at
 *
 * `~` cannot stand in a topic name, so no partition's directory can be taken for one that was renamed.
 */
export const METADATA_FILE = "partition.metadata";
export const EPOCHS_FILE = "leader-epoch-checkpoint";

/** Endings of the files that belong to a segment. */
export type SegmentFileKind = "log" | "index" | "timeindex" | "snapshot";

/** The directory of a partition, relative to the log directory. */
export function partitionDirectoryName(topic: string, partition: number): string {
  return `${topic}-${partition}`;
}

/** What a directory's name says; undefined when it is not a partition's. */
export function parsePartitionDirectoryName(name: string): { topic: string; partition: number } | undefined {
  const match = /^([A-Za-z0-9._-]{1,249})-(0|[1-9][0-9]{0,8})$/.exec(name);
  if (match === null) return undefined;
  return { topic: match[1] as string, partition: Number(match[2]) };
}

/**
 * Why a directory is out of use: to be removed; to be kept for a person; or to be kept, and the checkpoints may still know it by
 * its former name.
 */
export type Aside = "deleted" | "stray" | "leaving";

/** The name for a directory that is out of use; `taken` are the names that exist. */
export function asideName(name: string, why: Aside, taken: (name: string) => boolean): string {
  const number = name.slice(name.lastIndexOf("-"));
  for (let count = 0; ; count += 1) {
    // A file system allows 255 bytes; the longest topic name leaves no room.
    const aside = `${name.slice(0, name.length - number.length).slice(0, 220)}${number}~${why}-${count}`;
    if (!taken(aside)) return aside;
  }
}

/** The directory's name before it was renamed for that reason; undefined when it was not. Long names have lost their end. */
export function nameBefore(aside: string, ...reasons: readonly Aside[]): string | undefined {
  const match = /^(.*)~([a-z]+)-[0-9]+$/.exec(aside);
  return match !== null && (reasons as readonly string[]).includes(match[2] as string) ? match[1] : undefined;
}

/** `00000000000000000042.log` */
export function segmentFileName(baseOffset: Offset, kind: SegmentFileKind): string {
  return `${String(baseOffset).padStart(20, "0")}.${kind}`;
}

/** What a file's name says; undefined when it does not belong to a segment. */
export function parseSegmentFileName(name: string): { offset: Offset; kind: SegmentFileKind } | undefined {
  const match = /^([0-9]{20})\.(log|index|timeindex|snapshot)$/.exec(name);
  if (match === null) return undefined;
  const offset = parseOffset(Number(match[1]));
  return offset === undefined ? undefined : { offset, kind: match[2] as SegmentFileKind };
}

/** The content of `partition.metadata`. */
export function encodePartitionMetadata(topicId: TopicId): string {
  return encodeCheckpoint([`topic_id ${topicId}`]);
}

/** The topic id that a partition's directory carries; undefined when the file is missing or damaged. */
export async function readPartitionMetadata(files: FileSystem, path: string): Promise<TopicId | undefined> {
  try {
    const line = decodeCheckpoint(await files.readFile(path))?.[0];
    return line?.startsWith("topic_id ") ? line.slice("topic_id ".length) : undefined;
  } catch (error) {
    if (error instanceof StorageFailure && error.reason === "not-found") return undefined;
    throw error;
  }
}
