import { ApiError, topicIdRefusal } from "../../protocol/error-codes.js";
import type { ErrorReport } from "../../protocol/error-codes.js";
import type { FetchedPartition, FetchingReplica, FetchRequest, Init } from "../../protocol/messages.js";
import type { BrokerEpoch, Offset, TopicId } from "../../protocol/types.js";
import { isOlderBrokerEpoch, parseOffset, partitionKey, toOffset } from "../../protocol/types.js";
import { READ_BUFFER_BYTES } from "../log/index.js";
import type { LogRead } from "../log/index.js";
import type { MetadataCache } from "../metadata/metadata-cache.js";
import type { Answer, Handler, RequestContext } from "../net/request-context.js";
import type { ResponseBudget } from "../net/response-budget.js";
import type { Deadline, DeadlineWheel } from "../partition/deadline-wheel.js";
import type { PartitionTable } from "../partition/partition-table.js";
import type { ReplicaActivity } from "../partition/replica-activity.js";
import { FetchSession } from "./fetch-session.js";
import type { NamedPartitions, SessionPartition } from "./fetch-session.js";
import { notHere } from "./produce.js";

/** Of one request, and of one session of a consumer. */
const PARTITIONS_MAX = 10_000;
const WAIT_MS_MAX = 60_000;
/** Unanswered fetches of one connection. A reader needs one, and a newer one that completes it. */
const UNANSWERED_MAX = 8;
/** A reader has one; who began several has lost the earlier ones. */
const SESSIONS_OF_CONNECTION_MAX = 8;
const RESPONSE_BYTES_MAX = 16 * 1024 * 1024;
/** A follower hears of a high watermark with its next records, or after this long. */
const WATERMARK_NEWS_MS = 25;
/** So long a fetch waits before it looks again whether there is memory for its answer. */
const MEMORY_RETRY_MS = 25;
/** What an answer takes for each partition beside its records. */
const BODY_BYTES = 64;

export interface FetchParts {
  readonly wheel: DeadlineWheel;
  readonly partitions: PartitionTable;
  readonly metadata: MetadataCache;
  readonly activity: ReplicaActivity;
  /** Memory for what consumers fetch. Followers are as many as there are brokers, and ask for so much at most. */
  readonly responses: ResponseBudget;
  readonly sessionsMax: () => number;
  /** Of all consumers together. */
  readonly partitionsMax: () => number;
  /** The epoch under which a broker is registered, as far as known here. */
  readonly brokerEpochOf: (brokerId: number) => BrokerEpoch | undefined;
}

/** What every answer says of a partition. */
interface Standing {
  readonly topicId: TopicId;
  readonly partition: number;
  readonly highWatermark: Offset;
  readonly logStartOffset: Offset;
}

/** What one partition contributes to a response. */
interface Contribution {
  readonly entry: SessionPartition;
  readonly asked: number;
  readonly body: Standing & Init<FetchedPartition>;
  readonly read: LogRead | undefined;
  /** What it is in the end, when the disk is read for that. */
  readonly pending: Promise<Contribution> | undefined;
  /** It can wait for company: there is only a new watermark. */
  readonly isWatermarkOnly: boolean;
  /** What was read lies in a buffer of its own. */
  readonly isFromDisk?: boolean;
}

/** What an answer would say, or that there is no memory for it now. */
type Collected = readonly Contribution[] | "no-memory";

/** A fetch that waits for records. */
interface Parked {
  complete(): void;
}

/**
 * Reads records for consumers and followers; waits until there are some. It looks only at partitions that changed since the
 * session was last answered.
 */
export class FetchApi {
  readonly #parts: FetchParts;
  readonly #sessions = new Map<number, FetchSession>();
  readonly #sessionsByConnection = new Map<number, Set<FetchSession>>();
  readonly #parked = new Map<FetchSession, Parked>();
  readonly #unanswered = new Map<number, number>();
  readonly #namedByConsumers: NamedPartitions = { count: 0 };
  /** By replica: its process and the connection over which that fetches. */
  readonly #fetching = new Map<number, { readonly brokerEpoch: BrokerEpoch; readonly connectionId: number }>();
  #nextSessionId = 1;

  constructor(parts: FetchParts) {
    this.#parts = parts;
  }

