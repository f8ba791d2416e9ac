import type { BrokerId } from "../../protocol/types.js";
import type { Partition } from "./partition.js";
import type { ReplicaFetcherParts } from "./replica-fetcher.js";
import { ReplicaFetcher } from "./replica-fetcher.js";

/** The fetchers of this broker: one for each broker that leads a partition followed here. */
export class ReplicaFetchers {
  readonly #fetchers = new Map<BrokerId, ReplicaFetcher>();

  constructor(private readonly parts: ReplicaFetcherParts) {}

  /** Follows the leader that the partition's role names, and nobody else. */
  update(partition: Partition): void {
    const { role } = partition;
    const leaderId = role.kind === "follower" ? role.leaderId : undefined;
    for (const [id, fetcher] of this.#fetchers) {
      if (id === leaderId) continue;
      fetcher.unfollow(partition);
      if (!fetcher.isIdle) continue;
      fetcher.close();
      this.#fetchers.delete(id);
    }
    if (role.kind !== "follower") return;
    let fetcher = this.#fetchers.get(role.leaderId);
    if (fetcher === undefined) {
      fetcher = new ReplicaFetcher(this.parts, role.leaderId);
      this.#fetchers.set(role.leaderId, fetcher);
    }
    fetcher.follow(partition, role.epoch);
  }

  /** The leader is to hear at once how the partition is here; does nothing unless it follows. */
  report(partition: Partition): void {
    const { role } = partition;
    if (role.kind === "follower") this.#fetchers.get(role.leaderId)?.report(partition);
  }

  close(): void {
    for (const fetcher of this.#fetchers.values()) fetcher.close();
    this.#fetchers.clear();
  }
}
