import type { Cluster, Consumer, Producer } from "../../client/index.js";
import { ClientError, OutcomeUnknownError } from "../../client/index.js";
import { sleep } from "../../common/env/time.js";
import { ApiError, errorNameOf } from "../../protocol/error-codes.js";
import type { ErrorName } from "../../protocol/error-codes.js";
import { OffsetSpec } from "../../protocol/messages.js";
import { BatchFault, readBatches } from "../../protocol/record-batch.js";
import { RecordCursor } from "../../protocol/record-cursor.js";
import type { BatchIdentity } from "../../protocol/record-encoder.js";
import { noIdentity, RecordEncoder } from "../../protocol/record-encoder.js";
import { TransportError } from "../../protocol/rpc-error.js";
import type { TopicId } from "../../protocol/types.js";
import { acksCodes, partitionKey } from "../../protocol/types.js";
import type { FinalRead, History, ProduceOperation } from "./history.js";
import type { SimClient } from "./sim-client.js";

/** Where a workload writes or reads. */
export interface Target {
  readonly topicId: TopicId;
  readonly partition: number;
}

/** How one attempt to produce ended. */
export type Attempt =
  | { readonly kind: "ok"; readonly baseOffset: number; readonly brokerId: number }
  /** Nothing was appended. */
  | { readonly kind: "refused"; readonly error: ErrorName | "NOT_SENT" }
  | { readonly kind: "unknown"; readonly error: ErrorName | "NO_ANSWER" };

const PRODUCE_TIMEOUT_MS = 1500;
const RETRY_MS = 30;
/** Attempts that fail one after the other grow rarer, up to this. */
const RETRY_MS_MAX = 300;
/** As many batches as a broker remembers of a producer. */
const IN_FLIGHT_MAX = 5;

/** Refusals that prove that nothing was appended. NOT_LEADER_OR_FOLLOWER does not: a leader that is deposed says it too. */
const refusedBeforeAppend: ReadonlySet<ErrorName> = new Set<ErrorName>([
  "NOT_ENOUGH_REPLICAS",
  "UNKNOWN_TOPIC_ID",
  "UNKNOWN_TOPIC_OR_PARTITION",
  "FENCED_LEADER_EPOCH",
  "UNKNOWN_LEADER_EPOCH",
  "LEADERSHIP_UNCERTAIN",
  "INVALID_RECORD",
  "INVALID_REQUIRED_ACKS",
  "OUT_OF_ORDER_SEQUENCE_NUMBER",
  "UNKNOWN_PRODUCER_ID",
]);

/** The values as one batch. */
export function encodeBatch(values: readonly string[], wallMs: number, identity: BatchIdentity = noIdentity): Buffer {
  const bytes = values.reduce((sum, value) => sum + value.length + 64, 256);
  const encoder = new RecordEncoder(Buffer.allocUnsafeSlow(bytes));
  for (const value of values)
    if (!encoder.tryAppend(wallMs, undefined, value, undefined)) throw new Error(`${value} does not fit`);
  return encoder.finish(identity);
}

/** Sends one batch to one broker, once. */
export async function produceOnce(
  client: SimClient,
  to: { readonly brokerId: number; readonly leaderEpoch: number | undefined },
  target: Target,
  acks: "all" | "leader",
  batch: Buffer,
  timeoutMs = PRODUCE_TIMEOUT_MS,
): Promise<Attempt> {
  const { brokerId, leaderEpoch } = to;
  try {
    const { body } = await client.request(
      brokerId,
      "produce",
      {
        acks: acksCodes[acks],
        timeoutMs: timeoutMs - 500,
        partitions: [{ ...target, leaderEpochPlusOne: leaderEpoch === undefined ? 0 : leaderEpoch + 1 }],
      },
      { timeoutMs, records: [[batch]] },
    );
    const produced = body.partitions[0];
    if (produced === undefined) return { kind: "unknown", error: "UNKNOWN_SERVER_ERROR" };
    if (produced.error === null) return { kind: "ok", baseOffset: produced.baseOffset, brokerId };
    const error = errorNameOf(produced.error.code);
    return refusedBeforeAppend.has(error) ? { kind: "refused", error } : { kind: "unknown", error };
  } catch (error) {
    if (error instanceof TransportError)
      return error.notSent ? { kind: "refused", error: "NOT_SENT" } : { kind: "unknown", error: "NO_ANSWER" };
    if (!(error instanceof ApiError)) throw error;
    const { errorName } = error;
    return errorName === "UNKNOWN_SERVER_ERROR"
      ? { kind: "unknown", error: errorName }
      : { kind: "refused", error: errorName };
  }
}

