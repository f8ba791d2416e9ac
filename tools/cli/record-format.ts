import type { TextEncoding } from "./byte-text.js";
import { textOf } from "./byte-text.js";
import { usageError } from "./cli-error.js";
import { unescape } from "./line-splitter.js";
import type { Stdout } from "./stdout.js";

/** What `consume` prints of a record. */
export interface PrintableRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly timestamp: number;
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: readonly { readonly key: string; readonly value: Uint8Array | null }[];
}

export type RecordPrinter = (record: PrintableRecord, out: Stdout) => void;

const NEWLINE = 0x0a;

/** For commander: a format that `recordPrinter` knows. */
export function parseFormat(text: string): string {
  recordPrinter(text, "utf8");
  return text;
}

/**
 * How `--format` wants records printed: `value` (bytes and a newline), `json` (the shape that scripts rely on), or a
 * template in the manner of kcat and rpk:
 *
 *   %t topic   %p partition   %o offset   %k key   %v or %s value   %T timestamp in ms   %d timestamp as ISO time
 *   %h headers as name=value,...   %K and %S bytes of key and value (-1: null)   %% a percent sign
 *
 * with \n \t \r \0 \\ \xNN. Nothing is added at the end of a record: write \n.
 */
export function recordPrinter(format: string, encoding: TextEncoding): RecordPrinter {
  if (format === "value") return valuePrinter(encoding);
  if (format === "json") return (record, out) => out.writeText(recordAsJson(record, encoding));
  return templatePrinter(format, encoding);
}

function valuePrinter(encoding: TextEncoding): RecordPrinter {
  if (encoding !== "utf8")
    return (record, out) => out.writeText(`${record.value === null ? "" : textOf(record.value, encoding)}\n`);
  return (record, out) => {
    if (record.value !== null) out.writeBytes(record.value);
    out.writeByte(NEWLINE);
  };
}

/** A record on one line. Written by hand, because header names come from outside and may repeat: then all values count. */
export function recordAsJson(record: PrintableRecord, encoding: TextEncoding): string {
  const text = (bytes: Uint8Array | null): string =>
    bytes === null ? "null" : JSON.stringify(textOf(bytes, encoding));
  let headers = "{}";
  if (record.headers.length > 0) {
    const values = new Map<string, string[]>();
    for (const header of record.headers) {
      const known = values.get(header.key);
      if (known === undefined) values.set(header.key, [text(header.value)]);
      else known.push(text(header.value));
    }
    const fields = [...values].map(
      ([key, all]) => `${JSON.stringify(key)}:${all.length === 1 ? all[0] : `[${all.join(",")}]`}`,
    );
    headers = `{${fields.join(",")}}`;
  }
  return (
    `{"topic":${JSON.stringify(record.topic)},"partition":${record.partition},"offset":${record.offset},` +
    `"timestamp":${record.timestamp},"key":${text(record.key)},"value":${text(record.value)},"headers":${headers}}\n`
  );
}

/** Milliseconds since 1970 that a date can have; a producer may write any number of 64 bits. */
const DATE_MS_MAX = 8.64e15;

/** A time in ISO form; the number itself where it is no date. */
export const isoTime = (ms: number): string => (Math.abs(ms) <= DATE_MS_MAX ? new Date(ms).toISOString() : String(ms));

type TemplatePart = string | ((record: PrintableRecord) => string | Uint8Array | null);

function templatePrinter(template: string, encoding: TextEncoding): RecordPrinter {
  const bytes = (of: Uint8Array | null): string | Uint8Array | null =>
    of === null || encoding === "utf8" ? of : textOf(of, encoding);
  const fields: Readonly<Record<string, TemplatePart>> = {
    "%": "%",
    t: (record) => record.topic,
    p: (record) => String(record.partition),
    o: (record) => String(record.offset),
    k: (record) => bytes(record.key),
    v: (record) => bytes(record.value),
    s: (record) => bytes(record.value),
    T: (record) => String(record.timestamp),
    d: (record) => isoTime(record.timestamp),
    h: (record) =>
      record.headers
        .map((header) => `${header.key}=${header.value === null ? "" : textOf(header.value, encoding)}`)
        .join(","),
    K: (record) => String(record.key === null ? -1 : record.key.length),
    S: (record) => String(record.value === null ? -1 : record.value.length),
  };
  const parts: TemplatePart[] = [];
  for (const piece of unescape(template).split(/(%.)/s)) {
    if (piece === "") continue;
    if (!/^%.$/s.test(piece)) {
      if (piece.includes("%")) throw usageError(`${template} ends in a single %`, "write %% for a percent sign");
      parts.push(piece);
      continue;
    }
    const part = Object.hasOwn(fields, piece.slice(1)) ? fields[piece.slice(1)] : undefined;
    if (part === undefined)
      throw usageError(`${piece} is not a field of a template`, "known are %t %p %o %k %v %s %T %d %h %K %S %%");
    parts.push(part);
  }
  if (!parts.some((part) => typeof part === "function"))
    throw usageError(`${template} prints nothing of a record`, "give value, json, or a template like '%p:%o %k %v\\n'");
  return (record, out) => {
    for (const part of parts) {
      const value = typeof part === "string" ? part : part(record);
      if (typeof value === "string") out.writeText(value);
      else if (value !== null) out.writeBytes(value);
    }
  };
}
