import type { Env } from "../common/env/env.js";
import { formatAddress } from "../common/host-port.js";
import type { Logger } from "../common/logger.js";
import { silentLogger } from "../common/logger.js";
import { onAbort } from "../common/on-abort.js";
import { ApiError } from "../protocol/error-codes.js";
import { TransportError } from "../protocol/rpc-error.js";
import { Admin } from "./admin.js";
import {
  checkCount,
  checkOptions,
  checkSignal,
  checkText,
  checkTopicName,
  INT32_MAX,
  numberOption,
  shown,
} from "./arguments.js";
import { BrokerCaller } from "./broker-caller.js";
import type { ConnectionSettings } from "./broker-connections.js";
import { Consumer } from "./consumer.js";
import { defaultEnv } from "./default-env.js";
import { ClosedError, ConnectionError, InvalidArgumentError, toClientError } from "./errors.js";
import type { KnownTopic } from "./metadata.js";
import { Metadata } from "./metadata.js";
import type { ConnectOptions, ConsumerOptions, ProducerOptions } from "./options.js";
import { parseAddresses } from "./options.js";
import { Producer } from "./producer.js";
import { Deadline } from "./retry.js";

/** Brokers keep no more of it. */
const CLIENT_ID_MAX = 256;
const DEADLINE_MS = 30_000;
const REQUEST_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 1000;
const METADATA_MAX_AGE_MS = 30_000;
const UNKNOWN_TOPIC_TIMEOUT_MS = 2000;

const optionNames = [
  "bootstrapBrokers",
  "clientId",
  "logger",
  "env",
  "deadlineMs",
  "requestTimeoutMs",
  "connectTimeoutMs",
  "metadataMaxAgeMs",
  "unknownTopicTimeoutMs",
  "signal",
];

/** What a client uses of its world. */
const envFunctions = {
  clock: ["monotonicMs", "wallMs"],
  timers: ["after", "soon", "afterThisTurn"],
  random: ["float", "below"],
  network: ["connect"],
};

interface ClusterParts {
  readonly env: Env;
  readonly logger: Logger;
  readonly metadata: Metadata;
  readonly settings: ConnectionSettings;
  readonly deadlineMs: number;
  readonly unknownTopicTimeoutMs: number;
}

/**
 * Finds a cluster and resolves when one of its brokers has answered. Rejects with ConnectionError when none has within
 * `deadlineMs`, with InvalidArgumentError for options that cannot work, and with the signal's reason when aborted.
 *
 * @example
 * import { connect } from "ottla/client";
 *
 * await using cluster = await connect({ bootstrapBrokers: ["localhost:9092"], clientId: "billing" });
 */
export async function connect(options: ConnectOptions): Promise<Cluster> {
  checkCount("connect", arguments.length, 1);
  checkOptions("connect", options, optionNames);
  const bootstrap = parseAddresses(options.bootstrapBrokers);
  const settings = {
    clientId: clientIdOf(options.clientId),
    requestTimeoutMs: numberOption("requestTimeoutMs", options.requestTimeoutMs, {
      min: 1,
      defaultValue: REQUEST_TIMEOUT_MS,
    }),
    connectTimeoutMs: numberOption("connectTimeoutMs", options.connectTimeoutMs, {
      min: 1,
      defaultValue: CONNECT_TIMEOUT_MS,
    }),
    metadataMaxAgeMs: numberOption("metadataMaxAgeMs", options.metadataMaxAgeMs, {
      min: 10,
      defaultValue: METADATA_MAX_AGE_MS,
    }),
  };
  const deadlineMs = numberOption("deadlineMs", options.deadlineMs, { min: 1, defaultValue: DEADLINE_MS });
  const unknownTopicTimeoutMs = numberOption("unknownTopicTimeoutMs", options.unknownTopicTimeoutMs, {
    min: 0,
    defaultValue: UNKNOWN_TOPIC_TIMEOUT_MS,
  });
  const { signal } = options;
  checkSignal(signal);
  checkParts("env", options.env, "object", Object.keys(envFunctions));
  for (const [part, functions] of Object.entries(envFunctions))
    checkParts(`env.${part}`, options.env?.[part as keyof typeof envFunctions], "function", functions);
  checkParts("logger", options.logger, "function", ["debug", "info", "warn", "error"]);
  signal?.throwIfAborted();
  const env = options.env ?? defaultEnv();
  const logger = options.logger ?? silentLogger;
  const metadata = new Metadata(env, logger, settings, bootstrap);
  const stopListening = onAbort(signal, () => metadata.close());
  // A question that is under way may take longer than the deadline.
  const limit = env.timers.after(deadlineMs, () => metadata.close("no answer came"));
  try {
    await metadata.start(new Deadline(env.clock, deadlineMs));
  } catch (error) {
    metadata.close();
    signal?.throwIfAborted();
    if (!(error instanceof ApiError || error instanceof TransportError)) throw error;
    if (error instanceof ApiError) throw toClientError(error);
    const addresses = bootstrap.map(formatAddress).join(", ");
    const failure = metadata.lookupFailure();
    const why = failure?.what ?? error.message;
    // What the time was up in the middle of says less.
    const cause = failure?.cause ?? error;
    throw new ConnectionError(`none of ${addresses} answered within ${deadlineMs} ms (${why})`, { cause });
  } finally {
    limit.cancel();
    stopListening();
  }
  return new Cluster({ env, logger, metadata, settings, deadlineMs, unknownTopicTimeoutMs });
}