interface PendingBatch {
  readonly operation: ProduceOperation;
  /** How many batches were handed over before it under this id. */
  readonly number: number;
  readonly sequence: number;
  readonly batch: Buffer;
  readonly deadlineMs: number;
  inFlight: boolean;
  /** Some attempt may have appended it. */
  maybeAppended: boolean;
}

/**
 * Writes to one partition with acks=all under a producer id: up to five batches at once, each sent again, in order, until
 * it is acknowledged or its time is up. A batch that is given up ends the use of the id, and what was sent under it with
 * an unknown outcome is never sent again.
 */
export class IdempotentWriter {
  #queue: PendingBatch[] = [];
  #identity: { readonly producerId: number; readonly producerEpoch: number } | undefined;
  #identities = 0;
  #nextSequence = 0;
  #nextNumber = 0;
  /** Until the first acknowledgement one batch is under way: a second one could only be refused if it came first. */
  #isKnown = false;
  #isRunning = false;
  #handedOver: Promise<void> = Promise.resolve();
  #awaitingId = 0;

  constructor(
    private readonly client: SimClient,
    private readonly history: History,
    private readonly name: string,
    private readonly target: Target,
    private readonly deliveryTimeoutMs = 20_000,
  ) {}

  /** Whether every batch has an outcome. */
  get isIdle(): boolean {
    return this.pendingCount === 0 && !this.#isRunning;
  }

  get pendingCount(): number {
    return this.#awaitingId + this.#queue.length;
  }

  /**
   * Hands a batch over, behind those handed over before. Resolves when it is under way: first there must be a producer
   * id.
   */
  write(values: readonly string[]): Promise<void> {
    this.#awaitingId += 1;
    this.#handedOver = this.#handedOver.then(() => this.#write(values));
    return this.#handedOver;
  }

