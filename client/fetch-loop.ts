import type { Env } from "../common/env/env.js";
import { ApiError, errorNameOf } from "../protocol/error-codes.js";
import type { ErrorName } from "../protocol/error-codes.js";
import type { FetchedPartition, FetchResponse } from "../protocol/messages.js";
import type { RecordBatch } from "../protocol/record-batch.js";
import { BatchFault, readBatch } from "../protocol/record-batch.js";
import type { RpcConnection, RpcOutcome } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerId, LeaderEpoch, PartitionKey } from "../protocol/types.js";
import { partitionKey } from "../protocol/types.js";
import type { PooledFrame } from "./frame-pool.js";
import { SILENCE_MS } from "./metadata.js";
import type { FetchedChunk, PartitionReader } from "./partition-reader.js";
import { Backoff } from "./retry.js";

/** The options that a loop goes by. */
export interface FetchSettings {
  readonly prefetchBytes: number;
  readonly partitionBytes: number;
  readonly fetchBytesMin: number;
  readonly fetchWaitMs: number;
  readonly requestTimeoutMs: number;
}

/** What a loop needs of its consumer. */
export interface FetchHost {
  readonly env: Env;
  readonly settings: FetchSettings;
  /** False: nothing is asked for. */
  readonly isReading: boolean;
  connectionTo(brokerId: BrokerId): RpcConnection | undefined;
  leaderEpochOf(reader: PartitionReader): LeaderEpoch | undefined;
  onFetched(chunks: readonly FetchedChunk[]): void;
  /** A batch is damaged. */
  onDamaged(reader: PartitionReader, offset: number, fault: BatchFault): void;
  /** The answer names an error for a partition. */
  onPartitionError(reader: PartitionReader, brokerId: BrokerId, answer: FetchedPartition, name: ErrorName): void;
  /** The request as a whole was refused for good. */
  onRefused(brokerId: BrokerId, error: ApiError): void;
  onTrouble(brokerId: BrokerId): void;
  wakeAt(timeMs: number): void;
  /** The frame that these records came in, in use once; undefined where its memory is not used again. */
  frameOf(records: Buffer): PooledFrame | undefined;
}

/** What the broker remembers for a partition of the session. */
interface Remembered {
  readonly reader: PartitionReader;
  offset: number;
  readonly leaderEpoch: LeaderEpoch;
  /** The request that told it so. */
  readonly since: number;
}

interface Session {
  /** 0: not known yet. */
  id: number;
  /** Of the last request. */
  epoch: number;
  readonly remembered: Map<PartitionKey, Remembered>;
  inFlight: number;
  readonly connection: RpcConnection;
}

/** Stands for an offset that is to be told anew; no position equals it. */
const OUTDATED = -1;
/** A newer request completes the one that the broker holds back, so two are enough. */
const IN_FLIGHT_MAX = 2;

/**
 * Fetches from one broker for one consumer, for all partitions it leads. The next request leaves when an answer arrives,
 * before anybody looks at the records; partitions of which enough is buffered are left out until it is read.
 *
 * Only changes travel: broker and loop remember together which partitions are asked for, and from where (KIP-227). An
 * answer counts for a partition only if it is about the place that the loop still wants to go on from, so answers that a
 * seek, a new leader or a newer request has overtaken do no harm.
 */
export class FetchLoop {
  readonly readers = new Set<PartitionReader>();
  readonly #backoff: Backoff;
  #session: Session | undefined;
  /** What the session's connection had received when `arrives` was asked. */
  #receivedBytes = 0;
  /** The broker had no place for a session: each request is one's first. */
  #isWithoutSession = false;
  #notBeforeMs = 0;
  /** Why the last request came to nothing; undefined: it was answered. */
  lastError: TransportError | ApiError | undefined;
  /** Since when (monotonic) an answer is waited for, and nothing of it comes; undefined: none is. */
  #askedAtMs: number | undefined;

  constructor(
    private readonly host: FetchHost,
    readonly brokerId: BrokerId,
  ) {
    this.#backoff = new Backoff(host.env.random);
  }

  /** For how long the oldest question has been waiting beyond the time it may be held back; below 0: it is not overdue. */
  overdueMs(nowMs: number): number {
    return this.#askedAtMs === undefined ? -1 : nowMs - this.#askedAtMs - this.host.settings.fetchWaitMs - SILENCE_MS;
  }