function clientIdOf(given: unknown): string {
  if (given === undefined) return "ottla-client";
  checkText("clientId", given);
  if (given.length <= CLIENT_ID_MAX) return given;
  throw new InvalidArgumentError(`clientId has ${given.length} characters`, `give at most ${CLIENT_ID_MAX}`);
}

/** What stands in for a part of the world must have what is used of it. */
function checkParts(name: string, given: unknown, kind: "object" | "function", parts: readonly string[]): void {
  if (given === undefined) return;
  if (typeof given !== "object" || given === null) {
    throw new InvalidArgumentError(`${name} is ${shown(given)}`, `give an object with ${parts.join(", ")}`);
  }
  for (const part of parts) {
    const found: unknown = (given as Readonly<Record<string, unknown>>)[part];
    if (typeof found === kind && found !== null) continue;
    throw new InvalidArgumentError(
      `${name} has no ${kind === "function" ? "function " : ""}"${part}"`,
      `give an object with ${parts.join(", ")}`,
    );
  }
}

/**
 * A connected cluster: makes producers, consumers and the admin, and closes them with itself. Made by `connect`.
 *
 * It follows the cluster by itself: leaders that move, brokers that come and go.
 */
export class Cluster implements AsyncDisposable {
  readonly #parts: ClusterParts;
  readonly #caller: BrokerCaller;
  readonly #open = new Set<Producer | Consumer>();
  #admin: Admin | undefined;
  #closing: Promise<void> | undefined;

