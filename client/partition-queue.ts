import { invariant } from "../common/assert.js";
import { ApiError, errorCodes, errorNameOf, mayRetry } from "../protocol/error-codes.js";
import type { ErrorName } from "../protocol/error-codes.js";
import type { RecordsInPlace } from "../protocol/message-codec.js";
import type { LeaderHint } from "../protocol/messages.js";
import type { RpcConnection, RpcOutcome } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerId, TopicId } from "../protocol/types.js";
import { acksCodes } from "../protocol/types.js";
import type { MemoryShare } from "./buffer-pool.js";
import { MemoryAccount } from "./buffer-pool.js";
import type { ClientError } from "./errors.js";
import { ProtocolError, RecordTooLargeError, toClientError, topicReplacedError } from "./errors.js";
import type { LeaderTurns } from "./leader-turns.js";
import type { KnownPartition, KnownTopic } from "./metadata.js";
import { SILENCE_MS } from "./metadata.js";
import type { Obstacle } from "./produce-errors.js";
import {
  appendedAnyway,
  identityLost,
  noConnectionError,
  outcomeUnknownError,
  outOfTimeError,
} from "./produce-errors.js";
import type { OnThrown, ProducerBatch } from "./producer-batch.js";
import type { IdentitySource } from "./producer-sequence.js";
import { ProducerSequence } from "./producer-sequence.js";
import type { ProducerSettings } from "./producer-settings.js";
import type { AccumulatorHost } from "./record-accumulator.js";
import { RecordAccumulator } from "./record-accumulator.js";
import { Backoff } from "./retry.js";

/**
 * What a queue needs of its producer. Where `leaderOf`, `connectionTo` or `identity` have nothing now, it is being looked
 * for, and `pump` will be called.
 */
export interface QueueHost extends AccumulatorHost, IdentitySource {
  readonly settings: ProducerSettings;
  leaderOf(topic: string, partition: number): KnownPartition | undefined;
  connectionTo(brokerId: BrokerId): RpcConnection | undefined;
  dropConnection(brokerId: BrokerId): void;
  turnsAt(brokerId: BrokerId): LeaderTurns;
  /** A refusal that metadata cures. */
  onMoved(topic: string, partition: number, hint: LeaderHint | null): void;
  onTrouble(brokerId: BrokerId): void;
  /** Calls `pump` at this time of the monotonic clock, or before. */
  wakeAt(timeMs: number): void;
  /** No more records go into the batch that was open. */
  onClosedBatch(queue: PartitionQueue): void;
  /** Calls `pump` in the middle of an append: callbacks of what that ends must wait, because they may append as well. */
  pumpDuringAppend(queue: PartitionQueue): void;
  /** The partition of these batches is gone, as `error` says: records that do not name it may go elsewhere. */
  onHomeless(batches: readonly ProducerBatch[], error: ClientError): void;
  /** Why there is no connection to a broker, as far as is known. */
  connectionFailure(brokerId: BrokerId): unknown;
  /** A batch is done and its memory free; `run` tells those who appended its records. */
  onDoneBatch(batch: ProducerBatch, run: (onThrown: OnThrown) => void): void;
}

/**
 * The batches of one partition on their way to its leader, oldest first:
 *
 *     sent (at most maxInFlight)        accumulator
 *   [ b0 ][ b1 ][ b2 ]               [ b3 ][ b4 ][ b5 ..
 *     each waits for an answer,        each waits to be
 *     or to be sent again              sent first
 *
 * It promises that records of a producer stand in the log in the order in which they were appended here, each once, if
 * the producer is idempotent:
 * - A batch gets its sequence when it is first sent, and its bytes never change while its outcome is unknown.
 * - Until the first batch under a producer id is acknowledged it is alone in flight: when its answer is lost and a broker
 *   forgets the producer before it is sent again, it is appended again, and so would be those behind it.
 * - After a failure nothing new is sent until every batch in `sent` has an outcome; then those that are left are sent
 *   again, oldest first. The broker has refused all that came behind a missing one, and answers a repetition of what it
 *   has with the original offset. Only an offset acknowledges.
 * - A batch that certainly was not appended leaves a gap in the sequence when it is given up; those behind it are then
 *   given new sequences, which is safe because they were refused too.
 * - A batch that is given up with an unknown outcome ends the use of the producer id here: batches behind it whose
 *   outcome is unknown fail too, and are never sent again under another id. The rest goes on under a new one.
 * - So does what a broker refuses that has forgotten the producer, once every batch in `sent` has an outcome. A refused
 *   batch that one behind it has overtaken does not: it would change places with that one.
 */
