import { BrokerConfig } from "../../../../broker/config.js";
import { controllerSettings } from "../../../../broker/controller/controller-settings.js";
import type { ProbeVerdict, Suspect } from "../../../../broker/controller/fast-fencing.js";
import { FastFencing, fenceable } from "../../../../broker/controller/fast-fencing.js";
import type { Env } from "../../../../common/env/env.js";
import { silentLogger } from "../../../../common/logger.js";

const dead = (brokerId: number, verdict: ProbeVerdict = "refused") => ({ brokerId, epoch: String(brokerId), verdict });
const limits = (registered: readonly number[], fencedLately: readonly number[] = []) => ({
  registered: new Set(registered),
  fencedLately: new Set(fencedLately),
});
const ids = (suspects: readonly Suspect[]): number[] => suspects.map(({ brokerId }) => brokerId);

describe("fenceable", () => {
  it("fences a minority and leaves the rest to their sessions", () => {
    expect(ids(fenceable([dead(1)], limits([1, 2, 3])))).toEqual([1]);
    expect(ids(fenceable([dead(1), dead(2)], limits([1, 2, 3])))).toEqual([1]);
    expect(ids(fenceable([dead(1), dead(2)], limits([1, 2, 3, 4, 5])))).toEqual([1, 2]);
    expect(ids(fenceable([dead(1)], limits([1, 2])))).toEqual([]);
  });

  it("counts whom it fenced within the last session timeout, registered again or not", () => {
    expect(ids(fenceable([dead(2)], limits([2, 3], [1])))).toEqual([]);
    expect(ids(fenceable([dead(2)], limits([1, 2, 3], [1])))).toEqual([]);
    expect(ids(fenceable([dead(1)], limits([1, 2, 3], [1])))).toEqual([1]);
  });

  it("fences none of several silent brokers if not all of them fit: the silence may be ours", () => {
    const silent = [dead(1, "silent"), dead(2, "silent"), dead(3, "silent")];
    expect(fenceable(silent, limits([1, 2, 3, 4, 5]))).toEqual([]);
    expect(ids(fenceable(silent.slice(0, 2), limits([1, 2, 3, 4, 5])))).toEqual([1, 2]);
  });

  it("takes proven deaths before silence", () => {
    expect(ids(fenceable([dead(1, "silent"), dead(2, "replaced")], limits([1, 2, 3])))).toEqual([2]);
  });
});

describe("FastFencing", () => {
  /** Time that moves by hand; one timer is enough. */
  function world(settings: Readonly<Record<string, string>> = {}) {
    let nowMs = 0;
    const timers: { readonly atMs: number; readonly callback: () => void }[] = [];
    const decided: { fenced: number[]; dead: number[] }[] = [];
    const env = {
      clock: { monotonicMs: () => nowMs },
      timers: {
        after: (delayMs: number, callback: () => void) => {
          const timer = { atMs: nowMs + delayMs, callback };
          timers.push(timer);
          return { cancel: () => void timers.splice(timers.indexOf(timer), 1) };
        },
      },
    } as unknown as Env;
    const fencing = new FastFencing(env, silentLogger, controllerSettings(new BrokerConfig(settings)), {
      registered: () => new Set([1, 2, 3, 4, 5]),
      sessionTimeoutMs: () => 6000,
      onDecided: (fenced, all) => decided.push({ fenced: ids(fenced), dead: ids(all) }),
    });
    const pass = (ms: number): void => {
      nowMs += ms;
      for (const timer of timers.filter(({ atMs }) => atMs <= nowMs)) {
        timers.splice(timers.indexOf(timer), 1);
        timer.callback();
      }
    };
    const die = (brokerId: number): void => {
      fencing.suspect({ brokerId, epoch: "7" });
      fencing.onVerdict({ brokerId, epoch: "7" }, "refused");
    };
    return { fencing, decided, pass, die };
  }

  it("gathers, so that brokers which die together are fenced together", () => {
    const { decided, pass, die } = world();
    die(1);
    pass(15);
    die(2);
    expect(decided).toEqual([]);
    pass(5);
    expect(decided).toEqual([{ fenced: [1, 2], dead: [1, 2] }]);
  });

  it("waits for the verdict on one without holding up the others, and trusts none meanwhile", () => {
    const { fencing, decided, pass, die } = world();
    die(1);
    fencing.suspect({ brokerId: 2, epoch: "7" });
    pass(20);
    expect(decided).toEqual([{ fenced: [1], dead: [1] }]);
    expect(fencing.isSuspected(2, "7")).toBe(true);
    expect(fencing.isSuspected(2, "8")).toBe(false);
    fencing.onVerdict({ brokerId: 2, epoch: "7" }, "silent");
    expect(decided[1]).toEqual({ fenced: [2], dead: [2] });
  });

  it("judges silence together: when most of the cluster falls silent, nobody is fenced", () => {
    const { fencing, decided, pass } = world();
    for (const brokerId of [1, 2, 3]) fencing.suspect({ brokerId, epoch: "7" });
    pass(150);
    for (const brokerId of [1, 2, 3]) fencing.onVerdict({ brokerId, epoch: "7" }, "silent");
    expect(decided).toEqual([{ fenced: [], dead: [1, 2, 3] }]);
  });

  it("drops the suspicion when a fresh connection is answered", () => {
    const { fencing, decided, pass } = world();
    fencing.suspect({ brokerId: 1, epoch: "7" });
    fencing.onVerdict({ brokerId: 1, epoch: "7" }, "alive");
    pass(20);
    expect(decided).toEqual([]);
    expect(fencing.isSuspected(1, "7")).toBe(false);
  });

  it("lets one broker be fenced three times a minute, then leaves it to its session", () => {
    const { decided, pass, die } = world();
    for (let times = 0; times < 4; times++) {
      die(1);
      pass(7000);
    }
    expect(decided.map(({ fenced }) => fenced)).toEqual([[1], [1], [1], []]);
    pass(60_000);
    die(1);
    pass(20);
    expect(decided[4]).toEqual({ fenced: [1], dead: [1] });
  });

  it("does nothing when it is switched off", () => {
    const { fencing, decided, pass, die } = world({ "fast.fencing.enable": "false" });
    die(1);
    pass(1000);
    expect(decided).toEqual([]);
    expect(fencing.isSuspected(1, "7")).toBe(false);
  });
});
