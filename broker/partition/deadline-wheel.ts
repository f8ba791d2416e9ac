import { EarliestTimer } from "../../common/earliest-timer.js";
import type { Clock, Timers } from "../../common/env/time.js";

/** Deadlines within one slot of so many milliseconds expire together. */
const SLOT_MS = 10;

/** Something that waits until a deadline at most. */
export interface Deadline {
  /** Idempotent. */
  cancel(): void;
}

interface Entry extends Deadline {
  readonly onExpired: () => void;
  isCancelled: boolean;
}

/**
 * The deadlines of all requests that wait in this broker, on one timer: a timer each would cost more than the requests.
 * A deadline expires up to SLOT_MS late, never early.
 */
export class DeadlineWheel {
  readonly #slots = new Map<number, Set<Entry>>();
  readonly #timer: EarliestTimer;

  constructor(
    private readonly clock: Clock,
    timers: Timers,
  ) {
    this.#timer = new EarliestTimer({ clock, timers }, () => this.#onTimer());
  }

  /** Calls `onExpired` once, `delayMs` or a little more from now, unless cancelled. */
  after(delayMs: number, onExpired: () => void): Deadline {
    const slot = Math.ceil((this.clock.monotonicMs() + delayMs) / SLOT_MS);
    let entries = this.#slots.get(slot);
    if (entries === undefined) this.#slots.set(slot, (entries = new Set()));
    const entry: Entry = { onExpired, isCancelled: false, cancel: () => this.#cancel(slot, entry) };
    entries.add(entry);
    this.#timer.wakeAt(slot * SLOT_MS);
    return entry;
  }

  close(): void {
    this.#timer.cancel();
    this.#slots.clear();
  }

  #cancel(slot: number, entry: Entry): void {
    // One of the same slot may be what cancels it.
    entry.isCancelled = true;
    const entries = this.#slots.get(slot);
    if (entries?.delete(entry) && entries.size === 0) this.#slots.delete(slot);
  }

  #onTimer(): void {
    const nowSlot = Math.floor(this.clock.monotonicMs() / SLOT_MS);
    for (const [slot, entries] of this.#slots) {
      if (slot > nowSlot) {
        this.#timer.wakeAt(slot * SLOT_MS);
        continue;
      }
      this.#slots.delete(slot);
      for (const entry of entries) if (!entry.isCancelled) entry.onExpired();
    }
  }
}
