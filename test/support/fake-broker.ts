import type { Env } from "../../common/env/env.js";
import type { Listener, Socket } from "../../common/env/network.js";
import { nodeEnv } from "../../common/env/node-env.js";
import type { RequestKind } from "../../protocol/api-keys.js";
import type { ErrorName } from "../../protocol/error-codes.js";
import { errorReport } from "../../protocol/error-codes.js";
import { FrameReader } from "../../protocol/frame-reader.js";
import type { RequestBody, ResponseBody } from "../../protocol/message-codec.js";
import { decodeRequest, encodeErrorResponse, encodeResponse } from "../../protocol/message-codec.js";
import { ConfigResource, OffsetSpec } from "../../protocol/messages.js";
import type { FetchRequest, Init, LeaderHint } from "../../protocol/messages.js";
import { readBatch, readBatches } from "../../protocol/record-batch.js";
import { toOffset } from "../../protocol/types.js";

/** A request as the fake broker got it. */
export interface FakeRequest<Kind extends RequestKind = RequestKind> {
  readonly kind: Kind;
  readonly body: RequestBody<Kind>;
  readonly records: readonly Buffer[];
  /** Of the same kind at the same broker, this one included, from 1. */
  readonly count: number;
}

/** What a test makes a fake broker answer. */
export type FakeAnswer =
  | { readonly body: object; readonly records?: readonly (readonly Uint8Array[])[] }
  /** The request as a whole is refused. */
  | { readonly refuse: ErrorName }
  | "silence"
  /** The connection is ended. */
  | "hang-up"
  /** As if the test had said nothing. */
  | undefined;

export interface FakePartition {
  leader: number;
  leaderEpoch: number;
  startOffset: number;
  batches: Buffer[];
  /** The last batches of each producer: what a broker recognizes repetitions by. */
  producers: Map<number, { baseSequence: number; count: number; offset: number }[]>;
}

export interface FakeTopic {
  readonly id: string;
  readonly partitions: FakePartition[];
  /** Told, not enforced. */
  maxBatchBytes: number;
  /** What it was altered to: kept, not applied. */
  readonly config: Map<string, string | null>;
}

const env = nodeEnv();

/**
 * A cluster of brokers in this process, on real sockets: enough of the protocol for a client, with one log for all
 * replicas of a partition, so that leaders move without replication. A test may answer any request itself.
 */
export class FakeCluster implements AsyncDisposable {
  readonly brokers: FakeBroker[] = [];
  readonly topics = new Map<string, FakeTopic>();
  controllerId = 1;
  nextProducerId = 100;
  #topicCount = 0;

  static async start(brokerCount = 1): Promise<FakeCluster> {
    const cluster = new FakeCluster();
    for (let id = 1; id <= brokerCount; id += 1) cluster.brokers.push(await FakeBroker.start(cluster, id));
    return cluster;
  }

  get bootstrapBrokers(): string[] {
    return this.brokers.map(({ port }) => `127.0.0.1:${port}`);
  }

  broker(id: number): FakeBroker {
    return this.brokers.find((broker) => broker.id === id)!;
  }

  /** Partition p is led by broker p mod n, plus one. */
  createTopic(name: string, partitionCount = 1): FakeTopic {
    this.#topicCount += 1;
    const topic: FakeTopic = {
      id: `00000000-0000-4000-8000-${String(this.#topicCount).padStart(12, "0")}`,
      partitions: [],
      maxBatchBytes: 1 << 20,
      config: new Map(),
    };
    this.topics.set(name, topic);
    this.addPartitions(name, partitionCount);
    return topic;
  }

  addPartitions(name: string, total: number): void {
    const { partitions } = this.topics.get(name)!;
    while (partitions.length < total) {
      const leader = this.brokers[partitions.length % this.brokers.length]!.id;
      partitions.push({ leader, leaderEpoch: 1, startOffset: 0, batches: [], producers: new Map() });
    }
  }

