import { ApiError } from "../../../protocol/error-codes.js";
import { nextSequence, SEQUENCE_END } from "../../../protocol/record-batch.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";
import type { Offset } from "../../../protocol/types.js";

/** As many batches as a producer may have in flight: so many can come again after a lost answer. */
const BATCHES_REMEMBERED = 5;

interface AppendedBatch {
  readonly baseSequence: number;
  readonly recordCount: number;
  readonly baseOffset: Offset;
  readonly endOffset: Offset;
}

interface ProducerState {
  readonly epoch: number;
  /** From here to the newest batch everything was seen, one batch behind the other. What came before is not known. */
  readonly firstSequence: number;
  /** The last of those, oldest first, never empty. */
  readonly batches: readonly AppendedBatch[];
  readonly lastUsedMs: number;
}

/** What bounds the number of producers that are remembered. */
export interface ProducerStateLimits {
  readonly producerIdExpirationMs: number;
  readonly producersMax: number;
}

/** Where a batch was appended that came a second time. */
export interface EarlierAppend {
  readonly baseOffset: Offset;
  readonly endOffset: Offset;
}

/**
 * The last batches of each idempotent producer in one partition, by which a batch that comes again is known, and one
 * before which something is missing is refused (KIP-98). Leaders check and update, followers only update. Memory only;
 * a snapshot is the state at the offset that its file is named after.
 *
 * Nothing is said without proof. A batch is called a duplicate when it lies in what was seen of its producer, and not
 * because it lies behind the newest one. A producer that is not known begins with sequence 0: were it to begin anywhere,
 * as in Kafka since KIP-360, then of two batches under way together the second could be taken where the first was refused.
 *
 * Bounded by number and by silence. A producer that was forgotten is refused and goes on under another id.
 */
export class ProducerStates {
  /** In the order of last use, so that the first one is the one to forget. */
  readonly #producers = new Map<number, ProducerState>();

  get count(): number {
    return this.#producers.size;
  }

  /**
   * Whether the leader may append the batch now: undefined if so, where it stands already if it was appended before.
   * Throws ApiError INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER, DUPLICATE_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID.
   */
  check(batch: RecordBatch): EarlierAppend | undefined {
    const { producerId, producerEpoch, baseSequence, recordCount } = batch;
    const state = this.#producers.get(producerId);
    if (state === undefined) {
      if (baseSequence === 0) return undefined;
      throw new ApiError(
        "UNKNOWN_PRODUCER_ID",
        `producer ${producerId} is not remembered here, and goes on with sequence ${baseSequence}; begin with 0 under a new id`,
      );
    }
    if (producerEpoch < state.epoch) {
      throw new ApiError(
        "INVALID_PRODUCER_EPOCH",
        `producer ${producerId} has epoch ${producerEpoch}, but epoch ${state.epoch} was seen; a newer instance of it is at work`,
      );
    }
    if (producerEpoch > state.epoch) {
      if (baseSequence === 0) return undefined;
      throw new ApiError(
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        `producer ${producerId} begins epoch ${producerEpoch} with sequence ${baseSequence} instead of 0`,
      );
    }
    const earlier = state.batches.find(
      (known) => known.baseSequence === baseSequence && known.recordCount === recordCount,
    );
    if (earlier !== undefined) return { baseOffset: earlier.baseOffset, endOffset: earlier.endOffset };
    const expected = expectedSequence(state);
    if (baseSequence === expected) return undefined;
    const behind = distance(baseSequence, expected);
    if (behind >= SEQUENCE_END / 2 || recordCount > behind) {
      throw new ApiError(
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        `producer ${producerId} sends sequence ${baseSequence} where ${expected} is next`,
      );
    }
    // After 2^31 records the first one seen seems to be nearer than it is: then less is proved than could be.
    if (behind > distance(state.firstSequence, expected)) {
      throw new ApiError(
        "UNKNOWN_PRODUCER_ID",
        `producer ${producerId} sends sequence ${baseSequence}; what it sent before ${state.firstSequence} is not remembered here`,
      );
    }
    throw new ApiError(
      "DUPLICATE_SEQUENCE_NUMBER",
      `producer ${producerId} sends sequence ${baseSequence} again, ${behind} records behind the newest`,
    );
  }

  /** The batch is in the log now (its stamp says where). Batches without a producer id are none of our business. */
  update(batch: RecordBatch, wallMs: number, limits: ProducerStateLimits): void {
    const { producerId, producerEpoch } = batch;
    if (producerId < 0) return;
    const known = this.#producers.get(producerId);
    const appended: AppendedBatch = {
      baseSequence: batch.baseSequence,
      recordCount: batch.recordCount,
      baseOffset: batch.baseOffset,
      endOffset: batch.endOffset,
    };
    // Where it does not go on from what is remembered, a leader or this replica had forgotten the producer in between.
    const goesOn = known?.epoch === producerEpoch && batch.baseSequence === expectedSequence(known);
    this.#producers.delete(producerId);
    this.#producers.set(producerId, {
      epoch: producerEpoch,
      firstSequence: goesOn ? known.firstSequence : batch.baseSequence,
      batches: goesOn ? [...known.batches.slice(1 - BATCHES_REMEMBERED), appended] : [appended],
      lastUsedMs: wallMs,
    });
    this.#forget(wallMs, limits);
  }

  clear(): void {
    this.#producers.clear();
  }

  /** The lines of a snapshot file, in the order of last use. */
  toLines(): string[] {
    return [...this.#producers].map(([producerId, state]) => {
      const batches = state.batches.map(
        (batch) => `${batch.baseSequence},${batch.recordCount},${batch.baseOffset},${batch.endOffset}`,
      );
      return [producerId, state.epoch, state.lastUsedMs, state.firstSequence, ...batches].join(" ");
    });
  }

  /** Undefined when the lines are no snapshot. */
  static fromLines(lines: readonly string[]): ProducerStates | undefined {
    const states = new ProducerStates();
    for (const line of lines) {
      if (!/^\d+ \d+ \d+ \d+( \d+,\d+,\d+,\d+){1,5}$/.test(line)) return undefined;
      const [producerId, epoch, lastUsedMs, firstSequence, ...batches] = line.split(" ") as [
        string,
        string,
        string,
        string,
        ...string[],
      ];
      states.#producers.set(Number(producerId), {
        epoch: Number(epoch),
        lastUsedMs: Number(lastUsedMs),
        firstSequence: Number(firstSequence),
        batches: batches.map((text) => {
          const [baseSequence, recordCount, baseOffset, endOffset] = text.split(",").map(Number) as [
            number,
            number,
            number,
            number,
          ];
          return { baseSequence, recordCount, baseOffset: toOffset(baseOffset), endOffset: toOffset(endOffset) };
        }),
      });
    }
    return states;
  }

  #forget(wallMs: number, limits: ProducerStateLimits): void {
    for (const [producerId, state] of this.#producers) {
      const expired = wallMs - state.lastUsedMs > limits.producerIdExpirationMs;
      if (!expired && this.#producers.size <= limits.producersMax) return;
      this.#producers.delete(producerId);
    }
  }
}

function expectedSequence(state: ProducerState): number {
  const last = state.batches[state.batches.length - 1] as AppendedBatch;
  return nextSequence(last.baseSequence, last.recordCount);
}

/** How many records lie between two sequences. */
const distance = (from: number, to: number): number => (to - from + SEQUENCE_END) % SEQUENCE_END;
