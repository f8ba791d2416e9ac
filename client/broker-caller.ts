import type { Env } from "../common/env/env.js";
import type { Timer } from "../common/env/time.js";
import { onAbort } from "../common/on-abort.js";
import { ApiError, errorCodes, errorNameOf } from "../protocol/error-codes.js";
import type { ErrorName } from "../protocol/error-codes.js";
import type { RequestKind } from "../protocol/api-keys.js";
import type { RequestBody, ResponseBody } from "../protocol/message-codec.js";
import type { ErrorDetail, Init, LeaderHint } from "../protocol/messages.js";
import type { RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerId, TopicId } from "../protocol/types.js";
import {
  ClientError,
  ClosedError,
  ConnectionError,
  DeadlineExceededError,
  OutcomeUnknownError,
  ProtocolError,
  toClientError,
} from "./errors.js";
import type { KnownPartition, Metadata } from "./metadata.js";
import { SILENCE_MS, isForeign } from "./metadata.js";
import { Backoff, Deadline } from "./retry.js";

/** A request, whom to send it to, and how long to go on. */
export interface Call<Kind extends RequestKind> {
  readonly kind: Kind;
  /** Made anew for each attempt. */
  readonly body: () => Init<RequestBody<Kind>>;
  /** The right broker as far as is known now; undefined: nobody yet. */
  readonly target: () => BrokerId | undefined;
  /** For messages: "the controller", "the leader of orders-0". */
  readonly targetName: string;
  readonly deadline: Deadline;
  readonly signal?: AbortSignal | undefined;
  /** It changes nothing, though requests of its kind do. */
  readonly isQuestion?: boolean;
  /** Throws ApiError for an answer that is none. */
  readonly check?: (body: ResponseBody<Kind>, address: string) => void;
  /** An error inside an answer for whose sake the whole request should be sent again. */
  readonly retryFor?: (body: ResponseBody<Kind>) => ErrorName | undefined;
  /** An attempt has failed, and another one may follow: an ApiError or a TransportError. */
  readonly onAttemptFailed?: (error: unknown) => void;
}

/** What a call came to. */
export interface CallResult<Kind extends RequestKind> {
  readonly body: ResponseBody<Kind>;
  /** An earlier attempt was sent and not answered, or not finished in time, so this answer may be about its traces. */
  readonly afterUnknownOutcome: boolean;
  /** An earlier attempt has reached a broker, whatever it said. */
  readonly isRepeated: boolean;
}

/** Something asked of the leader of a partition. */
export interface LeaderItem {
  readonly topic: string;
  readonly partition: number;
}

/** What a leader answers for one partition. */
export interface LeaderAnswer {
  readonly error: ErrorDetail | null;
  readonly leader?: LeaderHint | null;
}

/** A request to the leaders of several partitions, each of which gets those that it leads. */
export interface LeaderCall<Kind extends RequestKind, Item extends LeaderItem, Answer extends LeaderAnswer> {
  readonly kind: Kind;
  readonly items: readonly Item[];
  readonly body: (
    items: readonly (Item & { readonly leader: KnownPartition; readonly topicId: TopicId })[],
  ) => Init<RequestBody<Kind>>;
  /** One for each item of the request, in its order. */
  readonly answers: (body: ResponseBody<Kind>) => readonly Answer[];
  readonly deadline: Deadline;
  readonly signal?: AbortSignal | undefined;
  /** Called for each item that has come to something, as soon as it has. */
  readonly onResult?: ((index: number, result: Answer | ClientError) => void) | undefined;
  /** It is not only asked but done, so an attempt that is not answered, or not to its end, may have had its effect. */
  readonly hasEffect?: boolean;
}

/**
 * How long ZOOKEEPER_UNAVAILABLE may be the answer, before it is told although it may pass: an ensemble that is away is a
 * matter for the operator, who should not wait for a deadline to hear of it. But a controller that has lost it may be
 * replaced soon by one that has not.
 */
