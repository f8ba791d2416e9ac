import { invariant } from "../common/assert.js";
import type { Env } from "../common/env/env.js";
import { ApiError, errorCodes, errorNameOf } from "../protocol/error-codes.js";
import type { ErrorName } from "../protocol/error-codes.js";
import type { LeaderHint } from "../protocol/messages.js";
import { REQUEST_HEADROOM_BYTES } from "../protocol/message-codec.js";
import { nextSequence } from "../protocol/record-batch.js";
import type { EncodableHeader } from "../protocol/record-encoder.js";
import { noIdentity, singleRecordBatchBytes } from "../protocol/record-encoder.js";
import type { RpcConnection, RpcOutcome } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerId, TopicId } from "../protocol/types.js";
import { acksCodes } from "../protocol/types.js";
import type { BufferPool } from "./buffer-pool.js";
import type { ClientError } from "./errors.js";
import {
  DeadlineExceededError,
  OutcomeUnknownError,
  ProtocolError,
  RecordTooLargeError,
  toClientError,
} from "./errors.js";
import type { KnownPartition } from "./metadata.js";
import { SILENCE_MS } from "./metadata.js";
import type { Acks } from "./options.js";
import type { OnAcknowledged } from "./producer-batch.js";
import { ProducerBatch } from "./producer-batch.js";
import { Backoff } from "./retry.js";

/** By this id brokers recognize a producer's batches. */
export interface ProducerIdentity {
  readonly producerId: number;
  readonly producerEpoch: number;
}

/** The options that a queue goes by. */
export interface QueueSettings {
  readonly acks: Acks;
  readonly idempotent: boolean;
  readonly lingerMs: number;
  readonly deliveryTimeoutMs: number;
  readonly maxInFlight: number;
  readonly requestTimeoutMs: number;
}

/** What a queue needs of its producer. */
export interface QueueHost {
  readonly env: Env;
  readonly settings: QueueSettings;
  readonly pool: BufferPool;
  /** The largest batch that brokers accept, in bytes. */
  readonly batchBytesMax: number;
  /** undefined: not known now; it is being looked for, and `pump` will be called. */
  leaderOf(topic: string, partition: number): KnownPartition | undefined;
  /** undefined: none now; one is being made, and `pump` will be called. */
  connectionTo(brokerId: BrokerId): RpcConnection | undefined;
  dropConnection(brokerId: BrokerId): void;
  /** undefined: none now; one is being fetched, and `pump` will be called. */
  identity(): ProducerIdentity | undefined;
  /** Nobody may begin with this identity any more. */
  discardIdentity(identity: ProducerIdentity): void;
  /** A refusal that metadata cures. */
  onMoved(topic: string, partition: number, hint: LeaderHint | null): void;
  /** What is known of the leader is of no use; the cluster is to be asked again. */
  refresh(): void;
  onTrouble(brokerId: BrokerId): void;
  /** Calls `pump` at this time of the monotonic clock, or before. */
  wakeAt(timeMs: number): void;
  /** No more records go into the batch that was open. */
  onClosedBatch(queue: PartitionQueue): void;
  /** A batch is done and its memory free; `callbacks` may be run. */
  onDoneBatch(batch: ProducerBatch, run: () => void): void;
}

const RETRY_MS = 20;
const RETRY_MS_MAX = 250;
/** A limit below this would make batches of less than one ordinary record. */
const LIMIT_BYTES_MIN = 1024;

/**
 * Refusals after which the records may be in the log all the same. NOT_LEADER_OR_FOLLOWER is one of them, because a leader
 * that is deposed while records wait to be replicated says it too, and its successor may have them.
 */
const appendedAnyway: ReadonlySet<ErrorName> = new Set<ErrorName>([
  "NOT_LEADER_OR_FOLLOWER",
  "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
  "REQUEST_TIMED_OUT",
  "UNKNOWN_SERVER_ERROR",
]);
/** The broker's memory of this producer does not fit ours. */
const identityLost: ReadonlySet<ErrorName> = new Set<ErrorName>([
  "OUT_OF_ORDER_SEQUENCE_NUMBER",
  "UNKNOWN_PRODUCER_ID",
  "INVALID_PRODUCER_EPOCH",
]);

