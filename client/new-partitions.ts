import type { Env } from "../common/env/env.js";
import { ClientError, DeadlineExceededError } from "./errors.js";

/** Asks the cluster for a topic and these partitions. It may turn out not to have all of them. */
export type WaitForTopic = (topic: string, partitions: readonly number[], signal: AbortSignal) => Promise<unknown>;

interface Lookup {
  readonly outcome: Promise<ClientError | undefined>;
  waiting: number;
}

/**
 * Records of a producer that name a partition which their topic is not known to have. It may be new, so the cluster is asked
 * before it is refused; meanwhile those for one partition wait in the order of their calls.
 */
export class NewPartitions {
  readonly #lookups = new Map<string, Lookup>();
  readonly #waiting = new Set<Promise<void>>();

  constructor(
    private readonly env: Env,
    private readonly timeoutMs: number,
    private readonly waitForTopic: WaitForTopic,
  ) {}

  /** Whether a record must wait: its partition is not known, or others wait for the same. */
  mustWait(topic: string, partition: number, isKnown: boolean): boolean {
    return !isKnown || (this.#lookups.size > 0 && this.#lookups.has(keyOf(topic, partition)));
  }

  /**
   * Calls `then` when the cluster has said whether there is such a partition, or with the reason why it has not. Resolves
   * when that is done.
   */
  wait(
    topic: string,
    partition: number,
    then: (error: ClientError | undefined) => void | Promise<void>,
  ): Promise<void> {
    const key = keyOf(topic, partition);
    let lookup = this.#lookups.get(key);
    if (lookup === undefined) {
      lookup = { outcome: this.#lookUp(topic, partition), waiting: 0 };
      this.#lookups.set(key, lookup);
    }
    const { outcome } = lookup;
    lookup.waiting += 1;
    const done = outcome.then((error) => {
      lookup.waiting -= 1;
      if (lookup.waiting === 0) this.#lookups.delete(key);
      return then(error);
    });
    this.#waiting.add(done);
    const forget = (): boolean => this.#waiting.delete(done);
    done.then(forget, forget);
    return done;
  }

  /** Resolves when all that wait now were handed over or have failed. */
  async drained(): Promise<void> {
    await Promise.all(this.#waiting);
  }

  async #lookUp(topic: string, partition: number): Promise<ClientError | undefined> {
    const { timeoutMs } = this;
    const limit = new AbortController();
    const timer = this.env.timers.after(timeoutMs, () =>
      limit.abort(
        new DeadlineExceededError(
          `the partition could not be looked up within deliveryTimeoutMs ${timeoutMs}`,
          "check that the brokers run, or raise deliveryTimeoutMs",
          { topic, partition },
        ),
      ),
    );
    try {
      await this.waitForTopic(topic, [partition], limit.signal);
      return undefined;
    } catch (error) {
      if (error instanceof ClientError) return error;
      throw error;
    } finally {
      timer.cancel();
    }
  }
}

const keyOf = (topic: string, partition: number): string => `${topic}:${partition}`;