const ZOOKEEPER_AWAY_MS = 5000;

/** Requests that change nothing. (That a producer id may have been given out in vain is nobody's concern.) */
const questions: ReadonlySet<RequestKind> = new Set<RequestKind>([
  "metadata",
  "listOffsets",
  "describeConfigs",
  "initProducerId",
]);

/**
 * Sends control requests to the broker that is right for them, and to the next right one when that changes, until there
 * is an answer or the deadline is over. For requests that may be repeated without harm.
 */
export class BrokerCaller {
  constructor(
    private readonly env: Env,
    private readonly metadata: Metadata,
    private readonly requestTimeoutMs: number,
    private readonly unknownTopicTimeoutMs: number,
  ) {}

  /** Of the monotonic clock. */
  get nowMs(): number {
    return this.env.clock.monotonicMs();
  }

  deadline(totalMs: number): Deadline {
    return new Deadline(this.env.clock, totalMs);
  }

  /** How long a broker may take over what it is asked now: its own word that it was too long is to come in time. */
  patienceMs(deadline: Deadline): number {
    return Math.max(1, Math.floor(0.9 * Math.min(this.requestTimeoutMs, deadline.leftMs)));
  }

  /** Rejects with a ClientError, or with the signal's reason. */
  async call<Kind extends RequestKind>(call: Call<Kind>): Promise<CallResult<Kind>> {
    const { deadline, signal } = call;
    const backoff = new Backoff(this.env.random);
    let lastError: unknown;
    let afterUnknownOutcome = false;
    let isRepeated = false;
    let isUnknownTopic = false;
    let zookeeperAwaySinceMs: number | undefined;
    /** Whether a refusal that may pass is told all the same. */
    const isTold = (name: ErrorName): boolean => {
      const isUnknown = name === "UNKNOWN_TOPIC_OR_PARTITION" || name === "UNKNOWN_TOPIC_ID";
      if (isUnknown && call.target === this.controller) {
        // It knows all topics, unless it is not the controller any more: that is found out before it is asked again.
        if (isUnknownTopic) return true;
        isUnknownTopic = true;
      }
      // A producer, which waits for its id in the background, goes on asking.
      if (name !== "ZOOKEEPER_UNAVAILABLE" || call.kind === "initProducerId") {
        zookeeperAwaySinceMs = undefined;
        return false;
      }
      zookeeperAwaySinceMs ??= this.nowMs;
      return this.nowMs - zookeeperAwaySinceMs >= ZOOKEEPER_AWAY_MS;
    };
    for (;;) {
      signal?.throwIfAborted();
      if (this.metadata.isClosed) throw new ClosedError("cluster");
      const foreign = this.metadata.foreignRefusal;
      if (foreign !== undefined) throw this.#givenUp(call, foreign, afterUnknownOutcome);
      if (deadline.isOver) throw this.#givenUp(call, lastError, afterUnknownOutcome);
      const brokerId = call.target();
      if (brokerId !== undefined) {
        try {
          const connection = await this.#connectionTo(brokerId, call);
          const body = await this.#ask(call, connection, brokerId);
          call.check?.(body, connection.address);
          const again = call.retryFor?.(body);
          const isLate = again !== undefined && this.#isLate(call, again);
          if (again === undefined) return { body, afterUnknownOutcome, isRepeated };
          lastError = new ApiError(again);
          if (isTold(again) || (deadline.isOver && !isLate)) {
            if (afterUnknownOutcome) throw this.#givenUp(call, lastError, true);
            return { body, afterUnknownOutcome, isRepeated };
          }
          isRepeated = true;
          if (isLate) afterUnknownOutcome = true;
          if (errorCodes[again].refreshMetadata) this.metadata.refreshSoon();
        } catch (error) {
          if (error instanceof ApiError) {
            // That one broker's address belongs to another cluster now does not mean that all do.
            if (!error.retriable && !isForeign(error)) throw toClientError(error, { brokerId });
            if (isTold(error.errorName)) throw this.#givenUp(call, error, afterUnknownOutcome);
            isRepeated = true;
            if (this.#isLate(call, error.errorName)) afterUnknownOutcome = true;
          } else if (error instanceof TransportError) {
            if (!error.notSent) {
              afterUnknownOutcome = true;
              isRepeated = true;
            }
          } else {
            throw error;
          }
          lastError = error;
          call.onAttemptFailed?.(error);
          this.metadata.onTrouble(brokerId);
        }
      } else {
        this.metadata.refreshSoon();
      }
      await this.metadata.nextAnswer(Math.min(backoff.next(), deadline.leftMs));
    }
  }

  /**
   * Asks the leader of each item, follows leaders that move, and resolves with an answer or an error for each item, in
   * their order. What one leader keeps waiting for does not hold up the others. Rejects only with the signal's reason.
   */
  async callLeaders<Kind extends RequestKind, Item extends LeaderItem, Answer extends LeaderAnswer>(
    call: LeaderCall<Kind, Item, Answer>,
  ): Promise<(Answer | ClientError)[]> {
    const { deadline, signal } = call;
    const startedMs = this.nowMs;
    const items = call.items.map((item, index): AskedItem<Item, Answer> => newItem(item, index));
    const changes = new Changes(this.env);
    const stopListening = this.metadata.onChange(() => {
      for (const one of items) if (one.state === "paused") one.state = "open";
      changes.tell();
    });
    const stopListeningToSignal = onAbort(signal, () => changes.tell());
    const backoff = new Backoff(this.env.random);
    let fault: unknown;
    /** When what is paused is asked about again, if nothing is heard of the cluster before. */
    let againAtMs: number | undefined;
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (fault !== undefined) throw fault;
        if (this.metadata.isClosed) throw new ClosedError("cluster");
        const groups = this.#byLeader(call, items, startedMs);
        for (const [brokerId, group] of deadline.isOver ? [] : groups) {
          for (const one of group) one.state = "asked";
          this.#askGroup(call, brokerId, group).then(
            () => changes.tell(),
            (error: unknown) => {
              fault ??= error;
              changes.tell();
            },
          );
        }
        const isOpen = items.some(({ state }) => state !== "over");
        const isAsked = items.some(({ state }) => state === "asked");
        if (!isOpen || (deadline.isOver && !isAsked)) return items.map((one) => resultOf(call, one));
        const isPaused = items.some(({ state }) => state === "paused");
        if (isPaused) this.metadata.refreshSoon();
        if (!isPaused || deadline.isOver) againAtMs = undefined;
        else againAtMs ??= this.nowMs + Math.min(backoff.next(), deadline.leftMs);
        // An answer that is waited for comes, or is given up, soon after the deadline.
        await changes.next(againAtMs === undefined ? undefined : againAtMs - this.nowMs);
        // Not with each answer of another leader: a broker that refuses connections would be asked again at once, for ever.
        if (againAtMs === undefined || this.nowMs < againAtMs) continue;
        againAtMs = undefined;
        for (const one of items) if (one.state === "paused") one.state = "open";
      }
    } finally {
      stopListening();
      stopListeningToSignal();
    }
  }

  /** What is to be asked now, by whom it is asked; settles or pauses what nobody can be asked about. */
  #byLeader<Kind extends RequestKind, Item extends LeaderItem, Answer extends LeaderAnswer>(
    call: LeaderCall<Kind, Item, Answer>,
    items: readonly AskedItem<Item, Answer>[],
    startedMs: number,
  ): Map<BrokerId, LedItem<Item, Answer>[]> {
    const groups = new Map<BrokerId, LedItem<Item, Answer>[]>();
    for (const one of items) {
      if (one.state !== "open" && one.state !== "paused") continue;
      const { topic, partition } = one.item;
      const refusal = this.metadata.refusalOf(topic, this.unknownTopicTimeoutMs, startedMs);
      if (refusal !== undefined) {
        settle(call, one, toClientError(refusal, { topic, partition }));
        continue;
      }
      if (one.state === "paused") continue;
      const known = this.metadata.topic(topic);
      const leader = this.metadata.leaderOf(topic, partition);
      if (known === undefined || leader === undefined) {
        one.result = this.#noLeader(one.item);
        one.state = "paused";
        const ageMs = (this.metadata.describedMs(topic) ?? startedMs) - startedMs;
        const isMissing = known !== undefined && known.partitions[partition] === undefined;
        if (isMissing && ageMs >= this.unknownTopicTimeoutMs) settle(call, one, one.result);
        continue;
      }
      const led = Object.assign(one, { led: { ...one.item, leader, topicId: known.topicId } });
      const group = groups.get(leader.leaderId);
      if (group === undefined) groups.set(leader.leaderId, [led]);
      else group.push(led);
    }
    return groups;
  }

  async #askGroup<Kind extends RequestKind, Item extends LeaderItem, Answer extends LeaderAnswer>(
    call: LeaderCall<Kind, Item, Answer>,
    brokerId: BrokerId,
    group: readonly LedItem<Item, Answer>[],
  ): Promise<void> {
    const answers = await this.#askLeader(
      call,
      brokerId,
      group.map(({ led }) => led),
    );
    group.forEach((one, index) => {
      const answer = answers[index] as Answer | ClientError;
      one.result = answer;
      if (mayBeDone(answer)) one.isInDoubt = true;
      if (!(answer instanceof ClientError) || !mayPass(answer)) {
        settle(call, one, answer);
        return;
      }
      const { topic, partition } = one.item;
      const next = this.metadata.leaderOf(topic, partition);
      const hasMoved = next !== undefined && next.leaderEpoch !== one.led.leader.leaderEpoch;
      one.state = hasMoved ? "open" : "paused";
    });
  }

  /** Any live broker; one that has just failed last. */
  readonly anyBroker = (): BrokerId | undefined => this.metadata.candidates()[0];

  /** The controller, as soon as there is one. */
  readonly controller = (): BrokerId | undefined =>
    this.metadata.controllerId < 0 ? undefined : this.metadata.controllerId;

  /** The controller was not done in time: what it has begun may be done yet. */
  #isLate<Kind extends RequestKind>(call: Call<Kind>, name: ErrorName): boolean {
    return name === "REQUEST_TIMED_OUT" && call.target === this.controller;
  }

  /** The control connection to a broker. Making it may take longer than the call has: then it is not waited for. */
  #connectionTo(
    brokerId: BrokerId,
    { deadline, signal }: Pick<Call<RequestKind>, "deadline" | "signal">,
  ): Promise<RpcConnection> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        limit.cancel();
        stopListening();
        act();
      };
      const stopListening = onAbort(signal, () => settle(() => reject(signal?.reason as Error)));
      const limit = this.env.timers.after(deadline.leftMs, () =>
        settle(() =>
          reject(new TransportError("connect", true, undefined, `there is no connection to broker ${brokerId} yet`)),
        ),
      );
      this.metadata.control.open(brokerId).then(
        (connection) => settle(() => resolve(connection)),
        (error: unknown) => settle(() => reject(error as Error)),
      );
    });
  }

  /** One attempt. A broker that is silent is left as soon as another one is known to be the right one. */
  #ask<Kind extends RequestKind>(
    call: Call<Kind>,
    connection: RpcConnection,
    brokerId: BrokerId,
  ): Promise<ResponseBody<Kind>> {
    // Before anything is armed, as it may throw.
    call.signal?.throwIfAborted();
    const body = call.body();
    if (call.deadline.isOver) {
      const what = `no time was left to ask ${connection.address}`;
      return Promise.reject(new TransportError("timeout", true, undefined, what));
    }
    return new Promise((resolve, reject) => {
      let watch: Timer | undefined;
      const settle = (act: () => void): void => {
        watch?.cancel();
        stopListening();
        stopListeningToSignal();
        act();
      };
      let isSilent = false;
      let stopListening = (): void => undefined;
      // Again and again: the first to be asked may not have heard yet that another one is right, or that it is gone.
      const watchOn = (): void => {
        watch = this.env.timers.after(SILENCE_MS, () => {
          isSilent = true;
          this.metadata.onTrouble(brokerId);
          this.metadata.control.onSilence(brokerId);
          watchOn();
        });
      };
      watchOn();
      stopListening = this.metadata.onChange(() => {
        if (!isSilent) return;
        const right = call.target();
        if (right === undefined || right === brokerId) return;
        settle(() =>
          reject(
            new TransportError("timeout", false, undefined, `${connection.address} stays silent and was replaced`),
          ),
        );
      });
      const stopListeningToSignal = onAbort(call.signal, () => settle(() => reject(call.signal?.reason as Error)));
      const timeoutMs = Math.max(1, Math.min(this.requestTimeoutMs, call.deadline.leftMs));
      connection.request(call.kind, body, { timeoutMs }).then(
        (answer) => settle(() => resolve(answer.body)),
        (error: unknown) => settle(() => reject(error as Error)),
      );
    });
  }

  async #askLeader<Kind extends RequestKind, Item extends LeaderItem, Answer extends LeaderAnswer>(
    call: LeaderCall<Kind, Item, Answer>,
    brokerId: BrokerId,
    items: readonly (Item & { readonly leader: KnownPartition; readonly topicId: TopicId })[],
  ): Promise<(Answer | ClientError)[]> {
    const stillLeads = (): BrokerId | undefined => {
      const moved = items.find((item) => this.metadata.leaderOf(item.topic, item.partition)?.leaderId !== brokerId);
      return moved === undefined ? brokerId : this.metadata.leaderOf(moved.topic, moved.partition)?.leaderId;
    };
    try {
      const connection = await this.#connectionTo(brokerId, call);
      const body = await this.#ask(
        { ...call, body: () => call.body(items), target: stillLeads, targetName: `broker ${brokerId}` },
        connection,
        brokerId,
      );
      const answers = call.answers(body);
      return items.map((item, index) => {
        const answer = answers[index];
        const place = { topic: item.topic, partition: item.partition, brokerId };
        if (answer === undefined)
          return new ProtocolError("UNKNOWN_SERVER_ERROR", "the answer leaves out the partition", place);
        if (answer.error === null) return answer;
        this.metadata.believe(item.topic, item.partition, answer.leader ?? null);
        return new ProtocolError(errorNameOf(answer.error.code), answer.error.message, place);
      });
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof TransportError)) throw error;
      if (error instanceof TransportError) this.metadata.suspect(brokerId);
      return items.map((item) => {
        const place = { topic: item.topic, partition: item.partition, brokerId };
        return error instanceof ApiError
          ? toClientError(error, place)
          : new ConnectionError(error.message, { ...place, cause: error });
      });
    }
  }

  #noLeader({ topic, partition }: LeaderItem): ClientError {
    const known = this.metadata.topic(topic);
    const name = known?.partitions[partition] === undefined ? "UNKNOWN_TOPIC_OR_PARTITION" : "LEADER_NOT_AVAILABLE";
    return new ProtocolError(name, undefined, { topic, partition });
  }

  #givenUp(
    call: Pick<Call<RequestKind>, "kind" | "targetName" | "deadline" | "isQuestion">,
    cause: unknown,
    afterUnknownOutcome: boolean,
  ): Error {
    // What is told before the deadline is a refusal.
    const what = call.deadline.isOver
      ? `${call.targetName} did not answer ${call.kind} within ${call.deadline.totalMs} ms`
      : `${call.targetName} did not answer ${call.kind} in time, and a later attempt was refused`;
    const why = cause instanceof Error ? ` (${cause.message})` : "";
    const mayBeDone = afterUnknownOutcome && call.isQuestion !== true && !questions.has(call.kind);
    if (mayBeDone) return new OutcomeUnknownError(`${what}${why}`, { cause });
    if (cause instanceof ApiError) return toClientError(cause);
    return new DeadlineExceededError(`${what}${why}`, "check that the brokers run, or allow more time", { cause });
  }
}

