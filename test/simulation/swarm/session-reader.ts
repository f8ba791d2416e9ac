import { sleep } from "../../../common/env/time.js";
import { ApiError, errorNameOf } from "../../../protocol/error-codes.js";
import { BatchFault } from "../../../protocol/record-batch.js";
import { TransportError } from "../../../protocol/rpc-error.js";
import type { BrokerId, PartitionKey } from "../../../protocol/types.js";
import { partitionKey } from "../../../protocol/types.js";
import type { History } from "../history.js";
import type { SimClient } from "../sim-client.js";
import { decodeRecords } from "../workload.js";
import type { SwarmTopic } from "./topics.js";

const RETRY_MS = 50;
/** How often is looked whether the broker leads other partitions now. */
const LOOK_MS = 400;
/** How often a broker that leads nothing is looked at, without asking anybody. */
const IDLE_MS = 100;
/** One may be held back, or wait for a disk, while a newer one asks for more. */
const IN_FLIGHT_MAX = 2;
const BYTES_MAX = 4096;

/** What was asked for last of a partition. */
interface Naming {
  readonly offset: number;
  readonly leaderEpoch: number;
  readonly sessionEpoch: number;
  isAnswered: boolean;
}

/**
 * Reads a topic as a follower does: one fetch session a broker, and a second fetch while the first is held up. It watches
 * what a session promises: records are sent once for each time that they are asked for.
 */
export class SessionReader {
  readonly #positions = new Map<PartitionKey, number>();
  /** They came damaged from where it is. */
  readonly #damaged = new Set<PartitionKey>();
  #stopped = false;

  constructor(
    private readonly client: SimClient,
    private readonly history: History,
    readonly name: string,
    private readonly topic: SwarmTopic,
    private readonly brokerIds: readonly BrokerId[],
    private readonly maxWaitMs: number,
    private readonly onFailure: (sentence: string) => void,
  ) {}

  position(key: PartitionKey): number {
    return this.#positions.get(key) ?? 0;
  }

  start(): void {
    for (const id of this.brokerIds) void this.#follow(id);
  }

  stop(): void {
    this.#stopped = true;
  }

  async #follow(id: BrokerId): Promise<void> {
    while (!this.#stopped) {
      await this.client.refresh();
      try {
        // Of a broker that leads nothing there is nothing to read, and it may be down.
        if (this.#ledBy(id).length > 0) await this.#readInSession(id);
      } catch (error) {
        if (!(error instanceof TransportError || error instanceof ApiError || error instanceof BatchFault)) throw error;
      }
      await sleep(this.client.env.timers, RETRY_MS);
      // Whoever reads from the leader asks for the next one, and the answer is for all.
      for (let waitedMs = 0; waitedMs < LOOK_MS && this.#isElsewhere(id); waitedMs += IDLE_MS)
        await sleep(this.client.env.timers, IDLE_MS);
    }
  }

  /** Whether every partition has a leader, as last heard, and it is another broker. */
  #isElsewhere(id: BrokerId): boolean {
    if (this.#stopped) return false;
    for (let partition = 0; partition < this.topic.partitions; partition += 1) {
      const leader = this.client.knownLeader(this.topic.topicId, partition);
      if (leader === undefined || leader.brokerId === id) return false;
    }
    return true;
  }

  /** The partitions that the broker leads, as last heard. */
  #ledBy(id: BrokerId): { readonly partition: number; readonly leaderEpoch: number }[] {
    const led: { readonly partition: number; readonly leaderEpoch: number }[] = [];
    for (let partition = 0; partition < this.topic.partitions; partition += 1) {
      const leader = this.client.knownLeader(this.topic.topicId, partition);
      if (leader?.brokerId === id) led.push({ partition, leaderEpoch: leader.leaderEpoch });
    }
    return led;
  }

