import { EarliestTimer } from "../common/earliest-timer.js";
import type { Env } from "../common/env/env.js";
import type { BrokerId } from "../protocol/types.js";
import type { ConnectionSettings } from "./broker-connections.js";
import { BrokerConnections } from "./broker-connections.js";
import type { ClientError } from "./errors.js";
import { ConnectionError, ProtocolError } from "./errors.js";
import { noConnectionError } from "./produce-errors.js";
import type { FetchHost, FetchSettings } from "./fetch-loop.js";
import { FetchLoop } from "./fetch-loop.js";
import { FramePool } from "./frame-pool.js";
import type { Metadata } from "./metadata.js";
import type { PartitionReader } from "./partition-reader.js";

/** What a fetcher shares with the rest of its cluster object. */
export interface FetcherContext {
  readonly env: Env;
  readonly metadata: Metadata;
  readonly connectionSettings: ConnectionSettings;
}

/** What a fetcher tells its consumer: what its loops tell, and when it is time to look after what else may go wrong. */
export interface FetcherEvents extends Pick<FetchHost, "onFetched" | "onDamaged" | "onPartitionError" | "onRefused"> {
  onCheck(arrives: boolean): void;
}

/** How often silent leaders are looked for while something is read. */
const CHECK_MS = 100;
/** How soon a connection that was not there is asked for again. */
const AGAIN_MS = 20;

/**
 * Has the partitions of one consumer fetched: each by the loop to its leader, over connections of their own. It follows
 * leaders that move, and does not wait for one that stays silent and was replaced.
 */
export class Fetcher {
  readonly #env: Env;
  readonly #metadata: Metadata;
  readonly #frames: FramePool;
  readonly #connections: BrokerConnections;
  readonly #host: FetchHost;
  readonly #loops = new Map<BrokerId, FetchLoop>();
  readonly #timer: EarliestTimer;
  #isRunning = false;
  #reusesMemory = false;

  constructor(
    context: FetcherContext,
    settings: FetchSettings,
    private readonly events: FetcherEvents,
  ) {
    const { env, metadata, connectionSettings } = context;
    this.#env = env;
    this.#metadata = metadata;
    this.#frames = new FramePool(2 * settings.prefetchBytes);
    this.#connections = new BrokerConnections(
      env,
      metadata,
      connectionSettings,
      () => this.wake(),
      (bytes) => (this.#reusesMemory ? this.#frames.allocate(bytes) : Buffer.allocUnsafeSlow(bytes)),
    );
    this.#timer = new EarliestTimer(env, () => this.#onTimer());
    this.#host = this.#fetchHost(settings);
  }

  /** Whether anything is asked for. */
  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** `reusesMemory`: chunks are released when they have been read, and nobody keeps anything of them. */
  start(reusesMemory: boolean): void {
    this.#isRunning = true;
    this.#reusesMemory = reusesMemory;
  }

  /** Asks for nothing more. Answers that are under way are of no use. */
  stop(): void {
    this.#isRunning = false;
    this.#timer.cancel();
  }

  /** Stops for good, and ends the connections. */
  close(): void {
    this.stop();
    this.#connections.close();
  }

