import {
  durationMsOf,
  collectSettings,
  parseCount,
  parseDuration,
  parseDurationWithin,
  parseHeader,
  formatDuration,
  plural,
  parseRate,
  parseSize,
  parseSizeWithin,
} from "../../../../tools/cli/quantities.js";
import { CliError } from "../../../../tools/cli/cli-error.js";
import { readProperties } from "../../../../tools/cli/properties.js";
import { parseStartPosition } from "../../../../tools/cli/start-position.js";

describe("quantities", () => {
  it.each([
    ["500ms", 500],
    ["10s", 10_000],
    ["1.5m", 90_000],
    ["2h", 7_200_000],
    ["7d", 604_800_000],
  ])("reads the duration %s", (text, ms) => expect(parseDuration(text)).toBe(ms));
  it.each(["", "5", "-5s", "5 s", "s", "1e3ms"])("refuses %p as a duration", (text) => {
    expect(durationMsOf(text)).toBeUndefined();
    expect(() => parseDuration(text)).toThrow("is not a duration");
  });
  it.each([
    ["100", 100],
    ["64KiB", 65_536],
    ["1MB", 1_000_000],
    ["1.5k", Number.NaN],
    ["2GiB", 2 ** 31],
  ])("reads the size %s", (text, bytes) => {
    if (Number.isNaN(bytes)) expect(() => parseSize(text)).toThrow("is not a size");
    else expect(parseSize(text)).toBe(bytes);
  });
  it("keeps counts to whole numbers in their range", () => {
    expect(parseCount(1, 5)("5")).toBe(5);
    for (const text of ["0", "6", "1.5", "-1", "x", "", "9007199254740993", "0x3", "3e0", " 3 ", "+3"])
      expect(() => parseCount(1, 5)(text)).toThrow();
  });
  it("keeps durations and sizes to their range", () => {
    expect(parseDurationWithin("1ms", "1m")("60s")).toBe(60_000);
    for (const text of ["0ms", "61s", "x"]) expect(() => parseDurationWithin("1ms", "1m")(text)).toThrow(text);
    expect(parseSizeWithin("1KiB", "8MiB")("8MiB")).toBe(2 ** 23);
    for (const text of ["1", "9MiB", "x"]) expect(() => parseSizeWithin("1KiB", "8MiB")(text)).toThrow(text);
  });
  it.each([
    [0, "0ms"],
    [1500, "1500ms"],
    [120_000, "2m"],
    [90_000, "90s"],
    [86_400_000, "1d"],
  ])("writes %d ms as %s", (ms, text) => expect(formatDuration(ms)).toBe(text));
  it("counts", () => {
    expect([plural(0, "record"), plural(1, "record"), plural(1234, "batch")]).toEqual([
      "0 records",
      "1 record",
      "1,234 batches",
    ]);
  });
  it("reads rates and assignments", () => {
    expect(parseRate("1000/s")).toBe(1000);
    expect(() => parseRate("0")).toThrow("is not a rate");
    expect(collectSettings("a=b=c", undefined)).toEqual([["a", "b=c"]]);
    expect(parseHeader("a=b=c")).toEqual(["a", "b=c"]);
    const hintOf = (parse: () => unknown): string | undefined => {
      try {
        parse();
      } catch (error) {
        if (error instanceof CliError) return `${error.message} - ${error.hint}`;
        throw error;
      }
      return undefined;
    };
    expect(hintOf(() => collectSettings("=b", undefined))).toBe(
      "=b is not NAME=VALUE - write one like retention.ms=60000",
    );
    expect(hintOf(() => parseHeader("=b"))).toBe("=b is not NAME=VALUE - write one like source=web");
  });
});

describe("parseStartPosition", () => {
  const now = (): number => 1_000_000;
  it.each([
    ["earliest", { kind: "earliest" }],
    ["beginning", { kind: "earliest" }],
    ["latest", { kind: "latest" }],
    ["17", { kind: "offset", offset: 17 }],
    ["-5", { kind: "last", records: 5 }],
    ["@1700000000000", { kind: "timestamp", timestamp: 1_700_000_000_000 }],
    ["5m", { kind: "timestamp", timestamp: 700_000 }],
    ["-5m", { kind: "timestamp", timestamp: 700_000 }],
    ["5m ago", { kind: "timestamp", timestamp: 700_000 }],
    ["10d", { kind: "timestamp", timestamp: 0 }],
    ["2026-01-31T12:00Z", { kind: "timestamp", timestamp: Date.UTC(2026, 0, 31, 12) }],
  ])("reads %s", (text, position) => expect(parseStartPosition(text, now)).toEqual(position));
  it.each(["", "yesterday", "1.5", "@x", "2026-99-99", "99999999999999999999"])("refuses %p", (text) =>
    expect(() => parseStartPosition(text, now)).toThrow(),
  );
});

describe("readProperties", () => {
  it("reads names and values, whatever stands between them", () => {
    const text = "# comment\n! too\n\na=1\r\n b.c = x = y \nd: e\nempty=\n";
    expect(readProperties(text, "f")).toEqual({ a: "1", "b.c": "x = y", d: "e", empty: "" });
  });
  it("names the line of a fault", () => {
    expect(() => readProperties("a=1\njunk\n", "f")).toThrow("line 2 of f is not NAME=VALUE");
    expect(() => readProperties("a=1\na=2\n", "f")).toThrow("a comes a second time in line 2");
  });
});
