import type { RecordBatch } from "../protocol/record-batch.js";
import type { BrokerId, PartitionKey, TopicId } from "../protocol/types.js";
import { partitionKey } from "../protocol/types.js";
import type { ClientError } from "./errors.js";
import type { StartQuery } from "./offset-lookup.js";
import type { Backoff } from "./retry.js";

/** Batches of one partition from one answer. */
export interface FetchedChunk {
  readonly reader: PartitionReader;
  /** Of the reader, when the chunk arrived: a later seek makes it void. */
  readonly generation: number;
  readonly batches: readonly RecordBatch[];
  /** The next batch to deliver. */
  next: number;
  readonly bytes: number;
  readonly highWatermark: number;
  /** Where reading goes on behind this chunk, if not at its end. */
  readonly goesOnAt?: number;
  /** Called when nothing of the chunk is needed any more. */
  readonly release: (() => void) | undefined;
}

/** What fetches a partition: the loop to its leader. */
export interface ReaderLoop {
  readonly brokerId: BrokerId;
  /** The partitions that it fetches. */
  readonly readers: Set<PartitionReader>;
  /** Something may have to be asked. */
  wake(): void;
}

/**
 * How far one partition has been read. There are two positions:
 *
 *        position              fetchPosition
 *           |   fetched, waiting    |
 *     ------[-----------------------[---------->
 *     delivered                      to be fetched
 *
 * A plain state holder: `FetchCollector` moves `position`, `FetchLoop` and `FetchErrors` move `fetchPosition`, and `restartAt`
 * moves both.
 */
export class PartitionReader {
  readonly key: PartitionKey;
  /** The offset of the next record to deliver; undefined until `startQuery` is answered. */
  position: number | undefined;
  fetchPosition = 0;
  /** What to ask the cluster for to find `position`. */
  startQuery: StartQuery | undefined;
  generation = 0;
  isPaused = false;
  /** A leader has told something about the partition that reading goes by. */
  hasBegun = false;
  /** An error was thrown about it: it is left alone until a seek or the next loop over the consumer. */
  hasFailed = false;
  bufferedBytes = 0;
  /** Where reading ends, exclusive, when it reads up to the end that was there at the start. */
  endOffset: number | undefined;
  /** It is to read up to an end that is not known yet: nothing is fetched so long. */
  awaitsEnd = false;
  loop: ReaderLoop | undefined;
  /** Not asked for before this time of the monotonic clock. */
  notBeforeMs = 0;
  /** Why nothing was had of it when it was asked for last; undefined: nothing was wrong. */
  trouble: ClientError | undefined;
  /** Its leader has answered that there is more, without any of it. */
  isShortOfRecords = false;
  /** The leader epoch that the last failure was met under. */
  failedEpoch = -1;
  /** The offset of a damaged batch that is being fetched once more. */
  damagedAt: number | undefined;
  /** Arrived while paused. */
  readonly held: FetchedChunk[] = [];

  constructor(
    readonly topic: string,
    readonly topicId: TopicId,
    readonly partition: number,
    readonly backoff: Backoff,
  ) {
    this.key = partitionKey(topicId, partition);
  }

  /** Everything fetched is void; reading goes on at `offset`. */
  restartAt(offset: number): void {
    this.position = offset;
    this.fetchPosition = offset;
    this.startQuery = undefined;
    this.#forgetFetched();
  }

  /** Everything fetched is void; where reading goes on is yet to be asked. */
  restartFrom(query: StartQuery): void {
    this.position = undefined;
    this.startQuery = query;
    this.#forgetFetched();
  }

  get isAtEnd(): boolean {
    const { endOffset, position } = this;
    return endOffset === 0 || (endOffset !== undefined && position !== undefined && position >= endOffset);
  }

  #forgetFetched(): void {
    this.generation += 1;
    this.bufferedBytes = 0;
    this.hasFailed = false;
    this.notBeforeMs = 0;
    for (const chunk of this.held.splice(0)) chunk.release?.();
  }
}
