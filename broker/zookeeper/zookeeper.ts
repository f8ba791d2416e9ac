import type { Env } from "../../common/env/env.js";
import { withDeadline } from "../../common/env/time.js";
import type { Timer } from "../../common/env/time.js";
import type {
  ZooKeeperConnection,
  ZooKeeperOperation,
  ZooKeeperRequest,
  ZooKeeperResult,
  ZooKeeperSessionToken,
  ZooKeeperStat,
  ZooKeeperWatchEvent,
} from "../../common/env/zookeeper-connection.js";
import type { Logger } from "../../common/logger.js";
import { instantOf, Lease } from "./lease.js";
import type { Instant } from "./lease.js";
import { RequestPipeline } from "./request-pipeline.js";
import { parseConnectString, pathFault, serverName, ServerRotation } from "./server-list.js";
import type { ConnectString, ZooKeeperServer } from "./server-list.js";
import { closeFormerSession } from "./session-closer.js";
import { nodeOf, statOf, WatchTable } from "./watch-table.js";
import type { Watch, ZooKeeperNode } from "./watch-table.js";
import { describeRequest, errorOfCode, ZooKeeperError } from "./zookeeper-error.js";

export { ZooKeeperError } from "./zookeeper-error.js";
export type { Watch, ZooKeeperNode } from "./watch-table.js";

/**
 * - `connecting`: no session yet.
 * - `connected`: a session, and a connection that answers.
 * - `suspended`: a session as far as is known, and no connection. Roles go on.
 * - `expired`: the server said that the session is over; a new one is being made.
 * - `closing`, `closed`: by our own will, for good.
 */
export type SessionState = "connecting" | "connected" | "suspended" | "expired" | "closing" | "closed";

/** `connected` comes at each new connection; `new-session` right after it when the session is not the one before. */
export type SessionEvent = "connected" | "suspended" | "expired" | "new-session";

export interface ZooKeeperOptions {
  /** "host:port,host:port", with "/chroot" behind if everything is to live below a node. */
  readonly servers: string;
  /** What to ask for; the server may grant another one (`negotiatedTimeoutMs`). */
  readonly sessionTimeoutMs: number;
}

/** A node that this process registered, as it was read after its creation. */
export interface OwnNode {
  readonly path: string;
  readonly czxid: bigint;
  readonly version: number;
}

/** One connection and what is known of it. */
interface Link {
  readonly server: ZooKeeperServer;
  readonly openedAt: Instant;
  connection: ZooKeeperConnection | undefined;
  handshakeDeadline: Timer | undefined;
  established: boolean;
}

interface Guard {
  readonly node: OwnNode;
  readonly onLost: () => void;
}

/** ZooKeeper's own limit for a packet is 1 MiB, of which headers take a little. */
const requestMaxBytes = 1_000_000;
/** About what an operation takes on the wire beside path and data: type, version, access list. */
const operationOverheadBytes = 64;
const versionMax = 2 ** 31 - 1;
/** How many reads of `getMany` and `childrenMany` are on their way at a time. */
const readsAtATime = 256;
const backOffFirstMs = 25;
const backOffMaxMs = 1000;
const handshakeMinMs = 200;
/** How often the log repeats that no server can be reached. */
const complainEveryMs = 10_000;
/** An orderly end waits this long for the server's word. */
const closeMaxMs = 2000;

/**
 * The session with ZooKeeper, made safe: the only way in which a broker reaches it.
 *
 * It promises:
 * - A session is over when the server says so, never before. Losing contact fails what is in flight and nothing else; the
 *   session is offered to one server after the other until one takes it up or refuses it. Then a new one is made.
 * - Every operation ends: with its answer, with NotConnected (never sent), or with OutcomeUnknown, at the latest a third of
 *   the session timeout after it was sent. Then the connection is given up, because a server answers in order.
 * - `leaseValid` says whether the session can have expired without our hearing of it, proved by barriers: a transaction each
 *   sixth of the session timeout, which a server cut off from the quorum cannot acknowledge. With `guardOwnNode` a barrier
 *   also finds out whether somebody deleted or replaced this process's registration.
 * - Watches last: each delivers snapshots until it is closed, over reconnects and new sessions.
 *
 * It does not retry operations, and makes no ephemeral node anew in a new session: only the caller knows what that means.
 */
