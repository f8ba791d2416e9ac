import type { Clock, Random, Timers } from "../../common/env/time.js";
import type {
  ZooKeeperConnection,
  ZooKeeperConnectionHandler,
  ZooKeeperConnectOptions,
  ZooKeeperConnector,
  ZooKeeperOperation,
  ZooKeeperRequest,
  ZooKeeperResult,
  ZooKeeperSessionToken,
} from "../../common/env/zookeeper-connection.js";
import { Label } from "./scheduler.js";
import type { Scheduler } from "./scheduler.js";
import type { SimProcess } from "./sim-process.js";
import { SimTree } from "./sim-zookeeper-tree.js";
import type { Change, SimNode, Trigger } from "./sim-zookeeper-tree.js";

/** What the ensemble itself runs on. */
export interface SimZooKeeperParts {
  readonly clock: Clock;
  readonly timers: Timers;
  readonly random: Random;
}

export interface SimZooKeeperOptions {
  /** @defaultValue ["zk1", "zk2", "zk3"] */
  readonly hosts?: readonly string[];
  /** @defaultValue 200 */
  readonly tickMs?: number;
  /** How long a server that lost its leader goes on answering reads. @defaultValue 500 */
  readonly staleReadsMs?: number;
}

/** One simulated process, as the ensemble sees it. */
export interface SimZooKeeperClient {
  /** Binds a callback to the incarnation: dead processes hear nothing, paused ones later. */
  guard<Arguments extends unknown[]>(callback: (...args: Arguments) => void): (...args: Arguments) => void;
  readonly timers: Timers;
  /** Whether packets get through to this host; while not, they wait. @defaultValue always */
  canReach?(host: string): boolean;
  /** Whether packets of this host get through to the client. @defaultValue as `canReach` */
  canHear?(host: string): boolean;
}

/** A step of a client's write: nothing is done, nor ever will be; or it is done, and the answer has not left. */
export type WriteStep = "arrived" | "done";

const sessionMaxMs = 60_000;
const requestMaxBytes = 1_048_575;
/** How long a server takes to hear that its leader hangs; ten ticks, as `syncLimit` is set everywhere here. */
const syncLimitTicks = 10;
/** One way between a client and a server, one way between servers: shortest, and how much is drawn on top. */
const clientDelayMs = { least: 0.1, spread: 0.6 };
const serverDelayMs = { least: 0.2, spread: 1.5 };
const electionMs = { least: 200, spread: 200 };
/** When a packet that could not get through is sent again: as with TCP, each time later, up to a limit. */
const retransmitMs = { first: 50, most: 400 };

/**
 * An ensemble of ZooKeeper servers in memory, at the level of one connection: sessions, ephemeral nodes, one-shot
 * watches and transactions mean what they mean in ZooKeeper 3.8, which test/contract/zookeeper.test.ts checks against a
 * real one.
 *
 * Each server has a tree of its own, to which it applies the leader's transactions a little later: so reads may be stale, a
 * write is answered when the client's own server has it, and a server behind what the session has seen refuses it.
 * Answers and watch events of one connection keep their order. Sessions expire on the leader's clock, in whole ticks; other
 * servers report who is alive every half tick, and what a server has not reported when it dies is lost.
 * Without a quorum nothing is answered and no session expires; a new leader gives every session its whole timeout.
 */
export class SimZooKeeper {
  readonly connectString: string;
  readonly tickMs: number;
  readonly #parts: SimZooKeeperParts;
  readonly #hosts: readonly Host[];
  /** What an unknown name leads to. */
  readonly #nowhere: Host;
  readonly #staleReadsMs: number;
  readonly #sessions = new Map<string, Session>();
  readonly #connections = new Set<SimConnection>();
  readonly #clientsByProcess = new WeakMap<SimProcess, SimZooKeeperClient>();
  readonly #traps = new Set<WriteTrap>();
  readonly #writers = new Map<bigint, string>();
  /** The leader's: every transaction so far. */
  readonly #tree = new SimTree();
  #zxid = 0n;
  #lastChangeZxid = 0n;
  #lastSessionNumber = 0;
  #leader: Host | undefined;
  #quorumLost = false;
  /** Grows with each change of health, so that what was planned before counts no more. */
  #healthRound = 0;
  #ticking = false;
  #stopped = false;

