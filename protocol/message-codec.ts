import { apiKeys, requestKindOf } from "./api-keys.js";
import type { RequestKind } from "./api-keys.js";
import { ApiError } from "./error-codes.js";
import type { ErrorReport } from "./error-codes.js";
import { codecs } from "./messages.js";
import type { ErrorDetail, Init, Request, Response } from "./messages.js";
import type { Writer } from "./protobuf-runtime.js";
import { createWriter } from "./protobuf-runtime.js";
import { varintBytes, writeVarint } from "./record-batch.js";

/** The decoded body of a request of each kind, and of its response. */
export type RequestBody<Kind extends RequestKind> = NonNullable<Request[Kind]>;
export type ResponseBody<Kind extends RequestKind> = NonNullable<Response[Kind]>;

export interface DecodedRequest {
  readonly correlationId: number;
  readonly kind: RequestKind;
  /** A `RequestBody` of `kind`. */
  readonly body: unknown;
  /** Views into the frame. */
  readonly records: readonly Buffer[];
}

export interface DecodedResponse {
  readonly correlationId: number;
  readonly kind: RequestKind | undefined;
  readonly body: unknown;
  readonly error: ErrorDetail | undefined;
  /** Views into the frame. */
  readonly records: readonly Buffer[];
}

/** Records in a buffer of which the sender may overwrite what stands in front of them. */
export interface RecordsInPlace {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
}

const CORRELATION_TAG = 0x08;
const ERROR_KEY = 99;
const RECORDS_TAG = 100 * 8 + 2;
const RECORDS_TAG_BYTES = varintBytes(RECORDS_TAG);
const LENGTH_BYTES = 4;

interface BodyCodec {
  encode(message: unknown, writer: Writer): Writer;
  decode(bytes: Uint8Array): unknown;
}

const capitalized = (kind: RequestKind): string => kind.charAt(0).toUpperCase() + kind.slice(1);
const codecOf = (suffix: "Request" | "Response"): ReadonlyMap<RequestKind, BodyCodec> =>
  new Map(
    (Object.keys(apiKeys) as RequestKind[]).map((kind) => [
      kind,
      (codecs as unknown as Record<string, BodyCodec>)[`${capitalized(kind)}${suffix}`] as BodyCodec,
    ]),
  );
const requestCodecs = codecOf("Request");
const responseCodecs = codecOf("Response");

/**
 * The bytes of a request, length included, as pieces for one gathered write: records are sent from where they lie.
 * Each element of `records` becomes one field and may itself consist of several pieces.
 */
export function encodeRequest<Kind extends RequestKind>(
  correlationId: number,
  kind: Kind,
  body: Init<RequestBody<Kind>>,
  records: readonly (readonly Uint8Array[])[] = [],
): Uint8Array[] {
  return encode(correlationId, apiKeys[kind].key, requestCodecs.get(kind) as BodyCodec, body, records);
}

/**
 * Bytes that must be free in front of a batch for `encodeRequestInFront` to find room: a produce request of one partition
 * takes 80 to 90.
 */
export const REQUEST_HEADROOM_BYTES = 128;

/**
 * The bytes of a request with one element of records, written in front of the records in their own buffer, so that the
 * whole is one piece. undefined when there is no room: then the pieces of `encodeRequest` serve.
 */
export function encodeRequestInFront<Kind extends RequestKind>(
  correlationId: number,
  kind: Kind,
  body: Init<RequestBody<Kind>>,
  records: RecordsInPlace,
): Uint8Array | undefined {
  const message = encodeMessage(correlationId, apiKeys[kind].key, requestCodecs.get(kind) as BodyCodec, body);
  const recordsBytes = records.end - records.start;
  const start = records.start - RECORDS_TAG_BYTES - varintBytes(recordsBytes) - message.length - LENGTH_BYTES;
  if (start < 0) return undefined;
  const { buffer } = records;
  buffer.writeUInt32BE(records.end - start - LENGTH_BYTES, start);
  buffer.set(message, start + LENGTH_BYTES);
  writeRecordsTag(buffer, start + LENGTH_BYTES + message.length, recordsBytes);
  return buffer.subarray(start, records.end);
}

