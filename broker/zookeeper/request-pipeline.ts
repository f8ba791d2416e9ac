import type { Clock, Timer, Timers } from "../../common/env/time.js";
import type { ZooKeeperConnection, ZooKeeperRequest, ZooKeeperResult } from "../../common/env/zookeeper-connection.js";
import { describeRequest, ZooKeeperError } from "./zookeeper-error.js";
import type { ZooKeeperErrorDetails } from "./zookeeper-error.js";

/** Requests that wait for their answer at one time: more would block the event loop for longer when the answers come. */
const windowRequests = 256;
/** Requests that wait to be sent. */
const waitingMax = 20_000;
/**
 * Turns of the event loop between finding that an answer is late and acting on it: after a stall of our own, the answer lies
 * in the socket and is read first.
 */
const graceTurns = 3;

type Settle = (result: ZooKeeperResult | ZooKeeperError) => void;

interface Entry {
  readonly request: ZooKeeperRequest;
  readonly settle: Settle;
  sentMs: number;
}

/** How a request takes its place. */
export interface SubmitOptions {
  /** Sent at once, past the queue and the window: the barrier, which proves that the session lives. */
  readonly urgent?: boolean;
  /** Never refused for a full queue: the wrapper's own reads, whose number its callers bound. */
  readonly exempt?: boolean;
}

/**
 * The requests of one session on their way over one connection at a time: a window in flight, a bounded queue behind it, and
 * a watch on the oldest unanswered one. An answer that does not come in time means that the connection is dead, whatever TCP
 * says, because a server answers in order; `onSilent` is told, and the rest is the owner's business.
 *
 * Each request is settled exactly once: with its result, with NotConnected if it was never sent, with OutcomeUnknown if it
 * was. Settling happens in the turn of the answer, before any later watch event.
 */
export class RequestPipeline {
  #connection: ZooKeeperConnection | undefined;
  #deadlineMs = 0;
  readonly #inFlight = new Set<Entry>();
  #waiting: Entry[] = [];
  #waitingHead = 0;
  #watchdog: Timer | undefined;
  /** Grows whenever a watchdog is done with, so that one that is still counting its grace turns learns it. */
  #round = 0;

  constructor(
    private readonly clock: Clock,
    private readonly timers: Timers,
    private readonly onSilent: (silentMs: number) => void,
  ) {}

  /** From now on requests go over this connection. */
  attach(connection: ZooKeeperConnection, deadlineMs: number): void {
    this.#connection = connection;
    this.#deadlineMs = deadlineMs;
  }

  /** The connection is gone: everything that is not answered fails, `why` saying in the message what happened. */
  detach(why: string): void {
    this.#connection = undefined;
    this.#endRound();
    const sent = [...this.#inFlight];
    const unsent = this.#waiting.slice(this.#waitingHead);
    this.#inFlight.clear();
    this.#waiting = [];
    this.#waitingHead = 0;
    for (const entry of sent) entry.settle(outcomeUnknown(entry.request, why));
    for (const entry of unsent) entry.settle(notConnected(entry.request, why));
  }

  /** Sends the request as soon as the window allows. Settles at once when it cannot be sent at all. */
  submit(request: ZooKeeperRequest, settle: Settle, options: SubmitOptions = {}): void {
    const connection = this.#connection;
    if (connection === undefined) {
      settle(notConnected(request, "there is no connection to ZooKeeper"));
      return;
    }
    const entry: Entry = { request, settle, sentMs: 0 };
    if (options.urgent) {
      this.#send(connection, entry);
    } else if (this.#inFlight.size < windowRequests && this.#waitingCount === 0) {
      this.#send(connection, entry);
    } else if (this.#waitingCount < waitingMax || options.exempt) {
      this.#waiting.push(entry);
    } else {
      settle(notConnected(request, `${waitingMax} requests to ZooKeeper wait already; try again later`));
    }
  }

  get #waitingCount(): number {
    return this.#waiting.length - this.#waitingHead;
  }

  #send(connection: ZooKeeperConnection, entry: Entry): void {
    entry.sentMs = this.clock.monotonicMs();
    this.#inFlight.add(entry);
    this.#watch();
    connection.request(entry.request, (result) => {
      // Otherwise it was settled by `detach`.
      if (!this.#inFlight.delete(entry)) return;
      entry.settle(
        result.code === "connection-loss" ? outcomeUnknown(entry.request, "the connection ended before") : result,
      );
      // A connection that has ended would answer each that waits at once; `detach` follows and says that none was sent.
      if (result.code !== "connection-loss" && this.#connection === connection) this.#refill(connection);
    });
  }

  #refill(connection: ZooKeeperConnection): void {
    while (this.#inFlight.size < windowRequests && this.#waitingCount > 0) {
      const entry = this.#waiting[this.#waitingHead] as Entry;
      this.#waitingHead += 1;
      if (this.#waitingHead === this.#waiting.length) {
        this.#waiting = [];
        this.#waitingHead = 0;
      }
      this.#send(connection, entry);
    }
  }

  /** One timer, for the oldest request; it looks anew when it fires, so that an answer costs nothing. */
  #watch(): void {
    if (this.#watchdog !== undefined) return;
    const oldest = this.#oldest();
    if (oldest === undefined) return;
    const dueMs = oldest.sentMs + this.#deadlineMs - this.clock.monotonicMs();
    const round = this.#round;
    this.#watchdog = this.timers.after(Math.max(0, dueMs), () => this.#accuse(oldest, round, graceTurns));
  }

  #accuse(entry: Entry, round: number, turnsLeft: number): void {
    if (round !== this.#round) return;
    if (!this.#inFlight.has(entry)) {
      this.#endRound();
      this.#watch();
    } else if (turnsLeft > 0) {
      this.timers.soon(() => this.#accuse(entry, round, turnsLeft - 1));
    } else {
      this.#endRound();
      this.onSilent(this.clock.monotonicMs() - entry.sentMs);
    }
  }

  #endRound(): void {
    this.#round += 1;
    this.#watchdog?.cancel();
    this.#watchdog = undefined;
  }

  #oldest(): Entry | undefined {
    for (const entry of this.#inFlight) return entry;
    return undefined;
  }
}

function notConnected(request: ZooKeeperRequest, why: string): ZooKeeperError {
  return new ZooKeeperError("NotConnected", `${describeRequest(request)} was not sent: ${why}`, detailsOf(request));
}

function outcomeUnknown(request: ZooKeeperRequest, why: string): ZooKeeperError {
  return new ZooKeeperError(
    "OutcomeUnknown",
    `${describeRequest(request)} was sent and not answered: ${why}; read again before trying again`,
    detailsOf(request),
  );
}

function detailsOf(request: ZooKeeperRequest): ZooKeeperErrorDetails {
  return request.kind === "multi" ? {} : { path: request.path };
}