export class ZooKeeper {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #connectString: ConnectString;
  readonly #rotation: ServerRotation;
  readonly #requestedTimeoutMs: number;
  readonly #pipeline: RequestPipeline;
  readonly #watches: WatchTable;
  readonly #lease: Lease;
  readonly #listeners = new Set<(event: SessionEvent) => void>();
  readonly #waiters = new Set<() => void>();
  /** What was last seen of each server, for messages. */
  readonly #seen = new Map<string, string>();
  #state: SessionState = "connecting";
  #generation = 0;
  #negotiatedTimeoutMs: number;
  #session: ZooKeeperSessionToken | undefined;
  #lastZxid = 0n;
  #link: Link | undefined;
  /** Attempts since a connection last proved itself with an acknowledged barrier. */
  #failures = 0;
  #complainedMs = Number.NEGATIVE_INFINITY;
  #reconnectTimer: Timer | undefined;
  #barrierTimer: Timer | undefined;
  #guard: Guard | undefined;
  #closed: Promise<void> | undefined;
  #onLinkGone: (() => void) | undefined;

  /** Starts to connect, and keeps at it until `close` or `abandon`. Throws ConnectStringError for unusable `servers`. */
  constructor(env: Env, logger: Logger, options: ZooKeeperOptions) {
    this.#env = env;
    this.#logger = logger;
    this.#connectString = parseConnectString(options.servers);
    this.#rotation = new ServerRotation(this.#connectString.servers, env.random);
    this.#requestedTimeoutMs = options.sessionTimeoutMs;
    this.#negotiatedTimeoutMs = options.sessionTimeoutMs;
    this.#lease = new Lease(env.clock);
    this.#pipeline = new RequestPipeline(env.clock, env.timers, (silentMs) => this.#onSilent(silentMs));
    this.#watches = new WatchTable(env.timers, logger, (request, settle) =>
      this.#pipeline.submit(request, (result) => settle(this.#noteZxid(result)), { exempt: true }),
    );
    this.#connect();
  }

  /** What is known of the session now. */
  get state(): SessionState {
    return this.#state;
  }

  /** Grows with each new session; 0 before the first. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * 16 hexadecimal digits; undefined while there is no session. Equal to `ephemeralOwner` of the nodes this session
   * owns.
   */
  get sessionId(): string | undefined {
    return this.#session?.id;
  }

  /** The session timeout T that the server granted; before that, the one to be asked for. */
  get negotiatedTimeoutMs(): number {
    return this.#negotiatedTimeoutMs;
  }

  /** What a successor of this process needs in order to end this session (`closeSession`); undefined while there is none. */
  token(): ZooKeeperSessionToken | undefined {
    return this.#session && { ...this.#session, lastZxid: this.#lastZxid.toString() };
  }

  /**
   * Resolves when connected, at once if so. Rejects with NotConnected after `timeoutMs`, naming what was seen of each
   * server.
   */
  whenConnected(timeoutMs: number): Promise<void> {
    if (this.#state === "connected") return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        if (this.#state !== "connected" && !this.#ended) return;
        this.#waiters.delete(settle);
        deadline.cancel();
        if (this.#state === "connected") resolve();
        else reject(closedError());
      };
      const deadline = this.#env.timers.after(timeoutMs, () => {
        this.#waiters.delete(settle);
        reject(
          new ZooKeeperError(
            "NotConnected",
            `no ZooKeeper server took this process up within ${Math.round(timeoutMs)} ms (${this.#sightings()}); ` +
              "see whether ZooKeeper runs there and whether zookeeper.connect names it",
          ),
        );
      });
      this.#waiters.add(settle);
      settle();
    });
  }

  /** Rejects with NoNode when it does not exist. */
  async get(path: string): Promise<ZooKeeperNode> {
    return nodeOf(await this.#request({ kind: "get", path: this.#absolute(path), watch: false }));
  }

  async getIfExists(path: string): Promise<ZooKeeperNode | undefined> {
    return ifExists(this.get(path));
  }

  /** The node's metadata; undefined when it does not exist. */
  async exists(path: string): Promise<ZooKeeperStat | undefined> {
    const request = this.#request({ kind: "exists", path: this.#absolute(path), watch: false });
    return ifExists(request.then(statOf));
  }

  /** Names, sorted. Rejects with NoNode when the parent does not exist. */
  async children(path: string): Promise<string[]> {
    const result = await this.#request({ kind: "children", path: this.#absolute(path), watch: false });
    return [...(result.children ?? [])].sort();
  }

  /** Rejects with NodeExists, or with NoNode when the parent does not exist. */
  async create(path: string, data: Uint8Array, options: { readonly ephemeral?: boolean } = {}): Promise<void> {
    const ephemeral = options.ephemeral ?? false;
    await this.#request({ kind: "create", path: this.#absolute(path), data, ephemeral });
  }

  /** Makes the node and its ancestors, persistent and empty, as far as they are missing. */
  async ensurePath(path: string): Promise<void> {
    await this.#ensureAbsolute(this.#absolute(path));
  }

  /** Replaces the data. `version` is the one that was read, or -1 for any; rejects with BadVersion. */
  async set(path: string, data: Uint8Array, version: number): Promise<ZooKeeperStat> {
    return statOf(await this.#request({ kind: "set", path: this.#absolute(path), data, version }));
  }

  /** `version` is the one that was read, or -1 for any; rejects with BadVersion, with NotEmpty when it has children. */
  async remove(path: string, version: number): Promise<void> {
    await this.#request({ kind: "delete", path: this.#absolute(path), version });
  }

  /**
   * All operations or none. The results stand in the order of the operations, with the metadata of each `set`. Rejects
   * as the first operation that fails would, with its `failedIndex`.
   */
  async multi(operations: readonly ZooKeeperOperation[]): Promise<readonly { readonly stat?: ZooKeeperStat }[]> {
    if (operations.length === 0) return [];
    const result = await this.#request({ kind: "multi", operations: operations.map((one) => this.#absoluteOf(one)) });
    return result.results ?? [];
  }

  /** Reads many nodes, pipelined; undefined stands for one that does not exist. */
  getMany(paths: readonly string[]): Promise<(ZooKeeperNode | undefined)[]> {
    return inParallel(paths, (path) => this.getIfExists(path));
  }

  /** Reads the children of many nodes, pipelined; undefined stands for one that does not exist. */
  childrenMany(paths: readonly string[]): Promise<(string[] | undefined)[]> {
    return inParallel(paths, (path) => ifExists(this.children(path)));
  }

  /**
   * Delivers a snapshot soon, at each change, and after each reconnect and new session; undefined when the node does not
   * exist. Changes in quick succession may be merged into one snapshot. Throws BadArguments for what is no path.
   */
  watchData(path: string, onSnapshot: (node: ZooKeeperNode | undefined) => void): Watch {
    return this.#watches.watchData(this.#watchable(path), onSnapshot);
  }

  /** The same for the names of a node's children, sorted. A child deleted and made again shows in its czxid only. */
  watchChildren(path: string, onSnapshot: (names: readonly string[] | undefined) => void): Watch {
    return this.#watches.watchChildren(this.#watchable(path), onSnapshot);
  }

  /** Listeners are called in the turn of the event, in the order in which they were added. Returns the removal. */
  onSessionEvent(listener: (event: SessionEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * The ephemeral node by which this process is registered: from now on each barrier checks that it is the same node, and a
   * watch tells of its deletion. `onLost` is called once, in the turn of the finding, when it is not; the lease lapses with
   * it. Replaces an earlier guard; undefined ends it.
   */
  guardOwnNode(node: OwnNode | undefined, onLost: () => void): void {
    if (node === undefined) {
      this.#guard = undefined;
      return;
    }
    this.#guard = { node: { ...node, path: this.#absolute(node.path) }, onLost };
    if (this.#state === "connected") this.#sendBarrier();
  }

  /** Whether the session is proved to live, and the guarded node with it. Ask at each use; see Lease for what it proves. */
  leaseValid(): boolean {
    return this.leaseRemainingMs > 0;
  }

  /** How long the lease stays valid if no further barrier is acknowledged; 0 when it is not. */
  get leaseRemainingMs(): number {
    return this.#lease.remainingMs;
  }

  /**
   * Ends the session at the server, so that its ephemeral nodes vanish, and then the connection; without contact only the
   * latter, and the session expires by itself. Resolves within two seconds. Idempotent.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /**
   * Drops connection and timers without a word; the session lives on at the server until it expires. For tests and
   * crashes.
   */
  abandon(): void {
    if (this.#state === "closed") return;
    this.#end("closed");
    this.#dropLink("this process has given it up");
  }

  /**
   * Ends a session that a former process of this broker left behind, so that its ephemeral nodes vanish at once. Resolves
   * with whether it is over, which is so too when it had expired; with false when no server gave an answer in time.
   */
  static closeSession(
    env: Env,
    options: { readonly servers: string; readonly token: ZooKeeperSessionToken; readonly timeoutMs: number },
  ): Promise<boolean> {
    return closeFormerSession(env, parseConnectString(options.servers).servers, options.token, options.timeoutMs);
  }

  // Operations.

  async #request(request: ZooKeeperRequest): Promise<ZooKeeperResult> {
    const refusal = refusalOf(request);
    if (refusal !== undefined) throw refusal;
    if (this.#ended) throw closedError();
    const result = await this.#submit(request);
    if (result instanceof ZooKeeperError) throw result;
    if (request.kind === "multi") return this.#checkMulti(request.operations, result);
    if (result.code !== "ok") throw errorOfCode(result.code, describeRequest(request), { path: request.path });
    return result;
  }

  #checkMulti(operations: readonly ZooKeeperOperation[], result: ZooKeeperResult): ZooKeeperResult {
    const codes = result.results ?? [];
    for (const [failedIndex, { code }] of codes.entries()) {
      const operation = operations[failedIndex];
      if (code === "ok" || operation === undefined) continue;
      const what = `operation ${failedIndex} of a multi of ${operations.length}, ${describeRequest(operation)}`;
      throw errorOfCode(code, what, { path: operation.path, failedIndex });
    }
    if (result.code !== "ok") throw errorOfCode(result.code, `multi of ${operations.length}`, {});
    return result;
  }

  #submit(request: ZooKeeperRequest): Promise<ZooKeeperResult | ZooKeeperError> {
    return new Promise((resolve) => {
      this.#pipeline.submit(request, (result) => resolve(this.#noteZxid(result)));
    });
  }

  #noteZxid<Result extends ZooKeeperResult | ZooKeeperError>(result: Result): Result {
    if (!(result instanceof ZooKeeperError) && result.zxid !== undefined && result.zxid > this.#lastZxid) {
      this.#lastZxid = result.zxid;
    }
    return result;
  }

  async #ensureAbsolute(path: string): Promise<void> {
    if (path === "/") return;
    try {
      await this.#request({ kind: "create", path, data: new Uint8Array(0), ephemeral: false });
    } catch (error) {
      if (!(error instanceof ZooKeeperError)) throw error;
      if (error.kind === "NodeExists") return;
      if (error.kind !== "NoNode") throw error;
      await this.#ensureAbsolute(path.slice(0, Math.max(1, path.lastIndexOf("/"))));
      await this.#ensureAbsolute(path);
    }
  }

  #absolute(path: string): string {
    const { chroot } = this.#connectString;
    if (chroot === "") return path;
    return path === "/" ? chroot : `${chroot}${path}`;
  }

  #absoluteOf(operation: ZooKeeperOperation): ZooKeeperOperation {
    return this.#connectString.chroot === "" ? operation : { ...operation, path: this.#absolute(operation.path) };
  }

  #watchable(path: string): string {
    const refusal = refusalOf({ kind: "exists", path, watch: true });
    if (refusal !== undefined) throw refusal;
    return this.#absolute(path);
  }

  // Connections.

  get #ended(): boolean {
    return this.#state === "closing" || this.#state === "closed";
  }

  #connect(): void {
    if (this.#ended || this.#link !== undefined) return;
    const server = this.#rotation.next();
    const link: Link = {
      server,
      openedAt: instantOf(this.#env.clock),
      connection: undefined,
      handshakeDeadline: undefined,
      established: false,
    };
    this.#link = link;
    const current = (action: () => void): void => {
      if (this.#link === link) action();
    };
    const session = this.token();
    link.connection = this.#env.zookeeper.open(
      { ...server, sessionTimeoutMs: this.#requestedTimeoutMs, ...(session !== undefined && { session }) },
      {
        onConnected: (granted, negotiatedMs) => current(() => this.#onConnected(link, granted, negotiatedMs)),
        onSessionExpired: () => current(() => this.#onExpired()),
        onWatch: (event) => current(() => this.#onWatch(event)),
        onClosed: (error) => current(() => this.#onClosed(error?.message ?? "the server has ended the session")),
      },
    );
    const deadlineMs = this.#handshakeDeadlineMs();
    link.handshakeDeadline = this.#env.timers.after(deadlineMs, () =>
      // What came in while our own event loop stood still is read first.
      this.#env.timers.soon(() =>
        current(() => {
          if (!link.established) this.#reconnect(`it did not answer within ${Math.round(deadlineMs)} ms`);
        }),
      ),
    );
  }

  /** All servers get their turn within a third of the session timeout; a slow one gets more time in each further pass. */
  #handshakeDeadlineMs(): number {
    const limitMs = this.#negotiatedTimeoutMs / 3;
    const shareMs = Math.max(handshakeMinMs, limitMs / this.#connectString.servers.length);
    return Math.min(Math.max(handshakeMinMs, limitMs), shareMs * (1 + this.#pass));
  }

  /** How often all servers were tried in vain. */
  get #pass(): number {
    return Math.floor(this.#failures / this.#connectString.servers.length);
  }

  #onConnected(link: Link, granted: ZooKeeperSessionToken, negotiatedTimeoutMs: number): void {
    const { connection } = link;
    if (connection === undefined) return;
    link.established = true;
    link.handshakeDeadline?.cancel();
    const isNew = granted.id !== this.#session?.id;
    const before = this.#session;
    this.#session = granted;
    this.#negotiatedTimeoutMs = negotiatedTimeoutMs;
    if (isNew) {
      this.#generation += 1;
      this.#lastZxid = 0n;
      this.#lease.begin(link.openedAt, negotiatedTimeoutMs);
    }
    this.#state = "connected";
    this.#seen.set(serverName(link.server), "connected");
    this.#sayConnected(link, isNew, before === undefined);
    this.#pipeline.attach(connection, negotiatedTimeoutMs / 3);
    this.#sendBarrier();
    this.#scheduleBarrier();
    this.#watches.resume();
    this.#announce("connected");
    if (isNew && this.#link === link) this.#announce("new-session");
    for (const waiter of [...this.#waiters]) waiter();
  }

  #sayConnected(link: Link, isNew: boolean, isFirst: boolean): void {
    const fields = { sessionId: this.#session?.id, server: serverName(link.server) };
    this.#complainedMs = Number.NEGATIVE_INFINITY;
    if (!isNew) {
      this.#logger.info("The ZooKeeper session goes on over a new connection.", fields);
      return;
    }
    this.#logger.info(`Connected to ZooKeeper in a new session.`, fields);
    if (this.#negotiatedTimeoutMs !== this.#requestedTimeoutMs && isFirst) {
      this.#logger.warn(
        `ZooKeeper granted a session timeout of ${this.#negotiatedTimeoutMs} ms instead of ${this.#requestedTimeoutMs} ms; ` +
          "its tickTime, minSessionTimeout and maxSessionTimeout decide that.",
      );
    }
  }

  #onClosed(why: string): void {
    this.#reconnect(why);
  }

  #onSilent(silentMs: number): void {
    this.#reconnect(`the server has not answered for ${Math.round(silentMs)} ms`);
  }

  /** Gives up the connection, if any, and goes on with the next server. */
  #reconnect(why: string): void {
    const server = this.#link && serverName(this.#link.server);
    const wasConnected = this.#state === "connected";
    if (server !== undefined) this.#seen.set(server, why);
    if (wasConnected) this.#state = "suspended";
    this.#dropLink(why);
    if (this.#ended) return;
    if (wasConnected) {
      this.#logger.warn(`Lost the connection to ZooKeeper (${why}); the session and all roles go on.`, {
        server,
        sessionId: this.#session?.id,
      });
      this.#announce("suspended");
    }
    this.#failures += 1;
    this.#complain();
    if (this.#ended || this.#link !== undefined) return;
    this.#reconnectTimer?.cancel();
    this.#reconnectTimer = this.#env.timers.after(this.#backOffMs(), () => this.#connect());
  }

  /** The servers are tried one after the other at once; then with growing, scattered pauses. */
  #backOffMs(): number {
    if (this.#failures % this.#connectString.servers.length !== 0 || this.#pass === 0) return 0;
    const limitMs = Math.min(backOffMaxMs, this.#negotiatedTimeoutMs / 6);
    const delayMs = Math.min(limitMs, backOffFirstMs * 2 ** Math.min(this.#pass - 1, 10));
    return delayMs * (0.5 + this.#env.random.float() / 2);
  }

  #complain(): void {
    const nowMs = this.#env.clock.monotonicMs();
    if (this.#failures <= this.#connectString.servers.length || nowMs - this.#complainedMs < complainEveryMs) return;
    this.#complainedMs = nowMs;
    this.#logger.warn(`No ZooKeeper server can be reached (${this.#sightings()}); trying on.`);
  }

  #sightings(): string {
    return this.#connectString.servers
      .map((server) => `${serverName(server)}: ${this.#seen.get(serverName(server)) ?? "not tried yet"}`)
      .join("; ");
  }

  #onExpired(): void {
    const expired = this.#session;
    this.#session = undefined;
    this.#state = "expired";
    this.#lease.lapse();
    this.#logger.warn("The ZooKeeper session has expired: its ephemeral nodes are gone, and a new session is made.", {
      sessionId: expired?.id,
    });
    this.#dropLink("the session expired");
    this.#announce("expired");
    const guard = this.#guard;
    this.#guard = undefined;
    guard?.onLost();
    this.#connect();
  }

  /** Afterwards nothing that this connection still reports reaches us. */
  #dropLink(why: string): void {
    const link = this.#link;
    this.#link = undefined;
    this.#barrierTimer?.cancel();
    this.#watches.pause();
    this.#pipeline.detach(why);
    if (link === undefined) return;
    link.handshakeDeadline?.cancel();
    link.connection?.destroy();
    this.#onLinkGone?.();
  }

  #announce(event: SessionEvent): void {
    for (const listener of [...this.#listeners]) {
      if (this.#listeners.has(listener)) listener(event);
    }
  }

  // Barrier and lease.

  #scheduleBarrier(): void {
    this.#barrierTimer?.cancel();
    this.#barrierTimer = this.#env.timers.after(this.#negotiatedTimeoutMs / 6, () => {
      this.#sendBarrier();
      this.#scheduleBarrier();
    });
  }

  /**
   * `check` compares the data version only, so the read of the own node follows in the same connection: a server answers in
   * order, so it shows a state no older than the transaction before it. It also arms the watch for the node's deletion.
   */
  #sendBarrier(): void {
    const sentAt = instantOf(this.#env.clock);
    const guard = this.#guard;
    const operations: ZooKeeperOperation[] = [{ kind: "check", path: "/", version: -1 }];
    if (guard !== undefined) operations.push({ kind: "check", path: guard.node.path, version: guard.node.version });
    let checked = false;
    this.#pipeline.submit(
      { kind: "multi", operations },
      (result) => {
        this.#noteZxid(result);
        if (result instanceof ZooKeeperError) return;
        const code = result.results?.[1]?.code;
        if (guard !== undefined && (code === "no-node" || code === "bad-version")) this.#lose(guard);
        checked = result.code === "ok" && (result.results ?? []).every((one) => one.code === "ok");
        if (checked && guard === undefined) this.#onBarrier(sentAt);
      },
      { urgent: true },
    );
    if (guard === undefined) return;
    this.#pipeline.submit(
      { kind: "exists", path: guard.node.path, watch: true },
      (result) => {
        this.#noteZxid(result);
        if (result instanceof ZooKeeperError) return;
        const { stat } = result;
        const ours = stat?.czxid === guard.node.czxid && stat.ephemeralOwner === this.#session?.id;
        if ((result.code === "ok" && !ours) || result.code === "no-node") this.#lose(guard);
        else if (result.code === "ok" && checked) this.#onBarrier(sentAt);
      },
      { urgent: true },
    );
  }

  #onBarrier(sentAt: Instant): void {
    this.#failures = 0;
    this.#lease.acknowledge(sentAt);
  }

  #lose(guard: Guard): void {
    if (this.#guard !== guard) return;
    this.#guard = undefined;
    this.#lease.lapse();
    guard.onLost();
  }

  #onWatch(event: ZooKeeperWatchEvent): void {
    const guard = this.#guard;
    if (guard !== undefined && event.path === guard.node.path) {
      if (event.kind === "deleted") this.#lose(guard);
      else if (event.kind === "data-changed") this.#sendBarrier();
    }
    this.#watches.onEvent(event);
  }

  // The end.

  async #close(): Promise<void> {
    if (this.#state === "closed") return;
    const connection = this.#state === "connected" ? this.#link?.connection : undefined;
    this.#end("closing");
    if (connection !== undefined) {
      const gone = new Promise<void>((resolve) => {
        this.#onLinkGone = resolve;
      });
      connection.closeSession();
      const deadlineMs = Math.min(closeMaxMs, this.#negotiatedTimeoutMs / 3);
      await withDeadline(
        this.#env.timers,
        deadlineMs,
        gone,
        () => new Error("no answer to the end of the session"),
      ).catch((error: Error) => {
        this.#logger.warn(`The ZooKeeper session expires by itself: ${error.message} within ${deadlineMs} ms.`);
      });
    }
    this.#end("closed");
    this.#dropLink("this process has closed its session");
  }

  #end(state: "closing" | "closed"): void {
    this.#state = state;
    this.#reconnectTimer?.cancel();
    this.#barrierTimer?.cancel();
    this.#watches.pause();
    this.#lease.lapse();
    this.#guard = undefined;
    if (state === "closed") this.#session = undefined;
    for (const waiter of [...this.#waiters]) waiter();
  }
}

function closedError(): ZooKeeperError {
  return new ZooKeeperError("NotConnected", "this process has closed its connection to ZooKeeper");
}

/** Why a request is not even sent; undefined when it may be. */
function refusalOf(request: ZooKeeperRequest): ZooKeeperError | undefined {
  const operations: readonly { readonly path: string; readonly data?: Uint8Array; readonly version?: number }[] =
    request.kind === "multi" ? request.operations : [request];
  let bytes = 0;
  for (const [failedIndex, operation] of operations.entries()) {
    const { path, version = -1 } = operation;
    const details = request.kind === "multi" ? { path, failedIndex } : { path };
    const fault = pathFault(path);
    if (fault !== undefined) return new ZooKeeperError("BadArguments", `the path "${path}" ${fault}`, details);
    if (!Number.isInteger(version) || version < -1 || version > versionMax) {
      return new ZooKeeperError("BadArguments", `${path}: ${version} is no version of a node`, details);
    }
    bytes += Buffer.byteLength(path) + (operation.data?.length ?? 0) + operationOverheadBytes;
  }
  if (bytes <= requestMaxBytes) return undefined;
  return new ZooKeeperError(
    "TooLarge",
    `${describeRequest(request)} takes about ${bytes} bytes and ZooKeeper accepts ${requestMaxBytes}; split it`,
    request.kind === "multi" ? {} : { path: request.path },
  );
}

/** Undefined in place of a rejection with NoNode. */
async function ifExists<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ZooKeeperError && error.kind === "NoNode") return undefined;
    throw error;
  }
}

/** `Promise.all` over the items with a bound on how many are on their way; starts no further one after a failure. */
async function inParallel<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results = new Array<Result>(items.length);
  let next = 0;
  let failed = false;
  const lane = async (): Promise<void> => {
    while (next < items.length && !failed) {
      const index = next;
      next += 1;
      try {
        results[index] = await work(items[index] as Item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(readsAtATime, items.length) }, lane));
  return results;
}