/**
 * Where an item of a call to leaders stands: `open`: to be asked about now; `asked`: its leader has been asked; `paused`: to
 * be asked about again, when something is heard of the cluster or a while has passed; `over`: `result` is what it came to.
 */
interface AskedItem<Item, Answer> {
  readonly item: Item;
  readonly index: number;
  state: "open" | "asked" | "paused" | "over";
  result: Answer | ClientError | undefined;
  /** An attempt may have had its effect. */
  isInDoubt: boolean;
}

/** An item as it was asked about, and as its leader is asked. */
interface LedItem<Item, Answer> extends AskedItem<Item, Answer> {
  readonly led: Item & { readonly leader: KnownPartition; readonly topicId: TopicId };
}

const newItem = <Item, Answer>(item: Item, index: number): AskedItem<Item, Answer> => ({
  item,
  index,
  state: "open",
  result: undefined,
  isInDoubt: false,
});

function settle<Kind extends RequestKind, Item extends LeaderItem, Answer extends LeaderAnswer>(
  call: LeaderCall<Kind, Item, Answer>,
  one: AskedItem<Item, Answer>,
  result: Answer | ClientError,
): void {
  one.state = "over";
  one.result = result;
  call.onResult?.(one.index, resultOf(call, one));
}

/** What an item has come to, or would come to if it were given up now. */
function resultOf<Kind extends RequestKind, Item extends LeaderItem, Answer extends LeaderAnswer>(
  call: LeaderCall<Kind, Item, Answer>,
  { item: { topic, partition }, result, isInDoubt }: AskedItem<Item, Answer>,
): Answer | ClientError {
  if (result === undefined) {
    const what = `its leader was not asked for ${call.kind} within ${call.deadline.totalMs} ms`;
    return new DeadlineExceededError(what, "check that the brokers run, or allow more time", { topic, partition });
  }
  if (call.hasEffect !== true || !(result instanceof ClientError) || !mayPass(result) || !isInDoubt) return result;
  const what = `${call.kind} was sent, and whether it is done is not known (${result.what})`;
  return new OutcomeUnknownError(what, { topic, partition, cause: result });
}

