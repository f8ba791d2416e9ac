import { ApiError, errorCodes, mayRetry } from "../protocol/error-codes.js";
import type { ErrorName } from "../protocol/error-codes.js";
import { TransportError } from "../protocol/rpc-error.js";

/** What a `ClientError` is about. Names of the protocol's errors, and those that only a client can have. */
export type ClientErrorCode =
  | ErrorName
  | "CLOSED"
  | "CONNECTION_FAILED"
  | "CORRUPT_BATCH"
  | "DEADLINE_EXCEEDED"
  | "INVALID_ARGUMENT"
  | "OUTCOME_UNKNOWN"
  | "RECORD_TOO_LARGE"
  | "UNREADABLE_BATCH";

/** What an error may know of the place where it happened. */
export interface ErrorPlace {
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
  readonly brokerId?: number | undefined;
}

interface ClientErrorInit extends ErrorPlace {
  readonly code: ClientErrorCode;
  readonly retriable: boolean;
  /** What happened, to what. */
  readonly what: string;
  /** What to do. */
  readonly hint: string;
  readonly cause?: unknown;
}

/**
 * The base of every error that the client makes. Switch on `code`; texts are for people and may change.
 *
 * @example
 * try {
 *   await producer.send("orders", { value: "paid" });
 * } catch (error) {
 *   if (error instanceof ClientError && error.code === "UNKNOWN_TOPIC_OR_PARTITION") console.error(error.hint);
 *   else throw error;
 * }
 */
export abstract class ClientError extends Error {
  readonly code: ClientErrorCode;
  /** The same call may succeed later. */
  readonly retriable: boolean;
  /** What happened, to what: the message without the hint. */
  readonly what: string;
  /** What to do about it, in a sentence. */
  readonly hint: string;
  readonly topic: string | undefined;
  readonly partition: number | undefined;
  readonly brokerId: number | undefined;

