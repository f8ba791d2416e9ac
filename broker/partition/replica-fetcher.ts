import type { BytePool } from "../../common/byte-pool.js";
import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError, errorNameOf } from "../../protocol/error-codes.js";
import type { FetchedPartition, FetchPartition, Init, PartitionName } from "../../protocol/messages.js";
import { BatchFault, readBatch } from "../../protocol/record-batch.js";
import type { RpcConnection, RpcOutcome } from "../../protocol/rpc-connection.js";
import type { BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionKey } from "../../protocol/types.js";
import { parseOffset, partitionKey, toOffset } from "../../protocol/types.js";
import type { Partition } from "./partition.js";

/** How a follower reaches its leader; the simulator and tests give another one. */
export type ConnectToLeader = (leaderId: BrokerId, onClosed: () => void) => Promise<RpcConnection>;

export interface ReplicaFetcherSettings {
  readonly waitMsMax: number;
  readonly partitionBytesMax: number;
  readonly responseBytesMax: number;
}

export interface ReplicaFetcherParts {
  readonly env: Env;
  readonly logger: Logger;
  readonly connect: ConnectToLeader;
  /** Where responses are received; shared by all fetchers. */
  readonly frames: BytePool;
  readonly settings: () => ReplicaFetcherSettings;
  /** Who fetches; undefined while this broker is not registered. */
  readonly identity: () => { readonly brokerId: BrokerId; readonly brokerEpoch: BrokerEpoch } | undefined;
}

/** A partition that is followed, and what was last said of it to the leader. */
interface Followed {
  readonly key: PartitionKey;
  readonly partition: Partition;
  readonly epoch: LeaderEpoch;
  /** The first request of the session that named it: answers to earlier ones were meant for another epoch. */
  firstNamedIn: number | undefined;
  /** What it asks for; undefined: the leader has answered that, or was not asked. */
  asks: Naming | undefined;
  /** The newest high watermark heard of; it may be above what is here yet, and is not told again. */
  leaderHighWatermark: Offset;
  /** Nothing is fetched meanwhile: a truncation or a write is under way, or it waits after an error. */
  busy: boolean;
  /** The leader was told last that this replica is unfit, and will be told again how it is. */
  saidUnfit: boolean;
  /** Records that came for this offset were not what follows here, and were asked for again. */
  refusedAt: Offset | undefined;
  /** What the leader sent did not match its checksum. */
  gotDamage: boolean;
}

/** A partition was named in this request of the session, with this position. */
interface Naming {
  readonly sessionEpoch: number;
  readonly offset: Offset;
}

/** What the leader remembers for this fetcher. */
interface Session {
  /** 0: not known yet. */
  id: number;
  /** Of the next request. */
  epoch: number;
}

/** The leader may be slow to answer by so much before the connection counts as dead. */
const ANSWER_GRACE_MS = 3000;
const RECONNECT_MS_MIN = 20;
const RECONNECT_MS_MAX = 500;
const RETRY_SOON_MS = 50;
const RETRY_LATER_MS = 1000;
/** How often a replica with a full or damaged disk tells its leader so. */
const UNFIT_REPORT_MS = 500;
/** One may be parked at the leader while a newer one, which completes it, brings news. */
const IN_FLIGHT_MAX = 2;

/**
 * Follows all partitions that one broker leads: fetch, truncate where logs part, append, repeat. One connection and one
 * fetch session carry all of them, and only partitions whose position changed travel.
 */
export class ReplicaFetcher {
  readonly #parts: ReplicaFetcherParts;
  readonly #followed = new Map<PartitionKey, Followed>();
  /** To be named in the next request. */
  readonly #changed = new Set<Followed>();
  readonly #forgotten = new Map<PartitionKey, PartitionName>();
  #connection: RpcConnection | undefined;
  #session: Session = { id: 0, epoch: 1 };
  #inFlight = 0;
  #connecting = false;
  #reconnectMs = RECONNECT_MS_MIN;
  #reconnect: Timer | undefined;
  #closed = false;

