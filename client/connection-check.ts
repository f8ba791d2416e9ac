import type { Env } from "../common/env/env.js";
import { throwUncaught } from "../common/env/time.js";
import type { Timer } from "../common/env/time.js";
import { ApiError } from "../protocol/error-codes.js";
import type { HandshakeRequest, Init } from "../protocol/messages.js";
import type { RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";

/** A broker answers a handshake at once, whatever else it is working on; if not, a fresh connection is tried. */
const PATIENCE_MS = 250;
/** How long a fresh connection may take: a shorter time than usual, as the next attempt may find the way free. */
export const FRESH_CONNECT_MS_MAX = 500;
/** Between two attempts. */
const AGAIN_MS = 20;
/** The pause grows to this: a machine without power is tried for as long as TCP keeps the old connection. */
const AGAIN_MS_MAX = 500;
/** A broker that stood still answers on both connections when it goes on: the old one has this much time to do so. */
const GRACE_MS = 100;

export interface CheckHost {
  readonly handshake: Init<HandshakeRequest>;
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
 */
export class ConnectionCheck {
  #isOver = false;
  #timer: Timer | undefined;
  #pauseMs = AGAIN_MS / 2;
  #fresh: RpcConnection | undefined;

  constructor(
    private readonly env: Env,
    connection: RpcConnection,
    private readonly host: CheckHost,
  ) {
    connection.request("handshake", host.handshake).then(
      () => this.#onAnswer(),
      (error: unknown) => {
        // A refusal is an answer. Of a connection that has ended whoever holds it hears anyway.
        if (error instanceof ApiError) this.#onAnswer();
        else if (!(error instanceof TransportError)) throwUncaught(env.timers, error);
      },
    );
    this.#after(PATIENCE_MS, () => this.#tryFresh());
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
    this.#after(GRACE_MS, () => {
      this.#fresh = undefined;
      if (fresh.isOpen) this.#lost(fresh);
      else this.#tryFresh();
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
