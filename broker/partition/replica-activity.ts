import type { Clock } from "../../common/env/time.js";
import type { BrokerId } from "../../protocol/types.js";

/** When each follower last fetched anything from this broker: one number a broker, however many partitions it follows. */
export class ReplicaActivity {
  readonly #lastFetchMs = new Map<BrokerId, number>();

  constructor(private readonly clock: Clock) {}

  /** A fetch of this follower arrived. */
  onFetch(brokerId: BrokerId): void {
    this.#lastFetchMs.set(brokerId, this.clock.monotonicMs());
  }

  /** On the monotonic clock; before everything if it never fetched. */
  lastFetchMs(brokerId: BrokerId): number {
    return this.#lastFetchMs.get(brokerId) ?? Number.NEGATIVE_INFINITY;
  }
}
