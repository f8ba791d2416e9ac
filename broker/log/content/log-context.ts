import type { BytePool } from "../../../common/byte-pool.js";
import type { Env } from "../../../common/env/env.js";
import type { Limiter } from "../../../common/limiter.js";
import type { Logger } from "../../../common/logger.js";
import type { TopicId } from "../../../protocol/types.js";
import type { SegmentCache } from "../segment/cache.js";
import type { TailBudget } from "./tail.js";

/** Which log it is, for good. */
export interface LogIdentity {
  readonly topicId: TopicId;
  readonly topic: string;
  readonly partition: number;
  readonly directoryName: string;
}

/** What all logs of a directory share. LogManager makes it. */
export interface LogContext {
  readonly env: Env;
  readonly logger: Logger;
  /** The log directory. */
  readonly directory: string;
  readonly pool: BytePool;
  readonly cache: SegmentCache;
  readonly tailBudget: TailBudget;
  /** All syncs go through it. */
  readonly syncs: Limiter;
  /** The disk failed in a way after which this process can promise nothing: it must stop. */
  onFatal(error: Error): void;
  /** What the next checkpoint must have has changed. */
  checkpointSoon(): void;
  /** Resolves when the offsets as they are now are in the checkpoint files, durably. */
  checkpointNow(): Promise<void>;
}
