import type { EncodableHeader } from "../protocol/record-encoder.js";
import { InvalidArgumentError } from "./errors.js";

/** A record to be sent. */
export interface ProducerRecord {
  /** Records with the same key go to the same partition, and compaction keeps the last of them. Text is sent as UTF-8. */
  readonly key?: Uint8Array | string | null;
  /** Absent or null: a tombstone, which deletes the key from a compacted topic. */
  readonly value?: Uint8Array | string | null;
  /** By name, or a list where names repeat. */
  readonly headers?: Readonly<Record<string, Uint8Array | string | null>> | readonly EncodableHeader[];
  /** @defaultValue by the key, or any */
  readonly partition?: number;
  /**
   * Milliseconds since 1970.
   * @defaultValue now
   */
  readonly timestamp?: number;
}

/** Throws InvalidArgumentError for what no record can be. */
export function checkRecord(topic: string, record: ProducerRecord): void {
  if (typeof topic !== "string" || topic === "") {
    throw new InvalidArgumentError("the topic of a record has no name", "pass the name as first argument");
  }
  checkBytes("key", record.key);
  checkBytes("value", record.value);
  const { timestamp, partition, headers } = record;
  if (headers !== undefined) checkHeaders(headers);
  if (timestamp !== undefined && !(Number.isSafeInteger(timestamp) && timestamp >= 0)) {
    throw new InvalidArgumentError(`timestamp is ${timestamp}`, "give whole milliseconds since 1970");
  }
  if (partition !== undefined && !(Number.isSafeInteger(partition) && partition >= 0)) {
    throw new InvalidArgumentError(`partition is ${partition}`, "give a whole number from 0 on");
  }
}

function checkBytes(name: string, data: unknown): void {
  if (data === undefined || data === null || typeof data === "string" || data instanceof Uint8Array) return;
  throw new InvalidArgumentError(
    `the ${name} of a record is ${Array.isArray(data) ? "an array" : `a ${typeof data}`}`,
    "give text, a Uint8Array or null (JSON.stringify makes text of objects)",
  );
}

function checkHeaders(headers: NonNullable<ProducerRecord["headers"]> | null): void {
  if (typeof headers !== "object" || headers === null) {
    throw new InvalidArgumentError(
      `the headers of a record are ${headers === null ? "null" : `a ${typeof headers}`}`,
      "give an object with a value for each name, or a list of { key, value }",
    );
  }
  if (!isHeaderList(headers)) {
    for (const name in headers) checkBytes(`header "${name}"`, headers[name]);
    return;
  }
  for (const { key, value } of headers) {
    if (typeof key !== "string") {
      throw new InvalidArgumentError(`the name of a header is a ${typeof key}`, "give text as its key");
    }
    checkBytes(`header "${key}"`, value);
  }
}

/** The headers in the form that the encoder takes. */
export function headerList(headers: NonNullable<ProducerRecord["headers"]>): readonly EncodableHeader[] {
  return isHeaderList(headers) ? headers : Object.entries(headers).map(([key, value]) => ({ key, value }));
}

const isHeaderList = (headers: NonNullable<ProducerRecord["headers"]>): headers is readonly EncodableHeader[] =>
  Array.isArray(headers);