  partition(topic: string, partition = 0): FakePartition {
    return this.topics.get(topic)!.partitions[partition]!;
  }

  moveLeader(topic: string, partition: number, leader: number): void {
    const moved = this.partition(topic, partition);
    moved.leader = leader;
    moved.leaderEpoch += 1;
    for (const broker of this.brokers) broker.onAppended();
  }

  byId(topicId: string, partition: number): FakePartition | undefined {
    for (const topic of this.topics.values()) if (topic.id === topicId) return topic.partitions[partition];
    return undefined;
  }

  hintOf({ leader, leaderEpoch }: FakePartition): LeaderHint {
    return { leaderId: leader, leaderEpoch, host: "127.0.0.1", port: this.broker(leader)?.port ?? 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker.kill()));
  }
}

export function endOffsetOf(partition: FakePartition): number {
  const last = partition.batches[partition.batches.length - 1];
  return last === undefined ? partition.startOffset : readBatch(last, 0).endOffset;
}

/** Why a controller does not change a topic of which a request says the id, or nothing. */
function refusalOf(topic: FakeTopic | undefined, topicId: string): ErrorName | undefined {
  if (topicId !== "" && topic?.id !== topicId) return "UNKNOWN_TOPIC_ID";
  return topic === undefined ? "UNKNOWN_TOPIC_OR_PARTITION" : undefined;
}

interface Session {
  epoch: number;
  readonly partitions: Map<string, { topicId: string; partition: number; fetchOffset: number; maxBytes: number }>;
  /** Records of these were sent, so where their reader stands is not known until it asks again. */
  readonly awaiting: Set<string>;
}

/** One broker of a FakeCluster. */
export class FakeBroker {
  /** Everything that arrived, in order. */
  readonly requests: FakeRequest[] = [];
  /** Asked first for every request. */
  answer: (request: FakeRequest) => FakeAnswer | Promise<FakeAnswer> = () => undefined;
  /** What becomes of the records of an answer on their way. */
  spoil: (request: FakeRequest, records: readonly (readonly Uint8Array[])[]) => readonly (readonly Uint8Array[])[] = (
    _,
    records,
  ) => records;
  /** Holds connections open and answers nothing. */
  isSilent = false;
  isAlive = true;
  readonly port: number;
  readonly #sockets = new Set<Socket>();
  readonly #ended = new WeakSet<Socket>();
  readonly #sessions = new Map<number, Session>();
  readonly #parked = new Set<() => void>();
  #listener: Listener | undefined;

  static async start(cluster: FakeCluster, id: number): Promise<FakeBroker> {
    const early: Socket[] = [];
    let accept = (socket: Socket): unknown => early.push(socket);
    const listener = await env.network.listen({ host: "127.0.0.1", port: 0 }, (socket) => accept(socket));
    const broker = new FakeBroker(cluster, id, listener);
    accept = (socket) => broker.accept(socket);
    for (const socket of early) broker.accept(socket);
    return broker;
  }

  private constructor(
    private readonly cluster: FakeCluster,
    public id: number,
    listener: Listener,
  ) {
    this.#listener = listener;
    this.port = listener.port;
  }

  get connectionCount(): number {
    return this.#sockets.size;
  }

  /** As a process that dies: connections are reset, new ones refused. */
  async kill(): Promise<void> {
    this.isAlive = false;
    const listener = this.#listener;
    this.#listener = undefined;
    this.hangUp();
    await listener?.close();
  }

  async restart(): Promise<void> {
    this.#sessions.clear();
    this.#listener = await env.network.listen({ host: "127.0.0.1", port: this.port }, (socket) => this.accept(socket));
    this.isAlive = true;
  }

  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The bodies of all requests of a kind. */
  bodies<Kind extends RequestKind>(kind: Kind): RequestBody<Kind>[] {
    return this.requests.filter((request) => request.kind === kind).map(({ body }) => body as RequestBody<Kind>);
  }