export function encodeResponse<Kind extends RequestKind>(
  correlationId: number,
  kind: Kind,
  body: Init<ResponseBody<Kind>>,
  records: readonly (readonly Uint8Array[])[] = [],
): Uint8Array[] {
  return encode(correlationId, apiKeys[kind].key, responseCodecs.get(kind) as BodyCodec, body, records);
}

/** The whole request is refused. */
export function encodeErrorResponse(correlationId: number, error: ErrorReport): Uint8Array[] {
  return encode(correlationId, ERROR_KEY, codecs.ErrorDetail as unknown as BodyCodec, error, []);
}

function encode(
  correlationId: number,
  key: number,
  codec: BodyCodec,
  body: unknown,
  records: readonly (readonly Uint8Array[])[],
): Uint8Array[] {
  const message = encodeMessage(correlationId, key, codec, body);
  let total = message.length;
  const sizes: number[] = [];
  for (const pieces of records) {
    let bytes = 0;
    for (const piece of pieces) bytes += piece.length;
    sizes.push(bytes);
    total += RECORDS_TAG_BYTES + varintBytes(bytes) + bytes;
  }
  // The head, and the tag and length of the first records, are one piece: a response with one partition is two writes.
  const first = sizes[0];
  const firstTagBytes = first === undefined ? 0 : RECORDS_TAG_BYTES + varintBytes(first);
  const head = Buffer.allocUnsafe(LENGTH_BYTES + message.length + firstTagBytes);
  head.writeUInt32BE(total, 0);
  head.set(message, LENGTH_BYTES);
  if (first !== undefined) writeRecordsTag(head, LENGTH_BYTES + message.length, first);
  const out: Uint8Array[] = [head];
  for (let index = 0; index < records.length; index += 1) {
    const bytes = sizes[index] as number;
    if (index > 0) {
      const tag = Buffer.allocUnsafe(RECORDS_TAG_BYTES + varintBytes(bytes));
      writeRecordsTag(tag, 0, bytes);
      out.push(tag);
    }
    for (const piece of records[index] as readonly Uint8Array[]) out.push(piece);
  }
  return out;
}

/** Correlation id and body: everything before the records. */
function encodeMessage(correlationId: number, key: number, codec: BodyCodec, body: unknown): Uint8Array {
  const writer = createWriter();
  writer.uint32(CORRELATION_TAG).uint32(correlationId);
  codec.encode(body, writer.uint32(key * 8 + 2).fork()).ldelim();
  return writer.finish();
}

function writeRecordsTag(buffer: Uint8Array, at: number, bytes: number): void {
  writeVarint(buffer, writeVarint(buffer, at, RECORDS_TAG), bytes);
}

/** Throws ApiError INVALID_REQUEST, UNSUPPORTED_VERSION or TOO_MANY_ELEMENTS. */
export function decodeRequest(frame: Buffer): DecodedRequest {
  const parts = splitFrame(frame);
  const kind = requestKindOf(parts.key);
  if (kind === undefined) {
    throw new ApiError(
      "UNSUPPORTED_VERSION",
      `request ${parts.key} is unknown to this broker; use a client of its version`,
    );
  }
  const elementsMax = apiKeys[kind].elementsMax;
  if (countElements(frame, parts.bodyStart, parts.bodyEnd, elementsMax) > elementsMax) {
    throw new ApiError(
      "TOO_MANY_ELEMENTS",
      `a ${kind} request may hold ${elementsMax} elements; ${kind === "handshake" ? "leave some out" : "send several requests"}`,
    );
  }
  return {
    correlationId: parts.correlationId,
    kind,
    body: decodeBody(requestCodecs.get(kind) as BodyCodec, frame, parts),
    records: parts.records,
  };
}

/** Throws ApiError INVALID_REQUEST when the bytes are no response. */
export function decodeResponse(frame: Buffer): DecodedResponse {
  const parts = splitFrame(frame);
  const { correlationId, records } = parts;
  if (parts.key === ERROR_KEY) {
    const error = decodeBody(codecs.ErrorDetail as unknown as BodyCodec, frame, parts) as ErrorDetail;
    return { correlationId, kind: undefined, body: undefined, error, records };
  }
  const kind = requestKindOf(parts.key);
  if (kind === undefined) throw malformed(`unknown body ${parts.key}`);
  const body = decodeBody(responseCodecs.get(kind) as BodyCodec, frame, parts);
  return { correlationId, kind, body, error: undefined, records };
}