  async #write(values: readonly string[]): Promise<void> {
    const { clock } = this.client.env;
    const identity = this.#identity ?? (await this.#takeIdentity());
    this.#awaitingId -= 1;
    const operation = this.history.invoke({
      producer: `${this.name}/${this.#identities}`,
      partition: partitionKey(this.target.topicId, this.target.partition),
      values,
      acks: "all",
      idempotent: true,
    });
    const sequence = this.#nextSequence;
    this.#nextSequence += values.length;
    this.#queue.push({
      operation,
      number: this.#nextNumber++,
      sequence,
      batch: encodeBatch(values, clock.wallMs(), { ...identity, baseSequence: sequence }),
      deadlineMs: clock.monotonicMs() + this.deliveryTimeoutMs,
      inFlight: false,
      maybeAppended: false,
    });
    this.#run();
  }

  async #takeIdentity(): Promise<{ producerId: number; producerEpoch: number }> {
    for (;;) {
      try {
        const { brokers } = await this.client.refresh();
        const broker = brokers[this.client.env.random.below(Math.max(1, brokers.length))];
        if (broker === undefined) throw new ApiError("LEADER_NOT_AVAILABLE");
        const { body } = await this.client.request(broker.id, "initProducerId", {});
        this.#identity = { producerId: body.producerId, producerEpoch: body.producerEpoch };
        this.#identities += 1;
        this.#nextSequence = 0;
        this.#nextNumber = 0;
        this.#isKnown = false;
        return this.#identity;
      } catch {
        await sleep(this.client.env.timers, RETRY_MS * 3);
      }
    }
  }

  #run(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    void this.#sendAll().finally(() => {
      this.#isRunning = false;
    });
  }

  /** Rounds: send what waits, in order; when something fails, wait for all answers, learn the leader anew, repeat. */
  async #sendAll(): Promise<void> {
    let retryMs = RETRY_MS;
    while (this.#queue.length > 0) {
      this.#giveUpLate();
      const { topicId, partition } = this.target;
      const leader = this.client.knownLeader(topicId, partition);
      if (leader !== undefined) {
        const failed = await this.#sendRound(leader);
        if (!failed) {
          retryMs = RETRY_MS;
          continue;
        }
      }
      await this.client.refresh();
      await sleep(this.client.env.timers, retryMs);
      retryMs = Math.min(RETRY_MS_MAX, retryMs * 1.5);
    }
  }

  /** Returns whether an attempt failed. */
  async #sendRound(leader: { readonly brokerId: number; readonly leaderEpoch: number }): Promise<boolean> {
    let failed = false;
    const answers = new Set<Promise<void>>();
    // Batches that are handed over meanwhile join in.
    for (let sent = 0; sent < IN_FLIGHT_MAX * 4 && !failed; sent += 1) {
      const limit = this.#isKnown ? IN_FLIGHT_MAX : 1;
      const next = this.#queue.find(({ inFlight }) => !inFlight);
      const oldest = this.#queue[0]?.number ?? 0;
      const inFlight = this.#queue.filter((one) => one.inFlight).length;
      // A broker remembers the newest few: the oldest without an outcome stays among them.
      if (next === undefined || inFlight >= limit || next.number >= oldest + IN_FLIGHT_MAX) {
        if (answers.size === 0) break;
        await Promise.race(answers);
        continue;
      }
      next.inFlight = true;
      next.operation.leaderEpoch = leader.leaderEpoch;
      const isNext = this.#isKnown && next.number === oldest;
      const isKnown = this.#isKnown;
      const answer = produceOnce(this.client, leader, this.target, "all", next.batch).then((attempt) => {
        next.inFlight = false;
        if (attempt.kind !== "ok" && isKnown) this.#noteIgnorance(next, leader, attempt.error, isNext);
        if (!this.#onAttempt(next, attempt)) failed = true;
        answers.delete(answer);
      });
      answers.add(answer);
    }
    await Promise.all(answers);
    return failed;
  }

  /**
   * Whoever leads has what was acknowledged under this id, and remembers it: it does not say that it knows nothing of the
   * producer, nor that something is missing in front of the oldest batch, nor that it has forgotten where one of the last is.
   */
  #noteIgnorance(pending: PendingBatch, leader: { readonly brokerId: number }, error: string, isNext: boolean): void {
    const isIgnorant =
      error === "UNKNOWN_PRODUCER_ID" ||
      error === "DUPLICATE_SEQUENCE_NUMBER" ||
      (error === "OUT_OF_ORDER_SEQUENCE_NUMBER" && isNext);
    if (!isIgnorant) return;
    const { producer, partition } = pending.operation;
    this.history.ignorant({ producer, partition, sequence: pending.sequence, error, ...leader });
  }

  /** Returns whether it went well. */
  #onAttempt(pending: PendingBatch, attempt: Attempt): boolean {
    if (!this.#queue.includes(pending)) return true;
    switch (attempt.kind) {
      case "ok":
        this.#queue = this.#queue.filter((one) => one !== pending);
        this.#isKnown = true;
        this.history.ok(pending.operation, attempt);
        return true;
      case "refused":
        // The first one that waits cannot be out of order, unless the log or the broker's memory of it is lost.
        if (
          (attempt.error === "OUT_OF_ORDER_SEQUENCE_NUMBER" || attempt.error === "UNKNOWN_PRODUCER_ID") &&
          this.#queue[0] === pending
        )
          this.#abandonIdentity();
        return false;
      case "unknown":
        pending.maybeAppended = true;
        if (attempt.error === "DUPLICATE_SEQUENCE_NUMBER") this.#abandonIdentity();
        return false;
    }
  }

  #giveUpLate(): void {
    const nowMs = this.client.env.clock.monotonicMs();
    if (this.#queue.some(({ deadlineMs }) => deadlineMs <= nowMs)) this.#abandonIdentity();
  }

  /** All that waits gets its outcome; what comes goes on under a new id. */
  #abandonIdentity(): void {
    for (const { operation, maybeAppended, inFlight } of this.#queue.splice(0)) {
      if (maybeAppended || inFlight) this.history.info(operation, "given up");
      else this.history.fail(operation, "given up before it was appended");
    }
    this.#identity = undefined;
  }
}

/** Writes to one partition with acks=1, one batch at a time, each once: what is not acknowledged is never sent again. */
export class PlainWriter {
  #busy = false;

  constructor(
    private readonly client: SimClient,
    private readonly history: History,
    private readonly name: string,
    private readonly target: Target,
  ) {}

  get isIdle(): boolean {
    return !this.#busy;
  }

  async write(values: readonly string[]): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      const { topicId, partition } = this.target;
      const operation = this.history.invoke({
        producer: this.name,
        partition: partitionKey(topicId, partition),
        values,
        acks: "leader",
        idempotent: false,
      });
      const leader = await this.client.leader(topicId, partition);
      operation.leaderEpoch = leader.leaderEpoch;
      const batch = encodeBatch(values, this.client.env.clock.wallMs());
      const attempt = await produceOnce(this.client, leader, this.target, "leader", batch);
      if (attempt.kind === "ok") this.history.ok(operation, attempt);
      else if (attempt.kind === "refused") this.history.fail(operation, attempt.error);
      else this.history.info(operation, attempt.error);
      if (attempt.kind !== "ok") await this.client.refresh();
    } finally {
      this.#busy = false;
    }
  }
}

