import type { Env } from "../common/env/env.js";
import type { Timer } from "../common/env/time.js";
import { throwUncaught } from "../common/env/time.js";
import { formatAddress } from "../common/host-port.js";
import type { Logger } from "../common/logger.js";
import { reasonOf } from "../common/logger.js";
import { ApiError, errorNameOf } from "../protocol/error-codes.js";
import type {
  ErrorDetail,
  Init,
  LeaderHint,
  MetadataRequest,
  MetadataResponse,
  TopicMetadata,
} from "../protocol/messages.js";
import type { RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerId, LeaderEpoch, PartitionEpoch, TopicId } from "../protocol/types.js";
import type { BrokerAddress, BrokerDirectory, ConnectionSettings } from "./broker-connections.js";
import { BrokerConnections, checkCluster, openConnection } from "./broker-connections.js";
import { ConnectionError } from "./errors.js";
import { MetadataProbe } from "./metadata-probe.js";
import type { Deadline } from "./retry.js";

/** A partition as the cluster last described it. */
export interface KnownPartition {
  readonly partition: number;
  /** -1: it has no leader. */
  readonly leaderId: BrokerId;
  readonly leaderEpoch: LeaderEpoch;
  readonly partitionEpoch: PartitionEpoch;
  readonly replicas: readonly BrokerId[];
  readonly isr: readonly BrokerId[];
  /** Replicas outside the ISR that still hold every committed record. */
  readonly elr: readonly BrokerId[];
}

/** A topic as the cluster last described it. `partitions[n]` is partition n. */
export interface KnownTopic {
  readonly name: string;
  readonly topicId: TopicId;
  readonly partitions: readonly KnownPartition[];
  /** The largest batch that it accepts, in bytes. */
  readonly batchBytesMax: number;
}

/** A live broker, at the listener that this client uses. */
export interface KnownBroker extends BrokerAddress {
  readonly id: BrokerId;
  readonly rack: string | null;
  /** czxid of its registration, decimal digits. */
  readonly epoch: string;
}

/** Times that rule how a client keeps up with its cluster. */
export interface MetadataSettings extends ConnectionSettings {
  readonly metadataMaxAgeMs: number;
}

/** Another broker is asked when one has not answered for so long. */
export const SILENCE_MS = 500;
/** While there is trouble the cluster is asked about it at least this often, and at most that often. */
const REFRESH_MS_MIN = 20;
const REFRESH_MS_MAX = 250;
/** Trouble is over when nobody has asked for a refresh for so long. */
const CALM_MS = 1000;
/** A broker that failed is asked last for so long. */
const SUSPECT_MS = 1000;
/** One log line about an unreachable cluster in so long. */
const COMPLAINT_MS = 5000;
/** Whoever is to be believed that the addresses belong to another cluster has been saying so for so long. */
const FOREIGN_MS = 1000;
/** A refusal that was told is told to others who wait for the same topic for so long, though it is not asked for any more. */
const TOLD_MS = 2000;
/** A topic that is said not to exist, and that nobody has asked about for so long, is not asked for any more. */
const UNSOUGHT_MS = 60_000;
/** So many brokers that do not answer are named in an error. */
const REASONS_MAX = 5;

/** A topic that the cluster refuses to describe. Times are of the monotonic clock. */
interface RefusedTopic extends ErrorDetail {
  /** When it was asked the first time of those that it has refused since. */
  readonly sinceMs: number;
  /** When it was asked the last time. */
  readonly askedMs: number;
  /** When somebody here wanted to know of it the last time. */
  soughtMs: number;
  /** Somebody was told. */
  isTold: boolean;
}

/** Those that answer belong to another cluster. */
interface ForeignCluster {
  readonly error: ApiError;
  /** Since when (monotonic) they have said so. */
  readonly sinceMs: number;
}

type Source = { readonly brokerId: BrokerId } | { readonly address: BrokerAddress };