  constructor(parts: SimZooKeeperParts, options: SimZooKeeperOptions = {}) {
    this.#parts = parts;
    this.tickMs = options.tickMs ?? 200;
    this.#staleReadsMs = options.staleReadsMs ?? 500;
    this.#hosts = (options.hosts ?? ["zk1", "zk2", "zk3"]).map((name) => new Host(name, this.#tree.clone()));
    this.connectString = this.#hosts.map((host) => `${host.name}:2181`).join(",");
    this.#leader = this.#hosts[0];
    this.#nowhere = new Host("nowhere", this.#tree);
    this.#nowhere.up = false;
  }

  /** An ensemble in the world of this scheduler. */
  static inScheduler(scheduler: Scheduler, options: SimZooKeeperOptions = {}): SimZooKeeper {
    const random = scheduler.random.stream("zookeeper");
    const label = new Label("zookeeper");
    const timers: Timers = {
      after: (delayMs, callback) => scheduler.after(delayMs, label, callback),
      soon: (callback) => void scheduler.after(0, label, callback),
      afterThisTurn: (callback) => void scheduler.after(0, label, callback),
    };
    const clock: Clock = { monotonicMs: () => scheduler.nowMs, wallMs: () => Math.floor(scheduler.nowMs) };
    return new SimZooKeeper({ clock, timers, random }, options);
  }

  /** This process's way to the ensemble. Its connections end when it dies. */
  connectorFor(process: SimProcess, ways: Pick<SimZooKeeperClient, "canReach" | "canHear"> = {}): ZooKeeperConnector {
    const client: SimZooKeeperClient = {
      guard: (callback) => process.guard(callback),
      timers: process.timers,
      ...ways,
    };
    this.#clientsByProcess.set(process, client);
    process.onDeath((death) => this.dropConnectionsOf(client, { silently: death === "power-cut" }));
    return this.connector(client);
  }

