import type { SimCluster } from "../cluster.js";
import type { Violation } from "../history.js";

/** The same proposal may be made so often in so long: its answer may be lost a few times. */
const REPETITIONS_MAX = 6;
const WINDOW_MS = 5000;

/** Watches what leaders propose: one that was refused is not proposed again and again while nothing has changed. */
export class Proposals {
  readonly #times = new Map<string, number[]>();
  readonly #found = new Map<string, string>();

  constructor(private readonly cluster: SimCluster) {
    cluster.onLine((host, _level, sentence, fields) => {
      if (!sentence.includes("proposes in-sync replicas")) return;
      this.#note(
        `${host}: ${sentence} in leader epoch ${String(fields["leaderEpoch"])} and partition epoch ${String(fields["partitionEpoch"])}`,
      );
    });
  }

  get violations(): Violation[] {
    return [...this.#found.values()].map((sentence) => ({ id: "proposals", sentence }));
  }

  /** What was proposed in the faults before does not count any more. */
  beginCalm(): void {
    this.#times.clear();
  }

  #note(proposal: string): void {
    const { nowMs } = this.cluster;
    const times = [...(this.#times.get(proposal) ?? []).filter((timeMs) => timeMs > nowMs - WINDOW_MS), nowMs];
    this.#times.set(proposal, times);
    if (times.length > REPETITIONS_MAX)
      this.#found.set(proposal, `proposed ${times.length} times within ${WINDOW_MS} ms: ${proposal}`);
  }
}
