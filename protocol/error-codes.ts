import { isTopicId } from "./types.js";

/** One row of the table of errors. */
export interface ErrorCodeEntry {
  readonly code: number;
  /** The same request may succeed later. */
  readonly retriable: boolean;
  /** It went to the wrong broker, or names an epoch that is over: ask for metadata before trying again. */
  readonly refreshMetadata: boolean;
  /** Whether the records of a produce request are in the leader's log all the same; undefined: it is no answer to one. */
  readonly appended?: "no" | "maybe" | "yes";
  readonly message: string;
}

const entry = (code: number, message: string): ErrorCodeEntry => ({
  code,
  retriable: false,
  refreshMetadata: false,
  message,
});
const retriable = (code: number, message: string): ErrorCodeEntry => ({ ...entry(code, message), retriable: true });
const elsewhere = (code: number, message: string): ErrorCodeEntry => ({
  ...retriable(code, message),
  refreshMetadata: true,
});

/** The same of an answer to a produce request. */
const produced = (appended: "no" | "maybe" | "yes", row: ErrorCodeEntry): ErrorCodeEntry => ({ ...row, appended });

/**
 * Every error a broker can send. Codes are part of the protocol: add, never renumber. Where Kafka has the error it has
 * Kafka's name and number; from 1000 on they are ours.
 */
export const errorCodes = {
  UNKNOWN_SERVER_ERROR: produced("maybe", entry(-1, "The broker failed in a way it did not expect; its log says how.")),
  OFFSET_OUT_OF_RANGE: entry(1, "The offset is not between the log start offset and the log end offset."),
  CORRUPT_MESSAGE: produced("no", retriable(2, "The checksum of the record batch does not match its bytes.")),
  UNKNOWN_TOPIC_OR_PARTITION: produced("no", elsewhere(3, "This broker does not know the topic or partition.")),
  LEADER_NOT_AVAILABLE: elsewhere(5, "The partition has no leader at the moment."),
  NOT_LEADER_OR_FOLLOWER: produced("maybe", elsewhere(6, "This broker is not the leader of the partition.")),
  REQUEST_TIMED_OUT: produced("yes", retriable(7, "The broker could not finish the request in the time it was given.")),
  MESSAGE_TOO_LARGE: produced("no", entry(10, "The record batch is larger than max.message.bytes.")),
  INVALID_TOPIC: entry(17, "A topic name has 1 to 249 characters of A-Z a-z 0-9 . _ - and is not . or .."),
  NOT_ENOUGH_REPLICAS: produced("no", retriable(19, "Fewer replicas are in sync than min.insync.replicas asks for.")),
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: produced(
    "yes",
    retriable(20, "The records were appended, but fewer replicas are in sync than min.insync.replicas asks for."),
  ),
  INVALID_REQUIRED_ACKS: produced("no", entry(21, "acks is 0, 1 or all, and an idempotent producer needs all.")),
  CLUSTER_AUTHORIZATION_FAILED: entry(31, "Only a broker of this cluster may send this, on the inter-broker listener."),
  INVALID_TIMESTAMP: produced(
    "no",
    entry(32, "The timestamp of a record is more than an hour ahead of the broker's clock."),
  ),
  UNSUPPORTED_VERSION: entry(35, "This broker does not know the request."),
  TOPIC_ALREADY_EXISTS: entry(36, "A topic of that name exists."),
  INVALID_PARTITIONS: entry(37, "The number of partitions is not possible."),
  INVALID_REPLICATION_FACTOR: entry(38, "The replication factor is not between 1 and the number of brokers."),
  INVALID_REPLICA_ASSIGNMENT: entry(39, "The assignment of replicas to brokers is not possible."),
  INVALID_CONFIG: entry(40, "The setting is unknown or its value is not possible."),
  NOT_CONTROLLER: elsewhere(41, "This broker is not the controller."),
  INVALID_REQUEST: produced("no", entry(42, "The request is malformed.")),
  OUT_OF_ORDER_SEQUENCE_NUMBER: produced("no", entry(45, "Batches of the producer are missing before this one.")),
  DUPLICATE_SEQUENCE_NUMBER: produced(
    "yes",
    entry(46, "The batch was appended before, too long ago to tell at which offset, or whether it is replicated."),
  ),
  INVALID_PRODUCER_EPOCH: produced("no", entry(47, "The producer's epoch is older than the newest one seen.")),
  STORAGE_ERROR: produced("no", elsewhere(56, "The disk of the broker refuses the operation.")),
  UNKNOWN_PRODUCER_ID: produced(
    "no",
    entry(59, "The broker has forgotten the producer, or what it sent before; nothing was appended now."),
  ),
  FETCH_SESSION_ID_NOT_FOUND: entry(70, "The broker has forgotten the fetch session: begin another one."),
  INVALID_FETCH_SESSION_EPOCH: entry(71, "The request is not the next one of its fetch session: begin another one."),
  FENCED_LEADER_EPOCH: produced("no", {
    ...entry(74, "The request names an older leader epoch."),
    refreshMetadata: true,
  }),
  UNKNOWN_LEADER_EPOCH: produced(
    "no",
    elsewhere(75, "The request names a newer leader epoch than this broker has heard of."),
  ),
  STALE_BROKER_EPOCH: entry(77, "The broker has registered again since."),
  OFFSET_NOT_AVAILABLE: retriable(78, "The new leader does not know the high watermark yet."),
  PREFERRED_LEADER_NOT_AVAILABLE: entry(80, "The preferred replica is not alive and in sync."),
  ELECTION_NOT_NEEDED: entry(84, "The partition is led as asked already."),
  ELIGIBLE_LEADERS_NOT_AVAILABLE: entry(83, "No replica that may lead is alive."),
  INVALID_RECORD: produced("no", entry(87, "The record batch is not in the form that record-batch.proto prescribes.")),
  THROTTLING_QUOTA_EXCEEDED: retriable(89, "The client asks for more than its share."),
  UNKNOWN_TOPIC_ID: produced("no", elsewhere(100, "This broker does not know the topic id.")),
  INELIGIBLE_REPLICA: retriable(107, "A proposed replica may not join the in-sync replicas now."),
  INVALID_UPDATE_VERSION: entry(95, "The state has changed since the proposal was made."),
  INCONSISTENT_CLUSTER_ID: entry(104, "The request was meant for another cluster."),
  // Ours.
  LEADERSHIP_UNCERTAIN: produced(
    "no",
    retriable(1000, "The broker has lost touch with ZooKeeper and with its followers; it may have been replaced."),
  ),
  TOO_MANY_ELEMENTS: produced("no", entry(1001, "The request has more elements than the broker accepts.")),
  FRAME_TOO_LARGE: produced("no", entry(1002, "The frame is larger than the broker accepts for this kind of request.")),
  HANDSHAKE_REQUIRED: produced("no", entry(1003, "The first request of a connection must be a handshake.")),
  ZOOKEEPER_UNAVAILABLE: retriable(
    1004,
    "ZooKeeper does not answer, so nothing can be administered now; data flows on.",
  ),
  WRONG_BROKER: elsewhere(1005, "The connection reached another broker than it was meant for."),
  SHUTTING_DOWN: elsewhere(1006, "The broker is stopping."),
  CORRUPT_LOG: entry(1007, "The records at this offset are damaged on the only replica there is; nothing was cut."),
  BROKER_OVERLOADED: retriable(1008, "The broker holds as much unanswered data as it may."),
} as const satisfies Record<string, ErrorCodeEntry>;