  /** Gives each partition to the loop of its leader. */
  assign(readers: readonly PartitionReader[]): void {
    const metadata = this.#metadata;
    const nowMs = this.#env.clock.monotonicMs();
    for (const reader of readers) {
      const leader = metadata.leaderOf(reader.topic, reader.partition);
      if (leader === undefined) {
        metadata.refreshSoon();
        continue;
      }
      if (leader.leaderEpoch !== reader.failedEpoch) reader.notBeforeMs = 0;
      // Asking on, so that a new leader is seen when it is there, and not only at the next attempt.
      if (reader.notBeforeMs > nowMs || this.#connections.isFailing(leader.leaderId)) metadata.refreshSoon();
      if (reader.loop?.brokerId !== leader.leaderId) this.#move(reader, leader.leaderId, nowMs);
    }
    this.wake();
    this.wakeAt(nowMs + CHECK_MS);
  }

  /** Something may have to be asked: a partition was added, resumed or moved. */
  wake(): void {
    for (const loop of this.#loops.values()) loop.wake();
  }

  /** What is in the way of reading a partition now; undefined: nothing that is known. */
  troubleOf(reader: PartitionReader): ClientError | undefined {
    const leader = this.#metadata.leaderOf(reader.topic, reader.partition);
    if (leader === undefined) return new ProtocolError("LEADER_NOT_AVAILABLE", undefined);
    const brokerId = leader.leaderId;
    if (this.#connections.isFailing(brokerId))
      return noConnectionError(brokerId, this.#connections.failureOf(brokerId));
    const loop = this.#loops.get(brokerId);
    if (loop !== undefined && loop.overdueMs(this.#env.clock.monotonicMs()) >= 0)
      return new ConnectionError(`its leader, broker ${brokerId}, has not answered`, { brokerId });
    if (reader.trouble !== undefined) return reader.trouble;
    if (loop?.lastError !== undefined) return noConnectionError(brokerId, loop.lastError);
    return reader.isShortOfRecords
      ? new ConnectionError(`its leader, broker ${brokerId}, answers without the records that it says there are`, {
          brokerId,
        })
      : undefined;
  }

  /** Does so at this time of the monotonic clock, or before. */
  wakeAt(timeMs: number): void {
    if (this.#isRunning) this.#timer.wakeAt(timeMs);
  }

  #fetchHost(settings: FetchSettings): FetchHost {
    const { events } = this;
    const metadata = this.#metadata;
    const isReading = (): boolean => this.#isRunning;
    return {
      env: this.#env,
      settings,
      get isReading(): boolean {
        return isReading();
      },
      connectionTo: (brokerId) => {
        const connection = this.#connections.tryGet(brokerId);
        if (connection === undefined) this.wakeAt(this.#env.clock.monotonicMs() + AGAIN_MS);
        return connection;
      },
      leaderEpochOf: (reader) => metadata.leaderOf(reader.topic, reader.partition)?.leaderEpoch,
      onFetched: events.onFetched,
      onDamaged: events.onDamaged,
      onPartitionError: events.onPartitionError,
      onRefused: events.onRefused,
      onTrouble: (brokerId) => metadata.onTrouble(brokerId),
      wakeAt: (timeMs) => this.wakeAt(timeMs),
      frameOf: (records) => (this.#reusesMemory ? this.#frames.frameOf(records) : undefined),
    };
  }

  #move(reader: PartitionReader, leaderId: BrokerId, nowMs: number): void {
    const old = reader.loop === undefined ? undefined : this.#loops.get(reader.loop.brokerId);
    old?.readers.delete(reader);
    const loop = this.#loopTo(leaderId);
    reader.loop = loop;
    loop.readers.add(reader);
    // It stays silent, and has lost a partition to another.
    if (old !== undefined && old.overdueMs(nowMs) >= 0) this.#leave(old);
  }

  /** A broker that stays silent is not waited for any more. */
  #leave(loop: FetchLoop): void {
    this.#connections.drop(loop.brokerId);
    loop.abandon();
  }

  #loopTo(brokerId: BrokerId): FetchLoop {
    let loop = this.#loops.get(brokerId);
    if (loop === undefined) {
      loop = new FetchLoop(this.#host, brokerId);
      this.#loops.set(brokerId, loop);
    }
    return loop;
  }

  #onTimer(): void {
    const nowMs = this.#env.clock.monotonicMs();
    let arrives = false;
    for (const loop of this.#loops.values()) {
      if (loop.arrives()) arrives = true;
      const overdueMs = loop.overdueMs(nowMs);
      if (overdueMs < 0) continue;
      if (loop.readers.size === 0) this.#leave(loop);
      else this.#onOverdue(loop);
    }
    this.events.onCheck(arrives);
    this.wake();
    this.wakeAt(nowMs + CHECK_MS);
  }

  #onOverdue(loop: FetchLoop): void {
    this.#metadata.onTrouble(loop.brokerId);
    this.#connections.onSilence(loop.brokerId);
  }
}