  connector(client: SimZooKeeperClient): ZooKeeperConnector {
    return { open: (options, handler) => this.#open(client, options, handler) };
  }

  /** The process is gone. Its kernel ends its connections, unless `silently`: then only the sessions' timeouts tell. */
  dropConnectionsOf(client: SimZooKeeperClient, options: { readonly silently?: boolean } = {}): void {
    for (const connection of [...this.#connections]) {
      if (connection.client === client) connection.abandon(options.silently ?? false);
    }
  }

  // Faults.

  /**
   * At the `count`-th write of this process from now on, at this step of it, calls `trap`, which may kill the process or
   * drop its connections (`loseAnswer`). Returns the end of the wait.
   */
  trapWrite(process: SimProcess, count: number, step: WriteStep, trap: () => void): () => void {
    const client = this.#clientsByProcess.get(process);
    if (client === undefined) return () => undefined;
    const armed: WriteTrap = { client, step, left: count, trap };
    this.#traps.add(armed);
    return () => this.#traps.delete(armed);
  }

  /** The server ends the connections of this process: answers that have not left yet are lost. */
  loseAnswers(process: SimProcess): void {
    const client = this.#clientsByProcess.get(process);
    for (const connection of [...this.#connections])
      if (connection.client === client) connection.drop("the connection broke", { reset: true });
  }

  /** Whether a trap sprang. */
  #onWriteStep(client: SimZooKeeperClient, step: WriteStep): boolean {
    let sprang = false;
    for (const armed of this.#traps) {
      if (armed.client !== client || armed.step !== step) continue;
      armed.left -= 1;
      if (armed.left > 0) continue;
      this.#traps.delete(armed);
      armed.trap();
      sprang = true;
    }
    return sprang;
  }

  /** The server dies: its connections are reset, connecting to it is refused. */
  takeDown(host: string): void {
    const down = this.#host(host);
    down.up = false;
    down.frozen = false;
    down.touched.clear();
    for (const connection of this.#connectionsOf(down)) connection.drop("the server died", { reset: true });
    this.#onHealth();
  }

  bringUp(host: string): void {
    const up = this.#host(host);
    if (up.up) return;
    up.up = true;
    up.catchUpWith(this.#tree, this.#zxid);
    this.#onHealth();
  }

  /** SIGSTOP: connections stay, nothing is answered; what was sent meanwhile is carried out after `thaw`. */
  freeze(host: string): void {
    this.#host(host).frozen = true;
    this.#onHealth();
  }

  thaw(host: string): void {
    const thawed = this.#host(host);
    if (!thawed.frozen) return;
    thawed.frozen = false;
    this.#onHealth();
    this.#resumeApplying(thawed);
  }

  /** Cuts the server off from the others: it answers reads from what it has for a while, never a write. */
  isolate(host: string): void {
    const isolated = this.#host(host);
    if (isolated.isolated) return;
    isolated.isolated = true;
    isolated.touched.clear();
    const round = (isolated.isolations += 1);
    this.#after(this.#staleReadsMs, () => {
      if (!isolated.isolated || isolated.isolations !== round) return;
      isolated.serving = false;
      for (const connection of this.#connectionsOf(isolated)) connection.drop("the server lost its leader");
    });
    this.#onHealth();
  }

  /** Ends the isolation. */
  heal(host: string): void {
    const healed = this.#host(host);
    if (!healed.isolated) return;
    healed.isolated = false;
    if (!healed.serving) healed.catchUpWith(this.#tree, this.#zxid);
    healed.serving = true;
    this.#onHealth();
    this.#resumeApplying(healed);
  }

  /** No server answers, and no session expires, until `regainQuorum`. */
  loseQuorum(): void {
    this.#quorumLost = true;
    this.#onHealth();
  }

  regainQuorum(): void {
    this.#quorumLost = false;
    this.#onHealth();
  }

  /** Ends the session now, as if its timeout had passed. */
  expireSession(sessionId: string): void {
    const session = this.#sessions.get(sessionId);
    if (session !== undefined) this.#endSession(session);
  }

  /** Ends all timers. Only needed where time is real. */
  stop(): void {
    this.#stopped = true;
    for (const connection of this.#connections) connection.abandon(true);
    this.#connections.clear();
  }

  // What tests look at.

  /** Of the newest transaction that changed a node: while it is the same, none has changed. */
  get lastChangeZxid(): bigint {
    return this.#lastChangeZxid;
  }

  get leader(): string | undefined {
    return this.#leader?.name;
  }

  /** The node as the leader has it. */
  node(path: string): Readonly<SimNode> | undefined {
    return this.#tree.get(path);
  }

  /** Of all nodes, sorted. */
  paths(): string[] {
    return this.#tree.paths();
  }

  /** The session whose write this transaction was. */
  writerOf(zxid: bigint): string | undefined {
    return this.#writers.get(zxid);
  }

  /** Ids of the sessions that live. */
  sessionIds(): string[] {
    return [...this.#sessions.keys()];
  }

  /** The server that this session last connected to. */
  hostOf(sessionId: string): string | undefined {
    return this.#sessions.get(sessionId)?.connection?.host.name;
  }

  // Connections.

  #open(
    client: SimZooKeeperClient,
    options: ZooKeeperConnectOptions,
    handler: ZooKeeperConnectionHandler,
  ): ZooKeeperConnection {
    const host = this.#hosts.find((one) => one.name === options.host);
    const connection = new SimConnection(this.#parts, client, host ?? this.#nowhere, handler, {
      reachesLeader: () => this.#leader === undefined || isHealthy(this.#leader),
      closed: () => this.#connections.delete(connection),
      request: (request, slot) => this.#onRequest(connection, request, slot),
      closeSession: () => this.#onCloseSession(connection),
    });
    this.#connections.add(connection);
    connection.toServer.send(() => this.#onConnect(connection, options));
    return connection;
  }

  #onConnect(connection: SimConnection, options: ZooKeeperConnectOptions): void {
    const { host } = connection;
    if (!host.up) {
      connection.drop("connection refused");
      return;
    }
    if (!this.#isServing(host)) {
      connection.drop("the server does not serve");
      return;
    }
    const { session: token } = options;
    if (token !== undefined && BigInt(token.lastZxid) > host.appliedZxid) {
      connection.drop("the server is behind what this session has seen");
      return;
    }
    connection.toLeader.send(() => {
      if (this.#leader === undefined) return;
      if (token === undefined) this.#makeSession(connection, options.sessionTimeoutMs);
      else this.#takeUpSession(connection, token, options.sessionTimeoutMs);
    });
  }

  #makeSession(connection: SimConnection, wantedMs: number): void {
    this.#lastSessionNumber += 1;
    const session: Session = {
      id: `01${this.#lastSessionNumber.toString(16).padStart(14, "0")}`,
      password: this.#parts.random.bytes(16),
      timeoutMs: this.#negotiated(wantedMs),
      expireAtMs: 0,
      connection,
    };
    this.#sessions.set(session.id, session);
    this.#touch(session);
    this.#startTicking();
    connection.session = session;
    const zxid = this.#commit([]);
    connection.enqueue({ zxid, run: () => connection.grant(session) });
    this.#advance(connection);
  }

  #takeUpSession(connection: SimConnection, token: ZooKeeperSessionToken, wantedMs: number): void {
    const session = this.#sessions.get(token.id);
    // A server ends the session's former connection to itself before it looks at the password.
    if (session?.connection?.host === connection.host)
      session.connection.drop("the session moved to another connection");
    const known = session !== undefined && Buffer.compare(session.password, token.password) === 0;
    if (!known) {
      connection.refuseSession();
      return;
    }
    session.connection?.drop("the session moved to another connection");
    session.connection = connection;
    session.timeoutMs = this.#negotiated(wantedMs);
    connection.session = session;
    this.#touch(session);
    connection.enqueue({ zxid: 0n, run: () => connection.grant(session) });
    this.#advance(connection);
  }

  #negotiated(wantedMs: number): number {
    return Math.min(sessionMaxMs, Math.max(6 * this.tickMs, wantedMs));
  }

  #onRequest(connection: SimConnection, request: ZooKeeperRequest, slot: Slot): void {
    if (!this.#isServing(connection.host)) {
      connection.drop("the server does not serve");
      return;
    }
    if (bytesOf(request) > requestMaxBytes) {
      connection.drop("the packet is too long");
      return;
    }
    this.#heardFrom(connection);
    const answer = slot.answer;
    if (request.kind === "get" || request.kind === "exists" || request.kind === "children") {
      connection.enqueue({ zxid: 0n, run: () => answer(this.#read(connection, request)) });
      this.#advance(connection);
      return;
    }
    // Holds the place in the order of answers until the leader has decided.
    const place: Place = { zxid: undefined, run: () => undefined };
    connection.enqueue(place);
    if (this.#onWriteStep(connection.client, "arrived")) return;
    connection.toLeader.send(() => {
      const session = connection.session;
      if (this.#leader === undefined || session === undefined) return;
      if (session.connection !== connection) {
        place.zxid = 0n;
        place.run = () => answer({ code: "unknown", zxid: connection.host.appliedZxid });
      } else if (!this.#sessions.has(session.id)) {
        place.zxid = 0n;
        place.run = () => answer({ code: "session-expired", zxid: connection.host.appliedZxid });
      } else {
        const { result, zxid } = this.#write(session, request);
        place.zxid = zxid;
        place.run = () => answer({ ...result, zxid });
        this.#onWriteStep(connection.client, "done");
      }
      this.#advance(connection);
    });
  }

  #onCloseSession(connection: SimConnection): void {
    const place: Place = { zxid: undefined, run: () => undefined };
    connection.enqueue(place);
    connection.toLeader.send(() => {
      const session = connection.session;
      if (this.#leader === undefined || session?.connection !== connection) return;
      // Its own answer still has to reach it.
      session.connection = undefined;
      place.zxid = this.#endSession(session);
      place.run = () => connection.drop(undefined);
      this.#advance(connection);
    });
  }

  #read(
    connection: SimConnection,
    request: Extract<ZooKeeperRequest, { kind: "get" | "exists" | "children" }>,
  ): ZooKeeperResult {
    const { host } = connection;
    const { path } = request;
    const node = host.tree.get(path);
    const zxid = host.appliedZxid;
    if (request.watch && (node !== undefined || request.kind === "exists")) {
      (request.kind === "children" ? connection.childWatches : connection.dataWatches).add(path);
    }
    const stat = host.tree.stat(path);
    if (node === undefined || stat === undefined) return { code: "no-node", zxid };
    switch (request.kind) {
      case "get":
        return { code: "ok", zxid, stat, data: node.data.slice() };
      case "exists":
        return { code: "ok", zxid, stat };
      case "children":
        return { code: "ok", zxid, stat, children: [...node.children] };
    }
  }

  #write(
    session: Session,
    request: Exclude<ZooKeeperRequest, { kind: "get" | "exists" | "children" }>,
  ): { readonly result: ZooKeeperResult; readonly zxid: bigint } {
    const operations: readonly ZooKeeperOperation[] = request.kind === "multi" ? request.operations : [request];
    const { code, changes, results } = this.#tree.transact(operations, session.id, this.#zxid + 1n);
    // A refused write takes a transaction id too.
    const zxid = this.#commit(changes, { applied: true });
    this.#writers.set(zxid, session.id);
    if (request.kind === "multi") return { result: { code, results }, zxid };
    return { result: { code, ...results[0] }, zxid };
  }

  /** A new transaction, which every server applies when it gets it. */
  #commit(changes: readonly Change[], options: { readonly applied?: boolean } = {}): bigint {
    this.#zxid += 1n;
    const zxid = this.#zxid;
    if (changes.length > 0) this.#lastChangeZxid = zxid;
    if (!options.applied) for (const change of changes) this.#tree.apply(change, zxid);
    for (const host of this.#hosts) {
      if (!host.up) continue;
      host.backlog.push({ zxid, changes });
      this.#after(host === this.#leader ? 0.05 : this.#draw(serverDelayMs), () => this.#applyNext(host));
    }
    return zxid;
  }

  #applyNext(host: Host): void {
    if (!host.up || host.frozen || host.isolated) return;
    const next = host.backlog.shift();
    if (next === undefined) return;
    for (const change of next.changes) {
      for (const trigger of host.tree.apply(change, next.zxid)) this.#fire(host, trigger);
    }
    host.appliedZxid = next.zxid;
    for (const connection of this.#connectionsOf(host)) this.#advance(connection);
  }

  #resumeApplying(host: Host): void {
    for (let count = host.backlog.length; count > 0; count -= 1) {
      this.#after(this.#draw(serverDelayMs), () => this.#applyNext(host));
    }
  }

  #fire(host: Host, trigger: Trigger): void {
    for (const connection of this.#connectionsOf(host)) connection.fire(trigger);
  }

  /** Answers what can be answered now, in order. */
  #advance(connection: SimConnection): void {
    const { host } = connection;
    if (!host.up || host.frozen) return;
    connection.runPlaces((zxid) => zxid <= host.appliedZxid);
  }

  #connectionsOf(host: Host): SimConnection[] {
    return [...this.#connections].filter((connection) => connection.host === host && connection.serverOpen);
  }

  // Sessions.

  #heardFrom(connection: SimConnection): void {
    const { session, host } = connection;
    if (session === undefined || session.connection !== connection) return;
    if (host === this.#leader) this.#touch(session);
    else host.touched.add(session);
  }

  #touch(session: Session): void {
    const dueMs = this.#parts.clock.monotonicMs() + session.timeoutMs;
    session.expireAtMs = (Math.floor(dueMs / this.tickMs) + 1) * this.tickMs;
  }

  /** The transaction that ends it. */
  #endSession(session: Session): bigint {
    this.#sessions.delete(session.id);
    const connection = session.connection;
    const zxid = this.#commit(this.#tree.ephemeralsOf(session.id).map((path): Change => ({ kind: "delete", path })));
    connection?.drop("the session expired");
    return zxid;
  }