  readonly handle: Handler<"fetch"> = (request, context) => {
    if (request.partitions.length > PARTITIONS_MAX)
      throw new ApiError("TOO_MANY_ELEMENTS", `a fetch may name ${PARTITIONS_MAX} partitions`);
    if ((this.#unanswered.get(context.connectionId) ?? 0) >= UNANSWERED_MAX) {
      throw new ApiError(
        "BROKER_OVERLOADED",
        `${UNANSWERED_MAX} fetches of this connection are unanswered; wait for their answers`,
      );
    }
    assertWellFormed(request);
    if (request.replica !== null) this.#assertReplica(request.replica, context);
    // Whatever is refused is refused before anything is changed, or kept.
    const known = this.#sessionOf(request, context);
    if (request.replica === null) this.#assertRoom(request, known);
    if (known !== undefined) known.nextEpoch += 1;
    const session = known ?? this.#begin(request, context);
    // A newer request of a session completes the parked one: its sender has news, and will hear through this one. Before
    // the news are taken: what is answered to them must not travel with the answer to an older request.
    this.#parked.get(session)?.complete();
    for (const name of request.forgotten) session.forget(partitionKey(name.topicId, name.partition));
    this.#take(request, session);
    const answer = this.#answerOrPark(request, session, context);
    return answer instanceof Promise ? this.#counted(context.connectionId, answer) : answer;
  };

  /** What one connection may have read for it at a time is bounded. */
  async #counted<T>(connectionId: number, answer: Promise<T>): Promise<T> {
    this.#unanswered.set(connectionId, (this.#unanswered.get(connectionId) ?? 0) + 1);
    try {
      return await answer;
    } finally {
      const left = (this.#unanswered.get(connectionId) ?? 1) - 1;
      if (left === 0) this.#unanswered.delete(connectionId);
      else this.#unanswered.set(connectionId, left);
    }
  }

  /** Only a broker, on the inter-broker listener, under its present registration, may move watermarks. */
  #assertReplica(replica: FetchingReplica, context: RequestContext): void {
    if (context.broker?.brokerId !== replica.brokerId) {
      throw new ApiError(
        "CLUSTER_AUTHORIZATION_FAILED",
        `a fetch as replica ${replica.brokerId} is accepted from that broker only, on the inter-broker listener`,
      );
    }
    const registered = this.#parts.brokerEpochOf(replica.brokerId);
    if (registered !== undefined && isOlderBrokerEpoch(replica.brokerEpoch, registered)) {
      throw new ApiError(
        "STALE_BROKER_EPOCH",
        `broker ${replica.brokerId} has registered again since epoch ${replica.brokerEpoch}`,
      );
    }
    this.#assertNewest(replica, context.connectionId);
    this.#parts.activity.onFetch(replica.brokerId);
  }

