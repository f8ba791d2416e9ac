import type { Clock, Timers } from "../common/env/time.js";
import type { PartitionQueue } from "./partition-queue.js";

/** The clock is read once for so many records of a turn: reading it costs as much as encoding a record. */
const RECORDS_PER_CLOCK_READ = 64;

/**
 * The turn of the event loop in which records are handed to a producer: its time, and the queues that got some. What one
 * turn brought leaves together when it ends.
 */
export class ProducerTurn {
  #queues: PartitionQueue[] = [];
  #isHooked = false;
  #readsLeft = 0;
  #nowMs = 0;

  constructor(private readonly env: { readonly clock: Clock; readonly timers: Timers }) {}

  /** Milliseconds since 1970, for the timestamp of a record. */
  nowMs(): number {
    this.#readsLeft -= 1;
    if (this.#readsLeft < 0) {
      this.#readsLeft = RECORDS_PER_CLOCK_READ - 1;
      this.#nowMs = this.env.clock.wallMs();
      this.#hook();
    }
    return this.#nowMs;
  }

  /** Pumps the queue at the end of the turn. `isListed` says whether that will be done already. */
  list(queue: PartitionQueue): void {
    queue.isListed = true;
    this.#queues.push(queue);
    this.#hook();
  }

  #hook(): void {
    if (this.#isHooked) return;
    this.#isHooked = true;
    this.env.timers.afterThisTurn(() => this.#onEnded());
  }

  #onEnded(): void {
    this.#isHooked = false;
    this.#readsLeft = 0;
    const queues = this.#queues;
    this.#queues = [];
    for (const queue of queues) {
      queue.isListed = false;
      queue.pump();
    }
  }
}