  #startTicking(): void {
    if (this.#ticking) return;
    this.#ticking = true;
    this.#after(this.tickMs / 2, () => this.#halfTick());
  }

  #halfTick(): void {
    this.#ticking = false;
    if (this.#leader !== undefined && isHealthy(this.#leader)) {
      for (const host of this.#hosts) {
        if (!isHealthy(host)) continue;
        for (const session of host.touched) this.#touch(session);
        host.touched.clear();
      }
      const nowMs = this.#parts.clock.monotonicMs();
      for (const session of [...this.#sessions.values()]) {
        if (session.expireAtMs <= nowMs) this.#endSession(session);
      }
    }
    if (this.#sessions.size > 0) this.#startTicking();
  }

  // The ensemble.

  #isServing(host: Host): boolean {
    return host.serving && (host.isolated || this.#leader !== undefined);
  }

  #hasQuorum(): boolean {
    return !this.#quorumLost && this.#hosts.filter(isHealthy).length > this.#hosts.length / 2;
  }

  #onHealth(): void {
    this.#healthRound += 1;
    const round = this.#healthRound;
    const leader = this.#leader;
    if (leader !== undefined) {
      if (isHealthy(leader) && this.#hasQuorum()) return;
      // A dead leader is noticed at once, one that only hangs when its time is up.
      const noticeMs = leader.up && !this.#quorumLost ? syncLimitTicks * this.tickMs : 0;
      if (noticeMs > 0) {
        this.#after(noticeMs, () => {
          if (round === this.#healthRound) this.#loseLeader();
        });
        return;
      }
      this.#loseLeader();
      return;
    }
    this.#electLater(round);
  }

  #loseLeader(): void {
    this.#leader = undefined;
    for (const host of this.#hosts) {
      host.touched.clear();
      // An isolated one finds out by itself.
      if (host.isolated) continue;
      // A frozen one drops them when it wakes up and finds itself alone.
      for (const connection of this.#connectionsOf(host)) connection.drop("the ensemble lost its leader");
    }
    this.#electLater(this.#healthRound);
  }

  #electLater(round: number): void {
    if (!this.#hasQuorum()) return;
    this.#after(this.#draw(electionMs), () => {
      if (round !== this.#healthRound || this.#leader !== undefined || !this.#hasQuorum()) return;
      const candidates = this.#hosts.filter(isHealthy);
      this.#leader = candidates[this.#parts.random.below(candidates.length)];
      for (const host of candidates) host.catchUpWith(this.#tree, this.#zxid);
      for (const session of this.#sessions.values()) this.#touch(session);
    });
  }

  #host(name: string): Host {
    const host = this.#hosts.find((one) => one.name === name);
    if (host === undefined) throw new Error(`no host ${name} in this ensemble`);
    return host;
  }

  #draw(delay: { readonly least: number; readonly spread: number }): number {
    return delay.least + delay.spread * this.#parts.random.float();
  }

  #after(delayMs: number, action: () => void): void {
    if (this.#stopped) return;
    this.#parts.timers.after(delayMs, () => {
      if (!this.#stopped) action();
    });
  }
}

