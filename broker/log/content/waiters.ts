import type { Timers } from "../../../common/env/time.js";
import type { Offset } from "../../../protocol/types.js";

/** What a log tells its partition. Never called from inside a call that the partition makes. */
export interface LogListener {
  /** A queued write has ended: the log end offset has moved. */
  onWritten(): void;
  /** The flushed offset has moved. */
  onFlushed(): void;
  /** The log start is durable where it was not before. */
  onLogStart(): void;
  /** The log refuses appends for now, because the disk is full. */
  onFull(): void;
  /** Records on the disk turned out to be damaged. */
  onDamaged(): void;
}

interface Waiter {
  readonly endOffset: Offset;
  resolve(): void;
  reject(error: Error): void;
}

/**
 * Whoever waits for a log to move: appends that are not written yet, or not flushed, and the partition that listens. Both
 * lists are in the order of their offsets, because appends take their places in order.
 */
export class LogWaiters {
  /** There is one listener; a new one replaces the old. */
  listener: LogListener | undefined;
  readonly #forWrite: Waiter[] = [];
  readonly #forFlush: Waiter[] = [];

  constructor(private readonly timers: Timers) {}

  whenWritten(endOffset: Offset): Promise<void> {
    return wait(this.#forWrite, endOffset);
  }

  whenFlushed(endOffset: Offset): Promise<void> {
    return wait(this.#forFlush, endOffset);
  }

  writtenTo(logEnd: Offset): void {
    settle(this.#forWrite, logEnd);
  }

  flushedTo(offset: Offset): void {
    settle(this.#forFlush, offset);
    this.listener?.onFlushed();
  }

  /** Tells the partition when the call that it may be in has ended. */
  fault(kind: "onFull" | "onDamaged"): void {
    this.timers.afterThisTurn(() => this.listener?.[kind]());
  }

  /** What lies behind the log end will not be written. */
  rejectUnwritten(logEnd: Offset, error: Error): void {
    rejectAll(this.#forWrite, error);
    rejectBehind(this.#forFlush, logEnd, error);
  }

  rejectAll(error: Error): void {
    rejectAll(this.#forWrite, error);
    rejectAll(this.#forFlush, error);
  }
}

function wait(waiters: Waiter[], endOffset: Offset): Promise<void> {
  const written = new Promise<void>((resolve, reject) => waiters.push({ endOffset, resolve, reject }));
  // Not everyone waits: with acks=0 a failure is nobody's news but the log's.
  written.catch(() => undefined);
  return written;
}

/** Resolves, from the front, all who wait for no more than the offset. */
function settle(waiters: Waiter[], offset: Offset): void {
  let count = 0;
  while (count < waiters.length && (waiters[count] as Waiter).endOffset <= offset) count += 1;
  for (const waiter of waiters.splice(0, count)) waiter.resolve();
}

function rejectAll(waiters: Waiter[], error: Error): void {
  for (const waiter of waiters.splice(0)) waiter.reject(error);
}

function rejectBehind(waiters: Waiter[], offset: Offset, error: Error): void {
  const behind = waiters.filter((waiter) => waiter.endOffset > offset);
  const kept = waiters.filter((waiter) => waiter.endOffset <= offset);
  waiters.splice(0, waiters.length, ...kept);
  for (const waiter of behind) waiter.reject(error);
}
