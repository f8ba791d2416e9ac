import fc from "fast-check";
import { LatencyHistogram } from "../../../../tools/cli/latency-histogram.js";
import { Pace } from "../../../../tools/cli/pace.js";

describe("LatencyHistogram", () => {
  it("gives quantiles within two parts in a hundred of sorting all of them", () => {
    const durations = fc.array(fc.double({ min: 0.001, max: 1e6, noNaN: true }), { minLength: 1 });
    fc.assert(
      fc.property(durations, fc.double({ min: 0.01, max: 1, noNaN: true }), (all, share) => {
        const histogram = new LatencyHistogram();
        for (const ms of all) histogram.add(ms);
        const sorted = [...all].sort((left, right) => left - right);
        const exact = sorted[Math.ceil(share * sorted.length) - 1] as number;
        expect(histogram.quantile(share)).toBeGreaterThanOrEqual(exact * 0.9999);
        expect(histogram.quantile(share)).toBeLessThanOrEqual(exact * 1.02);
        expect(histogram.max).toBe(sorted.at(-1));
        expect(histogram.count).toBe(all.length);
      }),
    );
  });

  it("is zero when it holds nothing", () => {
    const empty = new LatencyHistogram();
    expect([empty.quantile(0.5), empty.mean, empty.max]).toEqual([0, 0, 0]);
  });
});

describe("Pace", () => {
  it("lets a record go when its time has come, and not before", () => {
    let nowMs = 0;
    const pace = new Pace(100, new AbortController().signal, () => nowMs);
    expect(pace.take()).toBeUndefined();
    expect(pace.take()).toBeDefined();
    nowMs = 30;
    expect(pace.take()).toBeUndefined();
  });

  it("waits no longer when it is interrupted", async () => {
    const interruption = new AbortController();
    const pace = new Pace(0.001, interruption.signal, () => 0);
    void pace.take();
    const waiting = pace.take();
    interruption.abort();
    await waiting;
  });
});