interface Session {
  readonly id: string;
  readonly password: Uint8Array;
  timeoutMs: number;
  /** On the leader's clock, a whole number of ticks. */
  expireAtMs: number;
  connection: SimConnection | undefined;
}

interface WriteTrap {
  readonly client: SimZooKeeperClient;
  readonly step: WriteStep;
  left: number;
  readonly trap: () => void;
}

interface LoggedTransaction {
  readonly zxid: bigint;
  readonly changes: readonly Change[];
}

/** One server. */
class Host {
  up = true;
  frozen = false;
  isolated = false;
  /** False once it noticed that it is isolated. */
  serving = true;
  isolations = 0;
  appliedZxid = 0n;
  /** Transactions it has not applied yet. */
  backlog: LoggedTransaction[] = [];
  /** Heard from, not reported to the leader yet. */
  readonly touched = new Set<Session>();

  constructor(
    readonly name: string,
    public tree: SimTree,
  ) {}

  catchUpWith(tree: SimTree, zxid: bigint): void {
    this.tree = tree.clone();
    this.appliedZxid = zxid;
    this.backlog = [];
  }
}

function isHealthy(host: Host): boolean {
  return host.up && !host.frozen && !host.isolated;
}

/** A place in the order of answers of one connection; its turn comes when the server has applied `zxid`. */
interface Place {
  /** Undefined until the leader has decided. */
  zxid: bigint | undefined;
  run: () => void;
}

