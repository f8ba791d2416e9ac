import { dirname } from "node:path";
import type { Env } from "../common/env/env.js";
import type { FileLock, FileSystem } from "../common/env/files.js";
import { StorageFailure } from "../common/env/files.js";
import { sleep } from "../common/env/time.js";
import type { ZooKeeperSessionToken } from "../common/env/zookeeper-connection.js";
import { SerialQueue } from "../common/serial-queue.js";
import type { BrokerId } from "../protocol/types.js";

const META_FILE = "meta.properties";
const LOCK_FILE = ".lock";
const SESSION_FILE = "zookeeper-session.json";
const FORMAT_VERSION = 1;
const LOCK_WAIT_MS = 2000;
const LOCK_POLL_MS = 20;

/** A data directory that this broker may not use, and why. */
export class DataDirectoryError extends Error {
  override readonly name = "DataDirectoryError";
}

/**
 * The directory that holds all of a broker: who it belongs to, who runs on it now, and the ZooKeeper session of that
 * process, so that the next one can end it and register at once. The logs inside belong to LogManager.
 */
export class DataDirectory {
  /** Sessions are stored one after the other: two at once would take each other's temporary file. */
  readonly #sessionWrites = new SerialQueue("session file");

  private constructor(
    private readonly env: Env,
    readonly path: string,
    private readonly brokerId: BrokerId,
    private readonly lock: FileLock,
    /** The cluster it belongs to; undefined: it is new. */
    readonly clusterId: string | undefined,
  ) {}

  /** Takes the directory for this process. Rejects with DataDirectoryError in one clear sentence. */
  static async open(env: Env, path: string, brokerId: BrokerId): Promise<DataDirectory> {
    const { files } = env;
    let lock: FileLock | undefined;
    try {
      await makeDirectoryDurably(files, path);
      lock = await lockPatiently(env, `${path}/${LOCK_FILE}`);
    } catch (error) {
      throw unusable(path, error);
    }
    if (lock === undefined)
      throw new DataDirectoryError(
        `another broker is running on ${path}; give each broker a directory of its own, or stop the other one`,
      );
    try {
      return new DataDirectory(env, path, brokerId, lock, await readClusterId(env, path, brokerId));
    } catch (error) {
      await lock.release();
      throw error instanceof DataDirectoryError ? error : unusable(path, error);
    }
  }

  /** Binds the directory to its cluster. Rejects with DataDirectoryError when it belongs to another one. */
  async bindTo(clusterId: string): Promise<void> {
    if (this.clusterId === clusterId) return;
    if (this.clusterId !== undefined) {
      throw new DataDirectoryError(
        `${this.path} belongs to cluster ${this.clusterId}, but ZooKeeper holds cluster ${clusterId}; ` +
          "check the ZooKeeper address, or give this broker a new directory (its records would not be in it)",
      );
    }
    const text = `version=${FORMAT_VERSION}\nbroker.id=${this.brokerId}\ncluster.id=${clusterId}\n`;
    try {
      await replaceFileDurably(this.env.files, `${this.path}/${META_FILE}`, text);
    } catch (error) {
      throw unusable(this.path, error);
    }
  }

  /** The session of the process that ran here before, if it left one. */
  async formerSession(): Promise<ZooKeeperSessionToken | undefined> {
    const path = `${this.path}/${SESSION_FILE}`;
    if (!(await this.env.files.exists(path))) return undefined;
    try {
      const stored = JSON.parse(Buffer.from(await this.env.files.readFile(path)).toString("utf8")) as Record<
        string,
        unknown
      >;
      const { id, password, lastZxid } = stored;
      if (typeof id !== "string" || typeof password !== "string" || typeof lastZxid !== "string") return undefined;
      return { id, password: Buffer.from(password, "base64"), lastZxid };
    } catch (error) {
      // A torn file of a crashed process: the session expires by itself, only later.
      if (error instanceof SyntaxError) return undefined;
      throw error;
    }
  }

