import type { EncodableHeader } from "../protocol/record-encoder.js";
import { isPlain, shown, unknownField } from "./arguments.js";
import { InvalidArgumentError } from "./errors.js";

/** A record to be sent. What a consumer has read is one too. */
export interface ProducerRecord {
  /**
   * Records with the same key go to the same partition, and compaction keeps the last of them. Text is sent as UTF-8.
   * @defaultValue none
   */
  readonly key?: Uint8Array | string | null;
  /**
   * Never left out: a tombstone, which deletes the key from a compacted topic, says null. Text is sent as UTF-8; half a
   * surrogate pair becomes U+FFFD.
   */
  readonly value: Uint8Array | string | null;
  /**
   * Values by name (not in a Map), or a list of `{ key, value }` where names repeat. Text is sent as UTF-8.
   * @defaultValue none
   */
  readonly headers?: Readonly<Record<string, Uint8Array | string | null>> | readonly EncodableHeader[];
  /**
   * A number from 0 on.
   * @defaultValue by the key, or any
   */
  readonly partition?: number;
  /**
   * Whole milliseconds since 1970.
   * @defaultValue now
   */
  readonly timestamp?: number;
}

const recordFields = ["key", "value", "headers", "partition", "timestamp"];
const headerFields = ["key", "value"];

/**
 * Throws InvalidArgumentError for what no record can be. Runs for each record that is sent: what is right passes without
 * a call that costs.
 */
export function checkRecord(record: ProducerRecord): void {
  if (typeof record !== "object" || record === null) throw notARecord(record);
  const { key, value, headers, timestamp, partition } = record;
  // What is made by a class, like the record of a consumer, may have fields of its own.
  if (record.constructor === Object)
    for (const name in record) if (!isRecordField(name)) throw unknownField("a record", name, recordFields);
  if (value === undefined) throw withoutValue(record);
  if (key !== undefined) checkBytes("key", key);
  checkBytes("value", value);
  if (headers !== undefined) checkHeaders(headers);
  if (timestamp !== undefined && !(Number.isSafeInteger(timestamp) && timestamp >= 0)) {
    throw new InvalidArgumentError(`timestamp is ${shown(timestamp)}`, "give whole milliseconds since 1970");
  }
  if (partition !== undefined && !(Number.isSafeInteger(partition) && partition >= 0)) {
    throw new InvalidArgumentError(`partition is ${shown(partition)}`, "give a whole number from 0 on");
  }
}

function isRecordField(name: string): boolean {
  switch (name) {
    case "key":
    case "value":
    case "headers":
    case "partition":
    case "timestamp":
      return true;
    default:
      return false;
  }
}

const notARecord = (given: unknown): InvalidArgumentError =>
  new InvalidArgumentError(`a record is ${shown(given)}`, 'give an object, as { key: "42", value: "paid" }');

const withoutValue = (record: object): InvalidArgumentError =>
  shown(record) === "an object"
    ? new InvalidArgumentError("a record has no value", "give its value, or value: null for a tombstone")
    : notARecord(record);

function checkBytes(name: string, data: unknown): void {
  if (typeof data === "string" || data === null || data instanceof Uint8Array) return;
  throw new InvalidArgumentError(
    data === undefined
      ? `the ${name} of a record has no value`
      : `the ${name} of a record is ${typeof data === "object" ? shown(data) : `a ${typeof data}`}`,
    "give text, a Uint8Array or null (JSON.stringify makes text of objects)",
  );
}

function checkHeaders(headers: NonNullable<ProducerRecord["headers"]> | null): void {
  if (typeof headers === "object" && headers !== null) {
    if (isHeaderList(headers)) {
      for (const header of headers) checkHeader(header);
      return;
    }
    if (isPlain(headers)) {
      for (const name of Object.keys(headers)) checkBytes(`header "${name}"`, headers[name]);
      return;
    }
  }
  throw new InvalidArgumentError(
    `the headers of a record are ${shown(headers)}`,
    "give an object with a value for each name (Object.fromEntries makes one of a Map), or a list of { key, value }",
  );
}

function checkHeader(header: EncodableHeader | null): void {
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw new InvalidArgumentError(`a header is ${shown(header)}`, "write it as { key, value }");
  }
  const { key, value } = header;
  if (header.constructor === Object)
    for (const name in header) if (!headerFields.includes(name)) throw unknownField("a header", name, headerFields);
  if (typeof key !== "string") {
    throw new InvalidArgumentError(
      `the name of a header is ${key === undefined ? "undefined" : `a ${typeof key}`}`,
      "give text as its key",
    );
  }
  checkBytes(`header "${key}"`, value);
}

/** The headers in the form that the encoder takes. */
export function headerList(headers: NonNullable<ProducerRecord["headers"]>): readonly EncodableHeader[] {
  return isHeaderList(headers) ? headers : Object.entries(headers).map(([key, value]) => ({ key, value }));
}

const isHeaderList = (headers: NonNullable<ProducerRecord["headers"]>): headers is readonly EncodableHeader[] =>
  Array.isArray(headers);
