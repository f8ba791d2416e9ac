import { BytePool } from "../../common/byte-pool.js";
import type { Env } from "../../common/env/env.js";
import type { Listener, Socket } from "../../common/env/network.js";
import type { Timer } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import type { ConnectionLimits } from "./connection.js";
import { Connection } from "./connection.js";
import { MemoryBudget } from "./memory-budget.js";
import type { ResponseBudget } from "./response-budget.js";
import type { RequestRouter } from "./request-router.js";

export interface ListenerOptions {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  /** Replication and orders are accepted here, and its slots are reserved. */
  readonly isInterBroker: boolean;
}

export interface ServerLimits extends ConnectionLimits {
  readonly connectionsMax: number;
  readonly connectionsPerAddressMax: number;
  readonly connectionsPerSecondMax: number;
  readonly inFlightBytesMax: number;
}

const DEADLINE_CHECK_MS = 1000;
const LOG_AGAIN_MS = 1000;
/** Memory of request frames that is kept for the next ones. */
const IDLE_FRAME_BYTES_MAX = 16 * 1024 * 1024;

/** While memory for responses is short, whoever has not read for so long is the next to go. */
const UNREAD_GRACE_MS = 1000;
/** No more than one in such a time. */
const RELIEF_MS = 50;

/** Connections on the inter-broker listener whose peers have not proved to be brokers; a broker takes a moment for that. */
const STRANGERS_MAX = 100;

/** Bytes of request frames that all connections of brokers together may hold. */
const INTER_BROKER_BYTES_MAX = 32 * 1024 * 1024;

/** Listens, caps connections and watches their deadlines. */
export class Server {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #limits: ServerLimits;
  readonly #router: RequestRouter;
  readonly #onFatal: (error: Error) => void;
  readonly #responses: ResponseBudget;
  readonly #clientBudget: MemoryBudget;
  /** Of its own, because requests of brokers are what makes those of clients end: replication, orders. */
  readonly #brokerBudget = new MemoryBudget(INTER_BROKER_BYTES_MAX);
  readonly #frames = new BytePool(IDLE_FRAME_BYTES_MAX);
  readonly #listeners: Listener[] = [];
  readonly #connections = new Set<Connection>();
  readonly #perAddress = new Map<string, number>();
  readonly #loggedMs = new Map<string, { atMs: number; suppressed: number }>();
  #clientConnections = 0;
  #relievedMs = Number.NEGATIVE_INFINITY;
  #acceptedSecond = 0;
  #acceptedInSecond = 0;
  #nextConnectionId = 1;
  #check: Timer | undefined;
  #closed = false;

  constructor(
    env: Env,
    logger: Logger,
    parts: {
      limits: ServerLimits;
      responses: ResponseBudget;
      router: RequestRouter;
      onFatal: (error: Error) => void;
    },
  ) {
    this.#env = env;
    this.#logger = logger;
    this.#limits = parts.limits;
    this.#router = parts.router;
    this.#onFatal = parts.onFatal;
    this.#responses = parts.responses;
    this.#responses.onLack = (lack) => this.#relieve(lack);
    this.#clientBudget = new MemoryBudget(parts.limits.inFlightBytesMax);
  }

  /** Resolves with the bound port. Rejects with ListenFailure. */
  async listen(options: ListenerOptions): Promise<number> {
    const listener = await this.#env.network.listen(options, (socket) => this.#accept(socket, options));
    this.#listeners.push(listener);
    this.#check ??= this.#env.timers.after(DEADLINE_CHECK_MS, () => this.#onCheck());
    return listener.port;
  }