export class PartitionQueue {
  readonly topic: string;
  #topicId: TopicId;
  readonly #place: { readonly topic: string; readonly partition: number };
  readonly #account: MemoryAccount;
  /** Where records go in. */
  readonly accumulator: RecordAccumulator;
  /** Batches that were sent, in the order of their sequences. */
  readonly #sent: ProducerBatch[] = [];
  readonly #sequence: ProducerSequence;
  readonly #backoff: Backoff;
  /** The topic is another one of the same name; what is in flight was meant for the old one. */
  #isReplaced = false;
  /** Why there is no such partition any more. */
  #left: ClientError | undefined;
  /** The leader does not know the producer as it should; what is in flight is answered first. */
  #mustRenew = false;
  /** Batches in `#sent` without a pending request must be sent again. */
  #mustResend = false;
  #nextOrdinal = 0;
  #notBeforeMs = 0;
  /** An outcome is being taken in; what may be sent then is sent at the end of that. */
  #isTakingIn = false;
  /** The leader epoch that the last failure was met under. */
  #failedEpoch = -1;
  /** Another leader would cure the last failure. */
  #awaitsLeader = false;
  /** In the producer's list of queues to pump at the end of the turn. */
  isListed = false;
  /** The topic was created again, with fewer partitions. */
  isGone = false;

