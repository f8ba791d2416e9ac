import { nextSequence, SEQUENCE_END } from "../protocol/record-batch.js";
import { noIdentity } from "../protocol/record-encoder.js";
import type { ClientError } from "./errors.js";
import type { ProducerBatch } from "./producer-batch.js";

/** By this id brokers recognize a producer's batches. */
export interface ProducerIdentity {
  readonly producerId: number;
  readonly producerEpoch: number;
}

/** Where identities come from. */
export interface IdentitySource {
  /** undefined: none now; one is being fetched. */
  identity(): ProducerIdentity | undefined;
  /** Why there is none, as long as asking for one fails. */
  readonly identityFailure: ClientError | undefined;
  /** Nobody may begin with this identity any more. */
  discardIdentity(identity: ProducerIdentity): void;
}

/** An identity is worn when so many records were numbered under it: no batch may be so large that sequences begin again. */
const SEQUENCES_MAX = SEQUENCE_END / 2;

/**
 * The numbers by which the leader of one partition recognizes the batches of a producer: an identity, and under it a
 * sequence without gaps. It hands them out and knows where a gap is; what follows from a gap its queue decides. Of a
 * producer that is not idempotent it stays empty, and batches get no numbers.
 *
 * Under one identity a sequence is 0 once, for the first batch: with 0 a broker lets a producer begin that it does not
 * know, so it would take a second batch with 0 where it has refused the one before.
 */
export class ProducerSequence {
  #identity: ProducerIdentity | undefined;
  #next = 0;
  #isKnown = false;
  /** The sequence that brokers expect next, where a batch was given up and left a gap. */
  #gapAt: number | undefined;

  constructor(
    private readonly source: IdentitySource,
    private readonly idempotent: boolean,
  ) {}

  /**
   * Whether batches can be given numbers, or need none. Takes an identity from the source where there was none, and in place
   * of a worn one when nothing is in flight under it.
   */
  begin(isInFlight: boolean): boolean {
    if (this.#next >= SEQUENCES_MAX) {
      if (isInFlight) return false;
      this.forget();
    }
    if (!this.idempotent || this.#identity !== undefined) return true;
    this.#identity = this.source.identity();
    this.#next = 0;
    this.#isKnown = false;
    return this.#identity !== undefined;
  }

  get hasIdentity(): boolean {
    return this.#identity !== undefined;
  }

  /** A leader has acknowledged a batch under the identity. */
  get isKnown(): boolean {
    return this.#isKnown;
  }

  onAcknowledged(): void {
    this.#isKnown = this.#identity !== undefined;
  }

  /** Gives a batch the next numbers. */
  identify(batch: ProducerBatch): void {
    if (this.#identity === undefined) {
      batch.identify(noIdentity);
      return;
    }
    batch.identify({ ...this.#identity, baseSequence: this.#next });
    this.#next = nextSequence(this.#next, batch.recordCount);
  }

  /** Gives the parts of a batch the numbers of the whole, so that nothing changes for those behind it. */
  identifyParts(whole: ProducerBatch, parts: readonly ProducerBatch[]): void {
    let sequence = whole.baseSequence;
    for (const part of parts) {
      part.identify(this.#identity === undefined ? noIdentity : { ...this.#identity, baseSequence: sequence });
      sequence = nextSequence(sequence, part.recordCount);
    }
  }

  get hasGap(): boolean {
    return this.#gapAt !== undefined;
  }

  /** A batch was given up and is certainly not in the log: those behind it will be refused with their present numbers. */
  leaveGap({ baseSequence }: ProducerBatch): void {
    if (this.#gapAt === undefined || baseSequence < this.#gapAt) this.#gapAt = baseSequence;
  }

  /** Goes on counting where the gap begins. What was numbered behind it must be identified anew. Returns whether that is so. */
  rewindToGap(): (batch: ProducerBatch) => boolean {
    const gapAt = this.#gapAt;
    if (gapAt === undefined) return () => false;
    this.#next = gapAt;
    this.#gapAt = undefined;
    return ({ baseSequence }) => baseSequence > gapAt;
  }

  /** The identity cannot be used here any longer; nor may others begin with it. */
  forget(): void {
    if (this.#identity !== undefined) this.source.discardIdentity(this.#identity);
    this.#identity = undefined;
    this.#next = 0;
    this.#isKnown = false;
    this.#gapAt = undefined;
  }
}
