import type { Clock } from "../../common/env/time.js";

/** One moment on both clocks. */
export interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export function instantOf(clock: Clock): Instant {
  return { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
}

/**
 * Until when the ZooKeeper session cannot have expired, as far as acknowledged barriers prove it: 5/6 of the session
 * timeout after the sending of the acknowledged barrier *before* the newest. The newest itself proves too little: a write
 * through a ZooKeeper follower does not touch the leader's clock of the session; the follower reports touches every half
 * tick, and may die before it does. Of two barriers a sixth of the timeout apart, which is a tick or more,
 * the earlier one has been reported when the later is acknowledged.
 *
 * Tested on use, with no timer, because a timer runs late exactly when it matters. Nothing that must be safe rests on it: a
 * process can be stopped between the test and the deed.
 */
export class Lease {
  #timeoutMs = 0;
  #previous: Instant | undefined;
  #latest: Instant | undefined;

  constructor(private readonly clock: Clock) {}

  /**
   * A session was made, asked for at `requested`. That is a transaction of the ensemble's leader, which started the
   * session's clock, so it counts like two barriers at once. Taking a session up again does not: a deposed leader may
   * grant that.
   */
  begin(requested: Instant, timeoutMs: number): void {
    this.#timeoutMs = timeoutMs;
    this.#previous = requested;
    this.#latest = requested;
  }

  /** The barrier sent at `sent` was acknowledged. */
  acknowledge(sent: Instant): void {
    const latest = this.#latest;
    if (latest !== undefined && sent.monotonicMs - latest.monotonicMs < this.#timeoutMs / 6) return;
    this.#previous = latest;
    this.#latest = sent;
  }

  /** Nothing that was acknowledged until now counts any more. */
  lapse(): void {
    this.#previous = undefined;
    this.#latest = undefined;
  }

  /** 0 when it has lapsed. */
  get remainingMs(): number {
    const previous = this.#previous;
    if (previous === undefined) return 0;
    const elapsedMs = this.clock.monotonicMs() - previous.monotonicMs;
    // A suspended virtual machine stops the monotonic clock and not the wall clock.
    const suspendedMs = this.clock.wallMs() - previous.wallMs - elapsedMs;
    if (suspendedMs >= this.#timeoutMs / 6) return 0;
    return Math.max(0, (this.#timeoutMs * 5) / 6 - elapsedMs);
  }
}
