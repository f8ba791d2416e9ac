import { onAbort } from "../on-abort.js";

/** Two clocks, because they answer different questions and only one of them may jump. */
export interface Clock {
  /** Milliseconds since some fixed point, with a fraction. Never goes back; the only clock for deadlines and leases. */
  monotonicMs(): number;
  /** Whole milliseconds since 1970, as people read them. May jump either way; only for timestamps. */
  wallMs(): number;
}

/** A pending call. `cancel` is idempotent and does nothing once the call was made. */
export interface Timer {
  cancel(): void;
}

export interface Timers {
  /** Calls `callback` once, `delayMs` or more from now. A pending timer keeps the process alive. */
  after(delayMs: number, callback: () => void): Timer;
  /** Calls `callback` in a later turn of the event loop, after pending I/O was polled. */
  soon(callback: () => void): void;
  /** Calls `callback` when the running turn has ended, before any I/O: batches what one turn produced. */
  afterThisTurn(callback: () => void): void;
}

/** Chance. Nothing cryptographic is drawn from it except `uuid` and `bytes`, which are unpredictable in production. */
export interface Random {
  /** Uniform in [0, 1). */
  float(): number;
  /** Uniform whole number in [0, bound). */
  below(bound: number): number;
  bytes(count: number): Uint8Array;
  /** A random (version 4) UUID, lower case. */
  uuid(): string;
}

/** Resolves `delayMs` or more from now; rejects with `signal.reason` when aborted first. */
export function sleep(timers: Timers, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const timer = timers.after(delayMs, () => {
      stopListening();
      resolve();
    });
    const stopListening = onAbort(signal, () => {
      timer.cancel();
      reject(signal?.reason as Error);
    });
  });
}

/** Throws where nobody catches: for a fault that must not pass in silence, and must not stop the caller either. */
export function throwUncaught(timers: Timers, error: unknown): void {
  timers.afterThisTurn(() => {
    throw error;
  });
}

/**
 * Gives `work` until `deadlineMs` from now; after that rejects with what `onTimeout` makes. The work itself is not
 * stopped: its late result is dropped, its late failure is swallowed.
 */
export function withDeadline<T>(
  timers: Timers,
  deadlineMs: number,
  work: Promise<T>,
  onTimeout: () => Error,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = timers.after(deadlineMs, () => reject(onTimeout()));
    work.then(
      (value) => {
        timer.cancel();
        resolve(value);
      },
      (error: unknown) => {
        timer.cancel();
        reject(error as Error);
      },
    );
  });
}