function decodeBody(codec: BodyCodec, frame: Buffer, parts: FrameParts): unknown {
  try {
    return codec.decode(frame.subarray(parts.bodyStart, parts.bodyEnd));
  } catch (cause) {
    throw new ApiError("INVALID_REQUEST", `the body of field ${parts.key} is not the message it should be`, { cause });
  }
}

interface FrameParts {
  readonly correlationId: number;
  readonly key: number;
  readonly bodyStart: number;
  readonly bodyEnd: number;
  readonly records: readonly Buffer[];
}

const malformed = (detail: string): ApiError =>
  new ApiError("INVALID_REQUEST", `the frame is no message of this protocol: ${detail}`);

/**
 * The top level of Request and Response, by hand: correlation id, one body, then records, which stay views. Other fields
 * may follow the body, and are skipped.
 */
function splitFrame(frame: Buffer): FrameParts {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = frame[at++];
      if (byte === undefined) throw malformed("it ends inside a number");
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value > 0xffffffff) throw malformed("a number above 2^32 - 1");
        return value;
      }
    }
    throw malformed("a number of more than five bytes");
  };
  const content = (): { start: number; end: number } => {
    const bytes = varint();
    if (bytes > frame.length - at) throw malformed(`a field of ${bytes} bytes where ${frame.length - at} are left`);
    at += bytes;
    return { start: at - bytes, end: at };
  };

  const skip = (wireType: number): void => {
    if (wireType === 0) while ((frame[at++] ?? 0) >= 0x80) continue;
    else if (wireType === 1) at += 8;
    else if (wireType === 2) content();
    else if (wireType === 5) at += 4;
    else throw malformed(`a field of wire type ${wireType}`);
    if (at > frame.length) throw malformed("it ends inside a field");
  };

  let tag = varint();
  let correlationId = 0;
  if (tag === CORRELATION_TAG) {
    correlationId = varint();
    tag = varint();
  }
  if ((tag & 7) !== 2 || tag === RECORDS_TAG) throw malformed("no body after the correlation id");
  const key = Math.floor(tag / 8);
  const body = content();
  const records: Buffer[] = [];
  while (at < frame.length) {
    tag = varint();
    if (tag === RECORDS_TAG) {
      const { start, end } = content();
      records.push(frame.subarray(start, end));
      continue;
    }
    const field = Math.floor(tag / 8);
    if (field === ERROR_KEY || requestKindOf(field) !== undefined) throw malformed("more than one body");
    if (field < 2) throw malformed(`field ${field} behind the body`);
    // A newer version has added it.
    skip(tag & 7);
  }
  return { correlationId, key, bodyStart: body.start, bodyEnd: body.end, records };
}

/** How deep repeated fields of our messages nest. */
const NESTING_MAX = 4;

/**
 * Counts messages and strings at every depth, up to a little over `limit`, without decoding: a megabyte of empty elements
 * costs a hundred times its size once decoded. Numbers cost nothing, they have their place in the message. Content that
 * happens to parse as fields (a string) is counted too; that only makes the count larger.
 */
function countElements(frame: Buffer, bodyStart: number, bodyEnd: number, limit: number): number {
  let total = 0;
  const visit = (start: number, end: number, depth: number): void => {
    let at = start;
    while (at < end && total <= limit) {
      const tag = frame[at] as number;
      if (tag >= 0x80) while (at < end && (frame[at] as number) >= 0x80) at += 1;
      at += 1;
      switch (tag & 7) {
        case 0:
          while (at < end && (frame[at] as number) >= 0x80) at += 1;
          at += 1;
          break;
        case 1:
          at += 8;
          break;
        case 5:
          at += 4;
          break;
        case 2: {
          let bytes = 0;
          let shift = 0;
          while (at < end && shift < 35) {
            const byte = frame[at++] as number;
            bytes += (byte & 0x7f) * 2 ** shift;
            shift += 7;
            if (byte < 0x80) break;
          }
          if (bytes > end - at) return;
          total += 1;
          if (depth < NESTING_MAX && bytes > 1) visit(at, at + bytes, depth + 1);
          at += bytes;
          break;
        }
        default:
          return;
      }
    }
  };
  visit(bodyStart, bodyEnd, 1);
  return total;
}