/** Writes to one partition through the client library, a record an operation, with its defaults. */
export class LibraryWriter {
  readonly #producer: Producer;
  #pending = 0;

  constructor(
    cluster: Cluster,
    private readonly history: History,
    private readonly name: string,
    private readonly topic: string,
    private readonly target: Target,
    deliveryTimeoutMs: number,
  ) {
    this.#producer = cluster.producer({ deliveryTimeoutMs });
  }

  get isIdle(): boolean {
    return this.#pending === 0;
  }

  get pendingCount(): number {
    return this.#pending;
  }

  async write(values: readonly string[]): Promise<void> {
    const { partition, topicId } = this.target;
    await Promise.all(
      values.map(async (value) => {
        const operation = this.history.invoke({
          producer: this.name,
          partition: partitionKey(topicId, partition),
          values: [value],
          acks: "all",
          idempotent: true,
          orderedIfOk: true,
        });
        this.#pending += 1;
        try {
          const { offset } = await this.#producer.send(this.topic, { value, partition });
          // One without an offset is no acknowledgement: the checkers find nothing there.
          this.history.ok(operation, { baseOffset: offset, brokerId: -1 });
        } catch (error) {
          if (!(error instanceof ClientError)) throw error;
          if (error instanceof OutcomeUnknownError) this.history.info(operation, error.message);
          else this.history.fail(operation, error.message);
        } finally {
          this.#pending -= 1;
        }
      }),
    );
  }
}

/** Reads one partition from the beginning through the client library. */
export class LibraryReader {
  readonly #consumer: Consumer;
  /** Why reading ended, if it did. */
  failure: unknown;
  #stopped = false;

  constructor(
    cluster: Cluster,
    private readonly history: History,
    private readonly name: string,
    topic: string,
    private readonly target: Target,
  ) {
    this.#consumer = cluster.consumer({ topic, partitions: [target.partition], from: "earliest" });
  }

  start(): void {
    this.#read().catch((error: unknown) => {
      if (!this.#stopped) this.failure = error;
    });
  }

  stop(): void {
    this.#stopped = true;
    void this.#consumer.close();
  }

  async #read(): Promise<void> {
    const partition = partitionKey(this.target.topicId, this.target.partition);
    for await (const { offset, value } of this.#consumer)
      this.history.deliver({ consumer: this.name, partition, offset, value: value?.toString() ?? "" });
  }
}

/** One answer to a fetch of one partition. */
export interface Fetched {
  readonly error: ErrorName | undefined;
  readonly highWatermark: number;
  readonly logStartOffset: number;
  readonly records: readonly { readonly offset: number; readonly value: string; readonly leaderEpoch: number }[];
}

/**
 * Fetches from one broker, once. Every batch that arrives is verified. Rejects with TransportError, ApiError,
 * BatchFault.
 */
export async function fetchOnce(
  client: SimClient,
  from: { readonly brokerId: number; readonly leaderEpoch: number | undefined },
  target: Target,
  fetchOffset: number,
  { maxWaitMs = 200, verify = false }: { readonly maxWaitMs?: number; readonly verify?: boolean } = {},
): Promise<Fetched> {
  const { body, records } = await client.request(
    from.brokerId,
    "fetch",
    {
      maxWaitMs,
      minBytes: 1,
      maxBytes: 1024 * 1024,
      partitions: [
        {
          ...target,
          fetchOffset,
          maxBytes: 1024 * 1024,
          leaderEpochPlusOne: from.leaderEpoch === undefined ? 0 : from.leaderEpoch + 1,
          verify,
        },
      ],
    },
    { timeoutMs: maxWaitMs + 1000 },
  );
  const [fetched] = body.partitions;
  if (fetched === undefined) return { error: undefined, highWatermark: -1, logStartOffset: -1, records: [] };
  return {
    error: fetched.error === null ? undefined : errorNameOf(fetched.error.code),
    highWatermark: fetched.highWatermark,
    logStartOffset: fetched.logStartOffset,
    records: decodeRecords(records[0]).filter(({ offset }) => offset >= fetchOffset),
  };
}

