import { randomBytes, randomUUID } from "node:crypto";
import type { Clock, Random, Timer, Timers } from "./time.js";

/** The real clocks. */
export const nodeClock: Clock = {
  monotonicMs: () => performance.now(),
  // Called per record on hot paths: nothing but the call.
  wallMs: () => Date.now(),
};

/** Node counts a delay in a signed 32-bit number and takes a greater one for 1 ms; longer waits go in steps of this. */
const stepMaxMs = 2 ** 31 - 1;

/**
 * A timeout that keeps the two promises of `Timers.after` which `setTimeout` does not: it never fires early (Node
 * compares whole milliseconds, so 10 ms may be 9.4), and it may be longer than 24 days.
 */
class NodeTimer implements Timer {
  readonly #dueMs: number;
  readonly #callback: () => void;
  #timeout: NodeJS.Timeout;

  constructor(delayMs: number, callback: () => void) {
    this.#dueMs = performance.now() + delayMs;
    this.#callback = callback;
    this.#timeout = this.#arm(delayMs);
  }

  cancel(): void {
    clearTimeout(this.#timeout);
  }

  #arm(delayMs: number): NodeJS.Timeout {
    return setTimeout(this.#onTimeout, Math.min(Math.ceil(delayMs), stepMaxMs));
  }

  readonly #onTimeout = (): void => {
    const leftMs = this.#dueMs - performance.now();
    if (leftMs > 0) this.#timeout = this.#arm(leftMs);
    else this.#callback();
  };
}

/** The real event loop. */
export const nodeTimers: Timers = {
  after: (delayMs, callback) => new NodeTimer(delayMs, callback),
  soon: (callback) => {
    setImmediate(callback);
  },
  afterThisTurn: (callback) => process.nextTick(callback),
};

/** Real chance; `bytes` and `uuid` come from the system's cryptographic source. */
export const nodeRandom: Random = {
  float: () => Math.random(),
  below: (bound) => Math.floor(Math.random() * bound),
  bytes: (count) => new Uint8Array(randomBytes(count)),
  uuid: () => randomUUID(),
};