  /** Whether an answer is being received, and some of it since this was asked before. The silence counts from now on then. */
  arrives(): boolean {
    const connection = this.#session?.connection;
    const before = this.#receivedBytes;
    this.#receivedBytes = connection?.receivedBytes ?? 0;
    const arrives = connection?.isReceiving === true && this.#receivedBytes !== before;
    // Nobody is silent from whom something comes.
    if (arrives && this.#askedAtMs !== undefined) this.#askedAtMs = this.host.env.clock.monotonicMs();
    return arrives;
  }

  /** Something may have to be asked: a partition was added, resumed, read or moved. */
  wake(): void {
    const { host } = this;
    if (!host.isReading) return;
    const nowMs = host.env.clock.monotonicMs();
    if (nowMs < this.#notBeforeMs) {
      host.wakeAt(this.#notBeforeMs);
      return;
    }
    const budgetBytes = this.#budgetBytes();
    let isWanted = false;
    for (const reader of this.readers) {
      if (this.#wants(reader, nowMs, budgetBytes)) {
        isWanted = true;
        break;
      }
    }
    if (!isWanted) return;
    const connection = host.connectionTo(this.brokerId);
    if (connection === undefined) return;
    // A former connection answers nothing any more, and its silence is not this one's.
    if (this.#session?.connection !== connection) this.abandon();
    const session = (this.#session ??= { id: 0, epoch: 0, remembered: new Map(), inFlight: 0, connection });
    if (session.inFlight >= IN_FLIGHT_MAX || (session.inFlight > 0 && session.id === 0)) return;
    this.#send(session, nowMs, budgetBytes);
  }

  /** The connection is not to be waited for any more. */
  abandon(): void {
    this.#session = undefined;
    this.#askedAtMs = undefined;
  }

  #budgetBytes(): number {
    let bytes = this.host.settings.prefetchBytes;
    for (const reader of this.readers) bytes -= reader.bufferedBytes;
    return bytes;
  }

  #wants(reader: PartitionReader, nowMs: number, budgetBytes: number): boolean {
    if (reader.isPaused || reader.hasFailed || reader.position === undefined || budgetBytes <= 0) return false;
    if (reader.awaitsEnd) return false;
    if (this.host.leaderEpochOf(reader) === undefined) return false;
    if (reader.endOffset !== undefined && reader.fetchPosition >= reader.endOffset) return false;
    if (reader.notBeforeMs > nowMs) {
      this.host.wakeAt(reader.notBeforeMs);
      return false;
    }
    // One partition may not fill the whole budget while others wait.
    return this.readers.size === 1 || reader.bufferedBytes < this.host.settings.prefetchBytes / 2;
  }

  #send(session: Session, nowMs: number, budgetBytes: number): void {
    const { settings } = this.host;
    const news: { reader: PartitionReader; leaderEpoch: LeaderEpoch }[] = [];
    for (const reader of this.readers) {
      const leaderEpoch = this.host.leaderEpochOf(reader);
      if (leaderEpoch === undefined || !this.#wants(reader, nowMs, budgetBytes)) continue;
      const old = session.remembered.get(reader.key);
      if (old?.offset !== reader.fetchPosition || old.leaderEpoch !== leaderEpoch) news.push({ reader, leaderEpoch });
    }
    // A question that the broker holds back is asked anew only when there is something new to ask.
    if (session.inFlight > 0 && news.length === 0) return;
    const epoch = session.epoch + 1;
    const changed = [];
    const forgotten = [];
    for (const { reader, leaderEpoch } of news) {
      session.remembered.set(reader.key, { reader, offset: reader.fetchPosition, leaderEpoch, since: epoch });
      changed.push({
        topicId: reader.topicId,
        partition: reader.partition,
        fetchOffset: reader.fetchPosition,
        leaderEpochPlusOne: leaderEpoch + 1,
        maxBytes: settings.partitionBytes,
        // It came damaged from here: the broker is to look whether it stands so on its disk.
        verify: reader.damagedAt === reader.fetchPosition,
      });
    }
    for (const [key, { reader }] of session.remembered) {
      if (this.readers.has(reader) && this.#wants(reader, nowMs, budgetBytes)) continue;
      session.remembered.delete(key);
      forgotten.push({ topicId: reader.topicId, partition: reader.partition });
    }
    session.epoch = epoch;
    session.inFlight += 1;
    this.#askedAtMs ??= nowMs;
    session.connection.send(
      "fetch",
      {
        // Nothing else can be asked before the session has its id, so that is not waited for.
        maxWaitMs: session.id === 0 && !this.#isWithoutSession ? 0 : settings.fetchWaitMs,
        minBytes: settings.fetchBytesMin,
        maxBytes: Math.max(budgetBytes, settings.partitionBytes),
        sessionId: session.id,
        sessionEpoch: epoch,
        partitions: changed,
        forgotten,
      },
      // Behind a slow link four megabytes take their time.
      { timeoutMs: settings.fetchWaitMs + settings.requestTimeoutMs, whileArriving: true },
      (outcome) => this.#onOutcome(session, epoch, outcome),
    );
    this.host.wakeAt(nowMs + settings.fetchWaitMs + SILENCE_MS);
  }

  #onOutcome(session: Session, epoch: number, outcome: RpcOutcome<"fetch">): void {
    session.inFlight -= 1;
    // Of a session that was given up.
    if (session !== this.#session) return;
    const { isReading } = this.host;
    const nowMs = this.host.env.clock.monotonicMs();
    this.#askedAtMs = session.inFlight > 0 ? nowMs : undefined;
    this.lastError = outcome instanceof TransportError || outcome instanceof ApiError ? outcome : undefined;
    if (outcome instanceof TransportError) {
      this.#startOver(nowMs + this.#backoff.next());
      if (isReading) this.host.onTrouble(this.brokerId);
    } else if (outcome instanceof ApiError) {
      const isSessionLost =
        outcome.errorName === "FETCH_SESSION_ID_NOT_FOUND" || outcome.errorName === "INVALID_FETCH_SESSION_EPOCH";
      this.#startOver(isSessionLost && session.epoch > 1 ? nowMs : nowMs + this.#backoff.next());
      if (isReading && !outcome.retriable && !isSessionLost) this.host.onRefused(this.brokerId, outcome);
    } else {
      this.#backoff.reset();
      const chunks = this.#onAnswer(session, epoch, outcome.body, outcome.records, nowMs);
      // Before anybody looks at the records: they travel while these are read.
      this.wake();
      if (chunks.length > 0) this.host.onFetched(chunks);
      return;
    }
    this.wake();
  }

  #startOver(notBeforeMs: number): void {
    this.abandon();
    this.#notBeforeMs = notBeforeMs;
  }

  #onAnswer(
    session: Session,
    epoch: number,
    body: FetchResponse,
    records: readonly Buffer[],
    nowMs: number,
  ): FetchedChunk[] {
    this.#isWithoutSession = body.sessionId === 0;
    if (this.#isWithoutSession) this.#session = undefined;
    else session.id = body.sessionId;
    const chunks: FetchedChunk[] = [];
    const frame = records[0] === undefined ? undefined : this.host.frameOf(records[0]);
    let nextRecords = 0;
    for (const answer of body.partitions) {
      const bytes = answer.recordBytes > 0 ? records[nextRecords++] : undefined;
      const remembered = session.remembered.get(partitionKey(answer.topicId, answer.partition));
      if (remembered === undefined || remembered.since > epoch) continue;
      const { reader, offset } = remembered;
      // The broker tells errors again until it is told anew, or to forget; behind records it waits to be told anew, even
      // if the place is the same.
      if (answer.error !== null || bytes !== undefined) remembered.offset = OUTDATED;
      // The loop that it was asked for was left: the next one asks for itself, and has its own use of memory.
      if (!this.host.isReading) continue;
      if (reader.loop !== this || reader.fetchPosition !== offset || reader.position === undefined) continue;
      if (answer.error !== null) {
        this.host.onPartitionError(reader, this.brokerId, answer, errorNameOf(answer.error.code));
        continue;
      }
      reader.backoff.reset();
      reader.hasBegun = true;
      reader.trouble = undefined;
      reader.isShortOfRecords = bytes === undefined && answer.highWatermark > offset;
      if (bytes === undefined) continue;
      const chunk = this.#chunkOf(reader, answer, bytes, nowMs, frame);
      if (chunk !== undefined) chunks.push(chunk);
    }
    frame?.release();
    return chunks;
  }

  #chunkOf(
    reader: PartitionReader,
    answer: FetchedPartition,
    bytes: Buffer,
    nowMs: number,
    frame: PooledFrame | undefined,
  ): FetchedChunk | undefined {
    const batches: RecordBatch[] = [];
    let fault: BatchFault | undefined;
    let position = 0;
    while (position < bytes.length && fault === undefined) {
      try {
        const batch = readBatch(bytes, position);
        batches.push(batch);
        position = batch.end;
      } catch (error) {
        if (!(error instanceof BatchFault)) throw error;
        fault = error;
      }
    }
    const last = batches[batches.length - 1];
    if (last !== undefined && last.endOffset > reader.fetchPosition) {
      reader.fetchPosition = last.endOffset;
      reader.bufferedBytes += bytes.length;
      frame?.retain();
      // What is behind a damaged place is asked for again, from there.
      return {
        reader,
        generation: reader.generation,
        batches,
        next: 0,
        bytes: bytes.length,
        highWatermark: answer.highWatermark,
        release: frame === undefined ? undefined : () => frame.release(),
      };
    }
    const offset = reader.fetchPosition;
    // What was fetched before is sound and stays.
    if (fault !== undefined) this.host.onDamaged(reader, offset, fault);
    // Nothing new, although there are bytes: not to be asked for again at once.
    else reader.notBeforeMs = nowMs + reader.backoff.next();
    return undefined;
  }
}
