import fs from "node:fs";
import { StorageFailure } from "./files.js";
import type { File, FileSystem, StorageFailureReason } from "./files.js";
import { tryLock } from "./node-file-lock.js";

/**
 * The real disk, over `node:fs`. Asynchronous calls run in Node's thread pool; the synchronous ones block the event
 * loop and are for small writes to the page cache.
 */
export const nodeFileSystem: FileSystem = {
  open: (path, mode) =>
    attempt(
      "open",
      path,
      async () => new NodeFile(path, await called<number>((done) => fs.open(path, openFlags[mode], done))),
    ),
  openSync: (path, mode) => attemptSync("open", path, () => new NodeFile(path, fs.openSync(path, openFlags[mode]))),
  list: (path) => attempt("list", path, async () => (await fs.promises.readdir(path)).sort()),
  makeDirectory: (path) =>
    attempt("make directory", path, async () => {
      await fs.promises.mkdir(path, { recursive: true });
    }),
  makeDirectorySync: (path) =>
    attemptSync("make directory", path, () => {
      fs.mkdirSync(path, { recursive: true });
    }),
  syncDirectory: (path) => attempt("sync directory", path, () => syncDirectory(path)),
  rename: (from, to) => attempt("rename", from, () => fs.promises.rename(from, to)),
  remove: (path) => attempt("remove", path, () => fs.promises.rm(path, { force: true })),
  removeTree: (path) => attempt("remove", path, () => fs.promises.rm(path, { recursive: true, force: true })),
  exists: (path) =>
    attempt("look for", path, () =>
      fs.promises.stat(path).then(
        () => true,
        (error: unknown) => {
          if (storageFailureReason(error) === "not-found") return false;
          throw error;
        },
      ),
    ),
  readFile: (path) => attempt("read", path, () => fs.promises.readFile(path)),
  writeFile: (path, content, options) =>
    attempt("write", path, () => writeWhole(path, content, options?.ownerOnly ?? false)),
  freeBytes: (path) =>
    attempt("measure", path, async () => {
      const { bavail, bsize } = await fs.promises.statfs(path);
      return bavail * bsize;
    }),
  lock: (path) =>
    attempt("lock", path, async () => {
      const lock = await tryLock(path);
      return lock && { release: () => attempt("unlock", path, () => lock.release()) };
    }),
};

const openFlags = {
  read: fs.constants.O_RDONLY,
  write: fs.constants.O_RDWR,
  create: fs.constants.O_RDWR | fs.constants.O_CREAT,
};

class NodeFile implements File {
  /** Undefined once `close` was called. */
  #fd: number | undefined;
  /** Operations in the thread pool. A descriptor closed under one could be another file's by the time it runs. */
  #inFlight = 0;
  #onIdle: (() => void) | undefined;
  #closed: Promise<void> | undefined;

  constructor(
    readonly path: string,
    fd: number,
  ) {
    this.#fd = fd;
  }

