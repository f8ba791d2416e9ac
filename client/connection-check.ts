import type { Env } from "../common/env/env.js";
import { throwUncaught } from "../common/env/time.js";
import type { Timer } from "../common/env/time.js";
import { ApiError } from "../protocol/error-codes.js";
import type { HandshakeRequest, Init } from "../protocol/messages.js";
import type { RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";

/** A broker answers a handshake at once, whatever else it is working on, if nothing stands in front of it on its way. */
const PATIENCE_MS = 250;
/** What stands in front of it may take so many times as long as it took before. */
const SLACK = 2;
/** How long a fresh connection may take: a shorter time than usual, as the next attempt may find the way free. */
export const FRESH_CONNECT_MS_MAX = 500;
/** Between two attempts. */
const AGAIN_MS = 20;
/** The pause grows to this: a machine without power is tried for as long as TCP keeps the old connection. */
const AGAIN_MS_MAX = 500;
/** A broker that stood still answers on both connections when it goes on: the old one has this much time to do so. */
const GRACE_MS = 100;

/** What is to be known of the connection. */
export type CheckedConnection = Pick<
  RpcConnection,
  "request" | "receivedBytes" | "unsentBytes" | "takenBytes" | "underWayBytes"
>;

export interface CheckHost {
  readonly handshake: Init<HandshakeRequest>;
  /** How fast bytes arrive at the broker, as far as is known. */
  readonly bytesPerMs: number;
  /** Makes a fresh connection to the same broker. Rejects with TransportError or ApiError. */
  open(): Promise<RpcConnection>;
  /** The connection leads nowhere. `fresh` is one that does; undefined: the broker is not at its address any more. */
  onLost(fresh: RpcConnection | undefined): void;
  /** The connection is alive. */
  onAlive(): void;
}

/**
 * Finds out whether a connection on which an answer is overdue still leads to its broker. Where the way was cut for a
 * while, TCP sends again with growing pauses, so that an old connection may need as long again as the cut has lasted,
 * while a fresh one works at once. A connection that answers a handshake is kept, however long other answers take; it is
 * lost when it does not although a fresh one to the same broker does.
 *
 * Where the way is slow the handshake stands behind what is under way, and the answer to it behind other answers. So a
 * connection on which bytes move leads to its broker: that some arrive is seen, and that the kernel takes some of those
 * that wait for it. Those that it has taken move unseen: they are given the time that they need.
 */
export class ConnectionCheck {
  #isOver = false;
  #timer: Timer | undefined;
  #pauseMs = AGAIN_MS / 2;
  #fresh: RpcConnection | undefined;
  /** Until then what stands in front of the handshake may be under way. */
  readonly #arrivalMs: number;
  /** Of the connection when it was last looked at. */
  #seen: Pick<CheckedConnection, "receivedBytes" | "unsentBytes" | "takenBytes">;

  constructor(
    private readonly env: Env,
    private readonly connection: CheckedConnection,
    private readonly host: CheckHost,
  ) {
    this.#arrivalMs = env.clock.monotonicMs() + (SLACK * connection.underWayBytes) / host.bytesPerMs;
    this.#seen = seenOf(connection);
    connection.request("handshake", host.handshake).then(
      () => this.#onAnswer(),
      (error: unknown) => {
        // A refusal is an answer. Of a connection that has ended whoever holds it hears anyway.
        if (error instanceof ApiError) this.#onAnswer();
        else if (!(error instanceof TransportError)) throwUncaught(env.timers, error);
      },
    );
    this.#after(PATIENCE_MS, () => this.#look());
  }

  /** Nothing is found out any more. */
  end(): void {
    this.#isOver = true;
    this.#timer?.cancel();
    this.#fresh?.close();
  }

  #after(delayMs: number, act: () => void): void {
    this.#timer = this.env.timers.after(delayMs, act);
  }

  #onAnswer(): void {
    if (this.#isOver) return;
    this.end();
    this.host.onAlive();
  }

  #look(): void {
    if (this.#moves() || this.env.clock.monotonicMs() < this.#arrivalMs) this.#after(PATIENCE_MS, () => this.#look());
    else this.#tryFresh();
  }

  /** Whether bytes have moved since this was asked last. */
  #moves(): boolean {
    const { receivedBytes, unsentBytes, takenBytes } = this.#seen;
    this.#seen = seenOf(this.connection);
    return this.#seen.receivedBytes > receivedBytes || (unsentBytes > 0 && this.#seen.takenBytes > takenBytes);
  }

  #tryFresh(): void {
    this.host.open().then(
      (fresh) => this.#onFresh(fresh),
      (error: unknown) => this.#onFailed(error),
    );
  }

  #onFresh(fresh: RpcConnection): void {
    if (this.#isOver) {
      fresh.close();
      return;
    }
    this.#fresh = fresh;
    // What moved before may have been the last of it.
    this.#moves();
    this.#after(GRACE_MS, () => {
      this.#fresh = undefined;
      if (!fresh.isOpen) this.#tryFresh();
      else if (this.#moves()) this.#onFresh(fresh);
      else this.#lost(fresh);
    });
  }

  #onFailed(error: unknown): void {
    if (!(error instanceof TransportError || error instanceof ApiError)) {
      throwUncaught(this.env.timers, error);
      return;
    }
    if (this.#isOver) return;
    const isElsewhere =
      error instanceof ApiError &&
      (error.errorName === "WRONG_BROKER" || error.errorName === "INCONSISTENT_CLUSTER_ID");
    if (isElsewhere) this.#lost(undefined);
    else this.#after(this.#nextPauseMs(), () => this.#tryFresh());
  }

  #nextPauseMs(): number {
    this.#pauseMs = Math.min(2 * this.#pauseMs, AGAIN_MS_MAX);
    return this.#pauseMs;
  }

  #lost(fresh: RpcConnection | undefined): void {
    this.end();
    this.host.onLost(fresh);
  }
}

const seenOf = ({ receivedBytes, unsentBytes, takenBytes }: CheckedConnection) => ({
  receivedBytes,
  unsentBytes,
  takenBytes,
});