  protected constructor(init: ClientErrorInit) {
    const place = placeOf(init);
    // Brokers name the partition too.
    const what = init.what.startsWith(place) ? init.what : `${place}${init.what}`;
    super(`${what}; ${init.hint}`, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = init.code;
    this.retriable = init.retriable;
    this.what = what;
    this.hint = init.hint;
    this.topic = init.topic;
    this.partition = init.partition;
    this.brokerId = init.brokerId;
  }
}

const placeOf = ({ topic, partition }: ErrorPlace): string =>
  topic === undefined ? "" : partition === undefined ? `${topic}: ` : `${topic}-${partition}: `;

/** An argument or option that can never work. Nothing was sent. */
export class InvalidArgumentError extends ClientError {
  override readonly name = "InvalidArgumentError";
  constructor(what: string, hint: string, place: ErrorPlace & { readonly cause?: unknown } = {}) {
    super({ code: "INVALID_ARGUMENT", retriable: false, what, hint, ...place });
  }
}

/** The object was closed, before the call or during it. */
export class ClosedError extends ClientError {
  override readonly name = "ClosedError";
  constructor(what: string) {
    const hint = what === "cluster" ? "connect again" : "make a new one from the cluster";
    super({ code: "CLOSED", retriable: false, what: `the ${what} is closed`, hint });
  }
}

/** No broker could be reached, or the one that matters could not, and time is up. */
export class ConnectionError extends ClientError {
  override readonly name = "ConnectionError";
  constructor(what: string, place: ErrorPlace & { readonly cause?: unknown } = {}) {
    super({
      code: "CONNECTION_FAILED",
      retriable: true,
      what,
      hint:
        place.cause instanceof TransportError && place.cause.isNoBroker
          ? "give the address and port of a broker; something else listens there"
          : "check that the brokers run and that the addresses are the ones they advertise",
      ...place,
    });
  }
}

/** The time that the caller gave is up, and it is certain that nothing was changed. */
export class DeadlineExceededError extends ClientError {
  override readonly name = "DeadlineExceededError";
  constructor(what: string, hint: string, place: ErrorPlace & { readonly cause?: unknown } = {}) {
    super({ code: "DEADLINE_EXCEEDED", retriable: true, what, hint, ...place });
  }
}

/** A request was sent and not answered in time: it may have taken effect, or not, or may do so yet. */
export class OutcomeUnknownError extends ClientError {
  override readonly name = "OutcomeUnknownError";
  constructor(what: string, place: ErrorPlace & { readonly cause?: unknown } = {}) {
    super({
      code: "OUTCOME_UNKNOWN",
      retriable: false,
      what,
      hint: "read back what is there before doing it again, because it may have been done",
      ...place,
    });
  }
}

/** A broker refused; `code` is the protocol's name of the reason. */
export class ProtocolError extends ClientError {
  override readonly name = "ProtocolError";
  constructor(
    code: ErrorName,
    detail: string | undefined,
    /** `hint`: where there is more to say than the name of the reason tells. */
    place: ErrorPlace & { readonly cause?: unknown; readonly hint?: string } = {},
  ) {
    const row = errorCodes[code];
    super({
      code,
      retriable: mayRetry(code),
      what: withoutFullStop(detail === undefined || detail === "" ? row.message : detail),
      hint: hints[code] ?? (mayRetry(code) ? "try again" : "correct the request"),
      ...place,
    });
  }
}

/** A record that is larger than a batch may be, here or on the broker. */
export class RecordTooLargeError extends ClientError {
  override readonly name = "RecordTooLargeError";
  constructor(
    /** Bytes of the record as a batch of its own. */
    readonly recordBytes: number,
    /** undefined: the broker has refused without saying what it allows. */
    readonly limitBytes: number | undefined,
    /** The name of the setting to raise. */
    readonly setting: string,
    place: ErrorPlace = {},
  ) {
    super({
      code: "RECORD_TOO_LARGE",
      retriable: false,
      what: `a record of ${recordBytes} bytes, where ${setting} allows ${limitBytes ?? "less"}`,
      hint: `raise ${setting}, or split the record`,
      ...place,
    });
  }
}

/** The position of a consumer is not in the log: records there have been deleted, or never were. */
export class OffsetOutOfRangeError extends ClientError {
  override readonly name = "OffsetOutOfRangeError";
  constructor(
    readonly offset: number,
    readonly logStartOffset: number,
    readonly highWatermark: number,
    place: ErrorPlace,
  ) {
    super({
      code: "OFFSET_OUT_OF_RANGE",
      retriable: false,
      what: `offset ${offset} is not in the log, which holds ${logStartOffset} to ${highWatermark}`,
      hint: 'seek to an offset in it, or set onOutOfRange to "earliest" or "latest"',
      ...place,
    });
  }
}

/** A batch that arrived damaged twice. Nothing of it was delivered. */
export class CorruptBatchError extends ClientError {
  override readonly name = "CorruptBatchError";
  constructor(
    /** Where to go on reading after the damage has been repaired. */
    readonly offset: number,
    place: ErrorPlace & { readonly cause?: unknown },
  ) {
    super({
      code: "CORRUPT_BATCH",
      retriable: true,
      what: `the batch at offset ${offset} is damaged`,
      hint: "read again after the broker has fetched it from a replica, or seek past it",
      ...place,
    });
  }
}

/** A batch that arrived as it was written, and whose records nobody can read: its producer wrote them wrong. */
export class UnreadableBatchError extends ClientError {
  override readonly name = "UnreadableBatchError";
  constructor(
    /** Of the first record that was not delivered. */
    readonly offset: number,
    /** The first one behind the batch: where to go on reading. */
    readonly nextOffset: number,
    place: ErrorPlace & { readonly cause?: unknown },
  ) {
    super({
      code: "UNREADABLE_BATCH",
      retriable: false,
      what:
        nextOffset - offset === 1
          ? `the record at offset ${offset} is not what the head of its batch says`
          : `the records from offset ${offset} to ${nextOffset - 1} are not what the head of their batch says`,
      hint: `seek to ${nextOffset}, or set onUnreadable to "skip"`,
      ...place,
    });
  }
}

/** What to do about a refusal, where it is not obvious from its name. */
const hints: Partial<Record<ErrorName, string>> = {
  UNKNOWN_SERVER_ERROR: "look for it in the log of the broker",
  UNKNOWN_TOPIC_OR_PARTITION: "create the topic first, or check its name and the partition",
  UNKNOWN_TOPIC_ID: "see whether the topic was deleted, or created again",
  LEADER_NOT_AVAILABLE: "start the brokers that hold its replicas",
  MESSAGE_TOO_LARGE: "raise max.message.bytes of the topic, or send smaller batches",
  INVALID_TOPIC: "choose another name",
  NOT_ENOUGH_REPLICAS: "start the brokers that hold its replicas, or lower min.insync.replicas",
  INVALID_REQUIRED_ACKS: 'use acks "all", or switch idempotence off',
  INVALID_TIMESTAMP: "check the clock of this machine",
  UNSUPPORTED_VERSION: "use a client and brokers of the same version",
  TOPIC_ALREADY_EXISTS: "use it as it is, delete it first, or choose another name",
  INVALID_PARTITIONS: "the number of partitions can only grow",
  INVALID_REPLICATION_FACTOR: "start more brokers, or ask for fewer replicas",
  INVALID_CONFIG: "describe the configuration to see names, types and ranges",
  STORAGE_ERROR: "look at the disk of the broker",
  NOT_CONTROLLER: "wait until a controller is elected",
  CORRUPT_LOG: "restore the replica, or seek past the damage",
  ZOOKEEPER_UNAVAILABLE: "check that the ZooKeeper servers run and that brokers reach them, then try again",
  INCONSISTENT_CLUSTER_ID: "connect again if the cluster was made anew, else to the addresses of yours",
  PREFERRED_LEADER_NOT_AVAILABLE: "start that broker and wait until it is in sync, then try again",
  ELIGIBLE_LEADERS_NOT_AVAILABLE: "start the brokers that hold its replicas, then try again",
  ELECTION_NOT_NEEDED: "nothing has to be done",
  BROKER_OVERLOADED: "send less at a time",
};

/** What was asked of a topic, or read of it, was meant for one that is gone. */
export const topicReplacedError = (
  place: ErrorPlace,
  hint = "send anew what is meant for the present one",
): ClientError => new ProtocolError("UNKNOWN_TOPIC_ID", "the topic was deleted and created again", { ...place, hint });

/** A partition is named that the topic does not have. */
export const noPartitionError = (topic: string, partition: number, count: number): InvalidArgumentError =>
  new InvalidArgumentError(`there is no partition ${partition}`, `choose one from 0 to ${count - 1}`, { topic });

const withoutFullStop = (sentence: string): string => sentence.replace(/(?<!\.)\.$/, "");

/** The one place where what the protocol layer throws becomes what users see. Errors that are ours already pass through. */
export function toClientError(error: unknown, place: ErrorPlace = {}): ClientError {
  if (error instanceof ClientError) return error;
  if (error instanceof ApiError) return new ProtocolError(error.errorName, error.message, { ...place, cause: error });
  if (error instanceof TransportError) {
    return error.notSent
      ? new ConnectionError(error.message, { ...place, cause: error })
      : new OutcomeUnknownError(error.message, { ...place, cause: error });
  }
  // Anything else is a fault of this library or of the machine: it is not dressed up.
  throw error;
}