  constructor(
    parts: ReplicaFetcherParts,
    readonly leaderId: BrokerId,
  ) {
    this.#parts = parts;
  }

  get isIdle(): boolean {
    return this.#followed.size === 0;
  }

  follow(partition: Partition, epoch: LeaderEpoch): void {
    const key = partitionKey(partition.topicId, partition.partition);
    const before = this.#followed.get(key);
    if (before?.epoch === epoch && before.partition === partition) return;
    if (before !== undefined) {
      this.#changed.delete(before);
      // What the session was told before was told to another: the leader is to tell it again.
      this.#forgotten.set(key, { topicId: partition.topicId, partition: partition.partition });
    }
    const followed: Followed = {
      key,
      partition,
      epoch,
      firstNamedIn: undefined,
      asks: undefined,
      leaderHighWatermark: toOffset(0),
      busy: false,
      saidUnfit: false,
      refusedAt: undefined,
      gotDamage: false,
    };
    this.#followed.set(key, followed);
    this.#markChanged(followed);
  }

  /** Records are damaged here, or synced, or the log begins later: the leader is told at once. */
  report(partition: Partition): void {
    const followed = this.#followed.get(partitionKey(partition.topicId, partition.partition));
    if (followed !== undefined) this.#markChanged(followed);
  }

  unfollow(partition: Partition): void {
    const key = partitionKey(partition.topicId, partition.partition);
    const followed = this.#followed.get(key);
    if (followed === undefined) return;
    this.#followed.delete(key);
    this.#changed.delete(followed);
    this.#forgotten.set(key, { topicId: partition.topicId, partition: partition.partition });
  }

  close(): void {
    this.#closed = true;
    this.#reconnect?.cancel();
    this.#followed.clear();
    this.#changed.clear();
    this.#connection?.close();
  }