  /** Use `connect`. */
  constructor(parts: ClusterParts) {
    this.#parts = parts;
    this.#caller = new BrokerCaller(
      parts.env,
      parts.metadata,
      // Brokers are told of it in 32 bits.
      Math.min(parts.settings.requestTimeoutMs, INT32_MAX),
      parts.unknownTopicTimeoutMs,
    );
  }

  /** The id that the cluster was given when it was made. */
  get clusterId(): string {
    return this.#parts.metadata.clusterId;
  }

  /**
   * Makes a producer. Throws InvalidArgumentError.
   *
   * @example
   * await using producer = cluster.producer({ acks: "all", lingerMs: 5 });
   */
  producer(options: ProducerOptions = {}): Producer {
    checkCount("producer", arguments.length, 1);
    this.#checkOpen();
    const { env, metadata, settings, unknownTopicTimeoutMs } = this.#parts;
    const producer = new Producer(
      {
        env,
        metadata,
        caller: this.#caller,
        connectionSettings: settings,
        unknownTopicTimeoutMs,
        onClosed: (closed) => this.#open.delete(closed),
      },
      options,
    );
    this.#open.add(producer);
    return producer;
  }

  /**
   * Makes a consumer that reads from a place of its own choosing. Throws InvalidArgumentError.
   *
   * @example
   * await using consumer = cluster.consumer({ topics: ["orders"], from: "earliest" });
   */
  consumer(options: ConsumerOptions): Consumer {
    checkCount("consumer", arguments.length, 1);
    this.#checkOpen();
    const { env, logger, metadata, settings, deadlineMs, unknownTopicTimeoutMs } = this.#parts;
    const consumer = new Consumer(
      {
        env,
        logger,
        metadata,
        caller: this.#caller,
        connectionSettings: settings,
        deadlineMs,
        waitForTopic: (topic, partitions, signal) => this.#waitForTopic(topic, { partitions, signal }),
        refusalOf: (topic) => metadata.refusalOf(topic, unknownTopicTimeoutMs),
        onClosed: (closed) => this.#open.delete(closed),
      },
      options,
    );
    this.#open.add(consumer);
    return consumer;
  }

  /** Topics, settings, offsets, leaders. Always the same object. */
  admin(): Admin {
    checkCount("admin", arguments.length, 0);
    this.#checkOpen();
    this.#admin ??= new Admin({
      metadata: this.#parts.metadata,
      caller: this.#caller,
      deadlineMs: this.#parts.deadlineMs,
      unknownTopicTimeoutMs: this.#parts.unknownTopicTimeoutMs,
    });
    return this.#admin;
  }

  /**
   * The partitions of a topic, as the cluster describes them now. Rejects with ProtocolError when there is no such
   * topic, with ConnectionError when no broker answers within `deadlineMs`, with InvalidArgumentError for what is no name,
   * and with ClosedError.
   */
  async partitionsOf(topic: string): Promise<number[]> {
    checkCount("partitionsOf", arguments.length, 1);
    checkTopicName(topic);
    this.#checkOpen();
    return (await this.#waitForTopic(topic, { isAskedAnew: true })).partitions.map(({ partition }) => partition);
  }

  /** Closes producers (which send what they hold), consumers, and all connections. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const results = await Promise.allSettled([...this.#open].map((part) => part.close()));
    this.#parts.metadata.close();
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new ClosedError("cluster");
  }

  /**
   * A topic that is known; `isAskedAnew`: as an answer describes it that is asked for now. A topic that is said not to
   * exist, or not to have one of `partitions`, is asked for again for a while, as brokers learn of changes at different
   * times. Partitions may still be missing then.
   */
  async #waitForTopic(
    topic: string,
    {
      partitions = [],
      isAskedAnew = false,
      signal,
    }: { readonly partitions?: readonly number[]; readonly isAskedAnew?: boolean; readonly signal?: AbortSignal },
  ): Promise<KnownTopic> {
    const { env, metadata, deadlineMs, unknownTopicTimeoutMs } = this.#parts;
    metadata.want(topic);
    const startedMs = env.clock.monotonicMs();
    const deadline = new Deadline(env.clock, deadlineMs);
    for (;;) {
      signal?.throwIfAborted();
      const known = metadata.topic(topic);
      const ageMs = (metadata.describedMs(topic) ?? Number.NEGATIVE_INFINITY) - startedMs;
      if (known !== undefined && (ageMs >= 0 || !isAskedAnew)) {
        const hasAll = partitions.every((partition) => known.partitions[partition] !== undefined);
        if (hasAll || ageMs >= unknownTopicTimeoutMs) return known;
      }
      if (metadata.isClosed) throw new ClosedError("cluster");
      const refusal = metadata.refusalOf(topic, unknownTopicTimeoutMs, startedMs);
      if (refusal !== undefined) throw toClientError(refusal, { topic });
      if (deadline.isOver) {
        const latest = metadata.refusalOf(topic, 0);
        if (latest !== undefined) throw toClientError(latest, { topic });
        const cause = metadata.lookupFailure();
        const why = cause === undefined ? "" : ` (${cause.what})`;
        throw new ConnectionError(`no broker has described it within ${deadlineMs} ms${why}`, { topic, cause });
      }
      metadata.refreshSoon();
      await metadata.nextAnswer(Math.min(250, deadline.leftMs));
    }
  }
}