export type ErrorName = keyof typeof errorCodes;

/** Whether what was asked for may be asked for again: by the same request, or by one made from newer metadata. */
export function mayRetry(name: ErrorName): boolean {
  const { retriable: isRetriable, refreshMetadata } = errorCodes[name];
  return isRetriable || refreshMetadata;
}

const namesByCode = new Map<number, ErrorName>(
  (Object.keys(errorCodes) as ErrorName[]).map((name) => [errorCodes[name].code, name]),
);

/** The name of a code from the wire; a code that this version does not know counts as UNKNOWN_SERVER_ERROR. */
export function errorNameOf(code: number): ErrorName {
  return namesByCode.get(code) ?? "UNKNOWN_SERVER_ERROR";
}

/** What the sender of a request is told about it, or about one partition of it. */
export interface ErrorReport {
  readonly code: number;
  readonly message: string;
}

/**
 * A refusal that has a code. Thrown inside a broker to refuse a request, or made with `report` for one partition of it.
 * `detail` says what was wrong with what, and what to do.
 */
export class ApiError extends Error {
  override readonly name = "ApiError";
  constructor(
    readonly errorName: ErrorName,
    detail?: string,
    options?: ErrorOptions,
  ) {
    super(detail ?? errorCodes[errorName].message, options);
  }

  get retriable(): boolean {
    return mayRetry(this.errorName);
  }

  get report(): ErrorReport {
    return { code: errorCodes[this.errorName].code, message: this.message };
  }
}

/** The report of a refusal, without making an Error of it: for the paths where refusals are common. */
export function errorReport(name: ErrorName, detail?: string): ErrorReport {
  return { code: errorCodes[name].code, message: detail ?? errorCodes[name].message };
}

/** Why a text is the id of no topic, known or not, which asking again does not mend; undefined: it may be one. */
export function topicIdRefusal(text: string): ErrorReport | undefined {
  if (isTopicId(text)) return undefined;
  const shown = JSON.stringify(text.slice(0, 64));
  return errorReport("INVALID_REQUEST", `${shown} is no topic id: that is a UUID in lower case`);
}