/**
 * What a client knows of its cluster: brokers, controller, and for each topic that somebody here uses its id and leaders.
 *
 * It is kept current in three ways: every refusal that hints at a new leader is believed if its epoch is newer; every
 * sign of trouble asks the cluster again, soon and, as long as trouble lasts, again and again with growing pauses; and a
 * slow timer finds what nobody has complained about. A leader is only ever replaced by one of a newer epoch, as brokers
 * learn of changes at different times. A broker that stays silent for half a second is not waited for: another is asked.
 */
export class Metadata implements BrokerDirectory {
  /** For requests that are neither data nor fetching: metadata, administration, offsets, producer ids. */
  readonly control: BrokerConnections;
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #settings: MetadataSettings;
  readonly #bootstrap: readonly BrokerAddress[];
  readonly #brokers = new Map<BrokerId, KnownBroker>();
  readonly #topics = new Map<string, KnownTopic>();
  /** When (monotonic) the question was asked that they were described in answer to. */
  readonly #describedMs = new Map<string, number>();
  /** Names in use here, with the refusal where the cluster says that there is no such topic. */
  readonly #wanted = new Map<string, RefusedTopic | undefined>();
  /** Denials of names that are not wanted any more, since they were told: when (monotonic) that was, oldest first. */
  readonly #told = new Map<string, { readonly refused: RefusedTopic; readonly toldMs: number }>();
  /** Names in `#wanted` that are there for the sake of so many calls only. */
  readonly #borrowed = new Map<string, number>();
  readonly #suspectUntilMs = new Map<BrokerId, number>();
  /** Whom the cluster was asked through since it answered last, and why that came to nothing. By address. */
  readonly #failures = new Map<string, { readonly reason: string; readonly cause?: unknown }>();
  readonly #listeners = new Set<() => void>();
  readonly #waiting = new Set<() => void>();
  #foreign: ForeignCluster | undefined;
  #clusterId = "";
  #controllerId: BrokerId = -1;
  #controllerEpoch = 0;
  #wish = false;
  #running = false;
  #troubleSinceMs = Number.NEGATIVE_INFINITY;
  #lastWishMs = Number.NEGATIVE_INFINITY;
  #lastStartMs = Number.NEGATIVE_INFINITY;
  #lastComplaintMs = Number.NEGATIVE_INFINITY;
  #turn = 0;
  #pause: { readonly timer: Timer; readonly wake: () => void } | undefined;
  #ageTimer: Timer | undefined;
  /** Ends the question that is under way, if one is. */
  #giveUpQuestion: (why: string) => void = () => undefined;
  /** Aborted when this is closed: ends attempts to connect. */
  readonly #ended = new AbortController();
  #closed = false;

