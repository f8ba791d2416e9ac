/** What refusals of a produce request mean for its batch, and how the application is told that a batch has failed. */

import { counted } from "../common/counted.js";
import { reasonOf } from "../common/logger.js";
import { ApiError, errorCodes } from "../protocol/error-codes.js";
import type { ErrorCodeEntry, ErrorName } from "../protocol/error-codes.js";
import type { BrokerId } from "../protocol/types.js";
import type { ClientError, ErrorPlace } from "./errors.js";
import { ConnectionError, DeadlineExceededError, OutcomeUnknownError, toClientError } from "./errors.js";
import type { ProducerBatch } from "./producer-batch.js";

/**
 * Refusals after which the records may be in the log all the same. NOT_LEADER_OR_FOLLOWER is one of them, because a leader
 * that is deposed while records wait to be replicated says it too, and its successor may have them. Nor does
 * DUPLICATE_SEQUENCE_NUMBER acknowledge them: it names no offset, and whether they are replicated it does not say.
 */
export const appendedAnyway: ReadonlySet<ErrorName> = new Set(
  (Object.entries(errorCodes) as [ErrorName, ErrorCodeEntry][]).flatMap(([name, { appended }]) =>
    appended === "maybe" || appended === "yes" ? [name] : [],
  ),
);

/** The broker's memory of this producer does not fit ours; it has appended nothing now. */
export const identityLost: ReadonlySet<ErrorName> = new Set<ErrorName>([
  "OUT_OF_ORDER_SEQUENCE_NUMBER",
  "UNKNOWN_PRODUCER_ID",
  "DUPLICATE_SEQUENCE_NUMBER",
  "INVALID_PRODUCER_EPOCH",
]);

/** What kept a batch from being sent or taken until its time was up. */
export interface Obstacle {
  /** It stood behind others that this broker had not taken yet. */
  readonly behindOthersAt?: BrokerId;
  /** No broker had given out a producer id. */
  readonly lacksIdentity?: boolean;
  /** What was answered, or not, as far as is known. */
  readonly error?: ClientError | undefined;
}

/** Time is up for a batch that certainly was not appended. */
export function outOfTimeError(
  batch: ProducerBatch,
  deliveryTimeoutMs: number,
  place: ErrorPlace,
  { behindOthersAt, lacksIdentity, error }: Obstacle,
): ClientError {
  const detail = error === undefined ? "" : `: ${error.what}`;
  let why: string;
  if (behindOthersAt !== undefined) {
    why = `they stood behind others that broker ${behindOthersAt} has not acknowledged${detail}`;
  } else if (lacksIdentity === true) {
    why = error === undefined ? "no broker has given out a producer id" : `no broker gives out a producer id${detail}`;
  } else {
    why = error?.what ?? "the leader has not answered";
  }
  // Of those ahead the outcome may be unknown; of these it is not.
  const hint = error === undefined || error.code === "OUTCOME_UNKNOWN" ? "check that the brokers run" : error.hint;
  return new DeadlineExceededError(
    `${counted(batch.recordCount, "record", "were")} not sent within deliveryTimeoutMs ${deliveryTimeoutMs} (${why})`,
    `${hint}, or raise deliveryTimeoutMs`,
    { ...place, brokerId: error?.brokerId ?? behindOthersAt, cause: error },
  );
}

/** There is no connection to the leader of a partition. */
export function noConnectionError(brokerId: BrokerId, cause: unknown): ClientError {
  // A broker that refuses the handshake says why, and its reason tells what to do.
  if (cause instanceof ApiError) return toClientError(cause, { brokerId });
  const detail = cause === undefined ? "" : ` (${reasonOf(cause)})`;
  return new ConnectionError(`its leader, broker ${brokerId}, could not be reached${detail}`, { brokerId, cause });
}

/** A batch is given up that may have been appended. */
export function outcomeUnknownError(
  batch: ProducerBatch,
  cause: ClientError | undefined,
  place: ErrorPlace,
): ClientError {
  const why = cause === undefined ? "the leader has not answered" : cause.what;
  return new OutcomeUnknownError(`${counted(batch.recordCount, "record", "were")} sent and not acknowledged (${why})`, {
    ...place,
    brokerId: batch.sentTo,
    cause,
  });
}
