import { setTimeout as delay } from "node:timers/promises";
import type { Cluster } from "../../client/index.js";
import { report } from "./figures.js";
import { SteadyWriter } from "./steady-writer.js";

/** What the cluster says of a partition. */
interface PartitionState {
  readonly leader: number;
  readonly leaderEpoch: number;
  readonly isr: readonly number[];
}

/** A topic of one partition with three replicas, into which 1,000 records a second are written while things happen. */
export class MeasuredTopic {
  private constructor(
    private readonly client: Cluster,
    private readonly name: string,
    readonly writer: SteadyWriter,
  ) {}

  /** Creates the topic, and begins to write. Unless `assignment` says where its replicas are, the controller chooses. */
  static async create(client: Cluster, name: string, assignment?: number[]): Promise<MeasuredTopic> {
    const placement = assignment === undefined ? { replicationFactor: 3 } : { assignment: [assignment] };
    await client.admin().createTopics([{ name, partitions: 1, ...placement }]);
    return new MeasuredTopic(client, name, new SteadyWriter(client, name, 1000));
  }

  async state(): Promise<PartitionState> {
    const [topic] = await this.client.admin().describeTopics([this.name]);
    const [partition] = topic?.partitions ?? [];
    if (partition === undefined) throw new Error(`${this.name} has no partition`);
    return partition;
  }

  /** Waits until the state is as wanted. Resolves with how long that took, in milliseconds. */
  async until(what: string, isWanted: (state: PartitionState) => boolean, deadlineMs: number): Promise<number> {
    const startedMs = performance.now();
    while (!isWanted(await this.state())) {
      if (performance.now() - startedMs > deadlineMs) throw new Error(`not within ${deadlineMs} ms: ${what}`);
      await delay(50);
    }
    return performance.now() - startedMs;
  }

  async untilAllInSync(): Promise<number> {
    return this.until("all three replicas are in sync", ({ isr }) => isr.length === 3, 20_000);
  }

  /** Stops writing, and says how many records were acknowledged: all must be. */
  async finish(): Promise<void> {
    await this.writer.stop();
    const { acknowledged, sent, failures } = this.writer;
    const firstFailure = failures.length > 0 ? `: ${failures[0]}` : "";
    report("records acknowledged of sent", `${acknowledged} of ${sent}${firstFailure}`, acknowledged === sent);
  }
}