/** Whether it may be otherwise when it is asked again. */
const mayPass = (error: ClientError): boolean => error.retriable || error.code === "INCONSISTENT_CLUSTER_ID";

/** Something that is told, perhaps while nobody waits for it. */
class Changes {
  #isTold = false;
  #wake: (() => void) | undefined;

  constructor(private readonly env: Env) {}

  tell(): void {
    this.#isTold = true;
    this.#wake?.();
  }

  /** Resolves when something was told since the last call, or after `timeoutMs`. */
  async next(timeoutMs: number | undefined): Promise<void> {
    if (!this.#isTold) {
      await new Promise<void>((resolve) => {
        const timer = timeoutMs === undefined ? undefined : this.env.timers.after(timeoutMs, () => this.#wake?.());
        this.#wake = () => {
          timer?.cancel();
          this.#wake = undefined;
          resolve();
        };
      });
    }
    this.#isTold = false;
  }
}

/** A leader that is deposed before all replicas have followed says that it does not lead, just like one that never did. */
const halfDone: ReadonlySet<ClientError["code"]> = new Set<ErrorName>(["REQUEST_TIMED_OUT", "NOT_LEADER_OR_FOLLOWER"]);

function mayBeDone(answer: object): boolean {
  if (answer instanceof ConnectionError) return !(answer.cause instanceof TransportError && answer.cause.notSent);
  return answer instanceof ProtocolError && halfDone.has(answer.code);
}