  #markChanged(followed: Followed): void {
    this.#changed.add(followed);
    // All that changes in one turn travels in one request.
    this.#parts.env.timers.afterThisTurn(() => this.#pump());
  }

  #isCurrent(followed: Followed): boolean {
    const { partition, epoch } = followed;
    if (this.#followed.get(followed.key) !== followed) return false;
    const { role } = partition;
    return role.kind === "follower" && role.epoch === epoch && role.leaderId === this.leaderId;
  }

  // -- Requests -------------------------------------------------------------------------------------------------------

  #pump(): void {
    if (this.#closed || this.isIdle) return;
    if (this.#connection === undefined) {
      this.#connect();
      return;
    }
    const maySendAnother = this.#inFlight < IN_FLIGHT_MAX && this.#session.id > 0;
    if (this.#inFlight === 0 || (maySendAnother && this.#hasNews())) this.#send(this.#connection);
  }

  /** Whether there is something to tell now; what is busy is told later. */
  #hasNews(): boolean {
    if (this.#forgotten.size > 0) return true;
    for (const followed of this.#changed) if (!followed.busy) return true;
    return false;
  }

  #send(connection: RpcConnection): void {
    const identity = this.#parts.identity();
    if (identity === undefined) {
      this.#reconnectLater();
      return;
    }
    const settings = this.#parts.settings();
    const session = this.#session;
    const partitions: Init<FetchPartition>[] = [];
    for (const followed of this.#changed) {
      if (followed.busy) continue;
      this.#changed.delete(followed);
      if (!this.#isCurrent(followed)) continue;
      // What a former role had begun ends first: what comes could not be appended before, nor where it was asked for.
      const settled = followed.partition.log.whenSettled();
      if (settled === undefined) partitions.push(this.#position(followed, session.epoch, settings.partitionBytesMax));
      else this.#whileBusy(followed, settled, "what was being written or cut did not end");
    }
    const forgotten = [...this.#forgotten.values()];
    this.#forgotten.clear();
    const request = {
      maxWaitMs: settings.waitMsMax,
      minBytes: 1,
      maxBytes: settings.responseBytesMax,
      sessionId: session.id,
      sessionEpoch: session.epoch,
      partitions,
      forgotten,
      replica: identity,
    };
    const { sessionEpoch } = request;
    session.epoch += 1;
    this.#inFlight += 1;
    // Behind a slow link a large answer takes its time: it would be given up and asked for again for ever.
    const patience = { timeoutMs: settings.waitMsMax + ANSWER_GRACE_MS, whileArriving: true };
    connection.send("fetch", request, patience, (outcome) =>
      this.#onOutcome(connection, session, sessionEpoch, outcome),
    );
  }

  #position(followed: Followed, sessionEpoch: number, maxBytes: number): Init<FetchPartition> {
    const { partition, epoch } = followed;
    const { log } = partition;
    followed.firstNamedIn ??= sessionEpoch;
    followed.asks = { sessionEpoch, offset: log.logEndOffset };
    const [damaged] = log.damage;
    if (damaged !== undefined || log.isFull) this.#reportAgainLater(followed);
    return {
      topicId: partition.topicId,
      partition: partition.partition,
      fetchOffset: log.logEndOffset,
      leaderEpochPlusOne: epoch + 1,
      // Nothing that comes can be kept.
      maxBytes: log.isFull ? 1 : maxBytes,
      lastFetchedEpochPlusOne: log.lastEpoch === undefined ? 0 : log.lastEpoch + 1,
      // Others rely on it, so it is what the next start will find.
      logStartOffset: log.durableLogStart,
      flushedOffset: log.flushedOffset,
      damagedFromPlusOne: damaged === undefined ? 0 : damaged.from + 1,
      verify: followed.gotDamage,
      diskFull: log.isFull,
    };
  }

  /** Without records to fetch it would not hear that the damage may be repaired now, nor that there is space again. */
  #reportAgainLater(followed: Followed): void {
    if (followed.saidUnfit) return;
    followed.saidUnfit = true;
    this.#parts.env.timers.after(UNFIT_REPORT_MS, () => {
      followed.saidUnfit = false;
      if (!this.#closed && this.#isCurrent(followed)) this.#markChanged(followed);
    });
  }

  // -- Answers --------------------------------------------------------------------------------------------------------

  #onOutcome(connection: RpcConnection, session: Session, sessionEpoch: number, outcome: RpcOutcome<"fetch">): void {
    if (connection !== this.#connection) return;
    this.#inFlight -= 1;
    if (outcome instanceof Error) {
      this.#onFailure(connection, session, outcome);
      return;
    }
    this.#reconnectMs = RECONNECT_MS_MIN;
    if (session !== this.#session) {
      // Its numbers mean nothing in the session that followed.
      this.#useAgain(outcome.records, []);
      this.#pump();
      return;
    }
    session.id = outcome.body.sessionId;
    let recordsIndex = 0;
    const writes: Promise<void>[] = [];
    for (const fetched of outcome.body.partitions) {
      const records = fetched.recordBytes > 0 ? outcome.records[recordsIndex++] : undefined;
      // Who is not followed any more left the map in the turn in which its role ended.
      const followed = this.#followed.get(partitionKey(fetched.topicId, fetched.partition));
      if (followed?.firstNamedIn === undefined || followed.firstNamedIn > sessionEpoch) continue;
      const written = this.#onFetched(followed, sessionEpoch, fetched, records);
      if (written !== undefined) writes.push(written);
    }
    this.#useAgain(outcome.records, writes);
    // The leader had no place for a session: it knows nothing of this one any more, and is told of all again.
    if (outcome.body.sessionId === 0) this.#resetSession();
    this.#pump();
  }

  /** All records of a response lie in one frame; it is used again once they are written. */
  #useAgain(records: readonly Buffer[], writes: readonly Promise<void>[]): void {
    const [first] = records;
    if (first === undefined) return;
    if (writes.length === 0) this.#parts.frames.give(first);
    else void Promise.allSettled(writes).then(() => this.#parts.frames.give(first));
  }

  #onFailure(connection: RpcConnection, session: Session, error: Error): void {
    const sessionLost =
      error instanceof ApiError &&
      (error.errorName === "FETCH_SESSION_ID_NOT_FOUND" || error.errorName === "INVALID_FETCH_SESSION_EPOCH");
    if (sessionLost) {
      if (session === this.#session) this.#resetSession();
      this.#pump();
      return;
    }
    this.#parts.logger.debug(`fetching from broker ${this.leaderId} failed: ${error.message}`);
    connection.close();
    this.#onConnectionLost(connection);
  }

  /** Resolves when the records are written that it brought; undefined: they are, or it brought none that were taken. */
  #onFetched(
    followed: Followed,
    sessionEpoch: number,
    fetched: FetchedPartition,
    records: Buffer | undefined,
  ): Promise<void> | undefined {
    const { partition, asks, busy } = followed;
    // An answer counts only for the naming that it answers, and once: what was asked since is answered by another one, and
    // what a late one would cut off may have been fetched again.
    const counts = asks !== undefined && asks.sessionEpoch <= sessionEpoch;
    if (fetched.error !== null || fetched.diverging !== null) {
      if (!counts) return undefined;
      followed.asks = undefined;
      if (fetched.error !== null) this.#onRefused(followed, fetched);
      else if (fetched.diverging !== null) this.#onDiverging(followed, fetched, fetched.diverging);
      return undefined;
    }
    // Where the leader stands is told once, whatever was asked.
    const leaderHighWatermark = parseOffset(fetched.highWatermark);
    if (leaderHighWatermark !== undefined && leaderHighWatermark > followed.leaderHighWatermark)
      followed.leaderHighWatermark = leaderHighWatermark;
    let written: Promise<void> | undefined;
    if (counts && records !== undefined) {
      followed.asks = undefined;
      written = this.#append(followed, asks.offset, records);
    }
    // What is about to be cut off is not replicated, however far the leader is.
    if (!busy) partition.followHighWatermark(followed.leaderHighWatermark);
    this.#followLogStart(partition, parseOffset(fetched.logStartOffset));
    return written;
  }

  /** Resolves when the records are written; undefined: they are, or they were not taken. */
  #append(followed: Followed, offset: Offset, records: Buffer): Promise<void> | undefined {
    const { partition, epoch } = followed;
    const { log } = partition;
    if (log.nextOffset !== offset) {
      // The log has changed since this was asked for; what came does not continue it.
      this.#markChanged(followed);
      return undefined;
    }
    try {
      const { written } = log.appendAsFollower(records, epoch);
      followed.gotDamage = false;
      if (written === undefined) {
        this.#changed.add(followed);
        return undefined;
      }
      followed.busy = true;
      written.then(
        () => {
          if (this.#isCurrent(followed)) partition.followHighWatermark(followed.leaderHighWatermark);
          this.#resume(followed);
        },
        (error: unknown) => this.#onNotTaken(followed, `its disk refused records: ${reasonOf(error)}`),
      );
      return written;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const good = error.errorName === "CORRUPT_MESSAGE" ? beforeDamage(records) : 0;
      if (good === 0) {
        this.#onUnfitRecords(followed, offset, error);
        return undefined;
      }
      // So that the next question names the damage itself, and the leader looks for it there.
      this.#parts.logger.info(
        `${partition.name}: records of the leader were taken as far as they are good: ${error.message}`,
      );
      const written = this.#append(followed, offset, records.subarray(0, good));
      followed.gotDamage = true;
      return written;
    }
  }

  /** What is no fault of this disk is asked for again at once, but not again and again. */
  #onUnfitRecords(followed: Followed, offset: Offset, error: ApiError): void {
    const why = `records of the leader were not taken: ${error.message}`;
    // The leader does not check what it sends: it reads its disk again when it hears of it, and lets another one lead.
    followed.gotDamage = error.errorName === "CORRUPT_MESSAGE";
    if (!(followed.gotDamage || error.errorName === "INVALID_RECORD") || followed.refusedAt === offset) {
      this.#onNotTaken(followed, why);
      return;
    }
    followed.refusedAt = offset;
    this.#parts.logger.info(`${followed.partition.name}: ${why}; they are asked for again`);
    this.#markChanged(followed);
  }

  #onNotTaken(followed: Followed, why: string): void {
    // The leader is to hear of a full disk at once, and then every now and then, without a word in the log for each time.
    const isNews = followed.partition.log.isFull && !followed.saidUnfit;
    this.#retryAfter(followed, isNews ? RETRY_SOON_MS : RETRY_LATER_MS, followed.saidUnfit ? undefined : why);
  }

  /** What cannot be followed yet is told again: the next fetch says that it was not. */
  #followLogStart(partition: Partition, leaderStart: Offset | undefined): void {
    const { log } = partition;
    if (leaderStart === undefined || leaderStart <= log.logStartOffset || leaderStart > log.highWatermark) return;
    log.advanceLogStart(leaderStart).catch((error: unknown) => {
      this.#parts.logger.warn(
        `${partition.name}: the log start offset could not follow the leader's: ${reasonOf(error)}`,
      );
    });
  }

  #onDiverging(
    followed: Followed,
    fetched: FetchedPartition,
    diverging: NonNullable<FetchedPartition["diverging"]>,
  ): void {
    const leaderEpoch = diverging.leaderEpochPlusOne - 1;
    const leaderEndOffset = toOffset(diverging.endOffset);
    const { logStartOffset } = followed.partition.log;
    // The leader has deleted all that the two logs had in common. A cut would end the log before what was committed, and if
    // this replica were elected before it has fetched anything it would give those offsets out again.
    const nothingInCommon = leaderEpoch < 0 && diverging.endOffset <= fetched.logStartOffset;
    if (nothingInCommon && leaderEndOffset > logStartOffset)
      this.#startAnew(followed, leaderEndOffset, "the log start offset");
    // All that is here was written after the two logs parted, and where it begins means nothing for what the leader has since.
    else if (leaderEndOffset < logStartOffset)
      this.#startAnew(followed, leaderEndOffset, "where what both had ends in the log");
    else this.#truncate(followed, leaderEpoch, leaderEndOffset);
  }

  /** Cuts the log where it and the leader's part: never by high watermark, only by epoch (KIP-101, KIP-279). */
  #truncate(followed: Followed, leaderEpoch: LeaderEpoch, leaderEndOffset: Offset): void {
    const { partition } = followed;
    const here = leaderEpoch < 0 ? undefined : partition.log.endOffsetForEpoch(leaderEpoch);
    const target = toOffset(
      Math.max(
        partition.log.logStartOffset,
        Math.min(leaderEndOffset, here?.endOffset ?? partition.log.logStartOffset),
      ),
    );
    const why =
      partition.log.damage.length > 0
        ? `and fetches what follows again from leader ${this.leaderId}, because records are damaged here`
        : `where it and the log of leader ${this.leaderId} part`;
    this.#parts.logger.info(
      `${partition.name}: truncates its log from ${partition.log.logEndOffset} to ${target}, ${why}`,
      {
        leaderEpoch: followed.epoch,
      },
    );
    this.#whileBusy(
      followed,
      partition.log.truncateTo(target, () => this.#isCurrent(followed)),
      "its log could not be cut",
    );
  }

  /** Whatever is here lies before the leader's log, or is none of it. */
  #startAnew(followed: Followed, offset: Offset, which: string): void {
    const { partition } = followed;
    this.#parts.logger.info(
      `${partition.name}: starts anew at ${offset}, ${which} of leader ${this.leaderId}; its own log was from ${partition.log.logStartOffset} to ${partition.log.logEndOffset}`,
    );
    this.#whileBusy(
      followed,
      partition.log.truncateFullyAndStartAt(offset, () => this.#isCurrent(followed)),
      "its log could not be cut",
    );
  }

  #onRefused(followed: Followed, fetched: FetchedPartition): void {
    const name = errorNameOf(fetched.error?.code ?? -1);
    const { partition } = followed;
    const leaderStart = toOffset(fetched.logStartOffset);
    if (name === "OFFSET_OUT_OF_RANGE" && partition.log.logEndOffset < leaderStart) {
      this.#startAnew(followed, leaderStart, "the log start offset");
      return;
    }
    const soon =
      name === "NOT_LEADER_OR_FOLLOWER" ||
      name === "UNKNOWN_LEADER_EPOCH" ||
      name === "FENCED_LEADER_EPOCH" ||
      name === "UNKNOWN_TOPIC_ID";
    this.#retryAfter(
      followed,
      soon ? RETRY_SOON_MS : RETRY_LATER_MS,
      soon ? undefined : `leader ${this.leaderId} refused its fetch: ${name}: ${fetched.error?.message ?? ""}`,
    );
  }

  #whileBusy(followed: Followed, work: Promise<void>, failure: string): void {
    followed.busy = true;
    work.then(
      () => this.#resume(followed),
      (error: unknown) => this.#retryAfter(followed, RETRY_LATER_MS, `${failure}: ${reasonOf(error)}`),
    );
  }

  #retryAfter(followed: Followed, delayMs: number, why: string | undefined): void {
    if (why !== undefined) this.#parts.logger.warn(`${followed.partition.name}: ${why}`);
    followed.busy = true;
    this.#parts.env.timers.after(delayMs, () => this.#resume(followed));
  }

  #resume(followed: Followed): void {
    followed.busy = false;
    if (!this.#closed && this.#isCurrent(followed)) this.#markChanged(followed);
  }

  // -- Connection -----------------------------------------------------------------------------------------------------

  #connect(): void {
    if (this.#connecting || this.#reconnect !== undefined) return;
    if (this.#parts.identity() === undefined) {
      this.#reconnectLater();
      return;
    }
    this.#connecting = true;
    let lost = false;
    const opened: { connection?: RpcConnection } = {};
    const onClosed = (): void => {
      lost = true;
      if (opened.connection !== undefined) this.#onConnectionLost(opened.connection);
    };
    this.#parts.connect(this.leaderId, onClosed).then(
      (connection) => {
        this.#connecting = false;
        if (this.#closed || lost) {
          connection.close();
          if (!this.#closed) this.#reconnectLater();
          return;
        }
        opened.connection = connection;
        this.#connection = connection;
        this.#resetSession();
        this.#pump();
      },
      (error: unknown) => {
        this.#connecting = false;
        this.#parts.logger.debug(`broker ${this.leaderId} cannot be reached for fetching: ${reasonOf(error)}`);
        this.#reconnectLater();
      },
    );
  }

  #onConnectionLost(connection: RpcConnection): void {
    if (this.#connection !== connection) return;
    this.#connection = undefined;
    this.#inFlight = 0;
    this.#reconnectLater();
  }

  #reconnectLater(): void {
    if (this.#closed || this.#reconnect !== undefined) return;
    this.#reconnect = this.#parts.env.timers.after(this.#reconnectMs, () => {
      this.#reconnect = undefined;
      this.#pump();
    });
    this.#reconnectMs = Math.min(this.#reconnectMs * 2, RECONNECT_MS_MAX);
  }

  #resetSession(): void {
    this.#session = { id: 0, epoch: 1 };
    this.#forgotten.clear();
    for (const followed of this.#followed.values()) {
      followed.firstNamedIn = undefined;
      followed.asks = undefined;
      this.#changed.add(followed);
    }
  }
}

/** How many bytes stand before the first batch that is not as its leader stamped it; 0 also where none is. */
function beforeDamage(records: Buffer): number {
  for (let position = 0; position < records.length;) {
    try {
      const batch = readBatch(records, position);
      batch.verify();
      position = batch.end;
    } catch (error) {
      if (error instanceof BatchFault) return position;
      throw error;
    }
  }
  return 0;
}