  constructor(
    private readonly host: QueueHost,
    { name, topicId, batchBytesMax }: KnownTopic,
    readonly partition: number,
    share: MemoryShare,
  ) {
    this.topic = name;
    this.#topicId = topicId;
    this.#place = { topic: name, partition };
    this.#account = new MemoryAccount(share);
    this.accumulator = new RecordAccumulator(host, this.#place, this.#account, batchBytesMax, {
      onClosed: () => host.onClosedBatch(this),
      onFull: () => host.pumpDuringAppend(this),
    });
    this.#sequence = new ProducerSequence(host, host.settings.idempotent);
    this.#backoff = new Backoff(host.env.random);
  }

  get isEmpty(): boolean {
    return this.accumulator.isEmpty && this.#sent.length === 0;
  }

  /** Of the memory: that of records for the same leader. */
  get share(): MemoryShare {
    return this.#account.share;
  }

  /** Another leader was told of, or none any more. */
  moveTo(share: MemoryShare): void {
    this.#account.moveTo(share);
  }

  /** Sends what may be sent now. Cheap when there is nothing to do. */
  pump(): void {
    if (this.isEmpty || this.#isTakingIn) return;
    if (this.#left !== undefined) {
      if (!this.#isWaiting()) this.#handOver(this.#left);
      return;
    }
    if (this.#isReplaced || this.#mustRenew) {
      if (this.#isWaiting()) return;
      // The log that batches in flight were for is gone, and with it the memory of their sequences.
      const cause = this.#isReplaced ? topicReplacedError(this.#place) : undefined;
      this.#isReplaced = false;
      this.#renewIdentity(cause);
    }
    const { host } = this;
    const nowMs = host.env.clock.monotonicMs();
    if (nowMs < this.#notBeforeMs) {
      host.wakeAt(this.#notBeforeMs);
      return;
    }
    if (this.#mustResend ? this.#isWaiting() : !this.#hasRoom() || !this.accumulator.hasDue(nowMs)) return;
    const leader = host.leaderOf(this.topic, this.partition);
    if (leader === undefined) return;
    const connection = host.connectionTo(leader.leaderId);
    if (connection === undefined) return;
    if (this.#mustResend) this.#resend(connection, leader, nowMs);
    const turns = host.turnsAt(leader.leaderId);
    while (this.#sequence.begin(this.#sent.length > 0) && this.#hasRoom()) {
      if (!this.accumulator.hasReady) {
        if (!this.accumulator.hasDue(nowMs)) return;
        if (!turns.isTurnOf(this, nowMs)) {
          host.wakeAt(turns.wakeAtMs(nowMs));
          return;
        }
      }
      const batch = this.accumulator.takeDue(nowMs);
      if (batch === undefined) return;
      this.#sequence.identify(batch);
      batch.ordinal = this.#nextOrdinal;
      this.#nextOrdinal += 1;
      this.#sent.push(batch);
      this.#transmit(batch, connection, leader, nowMs);
    }
  }

  /** Sends the open batch without waiting for more records, and calls `onDone` for each batch that is here now. */
  flush(onDone: () => void): number {
    const batches = [...this.#sent, ...this.accumulator.flush()];
    for (const batch of batches) (batch.onDone ??= []).push(onDone);
    this.pump();
    return batches.length;
  }

  /** Gives up what is out of time, and leaves a leader that stays silent once another one is known. */
  check(nowMs: number): void {
    const [first] = this.#sent;
    for (;;) {
      const late = this.#sent.find(({ deadlineMs }) => nowMs >= deadlineMs);
      if (late === undefined) break;
      const error = mayBeAppended(late)
        ? this.#unknown(late, late.lastError ?? this.#left)
        : this.#outOfTime(late, first);
      this.#giveUp(late, error);
    }
    for (;;) {
      const batch = this.accumulator.takeExpired(nowMs);
      if (batch === undefined) break;
      this.#fail(batch, this.#outOfTime(batch, first));
    }
    const silent = this.#findSilent(nowMs);
    if (silent === undefined) return;
    this.host.onTrouble(silent.sentTo);
    this.#leaveSilentLeader(silent);
  }

  /** The cluster was described anew. The topic may be another one of the same name. */
  onMetadata({ topicId, batchBytesMax }: KnownTopic): void {
    this.accumulator.setBatchBytesMax(batchBytesMax);
    if (topicId !== this.#topicId) {
      this.#topicId = topicId;
      this.#isReplaced = true;
    }
    if (this.isEmpty) return;
    const leader = this.host.leaderOf(this.topic, this.partition);
    if (leader !== undefined && leader.leaderEpoch !== this.#failedEpoch) this.#notBeforeMs = 0;
    // Asking on, so that a new leader is seen when it is there, and not only at the next attempt.
    else if (this.#mustResend && this.#awaitsLeader) this.host.refresh();
    const silent = this.#findSilent(this.host.env.clock.monotonicMs());
    if (silent !== undefined) this.#leaveSilentLeader(silent);
    this.pump();
  }

  /** Fails everything that is here. */
  failAll(error: ClientError): void {
    const unsent = this.accumulator.takeAll();
    const sent = this.#takeSent();
    this.#sequence.forget();
    for (const batch of sent) this.#fail(batch, mayBeAppended(batch) ? this.#unknown(batch, error) : error);
    for (const batch of unsent) this.#fail(batch, error);
  }

  /**
   * There is no such partition any more. Once what is in flight is answered, what certainly is not in its log goes elsewhere,
   * unless it names the partition; the rest fails.
   */
  leave(error: ClientError): void {
    this.#left = error;
    this.pump();
  }

  /** Nothing is in flight. */
  #handOver(error: ClientError): void {
    const batches = [...this.#takeSent(), ...this.accumulator.takeAll()];
    this.#sequence.forget();
    const homeless = batches.filter((batch) => !mayBeAppended(batch));
    for (const batch of homeless) {
      batch.isDone = true;
      this.#endTurn(batch);
      // Its records are views of the memory until they are encoded again.
      this.#giveBack(batch, false);
    }
    // All together, and first: whoever hears of a failure may hand over more, which stands behind them.
    this.host.onHomeless(homeless, error);
    for (const batch of batches) if (mayBeAppended(batch)) this.#fail(batch, this.#unknown(batch, error));
  }

  /**
   * Whether another batch may be sent. Counted from the oldest without an outcome, with those behind it that have one: a
   * broker recognizes repetitions of a producer's last five batches, so the oldest must stay among them.
   */
  #hasRoom(): boolean {
    const oldest = this.#sent[0];
    return oldest === undefined || this.#nextOrdinal - oldest.ordinal < this.#inFlightMax;
  }

  get #inFlightMax(): number {
    const { idempotent, maxInFlight } = this.host.settings;
    return idempotent && !this.#sequence.isKnown ? 1 : maxInFlight;
  }

  /** Whether a request is not answered yet, and its leader cannot be called silent. */
  isAnswerNear(nowMs: number): boolean {
    return this.#sent.some((batch) => batch.isPending && nowMs - batch.sentAtMs < SILENCE_MS);
  }

  /** Whether some request is not answered yet. */
  #isWaiting(): boolean {
    return this.#sent.some((batch) => batch.isPending);
  }

  /** A batch whose answer is overdue. */
  #findSilent(nowMs: number): ProducerBatch | undefined {
    return this.#sent.find((batch) => batch.isPending && nowMs - batch.sentAtMs >= SILENCE_MS);
  }

  #leaveSilentLeader(silent: ProducerBatch): void {
    const leader = this.host.leaderOf(this.topic, this.partition);
    if (leader !== undefined && leader.leaderId !== silent.sentTo) this.host.dropConnection(silent.sentTo);
  }

  #transmit(batch: ProducerBatch, connection: RpcConnection, leader: KnownPartition, nowMs: number): void {
    const { settings } = this.host;
    const { pieces } = batch;
    invariant(pieces !== undefined, () => "a batch is sent before it has an identity");
    batch.attempts += 1;
    batch.isPending = true;
    batch.sentTo = leader.leaderId;
    batch.sentAtMs = nowMs;
    batch.underWay = this.host.turnsAt(leader.leaderId).onSent(nowMs);
    const attempt = batch.attempts;
    const body = {
      acks: acksCodes[settings.acks],
      timeoutMs: settings.requestTimeoutMs,
      partitions: [{ topicId: this.#topicId, partition: this.partition, leaderEpochPlusOne: leader.leaderEpoch + 1 }],
    };
    if (settings.acks === "none") {
      connection.sendWithoutResponse("produce", body, [pieces], () => this.#onSent(batch, attempt, leader));
      return;
    }
    const { requestTimeoutMs: timeoutMs } = settings;
    const records = pieces.length > 1 ? { records: [pieces] } : { inPlace: inPlaceOf(batch, pieces[0] as Buffer) };
    connection.send("produce", body, { timeoutMs, ...records }, (outcome) =>
      this.#onOutcome(batch, attempt, leader, outcome),
    );
    this.host.wakeAt(nowMs + SILENCE_MS);
  }

  /** The end of a batch that no answer is waited for. */
  #onSent(batch: ProducerBatch, attempt: number, leader: KnownPartition): void {
    if (batch.isDone || batch.attempts !== attempt) return;
    this.#takeIn(leader, () => {
      this.#endTurn(batch);
      batch.isPending = false;
      this.#remove(batch);
      this.#succeed(batch, -1);
    });
  }

  #onOutcome(batch: ProducerBatch, attempt: number, leader: KnownPartition, outcome: RpcOutcome<"produce">): void {
    if (batch.isDone || batch.attempts !== attempt) return;
    this.#takeIn(leader, () => this.#takeOutcome(batch, leader, outcome));
  }

  /** Whoever hears of an outcome, or of what it says about the cluster, may call `pump` before all is noted. */
  #takeIn(leader: KnownPartition, take: () => void): void {
    // What one outcome ends may bring others.
    const isInner = this.#isTakingIn;
    this.#isTakingIn = true;
    try {
      take();
    } finally {
      this.#isTakingIn = isInner;
    }
    this.pump();
    this.#callNext(leader);
  }

  #takeOutcome(batch: ProducerBatch, leader: KnownPartition, outcome: RpcOutcome<"produce">): void {
    this.#endTurn(batch, !(outcome instanceof TransportError));
    batch.isPending = false;
    if (outcome instanceof TransportError) {
      if (!outcome.notSent) batch.outcomeUnknown = true;
      // Requests behind the silent one on this connection would be answered later than their repetition is sent.
      if (outcome.kind === "timeout") this.host.dropConnection(leader.leaderId);
      batch.lastError = toClientError(outcome, this.#placeAt(leader));
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
  }

  /** The batch counts no more among those under way. */
  #endTurn(batch: ProducerBatch, isAnswered = false): void {
    const { underWay, sentTo } = batch;
    if (underWay === undefined) return;
    const turns = this.host.turnsAt(sentTo);
    if (isAnswered) turns.onAnswered(underWay, this.host.env.clock.monotonicMs());
    else turns.onEnded(underWay);
    batch.underWay = undefined;
  }

  #callNext({ leaderId }: KnownPartition): void {
    this.host.turnsAt(leaderId).callNext(this.host.env.clock.monotonicMs());
  }

  #onAppended(batch: ProducerBatch, baseOffset: number): void {
    this.#backoff.reset();
    this.#sequence.onAcknowledged();
    for (const ahead of this.#sent.slice(0, this.#sent.indexOf(batch))) ahead.isOvertaken = true;
    this.#remove(batch);
    // The broker has appended behind a batch that it refused: it does not count as this queue does.
    if (this.#sequence.hasGap) this.#renewIdentity();
    this.#succeed(batch, baseOffset);
  }

  #onRefused(
    batch: ProducerBatch,
    leader: KnownPartition,
    name: ErrorName,
    message: string,
    hint: LeaderHint | null,
  ): void {
    const error = new ProtocolError(name, message, this.#placeAt(leader));
    batch.lastError = error;
    if (appendedAnyway.has(name)) batch.outcomeUnknown = true;
    if (name === "MESSAGE_TOO_LARGE" && !batch.outcomeUnknown) {
      this.#onTooLarge(batch, leader);
      return;
    }
    if (mayRetry(name)) {
      const { refreshMetadata } = errorCodes[name];
      this.#awaitsLeader = refreshMetadata;
      this.#sendAgain(leader);
      if (refreshMetadata) this.host.onMoved(this.topic, this.partition, hint);
    } else if (identityLost.has(name) && this.#sequence.hasIdentity) {
      // Behind one that failed this is what must happen: what to do is decided by that one's outcome.
      const isFirst = batch === this.#sent[0] && !this.#sequence.hasGap;
      this.#sendAgain(leader);
      this.#mustRenew ||= isFirst;
    } else {
      this.#giveUp(batch, batch.outcomeUnknown ? this.#unknown(batch, error) : error);
    }
  }

  /** The topic takes smaller batches than this producer makes: this one is sent in halves, and others are kept smaller. */
  #onTooLarge(batch: ProducerBatch, leader: KnownPartition): void {
    let bytes = 0;
    for (const { length } of batch.pieces ?? []) bytes += length;
    if (batch.recordCount === 1) {
      this.#giveUp(
        batch,
        new RecordTooLargeError(bytes, undefined, "max.message.bytes of the topic", this.#placeAt(leader)),
      );
      return;
    }
    this.accumulator.keepBelow(bytes);
    const halves = batch.split((size) => this.host.pool.force(this.#account, size));
    this.#sequence.identifyParts(batch, halves);
    batch.isDone = true;
    this.#giveBack(batch, true);
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
    if (this.#sequence.hasGap && !this.#closeGap()) return;
    const batches = this.#sent.slice(0, this.#inFlightMax);
    // Halves of split batches may be more than may be in flight; the others follow when these have outcomes.
    this.#mustResend = batches.length < this.#sent.length;
    for (const batch of batches) this.#transmit(batch, connection, leader, nowMs);
  }

  /** Gives new sequences to what stands behind a gap; false when that would not be safe and the identity was given up. */
  #closeGap(): boolean {
    if (this.#sent.some((batch) => batch.outcomeUnknown)) {
      this.#renewIdentity();
      return false;
    }
    const isBehindGap = this.#sequence.rewindToGap();
    for (const batch of this.#sent) if (isBehindGap(batch)) this.#sequence.identify(batch);
    return true;
  }

  /** Ends a batch of `sent` for good, with what that means for those behind it. */
  #giveUp(batch: ProducerBatch, error: ClientError): void {
    this.#remove(batch);
    if (!this.#sequence.hasIdentity) {
      this.#fail(batch, error);
    } else if (mayBeAppended(batch)) {
      // First: whoever hears of the failure may send more, and nothing goes out under this identity any more.
      this.#renewIdentity();
      this.#fail(batch, error);
    } else {
      this.#sequence.leaveGap(batch);
      this.#mustResend = this.#sent.length > 0;
      if (!this.#mustResend) this.#sequence.rewindToGap();
      this.#fail(batch, error);
    }
  }

  /**
   * The producer id cannot be used here any longer: what may have been appended under it must not be sent again. `cause`
   * explains it to those concerned, where it is not the batch's own last error.
   */
  #renewIdentity(cause?: ClientError): void {
    const batches = this.#takeSent();
    this.#sequence.forget();
    const refused = batches.filter((batch) => !mayBeAppended(batch));
    this.accumulator.putBack(refused.filter((batch) => !batch.isOvertaken));
    for (const batch of batches) {
      if (mayBeAppended(batch)) this.#fail(batch, this.#unknown(batch, cause ?? batch.lastError));
      else if (batch.isOvertaken) this.#fail(batch, batch.lastError ?? this.#outOfTime(batch));
    }
  }

  #takeSent(): ProducerBatch[] {
    this.#mustResend = false;
    this.#mustRenew = false;
    return this.#sent.splice(0);
  }

  #remove(batch: ProducerBatch): void {
    const index = this.#sent.indexOf(batch);
    invariant(index >= 0, () => "a batch that is not in flight has an outcome");
    this.#sent.splice(index, 1);
    if (this.#sent.length === 0 && !this.#sequence.hasGap) this.#mustResend = false;
  }

  #succeed(batch: ProducerBatch, baseOffset: number): void {
    this.#done(batch, (onThrown) => batch.tellPlaces(this.topic, this.partition, baseOffset, onThrown));
  }

  #fail(batch: ProducerBatch, error: ClientError): void {
    batch.failure = error;
    this.#done(batch, (onThrown) => batch.tellFailure(error, onThrown));
  }

  #done(batch: ProducerBatch, run: (onThrown: OnThrown) => void): void {
    batch.isDone = true;
    // A socket may still hold the bytes of a request without an answer.
    this.#endTurn(batch);
    this.#giveBack(batch, !batch.isPending);
    // As in `#handOver`.
    if (this.#left !== undefined && !this.isEmpty && !this.#isWaiting()) this.#handOver(this.#left);
    this.host.onDoneBatch(batch, run);
  }

  #giveBack(batch: ProducerBatch, reusable: boolean): void {
    for (const buffer of batch.buffers) this.host.pool.give(this.#account, buffer, reusable);
  }

  #placeAt(leader: KnownPartition): { topic: string; partition: number; brokerId: BrokerId } {
    return { ...this.#place, brokerId: leader.leaderId };
  }

  /** `first`: the batch that was sent first of those here. */
  #outOfTime(batch: ProducerBatch, first?: ProducerBatch): ClientError {
    return outOfTimeError(batch, this.host.settings.deliveryTimeoutMs, this.#place, this.#obstacle(batch, first));
  }

  /** What has kept a batch from being sent, or from being taken. */
  #obstacle(batch: ProducerBatch, first: ProducerBatch | undefined): Obstacle {
    if (batch.lastError !== undefined) return { error: batch.lastError };
    const leader = this.host.leaderOf(this.topic, this.partition);
    if (leader === undefined) return { error: new ProtocolError("LEADER_NOT_AVAILABLE", undefined) };
    const { leaderId } = leader;
    if (this.host.connectionTo(leaderId) === undefined) {
      return { error: noConnectionError(leaderId, this.host.connectionFailure(leaderId)) };
    }
    if (first !== undefined && first !== batch) return { behindOthersAt: leaderId, error: first.lastError };
    const { identityFailure } = this.host;
    if (!this.#sequence.hasIdentity && this.host.settings.idempotent)
      return { lacksIdentity: true, error: identityFailure };
    return { behindOthersAt: leaderId };
  }

  #unknown(batch: ProducerBatch, cause: ClientError | undefined): ClientError {
    return outcomeUnknownError(batch, cause, this.#place);
  }
}

/** Whether the records may be in the log, or get there yet. */
const mayBeAppended = (batch: ProducerBatch): boolean => batch.isPending || batch.outcomeUnknown;

/** Earlier attempts were answered or their connection is gone, so nobody reads what stands in front of the batch. */
function inPlaceOf({ buffers: [buffer] }: ProducerBatch, whole: Buffer): RecordsInPlace {
  invariant(buffer !== undefined, () => "a batch lies in no buffer");
  const end = whole.byteOffset - buffer.byteOffset + whole.length;
  return { buffer, start: end - whole.length, end };
}
