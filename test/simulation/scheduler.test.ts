import { realProcess, Scheduler } from "./scheduler.js";
import { SimProcess } from "./sim-process.js";

describe("Scheduler", () => {
  it("runs events by time and then in the order in which they were scheduled", async () => {
    const scheduler = new Scheduler({ seed: 1 });
    const order: string[] = [];
    scheduler.after(5, "c", () => order.push("c"));
    scheduler.after(1, "a", () => order.push("a"));
    scheduler.after(5, "d", () => order.push("d"));
    scheduler.after(1, "b", () => order.push("b"));
    await scheduler.run(4);
    expect(order).toEqual(["a", "b"]);
    expect(scheduler.nowMs).toBe(4);
    await scheduler.run(1);
    expect(order).toEqual(["a", "b", "c", "d"]);
  });

  it("lets every promise that an event settled run before the next event", async () => {
    const scheduler = new Scheduler({ seed: 1 });
    const order: string[] = [];
    scheduler.after(1, "first", () => {
      void (async () => {
        for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
        process.nextTick(() => order.push("first's last promise"));
      })();
    });
    scheduler.after(1, "second", () => order.push("second"));
    await scheduler.run(2);
    expect(order).toEqual(["first's last promise", "second"]);
  });

  it("does not call a cancelled event", async () => {
    const scheduler = new Scheduler({ seed: 1 });
    let called = false;
    scheduler.after(1, "event", () => (called = true)).cancel();
    await scheduler.run(2);
    expect(called).toBe(false);
  });

  it("keeps a great many events in order", async () => {
    const scheduler = new Scheduler({ seed: 7 });
    const times: number[] = [];
    for (let count = 0; count < 2000; count += 1) {
      const event = scheduler.after(scheduler.random.below(500), "event", () => times.push(scheduler.nowMs));
      if (scheduler.random.chance(0.1)) event.cancel();
    }
    await scheduler.run(500);
    expect(times.length).toBeGreaterThan(1700);
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });

  it("stops at the event that makes the condition true", async () => {
    const scheduler = new Scheduler({ seed: 1 });
    let count = 0;
    for (let delayMs = 1; delayMs <= 10; delayMs += 1) scheduler.after(delayMs, "count", () => (count += 1));
    await scheduler.runUntil(() => count === 3, 100);
    expect(scheduler.nowMs).toBe(3);
  });

  it("fails with the seed when the condition does not come true in time", async () => {
    const scheduler = new Scheduler({ seed: 4711 });
    await expect(scheduler.runUntil(() => false, 10, "the end")).rejects.toThrow(
      /the end did not come true within 10 ms.*seed 4711/,
    );
    expect(scheduler.nowMs).toBe(10);
  });

  it("completes a promise with its value, and fails like it", async () => {
    const scheduler = new Scheduler({ seed: 1 });
    const after = (action: () => void): void => void scheduler.after(3, "settle", action);
    await expect(scheduler.complete(new Promise((resolve) => after(() => resolve("value"))))).resolves.toBe("value");
    await expect(scheduler.complete(new Promise((_, reject) => after(() => reject(new Error("no")))))).rejects.toThrow(
      "no",
    );
    expect(scheduler.nowMs).toBe(6);
  });

  it("fails the run when an event throws", async () => {
    const scheduler = new Scheduler({ seed: 12 });
    scheduler.after(1, "bad event", () => {
      throw new Error("bug");
    });
    await expect(scheduler.run(2)).rejects.toThrow(/bad event threw: Error: bug.*seed 12/);
  });

  it("fails the run when an invariant breaks, right after the event that broke it", async () => {
    const scheduler = new Scheduler({ seed: 13 });
    let balance = 0;
    scheduler.afterEachEvent(() => {
      if (balance < 0) throw new Error("balance below zero");
    });
    scheduler.after(1, "deposit", () => (balance += 1));
    scheduler.after(2, "withdraw", () => (balance -= 2));
    scheduler.after(3, "deposit", () => (balance += 2));
    await expect(scheduler.run(10)).rejects.toThrow(/balance below zero.*seed 13, at 2.000 ms/);
  });

  it("fails the run when a promise is rejected and nobody looks", async () => {
    // Jest listens too and would fail this test; it gets its listeners back.
    const listeners = realProcess.listeners("unhandledRejection");
    realProcess.removeAllListeners("unhandledRejection");
    try {
      const scheduler = new Scheduler({ seed: 15 });
      scheduler.after(1, "careless", () => void Promise.reject(new Error("lost")));
      await expect(scheduler.run(2)).rejects.toThrow(/nobody looked: Error: lost.*seed 15, at 1.000 ms/);
    } finally {
      for (const listener of listeners) realProcess.on("unhandledRejection", listener);
    }
  });

  it("fails the run when it can make no progress in time", async () => {
    const scheduler = new Scheduler({ seed: 14 });
    const again = (): void => void scheduler.after(0, "again", again);
    again();
    await expect(scheduler.run(1)).rejects.toThrow(/time stands still/);
  });

  it("has the same trace for the same seed and another for another", async () => {
    const run = async (seed: number): Promise<{ hash: number; lines: readonly string[] }> => {
      const scheduler = new Scheduler({ seed, keepTrace: true });
      const step = (name: string): void => {
        scheduler.after(scheduler.random.delayMs(3), name, () => {
          void Promise.resolve().then(() => step(scheduler.random.pick(["a", "b", "c"])));
        });
      };
      for (const name of ["x", "y", "z"]) step(name);
      await scheduler.run(300);
      return { hash: scheduler.traceHash, lines: scheduler.trace };
    };
    const [first, second, other] = [await run(1), await run(1), await run(2)];
    expect(first.lines.length).toBeGreaterThan(100);
    expect(second).toEqual(first);
    expect(other.hash).not.toBe(first.hash);
  });

  it("draws from one stream what it draws, whatever is drawn from others", () => {
    const one = new Scheduler({ seed: 5 }).random;
    const other = new Scheduler({ seed: 5 }).random;
    const disturbed = other.stream("disturbance");
    for (let count = 0; count < 10; count += 1) disturbed.float();
    const draw = (random: typeof one): number[] => {
      const stream = random.stream("network");
      return Array.from({ length: 10 }, () => stream.below(1000));
    };
    expect(draw(other)).toEqual(draw(one));
    expect(one.stream("disk").float()).not.toBe(one.stream("network").float());
    expect(one.uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });
});

describe("SimProcess", () => {
  const start = (): { scheduler: Scheduler; process: SimProcess; calls: string[] } => {
    const scheduler = new Scheduler({ seed: 1 });
    return { scheduler, process: new SimProcess(scheduler, "host", 1), calls: [] };
  };

  it("cuts everything a crashed process had scheduled", async () => {
    const { scheduler, process, calls } = start();
    process.timers.after(5, () => calls.push("timer"));
    process.timers.soon(() => calls.push("soon"));
    const guarded = process.guard(() => calls.push("guarded"));
    let settled = false;
    void process.result(5, "result", () => undefined).then(() => (settled = true));
    process.crash();
    process.timers.afterThisTurn(() => calls.push("turn"));
    guarded();
    await scheduler.run(10);
    expect(calls).toEqual([]);
    expect(settled).toBe(false);
  });

  it("tells of its death once", () => {
    const { process, calls } = start();
    process.onDeath((death) => calls.push(death));
    process.onDeath(() => calls.push("removed"))();
    process.crash();
    process.crash();
    expect(calls).toEqual(["crash"]);
  });

  it("calls nothing while paused, and afterwards overdue timers before everything else", async () => {
    const { scheduler, process, calls } = start();
    process.timers.after(10, () => calls.push("timer 10"));
    process.schedule(5, "socket", () => calls.push("socket 5"));
    process.schedule(15, "socket", () => calls.push("socket 15"));
    process.timers.after(20, () => calls.push("timer 20"));
    process.timers.after(60, () => calls.push("timer 60"));
    process.pause();
    await scheduler.run(50);
    expect(calls).toEqual([]);
    process.resume();
    await scheduler.run(0);
    expect(calls).toEqual(["timer 10", "timer 20", "socket 5", "socket 15"]);
    await scheduler.run(10);
    expect(calls.at(-1)).toBe("timer 60");
  });

  it("does not call a timer that was cancelled while it was overdue", async () => {
    const { scheduler, process, calls } = start();
    process.timers.after(1, () => {
      calls.push("first");
      second.cancel();
    });
    const second = process.timers.after(2, () => calls.push("second"));
    process.pause();
    await scheduler.run(10);
    process.resume();
    await scheduler.run(10);
    expect(calls).toEqual(["first"]);
  });

  it("sees time pass while it is stalled, and is called late", async () => {
    const { scheduler, process } = start();
    let calledAtMs = 0;
    process.timers.after(1, () => {
      process.stall(30);
      expect(process.nowMs).toBe(31);
      process.timers.after(2, () => (calledAtMs = process.nowMs));
    });
    process.timers.after(10, () => expect(scheduler.nowMs).toBe(31));
    await scheduler.run(32);
    expect(calledAtMs).toBe(0);
    await scheduler.run(10);
    expect(calledAtMs).toBe(33);
  });
});