/**
 * The batches of one partition on their way to its leader, oldest first:
 *
 *     sent (at most maxInFlight)        ready             open
 *   [ b0 ][ b1 ][ b2 ]               [ b3 ][ b4 ]       [ b5 ..
 *     each waits for an answer,        full, wait         takes
 *     or to be sent again              for their turn     records
 *
 * It promises that records of a producer stand in the log in the order in which they were appended here, each once, if
 * the producer is idempotent:
 * - A batch gets its sequence when it is first sent, and its bytes never change while its outcome is unknown.
 * - Until the first batch under a producer id is acknowledged it is alone in flight: a broker that does not know the
 *   producer takes any sequence for its first, so it would accept a second batch where it has refused the first.
 * - After a failure nothing new is sent until every batch in `sent` has an outcome; then those that are left are sent
 *   again, oldest first. The broker has refused all that came behind a missing one, and answers a repetition of what it
 *   has with the original offset.
 * - A batch that certainly was not appended leaves a gap in the sequence when it is given up; those behind it are then
 *   given new sequences, which is safe because they were refused too.
 * - A batch that is given up with an unknown outcome ends the use of the producer id here: batches behind it whose
 *   outcome is unknown fail too, and are never sent again under another id. The rest goes on under a new one.
 */
export class PartitionQueue {
  /** Batches that were sent, in the order of their sequences. */
  readonly #sent: ProducerBatch[] = [];
  readonly #ready: ProducerBatch[] = [];
  readonly #backoff: Backoff;
  #open: ProducerBatch | undefined;
  #isFlushing = false;
  /** The topic is another one of the same name; what is in flight was meant for the old one. */
  #isReplaced = false;
  /** Batches in `#sent` without a pending request must be sent again. */
  #mustResend = false;
  /** The sequence that brokers expect next, where a batch was given up and left a gap. */
  #gapAt: number | undefined;
  #identity: ProducerIdentity | undefined;
  #nextSequence = 0;
  #nextOrdinal = 0;
  /** The leader has acknowledged a batch under `#identity`, so it will notice one that is missing. */
  #isIdentityKnown = false;
  #notBeforeMs = 0;
  /** What a batch of several records may hold; shrinks when the topic refuses one as too large. */
  #limitBytes = Number.POSITIVE_INFINITY;
  /** The leader epoch that the last failure was met under. */
  #failedEpoch = -1;
  /** Another leader would cure the last failure. */
  #awaitsLeader = false;
  /** In the producer's list of queues to pump at the end of the turn. */
  isListed = false;

  constructor(
    private readonly host: QueueHost,
    readonly topic: string,
    private topicId: TopicId,
    readonly partition: number,
  ) {
    this.#backoff = new Backoff(host.env.random, RETRY_MS, RETRY_MS_MAX);
  }

  get isEmpty(): boolean {
    return this.#open === undefined && this.#ready.length === 0 && this.#sent.length === 0;
  }