  /**
   * A replica fetches over one connection, and makes another one when that fails. What it had asked over the one before may
   * still arrive, and says where it was then: it would count as behind until it names the partition again.
   */
  #assertNewest({ brokerId, brokerEpoch }: FetchingReplica, connectionId: number): void {
    const newest = this.#fetching.get(brokerId);
    if (newest?.brokerEpoch === brokerEpoch && newest.connectionId > connectionId)
      throw new ApiError("FETCH_SESSION_ID_NOT_FOUND", `broker ${brokerId} fetches over a newer connection by now`);
    if (newest?.brokerEpoch !== brokerEpoch || newest.connectionId !== connectionId)
      this.#fetching.set(brokerId, { brokerEpoch, connectionId });
  }

  // -- Sessions -------------------------------------------------------------------------------------------------------

  /** The session that the request names; undefined: it names none. */
  #sessionOf(request: FetchRequest, context: RequestContext): FetchSession | undefined {
    if (request.sessionId === 0) return undefined;
    const session = this.#sessions.get(request.sessionId);
    if (session === undefined || session.connectionId !== context.connectionId) {
      throw new ApiError(
        "FETCH_SESSION_ID_NOT_FOUND",
        `fetch session ${request.sessionId} is not known on this connection; begin a new one`,
      );
    }
    if (request.sessionEpoch !== session.nextEpoch) {
      throw new ApiError(
        "INVALID_FETCH_SESSION_EPOCH",
        `fetch session ${request.sessionId} expects epoch ${session.nextEpoch}, not ${request.sessionEpoch}; begin a new one`,
      );
    }
    return session;
  }

  /** What one session, and all consumers together, may have the broker remember is bounded. */
  #assertRoom(request: FetchRequest, session: FetchSession | undefined): void {
    const size = session?.size ?? 0;
    const { count } = this.#namedByConsumers;
    const partitionsMax = this.#parts.partitionsMax();
    const named = request.partitions.length;
    if (size + named <= PARTITIONS_MAX && count + named <= partitionsMax) return;
    const sizeAfter = session?.sizeAfter(request) ?? named;
    if (sizeAfter > PARTITIONS_MAX)
      throw new ApiError(
        "TOO_MANY_ELEMENTS",
        `a fetch session may hold ${PARTITIONS_MAX} partitions; forget some first, or begin another one`,
      );
    if (sizeAfter > size && count + sizeAfter - size > partitionsMax)
      throw new ApiError(
        "BROKER_OVERLOADED",
        `consumers fetch ${count} partitions here, and fetch.partitions.max is ${partitionsMax}; try again later`,
      );
  }

  #begin(request: FetchRequest, context: RequestContext): FetchSession {
    // A follower without a session would fetch everything with each request.
    const hasPlace = request.replica !== null || this.#sessions.size < this.#parts.sessionsMax();
    const mayKeep = request.sessionEpoch === 1 && hasPlace;
    const session = new FetchSession(
      mayKeep ? this.#nextSessionId++ : 0,
      context.connectionId,
      request.replica?.brokerId,
      request.replica === null ? this.#namedByConsumers : { count: 0 },
    );
    session.onClosed = context.whenClosed(() => this.#end(session));
    if (!mayKeep) return session;
    this.#sessions.set(session.id, session);
    let ofConnection = this.#sessionsByConnection.get(context.connectionId);
    if (ofConnection === undefined) this.#sessionsByConnection.set(context.connectionId, (ofConnection = new Set()));
    ofConnection.add(session);
    const [oldest] = ofConnection;
    if (oldest !== undefined && ofConnection.size > SESSIONS_OF_CONNECTION_MAX) this.#end(oldest);
    return session;
  }

  #end(session: FetchSession): void {
    this.#sessions.delete(session.id);
    const ofConnection = this.#sessionsByConnection.get(session.connectionId);
    if (ofConnection?.delete(session) && ofConnection.size === 0)
      this.#sessionsByConnection.delete(session.connectionId);
    this.#parked.get(session)?.complete();
    session.close();
  }

  #take(request: FetchRequest, session: FetchSession): void {
    const { replica } = request;
    for (const asked of request.partitions) {
      const fetchOffset = parseOffset(asked.fetchOffset);
      const flushedOffset = toOffset(asked.flushedOffset);
      const durableLogStart = toOffset(asked.logStartOffset);
      const damagedFrom = asked.damagedFromPlusOne === 0 ? undefined : parseOffset(asked.damagedFromPlusOne - 1);
      const partition = this.#parts.partitions.get(asked.topicId, asked.partition);
      const entry = session.put(asked, partition, fetchOffset ?? toOffset(0));
      if (fetchOffset === undefined) {
        entry.refusal = new ApiError(
          "OFFSET_OUT_OF_RANGE",
          `there is no offset ${asked.fetchOffset}: they end at 2^53 - 1`,
        );
        continue;
      }
      if (replica === null || partition === undefined) continue;
      const lastFetchedEpoch = asked.lastFetchedEpochPlusOne === 0 ? undefined : asked.lastFetchedEpochPlusOne - 1;
      try {
        entry.divergence = partition.noteFollower(
          {
            brokerId: replica.brokerId,
            brokerEpoch: replica.brokerEpoch,
            fetchOffset,
            flushedOffset,
            durableLogStart,
            lastFetchedEpoch,
            damagedFrom,
            diskFull: asked.diskFull,
          },
          entry.leaderEpoch,
        );
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        entry.refusal = error;
      }
    }
  }

  // -- Answers --------------------------------------------------------------------------------------------------------

  #answerOrPark(
    request: FetchRequest,
    session: FetchSession,
    context: RequestContext,
  ): Answer<"fetch"> | Promise<Answer<"fetch"> | undefined> {
    const collected = this.#collect(request, session, context);
    if (collected === "no-memory") {
      if (request.maxWaitMs === 0) throw this.#noMemory(session);
    } else {
      if (isEnough(collected, request) || request.maxWaitMs === 0) return this.#settle(session, collected);
      releaseAll(collected);
    }
    const lacksMemory = collected === "no-memory";
    return new Promise((resolve, reject) => this.#park(request, session, context, lacksMemory, resolve, reject));
  }

  #park(
    request: FetchRequest,
    session: FetchSession,
    context: RequestContext,
    lacksMemory: boolean,
    resolve: (answer: Answer<"fetch"> | Promise<Answer<"fetch">>) => void,
    reject: (refusal: ApiError) => void,
  ): void {
    const { wheel } = this.#parts;
    let soon: Deadline | undefined;
    let retry: Deadline | undefined;
    const finish = (collected: Collected): void => {
      this.#parked.delete(session);
      deadline.cancel();
      soon?.cancel();
      retry?.cancel();
      session.park(undefined);
      if (collected === "no-memory") reject(this.#noMemory(session));
      else resolve(this.#settle(session, collected));
    };
    const lookForMemory = (): void => {
      retry ??= wheel.after(MEMORY_RETRY_MS, () => {
        retry = undefined;
        look(false);
      });
    };
    // Too few records to be sent are not sent for the sake of a new watermark.
    const look = (tellWatermarks: boolean): void => {
      const collected = this.#collect(request, session, context);
      if (collected === "no-memory") {
        lookForMemory();
        return;
      }
      const isWanted =
        isEnough(collected, request) || (tellWatermarks && collected.every(({ isWatermarkOnly }) => isWatermarkOnly));
      if (isWanted) finish(collected);
      else releaseAll(collected);
    };
    const lookSoon = (): void => {
      soon ??= wheel.after(WATERMARK_NEWS_MS, () => {
        soon = undefined;
        look(true);
      });
    };
    const deadline = wheel.after(Math.min(request.maxWaitMs, WAIT_MS_MAX), () =>
      finish(this.#collect(request, session, context)),
    );
    this.#parked.set(session, { complete: () => finish([]) });
    session.park((urgency) => (urgency === "watermark" ? lookSoon() : look(false)));
    // A follower is told soon where its partitions stand. A consumer has asked for records, and for how long to wait.
    if (session.replicaId !== undefined && session.changed().size > 0) lookSoon();
    if (lacksMemory) lookForMemory();
  }

  /** There is no memory for an answer. The session ends: its reader does not know whether the request counts in it. */
  #noMemory(session: FetchSession): ApiError {
    this.#end(session);
    const { bytesMax } = this.#parts.responses;
    return new ApiError(
      "BROKER_OVERLOADED",
      `responses that are not read yet fill response.bytes.max (${bytesMax} bytes); try again later`,
    );
  }

  /** What an answer would say now. It is to be settled in this turn, or its reads released. */
  #collect(request: FetchRequest, session: FetchSession, context: RequestContext): Collected {
    let bytesLeft = Math.min(Math.max(request.maxBytes, 1), RESPONSE_BYTES_MAX);
    if (session.replicaId === undefined && session.changed().size > 0) {
      const { responses } = this.#parts;
      // Whatever is read from the disk takes a buffer as a whole.
      if (responses.free < READ_BUFFER_BYTES) {
        responses.onLack?.("short");
        return "no-memory";
      }
      bytesLeft = Math.min(bytesLeft, responses.free);
    }
    const contributions: Contribution[] = [];
    for (const entry of session.changed()) {
      if (bytesLeft <= 0) break;
      const contribution = this.#contribution(
        entry,
        session,
        context,
        Math.min(bytesLeft, Math.max(entry.maxBytes, 1)),
      );
      if (contribution === undefined) {
        session.markTold(entry);
        continue;
      }
      contributions.push(contribution);
      // What is read from disk takes a buffer as a whole, however little of it was asked for.
      bytesLeft -=
        contribution.pending === undefined
          ? (contribution.read?.bytes ?? 0)
          : Math.max(entry.maxBytes, READ_BUFFER_BYTES);
    }
    return contributions;
  }

  /** undefined: nothing to tell. */
  #contribution(
    entry: SessionPartition,
    session: FetchSession,
    context: RequestContext,
    maxBytes: number,
  ): Contribution | undefined {
    const { partition, topicId, index, refusal, divergence, fetchOffset, leaderEpoch } = entry;
    if (partition === undefined) return this.#refusal(entry, context, notHere(this.#parts.metadata, topicId, index));
    if (refusal !== undefined) return this.#refusal(entry, context, refusal.report);
    const news = withoutRecords(entry);
    if (entry.verify) {
      if (session.id === 0) return late(news, this.#verified(entry, session, context, maxBytes));
      // Reading a whole segment takes its time, and an answer that waits for it would hold up all other partitions.
      session.verify(entry);
      return undefined;
    }
    if (divergence !== undefined) {
      const diverging = { leaderEpochPlusOne: (divergence.leaderEpoch ?? -1) + 1, endOffset: divergence.endOffset };
      return { ...news, body: { ...news.body, diverging }, isWatermarkOnly: false };
    }
    const withRecords = (read: LogRead): Contribution => ({
      ...news,
      body: { ...news.body, recordBytes: read.bytes },
      read,
      isWatermarkOnly: false,
    });
    const refused = (error: unknown): Contribution => {
      if (error instanceof ApiError) return this.#refusal(entry, context, partition.readRefusal(error));
      throw error;
    };
    try {
      const read =
        session.replicaId === undefined
          ? partition.readCommitted(fetchOffset, leaderEpoch, maxBytes)
          : partition.readAppended(fetchOffset, leaderEpoch, maxBytes);
      if (read === undefined) {
        if (isTold(entry, news.body)) return undefined;
        return lacksLogStart(entry, session, news.body) ? { ...news, isWatermarkOnly: false } : news;
      }
      return read instanceof Promise ? late(news, read.then(withRecords, refused)) : withRecords(read);
    } catch (error) {
      return refused(error);
    }
  }

  /** The same, once the disk was read again. */
  async #verified(
    entry: SessionPartition,
    session: FetchSession,
    context: RequestContext,
    maxBytes: number,
  ): Promise<Contribution> {
    const { asked } = entry;
    await entry.partition?.verify(entry.fetchOffset);
    // Not before: another fetch of the session would be answered with what is doubted.
    if (entry.asked === asked) entry.verify = false;
    const contribution = this.#contribution(entry, session, context, maxBytes) ?? withoutRecords(entry);
    return contribution.pending ?? contribution;
  }

  #refusal(entry: SessionPartition, context: RequestContext, error: ErrorReport): Contribution {
    const leader = this.#parts.metadata.leaderHint(entry.topicId, entry.index, context.listenerName);
    const news = withoutRecords(entry);
    return { ...news, body: { ...news.body, error, leader }, isWatermarkOnly: false };
  }

  /**
   * The answer that says what was collected. What it says counts as told in the turn in which it was collected, though the
   * disk may be read for it yet: whatever happens from then on is news, and the next answer tells it.
   */
  #settle(session: FetchSession, contributions: readonly Contribution[]): Answer<"fetch"> | Promise<Answer<"fetch">> {
    let isLate = false;
    for (const { entry, body, read, pending } of contributions) {
      // What is refused stays so until the reader asks again or the role changes.
      session.markTold(entry);
      entry.awaitsReader = read !== undefined || pending !== undefined;
      // Whoever cuts its log, or is refused, does not look at where the partition stands.
      const isStanding = body.error === undefined && body.diverging === undefined;
      entry.toldHighWatermark = isStanding ? body.highWatermark : undefined;
      entry.toldLogStart = isStanding ? body.logStartOffset : undefined;
      isLate ||= pending !== undefined;
    }
    if (!isLate) return this.#answer(session, contributions);
    const reading = this.#reading(session, contributions);
    return Promise.all(contributions.map((contribution) => contribution.pending ?? contribution))
      .finally(() => this.#parts.responses.release(reading))
      .then((all) => this.#answer(session, all));
  }

  /** Takes the memory that is about to be read into, for consumers. */
  #reading(session: FetchSession, contributions: readonly Contribution[]): number {
    if (session.replicaId !== undefined) return 0;
    let bytes = 0;
    for (const { entry, pending, read } of contributions) {
      // A first batch comes whole, however large it is.
      if (pending !== undefined)
        bytes += Math.max(READ_BUFFER_BYTES, entry.partition?.log.settings.maxMessageBytes ?? 0);
      else bytes += read?.bytes ?? 0;
    }
    this.#parts.responses.take(bytes);
    return bytes;
  }

  #answer(session: FetchSession, contributions: readonly Contribution[]): Answer<"fetch"> {
    const reads: LogRead[] = [];
    let heldBytes = 0;
    for (const { entry, asked, read, isFromDisk } of contributions) {
      if (read !== undefined && read.bytes > 0) {
        reads.push(read);
        heldBytes += isFromDisk === true ? Math.max(read.bytes, READ_BUFFER_BYTES) : read.bytes;
      } else {
        read?.release();
        // The reader does not ask again because of this.
        session.nothingRead(entry, asked);
      }
    }
    if (session.id === 0) session.close();
    const body = { sessionId: session.id, partitions: contributions.map((contribution) => contribution.body) };
    if (reads.length === 0) return { body };
    const { responses } = this.#parts;
    const takenBytes = session.replicaId === undefined ? heldBytes + BODY_BYTES * contributions.length : 0;
    responses.take(takenBytes);
    return {
      body,
      records: reads.map((read) => read.pieces),
      onSent: () => {
        responses.release(takenBytes);
        for (const read of reads) read.release();
      },
    };
  }
}

