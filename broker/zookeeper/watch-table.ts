import { invariant } from "../../common/assert.js";
import type { Timer, Timers } from "../../common/env/time.js";
import type {
  ZooKeeperRequest,
  ZooKeeperResult,
  ZooKeeperStat,
  ZooKeeperWatchEvent,
} from "../../common/env/zookeeper-connection.js";
import type { Logger } from "../../common/logger.js";
import { describeRequest, errorOfCode, ZooKeeperError } from "./zookeeper-error.js";

/** What stands in a node, and its metadata, read together. */
export interface ZooKeeperNode {
  readonly data: Uint8Array;
  readonly stat: ZooKeeperStat;
}

/** A subscription to a node. */
export interface Watch {
  /** No snapshot is delivered after this. Idempotent. */
  close(): void;
}

type Snapshot = { readonly kind: "data"; readonly node: ZooKeeperNode | undefined } | ChildrenSnapshot;
interface ChildrenSnapshot {
  readonly kind: "children";
  readonly names: readonly string[] | undefined;
}

interface Entry {
  readonly kind: "data" | "children";
  readonly path: string;
  readonly listeners: Set<(snapshot: Snapshot) => void>;
  /** A read is on its way. */
  reading: boolean;
  /** Something happened since that read was sent: another one follows. */
  stale: boolean;
}

/** How the table reads: `settle` is called exactly once, in the turn of the answer. */
export type SendRead = (request: ZooKeeperRequest, settle: (result: ZooKeeperResult | ZooKeeperError) => void) => void;

/** Between attempts to read a node that could not be read for a reason that a new connection does not cure. */
const retryMs = 1000;

/**
 * Watches that last. ZooKeeper's fire once and die with the connection's server; here an event is only a hint to read again,
 * every read arms the next one, and each new connection reads everything. So a subscriber sees snapshots: the newest state
 * at some moment, with changes in between possibly merged, and within a session never older than one it saw before. A
 * node that was deleted and made again in the meantime shows in its czxid only.
 */
export class WatchTable {
  readonly #entries = new Map<string, Entry>();
  readonly #retries = new Set<Timer>();
  #active = false;

  constructor(
    private readonly timers: Timers,
    private readonly logger: Logger,
    private readonly send: SendRead,
  ) {}

  watchData(path: string, onSnapshot: (node: ZooKeeperNode | undefined) => void): Watch {
    return this.#add("data", path, (snapshot) => {
      if (snapshot.kind === "data") onSnapshot(snapshot.node);
    });
  }

  watchChildren(path: string, onSnapshot: (names: readonly string[] | undefined) => void): Watch {
    return this.#add("children", path, (snapshot) => {
      if (snapshot.kind === "children") onSnapshot(snapshot.names);
    });
  }

  /** There is a connection: nothing is armed on it yet, so everything is read. */
  resume(): void {
    this.#active = true;
    for (const entry of this.#entries.values()) this.#read(entry);
  }

  /** There is none: reads wait for the next one. Reads on their way have failed already. */
  pause(): void {
    this.#active = false;
    for (const retry of this.#retries) retry.cancel();
    this.#retries.clear();
  }

  onEvent(event: ZooKeeperWatchEvent): void {
    if (event.kind !== "children-changed") this.#refresh("data", event.path);
    if (event.kind !== "data-changed") this.#refresh("children", event.path);
  }

  #add(kind: Entry["kind"], path: string, listener: (snapshot: Snapshot) => void): Watch {
    const key = `${kind} ${path}`;
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { kind, path, listeners: new Set(), reading: false, stale: false };
      this.#entries.set(key, entry);
    }
    const added = entry;
    added.listeners.add(listener);
    this.#read(added);
    return {
      close: () => {
        added.listeners.delete(listener);
        if (added.listeners.size === 0 && this.#entries.get(key) === added) this.#entries.delete(key);
      },
    };
  }

  #refresh(kind: Entry["kind"], path: string): void {
    const entry = this.#entries.get(`${kind} ${path}`);
    if (entry !== undefined) this.#read(entry);
  }

  #read(entry: Entry): void {
    if (!this.#active || entry.listeners.size === 0) return;
    if (entry.reading) {
      entry.stale = true;
      return;
    }
    entry.reading = true;
    entry.stale = false;
    const request: ZooKeeperRequest = {
      kind: entry.kind === "data" ? "get" : "children",
      path: entry.path,
      watch: true,
    };
    this.send(request, (result) => {
      // A failed read armed nothing; `exists` arms the event of the creation.
      if (!(result instanceof ZooKeeperError) && result.code === "no-node") this.#readAbsent(entry);
      else this.#onRead(entry, request, result);
    });
  }

  #readAbsent(entry: Entry): void {
    const request: ZooKeeperRequest = { kind: "exists", path: entry.path, watch: true };
    this.send(request, (result) => {
      // It was created between the two reads.
      if (!(result instanceof ZooKeeperError) && result.code === "ok") entry.stale = true;
      this.#onRead(entry, request, result);
    });
  }

  #onRead(entry: Entry, request: ZooKeeperRequest, result: ZooKeeperResult | ZooKeeperError): void {
    entry.reading = false;
    // A failure for want of a connection needs nothing: the next one reads everything.
    if (!(result instanceof ZooKeeperError)) {
      if (result.code === "no-node") this.#deliver(entry, undefined);
      else if (result.code !== "ok") this.#retryLater(entry, errorOfCode(result.code, describeRequest(request), entry));
      else if (request.kind !== "exists") this.#deliver(entry, result);
    }
    if (entry.stale) this.#read(entry);
  }

  #deliver(entry: Entry, result: ZooKeeperResult | undefined): void {
    const snapshot = snapshotOf(entry.kind, result);
    for (const listener of [...entry.listeners]) {
      // One listener may close another.
      if (entry.listeners.has(listener)) listener(snapshot);
    }
  }

  #retryLater(entry: Entry, error: ZooKeeperError): void {
    this.logger.warn(`A watched node cannot be read: ${error.message}.`);
    const retry = this.timers.after(retryMs, () => {
      this.#retries.delete(retry);
      this.#read(entry);
    });
    this.#retries.add(retry);
  }
}

function snapshotOf(kind: Entry["kind"], result: ZooKeeperResult | undefined): Snapshot {
  if (kind === "children") return { kind, names: result && [...(result.children ?? [])].sort() };
  return { kind, node: result && nodeOf(result) };
}

/** The node in the successful answer to a `get`. */
export function nodeOf(result: ZooKeeperResult): ZooKeeperNode {
  return { data: result.data ?? new Uint8Array(0), stat: statOf(result) };
}

/** The metadata in a successful answer that has some. */
export function statOf(result: { readonly stat?: ZooKeeperStat }): ZooKeeperStat {
  invariant(
    result.stat !== undefined,
    () => "the connector gave a successful answer without the metadata it must have",
  );
  return result.stat;
}