  /** Wakes the fetches that are held back. */
  onAppended(): void {
    for (const wake of [...this.#parked]) wake();
  }

  accept(socket: Socket): void {
    this.#sockets.add(socket);
    const reader = new FrameReader({
      frameBytesMax: () => 64 * 1024 * 1024,
      allocate: (bytes) => Buffer.allocUnsafeSlow(bytes),
      onFrame: (frame) => void this.#onFrame(socket, frame),
    });
    socket.start({
      receiveBuffer: () => reader.receiveBuffer(),
      onReceived: (count) => reader.onReceived(count),
      onDrained: () => undefined,
      onClosed: () => this.#sockets.delete(socket),
    });
  }

  async #onFrame(socket: Socket, frame: Buffer): Promise<void> {
    // What arrived together with the request at which the connection was ended.
    if (this.#ended.has(socket)) return;
    const { correlationId, kind, body, records } = decodeRequest(frame);
    const count = this.requests.filter((request) => request.kind === kind).length + 1;
    const request = { kind, body, records, count } as FakeRequest;
    this.requests.push(request);
    if (this.isSilent) return;
    const chosen = this.answer(request);
    const given = chosen instanceof Promise ? await chosen : chosen;
    if (given === "silence" || this.isSilent) return;
    if (given === "hang-up") {
      this.#ended.add(socket);
      socket.destroy();
      return;
    }
    const made = given ?? this.#usual(request);
    const answer = made instanceof Promise ? await made : made;
    if (correlationId === 0 || this.isSilent) return;
    if ("refuse" in answer) socket.send(encodeErrorResponse(correlationId, errorReport(answer.refuse)));
    else {
      const sent = answer.records && this.spoil(request, answer.records);
      socket.send(encodeResponse(correlationId, kind, answer.body, sent));
    }
  }

  #usual(
    request: FakeRequest,
  ): Exclude<FakeAnswer, string | undefined> | Promise<Exclude<FakeAnswer, string | undefined>> {
    switch (request.kind) {
      case "handshake":
        return body<"handshake">({ clusterId: "fake-cluster", brokerId: this.id });
      case "metadata":
        return body<"metadata">(this.#metadata((request as FakeRequest<"metadata">).body));
      case "produce":
        return body<"produce">(this.#produce(request as FakeRequest<"produce">));
      case "fetch":
        return this.#fetch((request as FakeRequest<"fetch">).body);
      case "listOffsets":
        return body<"listOffsets">(this.#listOffsets((request as FakeRequest<"listOffsets">).body));
      case "initProducerId":
        return body<"initProducerId">({ producerId: this.cluster.nextProducerId++, producerEpoch: 0 });
      case "createTopics":
      case "deleteTopics":
      case "createPartitions":
      case "alterConfigs":
      case "electLeaders":
        return this.id === this.cluster.controllerId ? this.#administer(request) : { refuse: "NOT_CONTROLLER" };
      case "describeConfigs":
        return body<"describeConfigs">({ config: [{ name: "retention.ms", value: "1", source: "topic" }] });
      case "deleteRecords":
        return body<"deleteRecords">(this.#deleteRecords((request as FakeRequest<"deleteRecords">).body));
      default:
        return { refuse: "UNSUPPORTED_VERSION" };
    }
  }

  #metadata(request: RequestBody<"metadata">): Init<ResponseBody<"metadata">> {
    const { topics } = this.cluster;
    const names = request.noTopics ? [] : request.topics.length > 0 ? request.topics : [...topics.keys()];
    const isUp = (id: number): boolean => this.cluster.broker(id).isAlive;
    return {
      clusterId: "fake-cluster",
      controllerId: this.cluster.controllerId,
      controllerEpoch: 1,
      brokers: this.cluster.brokers
        .filter(({ isAlive }) => isAlive)
        .map(({ id, port }) => ({ id, host: "127.0.0.1", port, epoch: "7" })),
      topics: names.map((name) => {
        const topic = topics.get(name);
        if (topic === undefined) return { name, error: errorReport("UNKNOWN_TOPIC_OR_PARTITION") };
        return {
          name,
          topicId: topic.id,
          maxBatchBytes: topic.maxBatchBytes,
          partitions: topic.partitions.map(({ leader, leaderEpoch }, partition) => ({
            partition,
            leaderId: isUp(leader) ? leader : -1,
            leaderEpoch,
            replicas: this.cluster.brokers.map(({ id }) => id),
            isr: this.cluster.brokers.filter(({ isAlive }) => isAlive).map(({ id }) => id),
            partitionEpoch: leaderEpoch,
          })),
        };
      }),
    };
  }

  #produce({ body: request, records }: FakeRequest<"produce">): Init<ResponseBody<"produce">> {
    return {
      partitions: request.partitions.map(({ topicId, partition }, index) => {
        const found = this.cluster.byId(topicId, partition);
        if (found === undefined) return { error: errorReport("UNKNOWN_TOPIC_ID") };
        if (found.leader !== this.id) {
          return { error: errorReport("NOT_LEADER_OR_FOLLOWER"), leader: this.cluster.hintOf(found) };
        }
        return this.append(found, records[index]!);
      }),
    };
  }

  /** What a leader does with a batch: refuse what is damaged or out of order, recognize repetitions, append the rest. */
  append(partition: FakePartition, bytes: Buffer): Init<ResponseBody<"produce">["partitions"][number]> {
    const batch = readBatch(Buffer.from(bytes), 0);
    if (!batch.crcMatches) return { error: errorReport("CORRUPT_MESSAGE") };
    if (batch.producerId >= 0) {
      const known = partition.producers.get(batch.producerId) ?? [];
      const same = known.find(({ baseSequence }) => baseSequence === batch.baseSequence);
      if (same !== undefined) return { baseOffset: same.offset };
      const last = known[known.length - 1];
      if (last === undefined && batch.baseSequence > 0) return { error: errorReport("UNKNOWN_PRODUCER_ID") };
      if (last !== undefined && batch.baseSequence !== last.baseSequence + last.count) {
        return { error: errorReport("OUT_OF_ORDER_SEQUENCE_NUMBER") };
      }
      const entry = { baseSequence: batch.baseSequence, count: batch.recordCount, offset: endOffsetOf(partition) };
      partition.producers.set(batch.producerId, [...known, entry].slice(-5));
    }
    const baseOffset = endOffsetOf(partition);
    batch.stamp(toOffset(baseOffset), partition.leaderEpoch);
    partition.batches.push(batch.bytes);
    this.onAppended();
    return { baseOffset };
  }

  async #fetch(request: FetchRequest): Promise<Exclude<FakeAnswer, string | undefined>> {
    let { sessionId } = request;
    let session: Session;
    if (sessionId === 0) {
      sessionId = this.#sessions.size + 1;
      session = { epoch: 1, partitions: new Map(), awaiting: new Set() };
      this.#sessions.set(sessionId, session);
    } else {
      const found = this.#sessions.get(sessionId);
      if (found === undefined) return { refuse: "FETCH_SESSION_ID_NOT_FOUND" };
      if (request.sessionEpoch !== found.epoch + 1) return { refuse: "INVALID_FETCH_SESSION_EPOCH" };
      session = found;
      session.epoch = request.sessionEpoch;
      this.onAppended();
    }
    for (const one of request.partitions) {
      session.partitions.set(`${one.topicId}:${one.partition}`, one);
      session.awaiting.delete(`${one.topicId}:${one.partition}`);
    }
    for (const one of request.forgotten) session.partitions.delete(`${one.topicId}:${one.partition}`);
    const epoch = session.epoch;
    const deadline = Date.now() + request.maxWaitMs;
    for (;;) {
      const answer = this.#fetched(sessionId, session, request.maxBytes);
      const isOvertaken = session.epoch !== epoch;
      if (answer.body.partitions.length > 0 || isOvertaken || Date.now() >= deadline || !this.isAlive) return answer;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          this.#parked.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, deadline - Date.now());
        timer.unref();
        this.#parked.add(wake);
      });
    }
  }

