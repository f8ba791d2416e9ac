import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { Handler } from "../net/request-context.js";

/** The first id of a block that nobody else has, and how many it holds. */
export interface ProducerIdBlock {
  readonly firstId: number;
  readonly count: number;
}

/**
 * Gives every producer an id that no other producer of the cluster ever had. Ids are taken from ZooKeeper in blocks, by
 * compare-and-set; a block whose outcome is unknown is never used.
 */
export class ProducerIds {
  #next = 0;
  #end = 0;
  #taking: Promise<void> | undefined;
  /** Why the last block could not be taken. Told once: producers ask again and again. */
  #hindrance: string | undefined;

  constructor(
    private readonly logger: Logger,
    private readonly takeBlock: () => Promise<ProducerIdBlock>,
  ) {}

  readonly handle: Handler<"initProducerId"> = async () => ({
    body: { producerId: await this.#take(), producerEpoch: 0 },
  });

  async #take(): Promise<number> {
    for (let attempt = 0; this.#next >= this.#end; attempt += 1) {
      if (attempt > 3)
        throw new ApiError("BROKER_OVERLOADED", "producer ids are asked for faster than they can be taken; try again");
      this.#taking ??= this.#refill().finally(() => (this.#taking = undefined));
      await this.#taking;
    }
    const id = this.#next;
    this.#next += 1;
    return id;
  }

  async #refill(): Promise<void> {
    try {
      const block = await this.takeBlock();
      this.#next = block.firstId;
      this.#end = block.firstId + block.count;
      this.#hindrance = undefined;
    } catch (error) {
      const why = reasonOf(error);
      if (error instanceof ApiError && why !== this.#hindrance) {
        this.logger.error("producers get no id, so those that need one cannot begin to write", { reason: why });
      }
      this.#hindrance = why;
      throw error;
    }
  }
}