  constructor(env: Env, logger: Logger, settings: MetadataSettings, bootstrap: readonly BrokerAddress[]) {
    this.#env = env;
    this.#logger = logger;
    this.#settings = settings;
    this.#bootstrap = bootstrap;
    this.control = new BrokerConnections(env, this, settings);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  get clusterId(): string {
    return this.#clusterId;
  }

  /** -1: none is known. */
  get controllerId(): BrokerId {
    return this.#controllerId;
  }

  get controllerEpoch(): number {
    return this.#controllerEpoch;
  }

  /** Live brokers, by id. */
  get brokers(): KnownBroker[] {
    return [...this.#brokers.values()].sort((left, right) => left.id - right.id);
  }

  addressOf(brokerId: BrokerId): BrokerAddress | undefined {
    return this.#brokers.get(brokerId);
  }

  epochOf(brokerId: BrokerId): string | undefined {
    return this.#brokers.get(brokerId)?.epoch;
  }

  topic(name: string): KnownTopic | undefined {
    return this.#topics.get(name);
  }

  /** When (monotonic) the cluster was asked for what it described last of the topic; undefined: it is not known. */
  describedMs(topic: string): number | undefined {
    return this.#describedMs.get(topic);
  }

  /** The leader's entry of a partition; undefined when the topic, the partition or its leader is not known. */
  leaderOf(topic: string, partition: number): KnownPartition | undefined {
    const known = this.#topics.get(topic)?.partitions[partition];
    return known === undefined || known.leaderId < 0 ? undefined : known;
  }

  /**
   * Why nothing can be had of the cluster: all that answer at its addresses belong to another one. They may be its own
   * again later.
   */
  get foreignRefusal(): ApiError | undefined {
    const foreign = this.#foreign;
    return foreign !== undefined && this.#env.clock.monotonicMs() - foreign.sinceMs >= FOREIGN_MS
      ? foreign.error
      : undefined;
  }

  /**
   * Why the cluster does not describe a topic, once it has been refusing to for `forMs` whenever it was asked, `fromMs`
   * (monotonic) being when whoever wants to know began to ask. When that is because there is no such topic, what was known of
   * it is forgotten, and it is not asked for until somebody wants it again, or asks here and is not told yet.
   */
  refusalOf(topic: string, forMs: number, fromMs = Number.NEGATIVE_INFINITY): ApiError | undefined {
    const foreign = this.foreignRefusal;
    if (foreign !== undefined) return foreign;
    const nowMs = this.#env.clock.monotonicMs();
    this.#forgetTold(nowMs);
    const refused = this.#wanted.get(topic) ?? this.#told.get(topic)?.refused;
    if (refused !== undefined) refused.soughtMs = nowMs;
    if (refused === undefined || refused.askedMs - Math.max(refused.sinceMs, fromMs) < forMs) {
      this.#wantAgain(topic);
      return undefined;
    }
    refused.isTold = true;
    if (isDenial(refused) && this.#wanted.delete(topic)) {
      this.#told.set(topic, { refused, toldMs: nowMs });
      this.#forget(topic);
    }
    return new ApiError(errorNameOf(refused.code), refused.message);
  }

  /** Somebody waits for the topic still, though another one was told that there is none. */
  #wantAgain(topic: string): void {
    if (this.#wanted.has(topic)) return;
    this.#told.delete(topic);
    this.#wanted.set(topic, undefined);
    this.refreshSoon();
  }

  #forgetTold(nowMs: number): void {
    for (const [topic, { toldMs }] of this.#told) {
      if (nowMs - toldMs < TOLD_MS) return;
      this.#told.delete(topic);
    }
  }

  /** Why nobody answers: who was asked, and what came of it. Undefined while nobody has failed. */
  lookupFailure(): ConnectionError | undefined {
    const failures = [...this.#failures.values()];
    if (failures.length === 0) return undefined;
    const reasons = failures.map(({ reason }) => reason);
    const { cause } = failures[0] as { readonly cause?: unknown };
    const more = reasons.length > REASONS_MAX ? `; ${reasons.length - REASONS_MAX} more` : "";
    return new ConnectionError(`${reasons.slice(0, REASONS_MAX).join("; ")}${more}`, { cause });
  }

  /** Whether the cluster refused to describe the topic when it was asked last. */
  isRefused(topic: string): boolean {
    return this.#wanted.get(topic) !== undefined;
  }

  /** Keeps a topic current from now on, and looks it up if it is new, or was refused before. */
  want(topic: string): void {
    this.#borrowed.delete(topic);
    if (this.#wanted.has(topic) && this.#wanted.get(topic)?.isTold !== true) return;
    this.#told.delete(topic);
    this.#wanted.set(topic, undefined);
    this.refreshSoon();
  }

  /** Takes in what was told about topics that nobody here uses, and keeps them current until the result is called. */
  borrow(topics: readonly TopicMetadata[]): () => void {
    const names = topics.map(({ name }) => name).filter((name) => !this.#wanted.has(name) || this.#borrowed.has(name));
    for (const name of names) {
      this.#borrowed.set(name, (this.#borrowed.get(name) ?? 0) + 1);
      this.#wanted.set(name, undefined);
    }
    for (const topic of topics) this.#applyTopic(topic, this.#env.clock.monotonicMs());
    // Records may wait for one of them: whatever is handed over from now on comes behind those.
    this.#tell();
    return () => {
      for (const name of names) {
        const count = this.#borrowed.get(name);
        // Wanted for good meanwhile.
        if (count === undefined) continue;
        this.#borrowed.set(name, count - 1);
        if (count > 1) continue;
        this.#borrowed.delete(name);
        this.#wanted.delete(name);
        this.#forget(name);
      }
    };
  }

  /** Calls `listener` after each change; returns what ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves after the next answer of the cluster or after `timeoutMs`, whichever is first. */
  nextAnswer(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiting.delete(done);
        timer.cancel();
        resolve();
      };
      const timer = this.#env.timers.after(timeoutMs, done);
      this.#waiting.add(done);
    });
  }

  /**
   * Finds the cluster through its bootstrap addresses. Rejects with TransportError or ApiError when none answers in
   * time.
   */
  async start(deadline: Deadline): Promise<void> {
    for (;;) {
      try {
        const askedMs = this.#env.clock.monotonicMs();
        this.apply(await this.#ask({ noTopics: true }), askedMs);
        this.#ageTimer = this.#env.timers.after(this.#settings.metadataMaxAgeMs, () => this.#onAge());
        return;
      } catch (error) {
        if (deadline.isOver) throw error;
        await this.#sleep(Math.min(REFRESH_MS_MAX, deadline.leftMs));
        if (this.#closed) throw error;
      }
    }
  }

  /** Asks the cluster again, soon; many wishes become one question. */
  refreshSoon(): void {
    if (this.#closed) return;
    const nowMs = this.#env.clock.monotonicMs();
    if (nowMs - this.#lastWishMs > CALM_MS) {
      this.#troubleSinceMs = nowMs;
      this.#turn = 0;
    }
    this.#lastWishMs = nowMs;
    this.#wish = true;
    if (!this.#running) {
      this.#running = true;
      this.#run().catch((error: unknown) => this.#fail(error));
    }
  }

  onTrouble(brokerId: BrokerId): void {
    this.suspect(brokerId);
    this.refreshSoon();
  }

  /** Other brokers are asked before this one, for a while. */
  suspect(brokerId: BrokerId): void {
    this.#suspectUntilMs.set(brokerId, this.#env.clock.monotonicMs() + SUSPECT_MS);
  }

  /** Believes what a refusal said about the new leader, if it is newer than what is known. */
  believe(topic: string, partition: number, hint: LeaderHint | null): void {
    const known = this.#topics.get(topic);
    const old = known?.partitions[partition];
    if (hint === null || hint.leaderId < 0 || known === undefined || old === undefined) return;
    if (hint.leaderEpoch <= old.leaderEpoch) return;
    if (hint.host !== "" && !this.#brokers.has(hint.leaderId)) {
      this.#brokers.set(hint.leaderId, {
        id: hint.leaderId,
        host: hint.host,
        port: hint.port,
        rack: null,
        epoch: "0",
      });
    }
    const partitions = [...known.partitions];
    partitions[partition] = { ...old, leaderId: hint.leaderId, leaderEpoch: hint.leaderEpoch };
    this.#topics.set(topic, { ...known, partitions });
    this.#tell();
  }

  /**
   * Takes in an answer to a question of `askedMs` (monotonic): the brokers, the controller, and what it says of topics
   * that are in use.
   */
  apply(response: MetadataResponse, askedMs: number): void {
    this.#foreign = undefined;
    this.#failures.clear();
    this.#clusterId = response.clusterId;
    if (response.controllerEpoch >= this.#controllerEpoch) {
      this.#controllerEpoch = response.controllerEpoch;
      this.#controllerId = response.controllerId;
    }
    // A broker that has just started may not know the others yet: an empty list is no news.
    if (response.brokers.length > 0) {
      this.#brokers.clear();
      for (const broker of response.brokers) {
        this.#brokers.set(broker.id, {
          id: broker.id,
          host: broker.host,
          port: broker.port,
          rack: broker.rack,
          epoch: broker.epoch,
        });
      }
    }
    for (const topic of response.topics) this.#applyTopic(topic, askedMs);
    this.#tell();
  }