  /**
   * Encodes a record into the open batch; false when there is no memory for another batch. Throws RecordTooLargeError.
   */
  append(
    timestamp: number,
    key: Uint8Array | string | null | undefined,
    value: Uint8Array | string | null | undefined,
    headers: readonly EncodableHeader[] | undefined,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean {
    let batch = this.#open;
    if (batch === undefined || !batch.encoder.tryAppend(timestamp, key, value, headers)) {
      if (batch !== undefined) {
        this.#closeOpen();
        this.pump();
      }
      batch = this.#openWith(timestamp, key, value, headers);
      if (batch === undefined) return false;
    }
    batch.note(timestamp, onAcknowledged);
    return true;
  }

  /** Sends what may be sent now. Cheap when there is nothing to do. */
  pump(): void {
    if (this.isEmpty) return;
    if (this.#isReplaced) {
      if (this.#isWaiting()) return;
      this.#onTopicReplaced();
    }
    const { host } = this;
    const nowMs = host.env.clock.monotonicMs();
    if (nowMs < this.#notBeforeMs) {
      host.wakeAt(this.#notBeforeMs);
      return;
    }
    if (this.#mustResend ? this.#isWaiting() : !this.#hasRoom()) return;
    if (!this.#mustResend && this.#ready.length === 0 && !this.#isDue(nowMs)) return;
    const leader = host.leaderOf(this.topic, this.partition);
    if (leader === undefined) return;
    const connection = host.connectionTo(leader.leaderId);
    if (connection === undefined) return;
    if (this.#mustResend) this.#resend(connection, leader, nowMs);
    while (this.#hasIdentity() && this.#hasRoom()) {
      const batch = this.#takeDue(nowMs);
      if (batch === undefined) return;
      this.#identify(batch);
      batch.ordinal = this.#nextOrdinal;
      this.#nextOrdinal += 1;
      this.#sent.push(batch);
      this.#transmit(batch, connection, leader, nowMs);
    }
  }

  /** Sends the open batch without waiting for more records, and calls `onDone` for each batch that is here now. */
  flush(onDone: () => void): number {
    const batches = [...this.#sent, ...this.#ready, ...(this.#open === undefined ? [] : [this.#open])];
    for (const batch of batches) (batch.onDone ??= []).push(onDone);
    this.#isFlushing = this.#open !== undefined;
    this.pump();
    return batches.length;
  }

  /** Gives up what is out of time, and leaves a leader that stays silent once another one is known. */
  check(nowMs: number): void {
    for (let oldest = this.#sent[0]; oldest !== undefined && nowMs >= oldest.deadlineMs; oldest = this.#sent[0]) {
      const isUnknown = oldest.isPending || oldest.outcomeUnknown;
      this.#giveUp(oldest, isUnknown ? this.#unknown(oldest, oldest.lastError) : this.#outOfTime(oldest));
    }
    while ((this.#ready[0]?.deadlineMs ?? Number.POSITIVE_INFINITY) <= nowMs) {
      const batch = this.#ready.shift();
      if (batch !== undefined) this.#fail(batch, this.#outOfTime(batch));
    }
    if (this.#open !== undefined && nowMs >= this.#open.deadlineMs) {
      const batch = this.#open;
      this.#closeOpen();
      this.#ready.splice(this.#ready.indexOf(batch), 1);
      this.#fail(batch, this.#outOfTime(batch));
    }
    const silent = this.#sent.find((batch) => batch.isPending && nowMs - batch.sentAtMs >= SILENCE_MS);
    if (silent === undefined) return;
    this.host.onTrouble(silent.sentTo);
    this.#leaveSilentLeader(silent);
  }

  /** The cluster was described anew. `topicId` is the one that the topic's name stands for now. */
  onMetadata(topicId: TopicId): void {
    if (topicId !== this.topicId) {
      this.topicId = topicId;
      this.#isReplaced = true;
    }
    if (this.isEmpty) return;
    const leader = this.host.leaderOf(this.topic, this.partition);
    if (leader !== undefined && leader.leaderEpoch !== this.#failedEpoch) this.#notBeforeMs = 0;
    // Asking on, so that a new leader is seen when it is there, and not only at the next attempt.
    else if (this.#mustResend && this.#awaitsLeader) this.host.refresh();
    const nowMs = this.host.env.clock.monotonicMs();
    const silent = this.#sent.find((batch) => batch.isPending && nowMs - batch.sentAtMs >= SILENCE_MS);
    if (silent !== undefined) this.#leaveSilentLeader(silent);
    this.pump();
  }

  /** Fails everything that is here. */
  failAll(error: ClientError): void {
    if (this.#open !== undefined) this.#closeOpen();
    const batches = [...this.#sent.splice(0), ...this.#ready.splice(0)];
    this.#mustResend = false;
    this.#gapAt = undefined;
    this.#forgetIdentity();
    for (const batch of batches) {
      this.#fail(batch, batch.isPending || batch.outcomeUnknown ? this.#unknown(batch, error) : error);
    }
  }

  #openWith(
    timestamp: number,
    key: Uint8Array | string | null | undefined,
    value: Uint8Array | string | null | undefined,
    headers: readonly EncodableHeader[] | undefined,
  ): ProducerBatch | undefined {
    const { host } = this;
    const buffer = host.pool.take(0);
    if (buffer === undefined) return undefined;
    const nowMs = host.env.clock.monotonicMs();
    const deadlineMs = nowMs + host.settings.deliveryTimeoutMs;
    let batch = new ProducerBatch(buffer, nowMs, deadlineMs, this.#limitBytes);
    if (!batch.encoder.tryAppend(timestamp, key, value, headers)) {
      host.pool.give(buffer, true);
      const bytes = singleRecordBatchBytes(key, value, headers);
      if (bytes > host.batchBytesMax) {
        throw new RecordTooLargeError(bytes, host.batchBytesMax, "message.max.bytes of the brokers", {
          topic: this.topic,
          partition: this.partition,
        });
      }
      const large = host.pool.take(REQUEST_HEADROOM_BYTES + bytes);
      if (large === undefined) return undefined;
      batch = new ProducerBatch(large, nowMs, deadlineMs);
      const fits = batch.encoder.tryAppend(timestamp, key, value, headers);
      invariant(fits, () => `a record announced with ${bytes} bytes does not fit in them`);
    }
    this.#open = batch;
    if (host.settings.lingerMs > 0) host.wakeAt(nowMs + host.settings.lingerMs);
    return batch;
  }

  #closeOpen(): void {
    const batch = this.#open;
    if (batch === undefined) return;
    this.#open = undefined;
    this.#isFlushing = false;
    this.#ready.push(batch);
    this.host.onClosedBatch(this);
  }

  #isDue(nowMs: number): boolean {
    const { lingerMs } = this.host.settings;
    return (
      this.#open !== undefined && (lingerMs === 0 || this.#isFlushing || nowMs >= this.#open.openedAtMs + lingerMs)
    );
  }

  #takeDue(nowMs: number): ProducerBatch | undefined {
    if (this.#ready.length === 0 && this.#isDue(nowMs)) this.#closeOpen();
    return this.#ready.shift();
  }

  /**
   * Whether another batch may be sent. Counted from the oldest without an outcome, with those behind it that have one: a
   * broker recognizes repetitions of a producer's last five batches, so the oldest must stay among them.
   */
  #hasRoom(): boolean {
    const oldest = this.#sent[0];
    return oldest === undefined || this.#nextOrdinal - oldest.ordinal < this.#inFlightMax;
  }

  /** Whether some request is not answered yet. */
  #isWaiting(): boolean {
    return this.#sent.some((batch) => batch.isPending);
  }

  /** Whether batches can be given an identity. It changes only while nothing is in flight under the old one. */
  #hasIdentity(): boolean {
    if (!this.host.settings.idempotent) return true;
    if (this.#identity !== undefined) return true;
    this.#identity = this.host.identity();
    this.#nextSequence = 0;
    this.#isIdentityKnown = false;
    return this.#identity !== undefined;
  }

  get #inFlightMax(): number {
    const { idempotent, maxInFlight } = this.host.settings;
    return idempotent && !this.#isIdentityKnown ? 1 : maxInFlight;
  }

  #identify(batch: ProducerBatch): void {
    const identity = this.#identity;
    if (identity === undefined) {
      batch.identify(noIdentity);
      return;
    }
    batch.identify({ ...identity, baseSequence: this.#nextSequence });
    this.#nextSequence = nextSequence(this.#nextSequence, batch.recordCount);
  }

  #transmit(batch: ProducerBatch, connection: RpcConnection, leader: KnownPartition, nowMs: number): void {
    const { settings } = this.host;
    const { bytes } = batch;
    invariant(bytes !== undefined, () => "a batch is sent before it has an identity");
    batch.attempts += 1;
    batch.isPending = true;
    batch.sentTo = leader.leaderId;
    batch.sentAtMs = nowMs;
    const attempt = batch.attempts;
    const body = {
      acks: acksCodes[settings.acks],
      timeoutMs: settings.requestTimeoutMs,
      partitions: [{ topicId: this.topicId, partition: this.partition, leaderEpochPlusOne: leader.leaderEpoch + 1 }],
    };
    if (settings.acks === "none") {
      connection.sendWithoutResponse("produce", body, [[bytes]], () => this.#onSent(batch, attempt));
      return;
    }
    // Earlier attempts were answered or their connection is gone, so nobody reads what stands in front of the batch.
    const end = bytes.byteOffset - batch.buffer.byteOffset + bytes.length;
    const inPlace = { buffer: batch.buffer, start: end - bytes.length, end };
    connection.send("produce", body, { timeoutMs: settings.requestTimeoutMs, inPlace }, (outcome) =>
      this.#onOutcome(batch, attempt, leader, outcome),
    );
    this.host.wakeAt(nowMs + SILENCE_MS);
  }

  /** The end of a batch that no answer is waited for. */
  #onSent(batch: ProducerBatch, attempt: number): void {
    if (batch.isDone || batch.attempts !== attempt) return;
    batch.isPending = false;
    this.#remove(batch);
    this.#succeed(batch, -1);
    this.pump();
  }

  #onOutcome(batch: ProducerBatch, attempt: number, leader: KnownPartition, outcome: RpcOutcome<"produce">): void {
    if (batch.isDone || batch.attempts !== attempt) return;
    batch.isPending = false;
    if (outcome instanceof TransportError) {
      if (!outcome.notSent) batch.outcomeUnknown = true;
      // Requests behind the silent one on this connection would be answered later than their repetition is sent.
      if (outcome.kind === "timeout") this.host.dropConnection(leader.leaderId);
      batch.lastError = toClientError(outcome, this.#place(leader));
      this.#awaitsLeader = true;
      this.#sendAgain(leader);
    } else if (outcome instanceof ApiError) {
      this.#onRefused(batch, leader, outcome.errorName, outcome.message, null);
    } else {
      const answer = outcome.body.partitions[0];
      if (answer === undefined) {
        this.#onRefused(
          batch,
          leader,
          "UNKNOWN_SERVER_ERROR",
          "the answer to a produce request has no partition",
          null,
        );
      } else if (answer.error === null) {
        this.#onAppended(batch, answer.baseOffset);
      } else {
        this.#onRefused(batch, leader, errorNameOf(answer.error.code), answer.error.message, answer.leader);
      }
    }
    this.pump();
  }

  #onAppended(batch: ProducerBatch, baseOffset: number): void {
    this.#backoff.reset();
    this.#isIdentityKnown = this.#identity !== undefined;
    this.#remove(batch);
    // The broker has appended behind a batch that it refused: it does not count as this queue does.
    if (this.#gapAt !== undefined) this.#renewIdentity();
    this.#succeed(batch, baseOffset);
  }

  #onRefused(
    batch: ProducerBatch,
    leader: KnownPartition,
    name: ErrorName,
    message: string,
    hint: LeaderHint | null,
  ): void {
    const error = new ProtocolError(name, message, this.#place(leader));
    batch.lastError = error;
    if (name === "DUPLICATE_SEQUENCE_NUMBER" && this.#identity !== undefined) {
      this.#onAppended(batch, -1);
      return;
    }
    if (appendedAnyway.has(name)) batch.outcomeUnknown = true;
    if (name === "MESSAGE_TOO_LARGE" && !batch.outcomeUnknown) {
      this.#onTooLarge(batch, leader);
      return;
    }
    const { retriable, refreshMetadata } = errorCodes[name];
    if (refreshMetadata) this.host.onMoved(this.topic, this.partition, hint);
    if (retriable) this.#awaitsLeader = refreshMetadata;
    if (retriable) {
      this.#sendAgain(leader);
    } else if (identityLost.has(name) && this.#identity !== undefined) {
      // Behind one that failed this is what must happen: what to do is decided by that one's outcome.
      const isFirst = batch === this.#sent[0] && this.#gapAt === undefined;
      this.#sendAgain(leader);
      if (isFirst) this.#renewIdentity();
    } else {
      this.#giveUp(batch, batch.outcomeUnknown ? this.#unknown(batch, error) : error);
    }
  }

  /** The topic takes smaller batches than this producer makes: this one is sent in halves, and others are kept smaller. */
  #onTooLarge(batch: ProducerBatch, leader: KnownPartition): void {
    const bytes = batch.bytes?.length ?? 0;
    if (batch.recordCount === 1) {
      this.#giveUp(
        batch,
        new RecordTooLargeError(bytes, undefined, "max.message.bytes of the topic", this.#place(leader)),
      );
      return;
    }
    this.#limitBytes = Math.max(LIMIT_BYTES_MIN, Math.min(this.#limitBytes, Math.ceil(bytes / 2)));
    const halves = batch.split((size) => this.host.pool.force(size));
    let sequence = batch.baseSequence;
    for (const half of halves) {
      // Together they have the sequences of the whole, so that nothing changes for those behind.
      half.identify(this.#identity === undefined ? noIdentity : { ...this.#identity, baseSequence: sequence });
      sequence = nextSequence(sequence, half.recordCount);
    }
    batch.isDone = true;
    this.host.pool.give(batch.buffer, true);
    this.#sent.splice(this.#sent.indexOf(batch), 1, ...halves);
    this.#mustResend = true;
  }

  #sendAgain(leader: KnownPartition): void {
    this.#mustResend = true;
    this.#failedEpoch = leader.leaderEpoch;
    const known = this.host.leaderOf(this.topic, this.partition);
    // Another leader is known already: there is nothing to wait for.
    if (known !== undefined && known.leaderEpoch !== leader.leaderEpoch) return;
    // Failures that come together are one.
    const nowMs = this.host.env.clock.monotonicMs();
    if (this.#notBeforeMs <= nowMs) this.#notBeforeMs = nowMs + this.#backoff.next();
  }

  /** All of `sent` has outcomes. */
  #resend(connection: RpcConnection, leader: KnownPartition, nowMs: number): void {
    if (this.#gapAt !== undefined && !this.#closeGap(this.#gapAt)) return;
    const batches = this.#sent.slice(0, this.#inFlightMax);
    // Halves of split batches may be more than may be in flight; the others follow when these have outcomes.
    this.#mustResend = batches.length < this.#sent.length;
    for (const batch of batches) this.#transmit(batch, connection, leader, nowMs);
  }

  /** Gives new sequences to what stands behind a gap; false when that would not be safe and the identity was given up. */
  #closeGap(gapAt: number): boolean {
    this.#gapAt = undefined;
    if (this.#identity === undefined) return true;
    if (this.#sent.some((batch) => batch.outcomeUnknown)) {
      this.#renewIdentity();
      return false;
    }
    this.#nextSequence = gapAt;
    for (const batch of this.#sent) this.#identify(batch);
    return true;
  }

  /** Ends a batch of `sent` for good, with what that means for those behind it. */
  #giveUp(batch: ProducerBatch, error: ClientError): void {
    const isUnknown = batch.isPending || batch.outcomeUnknown;
    this.#remove(batch);
    if (this.#identity !== undefined) {
      if (isUnknown) {
        this.#fail(batch, error);
        this.#renewIdentity();
        return;
      }
      if (this.#gapAt === undefined || batch.baseSequence < this.#gapAt) this.#gapAt = batch.baseSequence;
      this.#mustResend = true;
      if (this.#sent.length === 0) {
        this.#nextSequence = this.#gapAt;
        this.#gapAt = undefined;
        this.#mustResend = false;
      }
    }
    this.#fail(batch, error);
  }

  /** The producer id cannot be used here any longer: what may have been appended under it must not be sent again. */
  #renewIdentity(): void {
    const batches = this.#sent.splice(0);
    this.#mustResend = false;
    this.#gapAt = undefined;
    this.#forgetIdentity();
    const unsent = batches.filter((batch) => !batch.isPending && !batch.outcomeUnknown);
    this.#ready.unshift(...unsent);
    for (const batch of batches) {
      if (!unsent.includes(batch)) this.#fail(batch, this.#unknown(batch, batch.lastError));
    }
  }

  #forgetIdentity(): void {
    if (this.#identity !== undefined) this.host.discardIdentity(this.#identity);
    this.#identity = undefined;
    this.#isIdentityKnown = false;
  }

  /** The log that batches in flight were for is gone, and with it the memory of their sequences. */
  #onTopicReplaced(): void {
    this.#isReplaced = false;
    const batches = this.#sent.splice(0);
    this.#mustResend = false;
    this.#gapAt = undefined;
    this.#forgetIdentity();
    const unsent = batches.filter((batch) => !batch.outcomeUnknown);
    this.#ready.unshift(...unsent);
    for (const batch of batches) {
      if (unsent.includes(batch)) continue;
      const error = new ProtocolError(
        "UNKNOWN_TOPIC_ID",
        "the topic was deleted and created again",
        this.#place(undefined),
      );
      this.#fail(batch, this.#unknown(batch, error));
    }
  }

  #leaveSilentLeader(silent: ProducerBatch): void {
    const leader = this.host.leaderOf(this.topic, this.partition);
    if (leader !== undefined && leader.leaderId !== silent.sentTo) this.host.dropConnection(silent.sentTo);
  }

  #remove(batch: ProducerBatch): void {
    const index = this.#sent.indexOf(batch);
    invariant(index >= 0, () => "a batch that is not in flight has an outcome");
    this.#sent.splice(index, 1);
    if (this.#sent.length === 0 && this.#gapAt === undefined) this.#mustResend = false;
  }

  #succeed(batch: ProducerBatch, baseOffset: number): void {
    const { callbacks, timestamps } = batch;
    const { topic, partition } = this;
    this.#done(batch, () => {
      if (callbacks === undefined || timestamps === undefined) return;
      for (let index = 0; index < callbacks.length; index += 1) {
        const offset = baseOffset < 0 ? -1 : baseOffset + index;
        callbacks[index]?.(undefined, { topic, partition, offset, timestamp: timestamps[index] as number });
      }
    });
  }

  #fail(batch: ProducerBatch, error: ClientError): void {
    const { callbacks } = batch;
    batch.failure = error;
    this.#done(batch, () => {
      if (callbacks !== undefined) for (const callback of callbacks) callback?.(error, undefined);
    });
  }

  #done(batch: ProducerBatch, run: () => void): void {
    batch.isDone = true;
    // A socket may still hold the bytes of a request without an answer.
    this.host.pool.give(batch.buffer, !batch.isPending);
    this.host.onDoneBatch(batch, run);
  }

  #place(leader: KnownPartition | undefined): { topic: string; partition: number; brokerId: number | undefined } {
    return { topic: this.topic, partition: this.partition, brokerId: leader?.leaderId };
  }

  #outOfTime(batch: ProducerBatch): ClientError {
    const { deliveryTimeoutMs } = this.host.settings;
    const why = batch.lastError === undefined ? "its leader could not be reached" : batch.lastError.what;
    return new DeadlineExceededError(
      `${batch.recordCount} records were not sent within deliveryTimeoutMs ${deliveryTimeoutMs} (${why})`,
      "check that the brokers run, or raise deliveryTimeoutMs",
      { ...this.#place(undefined), cause: batch.lastError },
    );
  }

  #unknown(batch: ProducerBatch, cause: ClientError | undefined): ClientError {
    const why = cause === undefined ? "the leader has not answered" : cause.what;
    return new OutcomeUnknownError(`${batch.recordCount} records were sent and not acknowledged (${why})`, {
      topic: this.topic,
      partition: this.partition,
      brokerId: batch.sentTo,
      cause,
    });
  }
}