  #fetched(sessionId: number, session: Session, maxBytes: number) {
    const partitions: Init<ResponseBody<"fetch">["partitions"][number]>[] = [];
    const records: Uint8Array[][] = [];
    let left = maxBytes;
    for (const [key, asked] of session.partitions) {
      if (session.awaiting.has(key)) continue;
      const { topicId, partition } = asked;
      const found = this.cluster.byId(topicId, partition);
      if (found === undefined) {
        partitions.push({ topicId, partition, error: errorReport("UNKNOWN_TOPIC_ID") });
        continue;
      }
      if (found.leader !== this.id) {
        const error = errorReport("NOT_LEADER_OR_FOLLOWER");
        partitions.push({ topicId, partition, error, leader: this.cluster.hintOf(found) });
        continue;
      }
      const end = endOffsetOf(found);
      const place = { topicId, partition, highWatermark: end, logStartOffset: found.startOffset };
      if (asked.fetchOffset < found.startOffset || asked.fetchOffset > end) {
        partitions.push({ ...place, error: errorReport("OFFSET_OUT_OF_RANGE") });
        continue;
      }
      const pieces: Buffer[] = [];
      let bytes = 0;
      for (const batch of found.batches) {
        // A damaged one is sent as it is, so its head is not looked at by `readBatch`.
        if (readBatch(batch, 0).endOffset <= asked.fetchOffset) continue;
        if (pieces.length > 0 && bytes + batch.length > Math.min(asked.maxBytes, left)) break;
        pieces.push(batch);
        bytes += batch.length;
      }
      if (bytes === 0 || left <= 0) continue;
      left -= bytes;
      session.awaiting.add(key);
      partitions.push({ ...place, recordBytes: bytes });
      records.push(pieces);
    }
    return { body: { sessionId, partitions }, records };
  }

  #listOffsets(request: RequestBody<"listOffsets">): Init<ResponseBody<"listOffsets">> {
    return {
      partitions: request.partitions.map(({ topicId, partition, spec, timestamp }) => {
        const found = this.cluster.byId(topicId, partition);
        if (found === undefined) return { error: errorReport("UNKNOWN_TOPIC_ID") };
        if (found.leader !== this.id) {
          return { error: errorReport("NOT_LEADER_OR_FOLLOWER"), leader: this.cluster.hintOf(found) };
        }
        if (spec === OffsetSpec.EARLIEST) return { offset: found.startOffset };
        if (spec !== OffsetSpec.TIMESTAMP) return { offset: endOffsetOf(found) };
        const batch = found.batches.map((bytes) => readBatch(bytes, 0)).find((one) => one.maxTimestamp >= timestamp);
        return batch === undefined
          ? { offset: endOffsetOf(found) }
          : { offset: batch.baseOffset, timestamp: batch.baseTimestamp };
      }),
    };
  }

  #administer(request: FakeRequest): Exclude<FakeAnswer, string | undefined> {
    const { cluster } = this;
    if (request.kind === "createTopics") {
      const { topics, validateOnly } = (request as FakeRequest<"createTopics">).body;
      return body<"createTopics">({
        topics: topics.map(({ name, partitions }) => {
          if (cluster.topics.has(name)) return { name, error: errorReport("TOPIC_ALREADY_EXISTS") };
          if (validateOnly) return { name, partitions: partitions || 1, replicationFactor: 1 };
          const topic = cluster.createTopic(name, partitions || 1);
          return { name, topicId: topic.id, partitions: topic.partitions.length, replicationFactor: 1 };
        }),
      });
    }
    if (request.kind === "deleteTopics") {
      const { names, topicIds } = (request as FakeRequest<"deleteTopics">).body;
      const nameOf = (topicId: string): string => [...cluster.topics].find(([, { id }]) => id === topicId)?.[0] ?? "";
      return body<"deleteTopics">({
        topics: [
          ...names.map((name) =>
            cluster.topics.delete(name) ? { name } : { name, error: errorReport("UNKNOWN_TOPIC_OR_PARTITION") },
          ),
          ...topicIds.map((topicId) =>
            cluster.topics.delete(nameOf(topicId)) ? { topicId } : { topicId, error: errorReport("UNKNOWN_TOPIC_ID") },
          ),
        ],
      });
    }
    if (request.kind === "createPartitions") {
      const { topic, topicId, partitions } = (request as FakeRequest<"createPartitions">).body;
      const refusal = refusalOf(cluster.topics.get(topic), topicId);
      if (refusal !== undefined)
        return body<"createPartitions">({ topic: { name: topic, error: errorReport(refusal) } });
      cluster.addPartitions(topic, partitions);
      return body<"createPartitions">({ topic: { name: topic, partitions } });
    }
    if (request.kind === "electLeaders") {
      const { partitions, allPartitions } = (request as FakeRequest<"electLeaders">).body;
      // Of all partitions, those that are led as asked are not worth a word.
      const asked = allPartitions ? [] : partitions;
      return body<"electLeaders">({
        partitions: asked.map((one) => ({ ...one, leaderId: 1, error: errorReport("ELECTION_NOT_NEEDED") })),
      });
    }
    const { resource, name, topicId, config, validateOnly } = (request as FakeRequest<"alterConfigs">).body;
    if (resource !== ConfigResource.TOPIC) return body<"alterConfigs">({});
    const topic = cluster.topics.get(name);
    const refusal = refusalOf(topic, topicId);
    if (refusal !== undefined) return { refuse: refusal };
    if (!validateOnly) for (const entry of config) topic?.config.set(entry.name, entry.value);
    return body<"alterConfigs">({});
  }

  #deleteRecords(request: RequestBody<"deleteRecords">): Init<ResponseBody<"deleteRecords">> {
    return {
      partitions: request.partitions.map(({ topicId, partition, beforeOffset }) => {
        const found = this.cluster.byId(topicId, partition);
        if (found === undefined) return { error: errorReport("UNKNOWN_TOPIC_ID") };
        found.startOffset = beforeOffset < 0 ? endOffsetOf(found) : beforeOffset;
        found.batches = found.batches.filter((bytes) => readBatch(bytes, 0).endOffset > found.startOffset);
        return { logStartOffset: found.startOffset };
      }),
    };
  }
}

const body = <Kind extends RequestKind>(content: Init<ResponseBody<Kind>>): { readonly body: object } => ({
  body: content,
});

/** All batches of a partition, decoded as far as tests look at them. */
export function batchesOf(partition: FakePartition) {
  return partition.batches
    .flatMap((bytes) => readBatches(bytes))
    .map((batch) => ({
      baseOffset: Number(batch.baseOffset),
      recordCount: batch.recordCount,
      producerId: batch.producerId,
      baseSequence: batch.baseSequence,
    }));
}

/** The real world, where exceptions that would end the process are kept in a list. */
export function surfacingIn(surfaced: unknown[]): Env {
  const { timers } = env;
  return {
    ...env,
    timers: {
      after: (delayMs, callback) => timers.after(delayMs, callback),
      soon: (callback) => timers.soon(callback),
      afterThisTurn: (callback) =>
        timers.afterThisTurn(() => {
          try {
            callback();
          } catch (error) {
            surfaced.push(error);
          }
        }),
    },
  };
}

/** Waits for a condition, looking again each turn or two; fails after `deadlineMs`. */
export async function until(condition: () => boolean, what: string, deadlineMs = 5000): Promise<void> {
  const end = Date.now() + deadlineMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