  /** Brokers in the order in which they should be asked: those with an open connection first, suspects last. */
  candidates(): BrokerId[] {
    const nowMs = this.#env.clock.monotonicMs();
    const rank = (brokerId: BrokerId): number =>
      ((this.#suspectUntilMs.get(brokerId) ?? 0) > nowMs ? 2 : 0) + (this.control.isOpen(brokerId) ? 0 : 1);
    return [...this.#brokers.keys()].sort((left, right) => rank(left) - rank(right));
  }

  /** `why`: what a question that is under way fails with. */
  close(why = "the client is closed"): void {
    this.#closed = true;
    this.#ended.abort();
    this.#wish = false;
    this.#ageTimer?.cancel();
    this.#pause?.wake();
    this.control.close();
    this.#giveUpQuestion(why);
    for (const done of [...this.#waiting]) done();
    this.#listeners.clear();
  }

  async #run(): Promise<void> {
    try {
      while (this.#wish && !this.#closed) {
        // The pause grows with the trouble, so a change is seen within a fraction of the time that it took.
        const troubleMs = this.#env.clock.monotonicMs() - this.#troubleSinceMs;
        const pauseMs = Math.min(REFRESH_MS_MAX, Math.max(REFRESH_MS_MIN, troubleMs / 6));
        const waitMs = this.#lastStartMs + pauseMs - this.#env.clock.monotonicMs();
        if (waitMs > 0) await this.#sleep(waitMs);
        if (this.#closed) break;
        this.#wish = false;
        const askedMs = this.#env.clock.monotonicMs();
        this.#lastStartMs = askedMs;
        const topics = [...this.#wanted.keys()];
        try {
          this.apply(await this.#ask(topics.length === 0 ? { noTopics: true } : { topics }, this.#turn++), askedMs);
        } catch (error) {
          this.#complain(error);
          this.#lastWishMs = this.#env.clock.monotonicMs();
          this.#wish = true;
        }
        for (const done of [...this.#waiting]) done();
      }
    } finally {
      // Also after an exception: it must not be the end of all looking up.
      this.#running = false;
    }
  }

  #complain(error: unknown): void {
    if (!(error instanceof TransportError || error instanceof ApiError)) throw error;
    const nowMs = this.#env.clock.monotonicMs();
    this.#foreign = isForeign(error) ? { error, sinceMs: this.#foreign?.sinceMs ?? nowMs } : undefined;
    if (this.#closed || nowMs - this.#lastComplaintMs < COMPLAINT_MS) return;
    this.#lastComplaintMs = nowMs;
    this.#logger.warn("no broker answers a question for metadata; asking on", { reason: reasonOf(error) });
  }

  /** A fault of this library: it must not pass in silence. */
  #fail(error: unknown): void {
    throwUncaught(this.#env.timers, error);
  }

  /**
   * Resolves with the first answer. Asks the next source when one fails, or stays silent for SILENCE_MS. When all were
   * asked it goes round again as long as some of them may still answer, over connections of their own: behind the silent
   * ones may be processes that are gone, whose successors know nothing of the question.
   */
  #ask(request: Init<MetadataRequest>, turn = 0): Promise<MetadataResponse> {
    const sources = this.#sources(turn);
    const probes = sources.map((source) => this.#probeOf(source));
    return new Promise((resolve, reject) => {
      let next = 0;
      let waitingFor = 0;
      let foreign: ApiError | undefined;
      let timer: Timer | undefined;
      let settled = false;
      const settle = (act: () => void): void => {
        if (settled) return;
        settled = true;
        timer?.cancel();
        for (const probe of probes) probe.end();
        act();
      };
      const fail = (error: unknown): void => settle(() => reject(error as Error));
      this.#giveUpQuestion = (why) => fail(new TransportError("connect", true, undefined, why));
      const askNext = (): void => {
        if (settled) return;
        timer?.cancel();
        const index = next % sources.length;
        const source = sources[index];
        if (source === undefined) {
          fail(new TransportError("connect", true, undefined, "no broker is known"));
          return;
        }
        const address = this.#textOf(source);
        const isFirstRound = next < sources.length;
        const onFailed = (reason: string, cause?: unknown): void => {
          if ("brokerId" in source) this.suspect(source.brokerId);
          // In later rounds nothing new is found out.
          if (isFirstRound && !settled) this.#failures.set(address, { reason, cause });
        };
        timer = this.#env.timers.after(SILENCE_MS, () => {
          onFailed(`${address} has not answered`);
          if ("brokerId" in source) this.control.onSilence(source.brokerId);
          askNext();
        });
        next += 1;
        if (next > sources.length) {
          const onAnswer = (response: MetadataResponse | undefined): void => {
            const isOurs = this.#clusterId === "" || response?.clusterId === this.#clusterId;
            if (response !== undefined && isOurs) settle(() => resolve(response));
          };
          probes[index]?.ask(request).then(onAnswer, fail);
          return;
        }
        waitingFor += 1;
        this.#askOne(source, request).then(
          (response) => settle(() => resolve(response)),
          (error: unknown) => {
            waitingFor -= 1;
            onFailed(reasonOf(error), error);
            if (isForeign(error)) foreign = error;
            if (next < sources.length) askNext();
            else if (waitingFor === 0) fail(foreign ?? error);
          },
        );
      };
      askNext();
    });
  }

  #addressOf(source: Source): BrokerAddress | undefined {
    return "brokerId" in source ? this.#brokers.get(source.brokerId) : source.address;
  }

  #textOf(source: Source): string {
    const address = this.#addressOf(source);
    if (address !== undefined) return formatAddress(address);
    return "brokerId" in source ? `broker ${source.brokerId}` : "";
  }

  #probeOf(source: Source): MetadataProbe {
    const address = this.#addressOf(source);
    const host = { clusterId: this.#clusterId, adopt: (connection: RpcConnection) => this.control.adopt(connection) };
    return new MetadataProbe(this.#env, this.#settings, host, address);
  }

  async #askOne(source: Source, request: Init<MetadataRequest>): Promise<MetadataResponse> {
    const connection = await ("brokerId" in source ? this.#open(source.brokerId) : this.#knock(source.address));
    const { body } = await connection.request("metadata", request);
    checkCluster(body.clusterId, this.#clusterId || connection.peer.clusterId, connection.address);
    return body;
  }

  /** The connection to a broker, or to whoever has its address now: that one knows as well where the others are. */
  async #open(brokerId: BrokerId): Promise<RpcConnection> {
    const address = this.#brokers.get(brokerId);
    try {
      return await this.control.open(brokerId);
    } catch (error) {
      if (!(error instanceof ApiError) || error.errorName !== "WRONG_BROKER" || address === undefined) throw error;
      return this.#knock(address);
    }
  }

  /** Opens a connection by address, and keeps it as the control connection of whoever answers there. */
  async #knock(address: BrokerAddress): Promise<RpcConnection> {
    let onEnded = (): void => undefined;
    const connection = await openConnection(
      this.#env,
      address,
      this.#clusterId,
      { ...this.#settings, signal: this.#ended.signal },
      () => onEnded(),
    );
    const onAdoptedEnded = this.control.adopt(connection);
    if (onAdoptedEnded === undefined) return this.control.open(connection.peer.brokerId);
    onEnded = onAdoptedEnded;
    return connection;
  }

  /**
   * Known brokers first, then the bootstrap addresses that are none of theirs. In trouble each question begins
   * elsewhere.
   */
  #sources(turn: number): Source[] {
    const nowMs = this.#env.clock.monotonicMs();
    const known = this.candidates();
    const trusted = known.filter((brokerId) => (this.#suspectUntilMs.get(brokerId) ?? 0) <= nowMs);
    const suspects = known.filter((brokerId) => !trusted.includes(brokerId));
    const shift = trusted.length === 0 ? 0 : turn % trusted.length;
    const taken = new Set([...this.#brokers.values()].map(({ host, port }) => `${host}:${port}`));
    return [
      ...[...trusted.slice(shift), ...trusted.slice(0, shift)].map((brokerId) => ({ brokerId })),
      ...suspects.map((brokerId) => ({ brokerId })),
      ...this.#bootstrap.filter(({ host, port }) => !taken.has(`${host}:${port}`)).map((address) => ({ address })),
    ];
  }

  #applyTopic(topic: TopicMetadata, askedMs: number): void {
    if (!this.#wanted.has(topic.name)) return;
    const { error } = topic;
    if (error !== null) {
      const former = this.#wanted.get(topic.name);
      // What one broker said long ago, and nobody has asked about since, is no beginning.
      const isOngoing = former !== undefined && askedMs - former.askedMs <= CALM_MS;
      const refused = {
        code: error.code,
        message: error.message,
        sinceMs: isOngoing ? former.sinceMs : askedMs,
        askedMs,
        soughtMs: former?.soughtMs ?? askedMs,
        isTold: former?.isTold ?? false,
      };
      this.#wanted.set(topic.name, refused);
      if (!isDenial(refused) || askedMs - refused.soughtMs < UNSOUGHT_MS || this.#borrowed.has(topic.name)) return;
      this.#wanted.delete(topic.name);
      this.#forget(topic.name);
      return;
    }
    this.#wanted.set(topic.name, undefined);
    this.#topics.set(topic.name, mergeTopic(this.#topics.get(topic.name), topic));
    this.#describedMs.set(topic.name, askedMs);
  }

  #forget(topic: string): void {
    this.#topics.delete(topic);
    this.#describedMs.delete(topic);
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #onAge(): void {
    this.refreshSoon();
    this.#ageTimer = this.#env.timers.after(this.#settings.metadataMaxAgeMs, () => this.#onAge());
  }

  /** Ends early when closed. */
  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        timer.cancel();
        this.#pause = undefined;
        resolve();
      };
      const timer = this.#env.timers.after(delayMs, wake);
      this.#pause = { timer, wake };
    });
  }
}

/** There is no such topic, which may be true for good; other refusals pass. */
const isDenial = ({ code }: ErrorDetail): boolean => errorNameOf(code) === "UNKNOWN_TOPIC_OR_PARTITION";

/** The broker belongs to another cluster than the one that was connected to. */
export const isForeign = (error: unknown): error is ApiError =>
  error instanceof ApiError && error.errorName === "INCONSISTENT_CLUSTER_ID";

/** Of a decoded message fields with default values are not its own: a copy of it would lack partition 0's number. */
function knownPartition(told: TopicMetadata["partitions"][number]): KnownPartition {
  const { partition, leaderId, leaderEpoch, partitionEpoch, replicas, isr, elr } = told;
  return { partition, leaderId, leaderEpoch, partitionEpoch, replicas, isr, elr };
}

/** What is known after an answer: of each partition the newer of two states, of a re-created topic only the new one. */
export function mergeTopic(known: KnownTopic | undefined, told: TopicMetadata): KnownTopic {
  const partitions: KnownPartition[] = [];
  for (const one of told.partitions) partitions[one.partition] = knownPartition(one);
  if (known !== undefined && known.topicId === told.topicId) {
    for (const old of known.partitions) {
      const fresh = partitions[old.partition];
      if (
        fresh === undefined ||
        fresh.leaderEpoch < old.leaderEpoch ||
        (fresh.leaderEpoch === old.leaderEpoch && fresh.partitionEpoch < old.partitionEpoch)
      ) {
        partitions[old.partition] = old;
      }
    }
  }
  return { name: told.name, topicId: told.topicId, partitions, batchBytesMax: told.maxBatchBytes };
}
