import { expiredSegments, wallClockJumped } from "../../../../broker/log/operations/retention.js";
import { shouldRoll } from "../../../../broker/log/segment/roll.js";
import { offset } from "./log-fixtures.js";

const none = { retentionMs: -1, retentionBytes: -1 };
const segments = [10, 20, 30, 40].map((end, at) => ({
  endOffset: offset(end),
  sizeBytes: 100,
  maxTimestamp: at * 1_000,
}));
const all = { logStartOffset: offset(0), highWatermark: offset(40) };

describe("expiredSegments", () => {
  it("keeps everything without limits", () => {
    expect(expiredSegments(segments, all, none, 1e15)).toBe(0);
  });

  it("goes by the newest record of a segment, the last segment included", () => {
    const byTime = { ...none, retentionMs: 500 };
    expect(expiredSegments(segments, all, byTime, 500)).toBe(0);
    expect(expiredSegments(segments, all, byTime, 501)).toBe(1);
    expect(expiredSegments(segments, all, byTime, 2_600)).toBe(3);
    expect(expiredSegments(segments, all, byTime, 9_999)).toBe(4);
  });

  it("stops at the first segment that stays, even if a later one is older", () => {
    const [first, second] = segments as [(typeof segments)[0], (typeof segments)[0]];
    const unordered = [{ ...first, maxTimestamp: 9_000 }, second];
    expect(expiredSegments(unordered, all, { ...none, retentionMs: 500 }, 9_100)).toBe(0);
  });

  it("leaves at least retentionBytes, and never takes the last segment for its size", () => {
    expect(expiredSegments(segments, all, { ...none, retentionBytes: 250 }, 0)).toBe(1);
    expect(expiredSegments(segments, all, { ...none, retentionBytes: 200 }, 0)).toBe(2);
    expect(expiredSegments(segments, all, { ...none, retentionBytes: 0 }, 0)).toBe(3);
  });

  it("deletes nothing at or above the high watermark", () => {
    const bounds = { logStartOffset: offset(0), highWatermark: offset(29) };
    expect(expiredSegments(segments, bounds, { retentionMs: 0, retentionBytes: 0 }, 1e15)).toBe(2);
  });

  it("deletes what lies before the log start", () => {
    expect(expiredSegments(segments, { ...all, logStartOffset: offset(25) }, none, 0)).toBe(2);
    expect(expiredSegments(segments, { ...all, logStartOffset: offset(40) }, none, 0)).toBe(3);
  });
});

describe("shouldRoll", () => {
  const settings = { segmentBytes: 1_000, segmentMs: 5_000 };
  const segment = { sizeBytes: 900, indexEntries: 3, baseOffset: offset(100), firstTimestamp: 50 };
  const batch = { sizeBytes: 100, endOffset: offset(200), maxTimestamp: 100 };

  it("rolls before the segment grows over its size, its span of time, its index or its offsets", () => {
    expect(shouldRoll(segment, batch, settings)).toBe(false);
    expect(shouldRoll(segment, { ...batch, sizeBytes: 101 }, settings)).toBe(true);
    expect(shouldRoll(segment, { ...batch, maxTimestamp: 5_050 }, settings)).toBe(false);
    expect(shouldRoll(segment, { ...batch, maxTimestamp: 5_051 }, settings)).toBe(true);
    expect(shouldRoll({ ...segment, indexEntries: 655_360 }, batch, settings)).toBe(true);
    expect(shouldRoll(segment, { ...batch, endOffset: offset(100 + 2 ** 32) }, settings)).toBe(true);
  });

  it("lets an empty segment take a batch of any size", () => {
    const empty = { ...segment, sizeBytes: 0, firstTimestamp: undefined };
    expect(shouldRoll(empty, { ...batch, sizeBytes: 5_000 }, settings)).toBe(false);
  });
});

describe("wallClockJumped", () => {
  it("tells a clock that was set from one that ran", () => {
    const before = { wallMs: 1_000, monotonicMs: 5 };
    expect(wallClockJumped(before, { wallMs: 901_000, monotonicMs: 900_005 })).toBe(false);
    expect(wallClockJumped(before, { wallMs: 901_000, monotonicMs: 600_004 })).toBe(true);
    expect(wallClockJumped(before, { wallMs: -400_000, monotonicMs: 6 })).toBe(true);
  });
});