/** A request on its way, as the client counts it. */
interface Slot {
  readonly answer: (result: ZooKeeperResult) => void;
}

interface ServerSide {
  /** Whether the leader would get a message now; without a leader a message is lost, not kept. */
  reachesLeader(): boolean;
  closed(): void;
  request(request: ZooKeeperRequest, slot: Slot): void;
  closeSession(): void;
}

/** Both ends of one connection. */
class SimConnection implements ZooKeeperConnection {
  session: Session | undefined;
  serverOpen = true;
  readonly dataWatches = new Set<string>();
  readonly childWatches = new Set<string>();
  readonly toServer: Wire;
  readonly toLeader: Wire;
  readonly #toClient: Wire;
  #places: Place[] = [];
  #clientOpen = true;
  #closedTold = false;
  #closing = false;
  readonly #unanswered = new Set<(result: ZooKeeperResult) => void>();
  readonly #random: Random;

  constructor(
    parts: SimZooKeeperParts,
    readonly client: SimZooKeeperClient,
    readonly host: Host,
    private readonly handler: ZooKeeperConnectionHandler,
    private readonly server: ServerSide,
  ) {
    this.#random = parts.random;
    const reachable = (): boolean => client.canReach?.(host.name) ?? true;
    const audible = (): boolean => client.canHear?.(host.name) ?? reachable();
    this.toServer = new Wire(parts, clientDelayMs, () => reachable() && !host.frozen);
    this.#toClient = new Wire(parts, clientDelayMs, () => audible() && !host.frozen);
    this.toLeader = new Wire(parts, serverDelayMs, () => !host.isolated && !host.frozen && server.reachesLeader());
  }