  /** Stops listening, ends every connection. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#check?.cancel();
    for (const connection of this.#connections) connection.disconnect();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
  }

  #accept(socket: Socket, listener: ListenerOptions): void {
    const refusal = this.#closed
      ? "the broker is stopping"
      : this.#refusal(socket.remoteAddress, listener.isInterBroker);
    if (refusal !== undefined) {
      this.#warn("refused-connection", `connection from ${socket.remoteAddress} refused: ${refusal}`);
      socket.destroy();
      return;
    }
    const address = socket.remoteAddress;
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    if (!listener.isInterBroker) this.#clientConnections += 1;
    const connection = new Connection(this.#nextConnectionId++, listener.name, listener.isInterBroker, socket, {
      clock: this.#env.clock,
      router: this.#router,
      budget: listener.isInterBroker ? this.#brokerBudget : this.#clientBudget,
      responses: this.#responses,
      frames: this.#frames,
      limits: this.#limits,
      onFatal: this.#onFatal,
      onMisuse: (kind, sentence) => this.#warn(kind, `${address} on ${listener.name} ${sentence}`),
      onClosed: (closed) => this.#onConnectionClosed(closed),
    });
    if (listener.isInterBroker) this.#limitStrangers();
    this.#connections.add(connection);
  }

  /** The oldest goes, so that strangers keep no broker out. */
  #limitStrangers(): void {
    const strangers = [...this.#connections].filter((one) => one.isInterBroker && one.broker === undefined);
    if (strangers.length >= STRANGERS_MAX) strangers[0]?.disconnect();
  }

  /** Brokers keep their slots however many clients there are. */
  #refusal(address: string, isInterBroker: boolean): string | undefined {
    if (isInterBroker) return undefined;
    const limits = this.#limits;
    if (this.#clientConnections >= limits.connectionsMax)
      return `there are ${limits.connectionsMax} already (connections.max)`;
    if (isLoopback(address)) return undefined;
    if ((this.#perAddress.get(address) ?? 0) >= limits.connectionsPerAddressMax) {
      return `this address has ${limits.connectionsPerAddressMax} already (connections.per.ip.max)`;
    }
    const second = Math.floor(this.#env.clock.monotonicMs() / 1000);
    if (second !== this.#acceptedSecond) {
      this.#acceptedSecond = second;
      this.#acceptedInSecond = 0;
    }
    this.#acceptedInSecond += 1;
    return this.#acceptedInSecond > limits.connectionsPerSecondMax
      ? `more than ${limits.connectionsPerSecondMax} a second (connection.creation.rate.max)`
      : undefined;
  }

  /**
   * Where memory for responses is short, the client that has left some unread for longest goes, if that is long. Where more
   * is taken than there is, the one with most goes at once.
   */
  #relieve(lack: "short" | "over"): void {
    const nowMs = this.#env.clock.monotonicMs();
    if (lack === "short" && nowMs - this.#relievedMs < RELIEF_MS) return;
    let worst: Connection | undefined;
    let worstMeasure = lack === "short" ? UNREAD_GRACE_MS : 1;
    for (const connection of this.#connections) {
      const unread = connection.unread(nowMs);
      const measure = lack === "short" ? unread?.forMs : unread?.bytes;
      if (measure === undefined || measure < worstMeasure) continue;
      worst = connection;
      worstMeasure = measure;
    }
    if (worst === undefined) return;
    this.#relievedMs = nowMs;
    worst.endAsUnread();
  }

  #onConnectionClosed(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    if (!connection.isInterBroker) this.#clientConnections -= 1;
    const left = (this.#perAddress.get(connection.remoteAddress) ?? 1) - 1;
    if (left === 0) this.#perAddress.delete(connection.remoteAddress);
    else this.#perAddress.set(connection.remoteAddress, left);
  }

  #onCheck(): void {
    if (this.#closed) return;
    for (const connection of this.#connections) connection.checkDeadlines();
    this.#check = this.#env.timers.after(DEADLINE_CHECK_MS, () => this.#onCheck());
  }

  /** One line a second for each kind of misuse, so that nobody can fill the log. */
  #warn(kind: string, sentence: string): void {
    const nowMs = this.#env.clock.monotonicMs();
    const logged = this.#loggedMs.get(kind);
    if (logged !== undefined && nowMs - logged.atMs < LOG_AGAIN_MS) {
      logged.suppressed += 1;
      return;
    }
    this.#loggedMs.set(kind, { atMs: nowMs, suppressed: 0 });
    this.#logger.warn(
      sentence,
      logged !== undefined && logged.suppressed > 0 ? { alsoSuppressed: logged.suppressed } : undefined,
    );
  }
}

const isLoopback = (address: string): boolean =>
  address.startsWith("127.") || address === "::1" || address.startsWith("::ffff:127.");
