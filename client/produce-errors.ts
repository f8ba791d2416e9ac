/** What refusals of a produce request mean for its batch, and how the application is told that a batch has failed. */

import { errorCodes } from "../protocol/error-codes.js";
import type { ErrorCodeEntry, ErrorName } from "../protocol/error-codes.js";
import type { ClientError, ErrorPlace } from "./errors.js";
import { DeadlineExceededError, OutcomeUnknownError } from "./errors.js";
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

/** Time is up for a batch that certainly was not appended. */
export function outOfTimeError(batch: ProducerBatch, deliveryTimeoutMs: number, place: ErrorPlace): ClientError {
  const why = batch.lastError === undefined ? "its leader could not be reached" : batch.lastError.what;
  return new DeadlineExceededError(
    `${batch.recordCount} records were not sent within deliveryTimeoutMs ${deliveryTimeoutMs} (${why})`,
    "check that the brokers run, or raise deliveryTimeoutMs",
    { ...place, cause: batch.lastError },
  );
}

/** A batch is given up that may have been appended. */
export function outcomeUnknownError(
  batch: ProducerBatch,
  cause: ClientError | undefined,
  place: ErrorPlace,
): ClientError {
  const why = cause === undefined ? "the leader has not answered" : cause.what;
  return new OutcomeUnknownError(`${batch.recordCount} records were sent and not acknowledged (${why})`, {
    ...place,
    brokerId: batch.sentTo,
    cause,
  });
}