  // The client's end.

  request(request: ZooKeeperRequest, onResult: (result: ZooKeeperResult) => void): void {
    if (this.#closedTold || this.#closing) {
      onResult({ code: "connection-loss" });
      return;
    }
    const once = (result: ZooKeeperResult): void => {
      if (this.#unanswered.delete(once)) onResult(result);
    };
    this.#unanswered.add(once);
    const tell = this.client.guard(once);
    const slot: Slot = {
      answer: (result) => this.#toClient.send(() => this.#ifOpen(() => tell(result))),
    };
    this.toServer.send(() => {
      if (this.serverOpen) this.server.request(request, slot);
    });
  }

  closeSession(): void {
    if (!this.#clientOpen || this.#closing) return;
    this.#closing = true;
    this.toServer.send(() => {
      if (this.serverOpen) this.server.closeSession();
    });
  }

  destroy(): void {
    if (!this.#clientOpen) return;
    this.#hangUp();
    this.client.timers.soon(() => this.#tellClosed(new Error("closed here")));
  }

  /** The process died: nothing is told to it. */
  abandon(silently: boolean): void {
    if (!this.#clientOpen) return;
    this.#clientOpen = false;
    this.#unanswered.clear();
    if (!silently) this.#hangUp();
  }

  #hangUp(): void {
    this.#clientOpen = false;
    this.#toClient.clear();
    // With answers unread the kernel sends a reset, and what the server has not read yet is lost; else it is carried out.
    if (this.#random.float() < 0.5) this.toServer.clear();
    this.toServer.send(() => this.#closeAtServer());
  }

  #ifOpen(action: () => void): void {
    if (this.#clientOpen) action();
  }

  #tellClosed(error: Error | undefined): void {
    this.#closedTold = true;
    for (const onResult of [...this.#unanswered]) onResult({ code: "connection-loss" });
    this.handler.onClosed(error);
  }

  // The server's end.

  grant(session: Session): void {
    const token: ZooKeeperSessionToken = {
      id: session.id,
      password: session.password.slice(),
      lastZxid: this.host.appliedZxid.toString(),
    };
    const { timeoutMs } = session;
    const tell = this.client.guard(() => this.#ifOpen(() => this.handler.onConnected(token, timeoutMs)));
    this.#toClient.send(tell);
  }

  refuseSession(): void {
    const tell = this.client.guard(() => this.#ifOpen(() => this.handler.onSessionExpired()));
    this.#toClient.send(tell);
    this.drop("the session has expired");
  }

  enqueue(place: Place): void {
    if (this.serverOpen) this.#places.push(place);
  }

  runPlaces(isApplied: (zxid: bigint) => boolean): void {
    for (let first = this.#places[0]; first !== undefined; first = this.#places[0]) {
      if (first.zxid === undefined || !isApplied(first.zxid)) return;
      this.#places.shift();
      first.run();
    }
  }

  fire(trigger: Trigger): void {
    const { event, watch } = trigger;
    const fired = (watch === "data" ? this.dataWatches : this.childWatches).delete(event.path);
    // The server tells one client of one deletion once, whichever of its watches it fires.
    if (event.kind === "deleted" && watch === "data") {
      if (this.childWatches.delete(event.path) || fired) this.#notify(trigger);
    } else if (fired) {
      this.#notify(trigger);
    }
  }

  #notify(trigger: Trigger): void {
    const tell = this.client.guard(() => this.#ifOpen(() => this.handler.onWatch(trigger.event)));
    this.#toClient.send(tell);
  }

  /**
   * The server ends the connection; what it answered before still arrives, unless it is a reset. Undefined: as asked
   * for.
   */
  drop(why: string | undefined, options: { readonly reset?: boolean } = {}): void {
    if (!this.serverOpen) return;
    this.#closeAtServer();
    if (options.reset) this.#toClient.clear();
    const tell = this.client.guard(() =>
      this.#ifOpen(() => {
        this.#clientOpen = false;
        this.#tellClosed(why === undefined ? undefined : new Error(why));
      }),
    );
    this.#toClient.send(tell);
  }

  #closeAtServer(): void {
    this.serverOpen = false;
    this.#places = [];
    this.dataWatches.clear();
    this.childWatches.clear();
    this.toServer.clear();
    if (this.session?.connection === this) this.session.connection = undefined;
    this.server.closed();
  }
}

/** One direction: messages arrive in order, each a little later, and wait while nothing gets through. */
class Wire {
  #queue: (() => void)[] = [];
  /** Messages that could not get through: one timer for them all. */
  #held = 0;
  #retryMs = retransmitMs.first;

  constructor(
    private readonly parts: SimZooKeeperParts,
    private readonly delay: { readonly least: number; readonly spread: number },
    private readonly isOpen: () => boolean,
  ) {}

  send(deliver: () => void): void {
    this.#queue.push(deliver);
    this.#deliverIn(this.delay.least + this.delay.spread * this.parts.random.float());
  }

  clear(): void {
    this.#queue = [];
  }

  /** One timer a message, and whichever fires delivers the first one. */
  #deliverIn(delayMs: number): void {
    this.parts.timers.after(delayMs, () => {
      if (this.#queue.length === 0) return;
      if (this.isOpen()) this.#queue.shift()?.();
      else this.#hold();
    });
  }

  #hold(): void {
    this.#held += 1;
    if (this.#held === 1) this.#retryIn(this.#retryMs);
  }

  #retryIn(delayMs: number): void {
    this.parts.timers.after(delayMs, () => {
      if (this.#queue.length > 0 && !this.isOpen()) {
        this.#retryMs = Math.min(retransmitMs.most, 2 * this.#retryMs);
        this.#retryIn(this.#retryMs);
        return;
      }
      const held = this.#held;
      this.#held = 0;
      this.#retryMs = retransmitMs.first;
      for (let count = Math.min(held, this.#queue.length); count > 0; count -= 1) this.#deliverIn(0);
    });
  }
}

function bytesOf(request: ZooKeeperRequest): number {
  const operations = request.kind === "multi" ? request.operations : [request];
  return operations.reduce(
    (sum, operation) => sum + operation.path.length + ("data" in operation ? operation.data.length : 0) + 40,
    0,
  );
}
