import type { TopicId } from "../../protocol/types.js";
import type { SimCluster } from "./cluster.js";
import type { Violation } from "./history.js";
import { brokenPromises, History, replicaDifferences } from "./history.js";
import { Invariants } from "./invariants.js";
import type { SimClient } from "./sim-client.js";
import { IdempotentWriter, readToEnd } from "./workload.js";
import type { Target } from "./workload.js";

const TOPIC = "letters";

/** The topic of most scenarios, one partition wide, with a history of everything that is written to it. */
export class Letters {
  readonly topic = TOPIC;
  readonly target: Target;
  readonly history: History;
  readonly client: SimClient;
  readonly invariants: Invariants;
  readonly writer: IdempotentWriter;
  #count = 0;

  private constructor(
    private readonly cluster: SimCluster,
    topicId: TopicId,
  ) {
    this.target = { topicId, partition: 0 };
    this.history = new History(() => cluster.nowMs);
    this.client = cluster.client();
    this.writer = new IdempotentWriter(this.client, this.history, "writer", this.target);
    this.invariants = new Invariants(cluster, this.history);
    this.invariants.watchTopic(TOPIC);
    this.invariants.attach();
  }

  /** Creates the topic; unless said otherwise with three replicas on brokers 1, 2 and 3, of which 1 is to lead. */
  static async create(
    cluster: SimCluster,
    options: { readonly assignment?: readonly number[]; readonly config?: Record<string, string> } = {},
  ): Promise<Letters> {
    const { assignment = [1, 2, 3], config = {} } = options;
    const topicId = await cluster.createTopic({ name: TOPIC, assignment: [{ brokerIds: [...assignment] }], config });
    return new Letters(cluster, topicId);
  }

  /** Values that nobody has written yet. */
  values(count: number): string[] {
    return Array.from({ length: count }, () => `letter ${(this.#count += 1)}`);
  }

  /** Sends so many records with acks=all, each a batch, and does not wait for what becomes of them. */
  async send(count: number): Promise<void> {
    for (const value of this.values(count)) await this.cluster.complete(this.writer.write([value]));
  }

  /** Sends so many records, and waits until they are acknowledged. */
  async write(count: number, limitMs = 30_000): Promise<void> {
    const before = this.history.produces.length;
    await this.send(count);
    const written = this.history.produces.slice(before);
    const areWritten = (): boolean => written.every(({ outcome }) => outcome?.kind === "ok");
    await this.cluster.until(areWritten, `${count} records are written`, limitMs);
  }

  /** Reads everything back by way of each broker that is up, and says which promises are broken. */
  async verdict(): Promise<Violation[]> {
    await this.cluster.until(() => this.writer.isIdle, "every write has an outcome");
    await this.cluster.untilSettled(TOPIC);
    await this.cluster.run(500);
    for (const id of this.cluster.upIds) {
      const read = readToEnd(this.cluster.client(id), `broker ${id}`, this.target);
      this.history.finalRead(await this.cluster.complete(read));
    }
    return [...brokenPromises(this.history, 6000), ...replicaDifferences(this.invariants.replicaImages())];
  }
}
