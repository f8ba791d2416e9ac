import { usageError } from "./cli-error.js";
import { durationMsOf } from "./quantities.js";

/** Where `consume --from` begins in each partition. */
export type StartPosition =
  | { readonly kind: "earliest" }
  | { readonly kind: "latest" }
  | { readonly kind: "offset"; readonly offset: number }
  /** So many records before the end of each partition. */
  | { readonly kind: "last"; readonly records: number }
  | { readonly kind: "timestamp"; readonly timestamp: number };

/** Reads `earliest`, `latest`, `17`, `-5`, `2026-01-31T12:00Z`, `@1767225600000`, and `5m`, `-5m` or `5m ago`. */
export function parseStartPosition(text: string, now: () => number = Date.now): StartPosition {
  switch (text) {
    case "earliest":
    case "beginning":
    case "start":
      return { kind: "earliest" };
    case "latest":
    case "end":
      return { kind: "latest" };
  }
  if (/^\d+$/.test(text)) return { kind: "offset", offset: safe(text, Number(text)) };
  if (/^-\d+$/.test(text)) return { kind: "last", records: safe(text, -Number(text)) };
  if (/^@\d+$/.test(text)) return { kind: "timestamp", timestamp: safe(text, Number(text.slice(1))) };
  const ago = durationMsOf(text.replace(/^-/, "").replace(/\s+ago$/, ""));
  if (ago !== undefined) return { kind: "timestamp", timestamp: Math.max(0, now() - ago) };
  if (/^\d{4}-\d{2}(-\d{2})?/.test(text)) {
    const timestamp = Date.parse(text);
    if (Number.isFinite(timestamp)) return { kind: "timestamp", timestamp: Math.max(0, timestamp) };
  }
  throw usageError(
    `${text} is not a position`,
    "give earliest, latest, an offset, -N for the last N, @MILLISECONDS, a time like 2026-01-31T12:00Z, or 5m for five minutes ago",
  );
}

function safe(text: string, value: number): number {
  if (!Number.isSafeInteger(value)) throw usageError(`${text} is larger than any offset or time`);
  return value;
}