/** Throws INVALID_REQUEST: a session remembers partitions by their ids, and nothing under a text that is none. */
function assertWellFormed(request: FetchRequest): void {
  for (const { topicId, flushedOffset, logStartOffset } of request.partitions) {
    const refusal = topicIdRefusal(topicId);
    if (refusal !== undefined) throw new ApiError("INVALID_REQUEST", refusal.message);
    for (const offset of [flushedOffset, logStartOffset])
      if (parseOffset(offset) === undefined) throw new ApiError("INVALID_REQUEST", "an offset is above 2^53 - 1");
  }
}

/** They are not sent now. */
function releaseAll(contributions: readonly Contribution[]): void {
  for (const { read } of contributions) read?.release();
}

/** A partition of which there is nothing to say but where it stands. */
function withoutRecords(entry: SessionPartition): Contribution {
  const { topicId, index, partition, asked } = entry;
  const highWatermark = partition?.highWatermark ?? toOffset(0);
  const logStartOffset = partition?.log.logStartOffset ?? toOffset(0);
  const body = { topicId, partition: index, highWatermark, logStartOffset };
  return { entry, asked, body, read: undefined, pending: undefined, isWatermarkOnly: true };
}

/** A partition for which the disk is read. It is an answer to what was asked when that began. */
function late(news: Contribution, pending: Promise<Contribution>): Contribution {
  const { asked } = news;
  return { ...news, pending: pending.then((found) => ({ ...found, asked, isFromDisk: true })), isWatermarkOnly: false };
}

/** Whether the reader knows already where the partition stands. */
function isTold(entry: SessionPartition, { highWatermark, logStartOffset }: Standing): boolean {
  return entry.toldHighWatermark === highWatermark && entry.toldLogStart === logStartOffset;
}

/** Whether a follower has to hear of a log start: somebody may wait until it has deleted what lies before. */
function lacksLogStart(entry: SessionPartition, session: FetchSession, { logStartOffset }: Standing): boolean {
  const isNews = entry.toldLogStart !== logStartOffset;
  return session.replicaId !== undefined && isNews && entry.logStartOffset < logStartOffset;
}

/** Whether an answer is worth sending now: it has records enough, or something that cannot wait. */
function isEnough(contributions: readonly Contribution[], request: FetchRequest): boolean {
  let bytes = 0;
  for (const { read, isWatermarkOnly } of contributions) {
    if (read === undefined && !isWatermarkOnly) return true;
    bytes += read?.bytes ?? 0;
  }
  return bytes > 0 && bytes >= request.minBytes;
}