  /** Readable by its owner only: who has the password can end the session. */
  async storeSession(token: ZooKeeperSessionToken): Promise<void> {
    const stored = { id: token.id, password: Buffer.from(token.password).toString("base64"), lastZxid: token.lastZxid };
    await this.#sessionWrites.run(async () => {
      await this.env.files.writeFile(`${this.path}/${SESSION_FILE}.tmp`, JSON.stringify(stored), { ownerOnly: true });
      await this.env.files.rename(`${this.path}/${SESSION_FILE}.tmp`, `${this.path}/${SESSION_FILE}`);
    });
  }

  async forgetSession(): Promise<void> {
    await this.#sessionWrites.run(() => this.env.files.remove(`${this.path}/${SESSION_FILE}`));
  }

  async close(): Promise<void> {
    await this.lock.release();
  }
}

/**
 * Synced records are worth nothing in a directory whose own name a power cut takes away, or that of one above it. They are
 * made one by one, so that of those that are there only the last one may not be durable: the process that made it may have
 * died before it synced that.
 */
async function makeDirectoryDurably(files: FileSystem, path: string): Promise<void> {
  const missing: string[] = [];
  let there = path;
  for (; dirname(there) !== there && !(await files.exists(there)); there = dirname(there)) missing.push(there);
  if (dirname(there) !== there) await syncMadeByUs(files, dirname(there));
  for (const directory of missing.reverse()) {
    await files.makeDirectory(directory);
    await files.syncDirectory(dirname(directory));
  }
}

/** Where this user may not even look, or nobody may write, it has made nothing that were to be synced. */
async function syncMadeByUs(files: FileSystem, directory: string): Promise<void> {
  try {
    await files.syncDirectory(directory);
  } catch (error) {
    if (!(error instanceof StorageFailure) || !["not-permitted", "read-only"].includes(error.reason)) throw error;
  }
}

/** Either the old content or the new one survives a power cut at any moment; once this resolves, the new one. */
async function replaceFileDurably(files: FileSystem, path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await files.open(temporary, "create");
  try {
    await file.truncate(0);
    await file.write([Buffer.from(text)], 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.rename(temporary, path);
  await files.syncDirectory(dirname(path));
}

/** A process that was killed takes a moment to end, and the next one may be faster. */
async function lockPatiently(env: Env, path: string): Promise<FileLock | undefined> {
  const deadlineMs = env.clock.monotonicMs() + LOCK_WAIT_MS;
  for (;;) {
    const lock = await env.files.lock(path);
    if (lock !== undefined || env.clock.monotonicMs() > deadlineMs) return lock;
    await sleep(env.timers, LOCK_POLL_MS);
  }
}

async function readClusterId(env: Env, path: string, brokerId: BrokerId): Promise<string | undefined> {
  const file = `${path}/${META_FILE}`;
  if (!(await env.files.exists(file))) return undefined;
  const lines = Buffer.from(await env.files.readFile(file))
    .toString("utf8")
    .split("\n");
  const properties = new Map(
    lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1).trim()]),
  );
  const owner = properties.get("broker.id");
  if (properties.get("version") !== String(FORMAT_VERSION)) {
    throw new DataDirectoryError(
      `${path} has format ${properties.get("version") ?? "unknown"}, this version of ottla reads ${FORMAT_VERSION}`,
    );
  }
  if (owner !== String(brokerId)) {
    throw new DataDirectoryError(
      `${path} belongs to broker ${owner ?? "unknown"}, not to broker ${brokerId}; give each broker a directory of its own`,
    );
  }
  return properties.get("cluster.id");
}

function unusable(path: string, error: unknown): Error {
  if (!(error instanceof StorageFailure)) return error instanceof Error ? error : new Error(String(error));
  const what = {
    full: "the disk is full; free some space",
    "read-only": "the file system is read-only; mount it writable or choose another directory",
    "not-permitted": "this user may not write there; change its owner or choose another directory",
    "not-found": "it cannot be made",
    "too-many-open-files": "too many files are open; raise the limit (ulimit -n)",
    exists: "there is a file in its place",
    io: "the disk answers with an input/output error",
  }[error.reason];
  return new DataDirectoryError(`the data directory ${path} cannot be used: ${what}`, { cause: error });
}