/** Every batch is verified. Throws BatchFault. */
export function decodeRecords(records: Buffer | undefined): { offset: number; value: string; leaderEpoch: number }[] {
  if (records === undefined) return [];
  const decoded: { offset: number; value: string; leaderEpoch: number }[] = [];
  for (const batch of readBatches(records)) {
    batch.verify();
    const cursor = new RecordCursor(batch);
    while (cursor.next()) {
      const value = batch.buffer.toString("utf8", cursor.valueStart, cursor.valueEnd);
      decoded.push({ offset: cursor.offset, value, leaderEpoch: batch.leaderEpoch });
    }
  }
  return decoded;
}

/** Reads one partition from the beginning, for ever, and notes what it is given. */
export class Reader {
  #stopped = false;
  #position = 0;

  constructor(
    private readonly client: SimClient,
    private readonly history: History,
    private readonly name: string,
    private readonly target: Target,
    private readonly maxWaitMs = 200,
  ) {}

  get position(): number {
    return this.#position;
  }

  start(): void {
    void this.#run();
  }

  stop(): void {
    this.#stopped = true;
  }

  async #run(): Promise<void> {
    const { topicId, partition } = this.target;
    const { timers } = this.client.env;
    const key = partitionKey(topicId, partition);
    let retryMs = RETRY_MS;
    let verify = false;
    while (!this.#stopped) {
      const leader = await this.client.leader(topicId, partition);
      try {
        const options = { maxWaitMs: this.maxWaitMs, verify };
        const fetched = await fetchOnce(this.client, leader, this.target, this.#position, options);
        verify = false;
        if (this.#stopped) return;
        if (fetched.error === undefined) {
          for (const { offset, value } of fetched.records) {
            this.history.deliver({ consumer: this.name, partition: key, offset, value });
            this.#position = offset + 1;
          }
          retryMs = RETRY_MS;
          continue;
        }
        if (fetched.error === "OFFSET_OUT_OF_RANGE") {
          this.history.moved({ consumer: this.name, partition: key });
          this.#position = fetched.logStartOffset;
        }
      } catch (error) {
        if (!isExpected(error)) throw error;
        verify ||= error instanceof BatchFault;
      }
      await this.client.refresh();
      await sleep(timers, retryMs);
      retryMs = Math.min(RETRY_MS_MAX, retryMs * 1.5);
    }
  }
}

/** Everything between log start and high watermark, as a client without a past reads it that knows one broker. */
export async function readToEnd(client: SimClient, via: string, target: Target): Promise<FinalRead> {
  const { timers } = client.env;
  const key = partitionKey(target.topicId, target.partition);
  for (let verify = false; ;) {
    try {
      const leader = await client.leader(target.topicId, target.partition);
      const logStartOffset = await listOffset(client, leader, target, OffsetSpec.EARLIEST);
      const highWatermark = await listOffset(client, leader, target, OffsetSpec.LATEST);
      const records: FinalRead["records"][number][] = [];
      let position = logStartOffset;
      while (position < highWatermark) {
        const fetched = await fetchOnce(client, leader, target, position, { verify });
        if (fetched.error !== undefined) throw new ApiError(fetched.error);
        records.push(...fetched.records);
        position = (fetched.records.at(-1)?.offset ?? position - 1) + 1;
      }
      return {
        via,
        partition: key,
        logStartOffset,
        highWatermark,
        records: records.filter(({ offset }) => offset < highWatermark),
      };
    } catch (error) {
      if (!isExpected(error)) throw error;
      verify ||= error instanceof BatchFault;
      await client.refresh();
      await sleep(timers, RETRY_MS);
    }
  }
}

/** What a reader tries again after. A batch that is damaged is asked for once more, and the broker is told to look at its disk. */
const isExpected = (error: unknown): boolean =>
  error instanceof TransportError || error instanceof ApiError || error instanceof BatchFault;

/** Where a log begins or ends, as this broker says. Rejects with ApiError. */
export async function listOffset(
  client: SimClient,
  from: { readonly brokerId: number; readonly leaderEpoch: number | undefined },
  target: Target,
  spec: OffsetSpec,
): Promise<number> {
  const { body } = await client.request(from.brokerId, "listOffsets", {
    partitions: [{ ...target, spec, leaderEpochPlusOne: from.leaderEpoch === undefined ? 0 : from.leaderEpoch + 1 }],
  });
  const listed = body.partitions[0];
  if (listed === undefined) throw new ApiError("UNKNOWN_SERVER_ERROR");
  if (listed.error !== null) throw new ApiError(errorNameOf(listed.error.code), listed.error.message);
  return listed.offset;
}
