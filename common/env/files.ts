/**
 * The disk as the log sees it. It exists so that disks which tear, fill up, lie and lose unsynced writes can be
 * simulated. Positions and lengths are in bytes. Every failure is a StorageFailure.
 *
 * What callers may assume of a real disk, and the simulated one withdraws everything else: bytes written but not synced
 * survive the death of the process, not a power cut; after a power cut any subset of them may be there, in any order; a
 * created, renamed or removed name is durable only after `syncDirectory` of its parent.
 */
export interface FileSystem {
  /** `create` makes the file when missing and never cuts an existing one. `read` and `write` need it to exist. */
  open(path: string, mode: "read" | "write" | "create"): Promise<File>;
  /** The same in this turn of the event loop; for the hot path, which creates a partition's files at its first append. */
  openSync(path: string, mode: "read" | "write" | "create"): File;
  /** Names (not paths) in a directory, sorted. */
  list(path: string): Promise<string[]>;
  /** Also makes missing parents; fine when it exists. */
  makeDirectory(path: string): Promise<void>;
  makeDirectorySync(path: string): void;
  /** Makes created, renamed and removed names in this directory durable. */
  syncDirectory(path: string): Promise<void>;
  /** Replaces the target if it exists, atomically. */
  rename(from: string, to: string): Promise<void>;
  /** Fine when it does not exist. */
  remove(path: string): Promise<void>;
  removeTree(path: string): Promise<void>;
  exists(path: string): Promise<boolean>;
  /** The whole file. For small ones. */
  readFile(path: string): Promise<Uint8Array>;
  /** Writes a small file, readable by its owner only when `ownerOnly`. Not synced, not atomic: see checkpoint-file. */
  writeFile(path: string, content: Uint8Array | string, options?: { readonly ownerOnly?: boolean }): Promise<void>;
  /** Bytes that may still be written to the volume that holds `path`. */
  freeBytes(path: string): Promise<number>;
  /** Takes an exclusive lock on a file, made when missing; undefined when another living process holds it. */
  lock(path: string): Promise<FileLock | undefined>;
}

export interface FileLock {
  release(): Promise<void>;
}

export interface File {
  readonly path: string;
  size(): number;
  /** Blocks the event loop: for small writes to an idle log. Writes all of it or throws. */
  writeSync(pieces: readonly Uint8Array[], position: number): void;
  /** One gathered write. Writes all of it or rejects; how much was written before a failure is unknown. */
  write(pieces: readonly Uint8Array[], position: number): Promise<void>;
  /** Fills as much of `target` as the file has; resolves with the count. */
  read(target: Uint8Array, position: number): Promise<number>;
  readSync(target: Uint8Array, position: number): number;
  /** Makes written bytes and the length durable (fdatasync). */
  sync(): Promise<void>;
  truncate(length: number): Promise<void>;
  truncateSync(length: number): void;
  /** Idempotent. */
  close(): Promise<void>;
}

export type StorageFailureReason =
  "full" | "read-only" | "not-found" | "not-permitted" | "io" | "too-many-open-files" | "exists";

export class StorageFailure extends Error {
  override readonly name = "StorageFailure";
  constructor(
    readonly reason: StorageFailureReason,
    readonly path: string,
    operation: string,
    options?: ErrorOptions,
  ) {
    super(`${operation} ${path}: ${reason}`, options);
  }
}
