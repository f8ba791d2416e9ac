import type { ErrorReport } from "../../protocol/error-codes.js";
import type { LeaderEpoch, Offset } from "../../protocol/types.js";
import type { Deadline, DeadlineWheel } from "./deadline-wheel.js";

interface Waiter {
  readonly endOffset: Offset;
  readonly onOutcome: (refusal: ErrorReport | undefined) => void;
  deadline: Deadline | undefined;
}

/**
 * Requests that wait until something has reached an offset on all replicas that count: the high watermark, for a produce,
 * or the log start, for a deletion. They are bound to one leader epoch: when it ends they fail at once with an unknown
 * outcome, because what they did may be undone and the offsets be given to other records. Each is completed exactly once.
 */
export class ReplicationWaiters {
  /** In the order of `endOffset`. */
  readonly #waiters: Waiter[] = [];

  constructor(
    private readonly wheel: DeadlineWheel,
    readonly leaderEpoch: LeaderEpoch,
  ) {}

  get size(): number {
    return this.#waiters.length;
  }

  /** `onOutcome` is told `undefined` once the offset is reached, else why it may not be. */
  add(
    endOffset: Offset,
    timeoutMs: number,
    onTimeout: () => ErrorReport,
    onOutcome: (refusal: ErrorReport | undefined) => void,
  ): void {
    const waiter: Waiter = { endOffset, onOutcome, deadline: undefined };
    waiter.deadline = this.wheel.after(timeoutMs, () => {
      const index = this.#waiters.indexOf(waiter);
      if (index < 0) return;
      this.#waiters.splice(index, 1);
      onOutcome(onTimeout());
    });
    // A duplicate waits for an offset that was given out before, so the place is sought from the end.
    let at = this.#waiters.length;
    while (at > 0 && (this.#waiters[at - 1] as Waiter).endOffset > endOffset) at -= 1;
    this.#waiters.splice(at, 0, waiter);
  }

  reached(offset: Offset): void {
    let count = 0;
    while (count < this.#waiters.length && (this.#waiters[count] as Waiter).endOffset <= offset) count += 1;
    if (count === 0) return;
    for (const waiter of this.#waiters.splice(0, count)) {
      waiter.deadline?.cancel();
      waiter.onOutcome(undefined);
    }
  }

  failAll(refusal: ErrorReport): void {
    for (const waiter of this.#waiters.splice(0)) {
      waiter.deadline?.cancel();
      waiter.onOutcome(refusal);
    }
  }
}