  /** Until something is refused, or the broker leads nothing any more. */
  async #readInSession(id: BrokerId): Promise<void> {
    const { topicId } = this.topic;
    const connection = await this.client.connection(id);
    const session = { id: 0, epoch: 0 };
    const named = new Map<number, Naming>();
    const inFlight = new Set<Promise<void>>();
    let failure: unknown;
    let isOver = false;
    while (!this.#stopped && failure === undefined) {
      const news = new Map<number, Naming>();
      const sessionEpoch = session.epoch + 1;
      const led = this.#ledBy(id);
      for (const { partition, leaderEpoch } of led) {
        const offset = this.position(partitionKey(topicId, partition));
        const before = named.get(partition);
        const isNews = before?.offset !== offset || before.leaderEpoch !== leaderEpoch;
        // One at a time, so that another question is asked while the disk is read for the first.
        if (isNews && news.size === 0) news.set(partition, { offset, leaderEpoch, sessionEpoch, isAnswered: false });
      }
      const forgotten = [...named.keys()].filter((partition) => !led.some((one) => one.partition === partition));
      if (led.length === 0 && inFlight.size === 0) return;
      const mayAskMore = inFlight.size < IN_FLIGHT_MAX && session.id > 0 && news.size + forgotten.length > 0;
      if (inFlight.size > 0 && !mayAskMore) {
        await Promise.race([...inFlight, sleep(this.client.env.timers, LOOK_MS)]);
        continue;
      }
      for (const [partition, naming] of news) named.set(partition, naming);
      for (const partition of forgotten) named.delete(partition);
      session.epoch = sessionEpoch;
      const answer = connection
        .request(
          "fetch",
          {
            // Nothing else can be asked before the session has its id, so that is not waited for.
            maxWaitMs: session.id === 0 ? 0 : this.maxWaitMs,
            minBytes: 1,
            maxBytes: 4 * BYTES_MAX,
            sessionId: session.id,
            sessionEpoch,
            partitions: [...news].map(([partition, { offset, leaderEpoch }]) => ({
              topicId,
              partition,
              fetchOffset: offset,
              maxBytes: BYTES_MAX,
              leaderEpochPlusOne: leaderEpoch + 1,
              verify: this.#damaged.delete(partitionKey(topicId, partition)),
            })),
            forgotten: forgotten.map((partition) => ({ topicId, partition })),
          },
          { timeoutMs: this.maxWaitMs + 1000 },
        )
        .then(({ body, records }) => {
          if (isOver) return;
          session.id = body.sessionId;
          let next = 0;
          for (const fetched of body.partitions) {
            const bytes = fetched.recordBytes > 0 ? records[next++] : undefined;
            const naming = named.get(fetched.partition);
            // An answer to what was asked before.
            if (naming === undefined || naming.sessionEpoch > sessionEpoch || this.#stopped) continue;
            if (fetched.error !== null)
              this.#onRefused(fetched.partition, errorNameOf(fetched.error.code), fetched.logStartOffset);
            else if (bytes !== undefined) this.#onRecords(fetched.partition, naming, bytes);
          }
          if (session.id === 0) failure = new ApiError("FETCH_SESSION_ID_NOT_FOUND");
        })
        .catch((error: unknown) => (failure = error))
        .finally(() => inFlight.delete(answer)) as Promise<void>;
      inFlight.add(answer);
    }
    // Answers that are on their way say nothing of the next session, and may be held back for long.
    isOver = true;
    if (failure !== undefined) throw failure;
  }

  #onRefused(partition: number, error: string, logStartOffset: number): void {
    if (error === "OFFSET_OUT_OF_RANGE") {
      const key = partitionKey(this.topic.topicId, partition);
      this.history.moved({ consumer: this.name, partition: key });
      this.#positions.set(key, logStartOffset);
    }
    throw new ApiError("NOT_LEADER_OR_FOLLOWER", error);
  }

  #onRecords(partition: number, naming: Naming, bytes: Buffer): void {
    const key = partitionKey(this.topic.topicId, partition);
    if (naming.isAnswered)
      this.onFailure(
        `${this.name} asked once for what ${this.topic.name}-${partition} has from ${naming.offset} on, and was sent it twice`,
      );
    naming.isAnswered = true;
    let records: ReturnType<typeof decodeRecords>;
    try {
      records = decodeRecords(bytes);
    } catch (error) {
      this.#damaged.add(key);
      throw error;
    }
    for (const { offset, value } of records) {
      if (offset < this.position(key)) continue;
      this.history.deliver({ consumer: this.name, partition: key, offset, value });
      this.#positions.set(key, offset + 1);
    }
  }
}