  size(): number {
    return attemptSync("measure", this.path, () => fs.fstatSync(this.#openFd()).size);
  }

  writeSync(pieces: readonly Uint8Array[], position: number): void {
    attemptSync("write", this.path, () => {
      const fd = this.#openFd();
      let rest: readonly Uint8Array[] = pieces;
      let at = position;
      for (let count = bytesOf(rest); count > 0;) {
        const first = rest[0] as Uint8Array;
        const written = rest.length === 1 ? fs.writeSync(fd, first, 0, first.length, at) : fs.writevSync(fd, rest, at);
        at += written;
        count -= written;
        if (count > 0) rest = withoutFirst(rest, written);
      }
    });
  }

  write(pieces: readonly Uint8Array[], position: number): Promise<void> {
    return this.#inPool("write", async (fd) => {
      let rest: readonly Uint8Array[] = pieces;
      let at = position;
      for (let count = bytesOf(rest); count > 0;) {
        const written = await called<number>((done) => fs.writev(fd, rest, at, done));
        at += written;
        count -= written;
        if (count > 0) rest = withoutFirst(rest, written);
      }
    });
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return this.#inPool("read", async (fd) => {
      let count = 0;
      while (count < target.length) {
        const offset = count;
        const got = await called<number>((done) =>
          fs.read(fd, target, offset, target.length - offset, position + offset, done),
        );
        if (got === 0) break;
        count += got;
      }
      return count;
    });
  }

  readSync(target: Uint8Array, position: number): number {
    return attemptSync("read", this.path, () => {
      const fd = this.#openFd();
      let count = 0;
      while (count < target.length) {
        const got = fs.readSync(fd, target, count, target.length - count, position + count);
        if (got === 0) break;
        count += got;
      }
      return count;
    });
  }

  sync(): Promise<void> {
    return this.#inPool("sync", (fd) => called<void>((done) => fs.fdatasync(fd, done)));
  }

  truncate(length: number): Promise<void> {
    return this.#inPool("truncate", (fd) => called<void>((done) => fs.ftruncate(fd, length, done)));
  }

  truncateSync(length: number): void {
    attemptSync("truncate", this.path, () => fs.ftruncateSync(this.#openFd(), length));
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const fd = this.#openFd();
    this.#fd = undefined;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    await attempt("close", this.path, () => called<void>((done) => fs.close(fd, done)));
  }

  async #inPool<T>(operation: string, work: (fd: number) => Promise<T>): Promise<T> {
    this.#inFlight += 1;
    try {
      return await attempt(operation, this.path, async () => work(this.#openFd()));
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#onIdle?.();
    }
  }

  #openFd(): number {
    if (this.#fd === undefined) throw new Error("the file was closed here");
    return this.#fd;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const fd = await called<number>((done) => fs.open(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY, done));
  try {
    await called<void>((done) => fs.fsync(fd, done));
  } finally {
    await called<void>((done) => fs.close(fd, done));
  }
}

async function writeWhole(path: string, content: Uint8Array | string, ownerOnly: boolean): Promise<void> {
  const handle = await fs.promises.open(path, "w", ownerOnly ? 0o600 : 0o666);
  try {
    // The mode above counts only for a new file; an existing one must lose its readers before it gets the content.
    if (ownerOnly) await handle.chmod(0o600);
    await handle.writeFile(content);
  } finally {
    await handle.close();
  }
}

function bytesOf(pieces: readonly Uint8Array[]): number {
  let count = 0;
  for (const piece of pieces) count += piece.length;
  return count;
}

/** What is left of `pieces` after a short write of `count` bytes. */
function withoutFirst(pieces: readonly Uint8Array[], count: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let skip = count;
  for (const piece of pieces) {
    if (skip < piece.length) rest.push(skip === 0 ? piece : piece.subarray(skip));
    skip = Math.max(0, skip - piece.length);
  }
  return rest;
}

/** A call with a callback, as a promise. */
function called<T>(start: (done: (error: Error | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => start((error, value) => (error ? reject(error) : resolve(value as T))));
}

async function attempt<T>(operation: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw storageFailure(operation, path, error);
  }
}

function attemptSync<T>(operation: string, path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw storageFailure(operation, path, error);
  }
}

function storageFailure(operation: string, path: string, cause: unknown): StorageFailure {
  return new StorageFailure(storageFailureReason(cause), path, operation, { cause });
}

function storageFailureReason(error: unknown): StorageFailureReason {
  switch ((error as NodeJS.ErrnoException).code) {
    case "ENOSPC":
    case "EDQUOT":
      return "full";
    case "EROFS":
      return "read-only";
    case "ENOENT":
    case "ENOTDIR":
      return "not-found";
    case "EACCES":
    case "EPERM":
      return "not-permitted";
    case "EMFILE":
    case "ENFILE":
      return "too-many-open-files";
    case "EEXIST":
    case "ENOTEMPTY":
      return "exists";
    default:
      return "io";
  }
}
