import { setTimeout as delay } from "node:timers/promises";
import type { Cluster } from "../../client/index.js";

/** Writes records at a steady rate with acks=all and remembers how long each waited for its acknowledgement. */
export class SteadyWriter {
  sent = 0;
  acknowledged = 0;
  readonly failures: string[] = [];
  readonly #waiting = new Map<number, number>();
  readonly #producer;
  readonly #ticker: NodeJS.Timeout;
  #longestMs = 0;

  constructor(client: Cluster, topic: string, recordsPerSecond: number) {
    this.#producer = client.producer({ acks: "all" });
    const startedMs = performance.now();
    this.#ticker = setInterval(() => {
      const due = Math.floor(((performance.now() - startedMs) / 1000) * recordsPerSecond);
      for (; this.sent < due; this.sent += 1) this.#write(topic, this.sent);
    }, 1);
  }

  /** The longest wait since this was called last, of records that still wait included. In milliseconds. */
  takeLongestMs(): number {
    const nowMs = performance.now();
    const longestMs = Math.max(this.#longestMs, ...[...this.#waiting.values()].map((sinceMs) => nowMs - sinceMs));
    this.#longestMs = 0;
    return longestMs;
  }

  /** Stops writing and waits for what is on its way. */
  async stop(): Promise<void> {
    clearInterval(this.#ticker);
    await this.#producer.flush();
    await delay(0);
  }

  #write(topic: string, number: number): void {
    this.#waiting.set(number, performance.now());
    void this.#producer.produce(topic, { value: `record ${number}` }, (error) => {
      this.#longestMs = Math.max(this.#longestMs, performance.now() - (this.#waiting.get(number) as number));
      this.#waiting.delete(number);
      if (error === undefined) this.acknowledged += 1;
      else this.failures.push(error.message);
    });
  }
}
