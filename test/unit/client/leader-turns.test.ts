import { LeaderTurns } from "../../../client/leader-turns.js";
import type { UnderWay } from "../../../client/leader-turns.js";

/** Goal: a leader that is busy gets fuller batches, and nobody waits for an answer that does not come. */
describe("LeaderTurns", () => {
  /** Sends until somebody would have to wait. */
  const fill = (turns: LeaderTurns, nowMs: number): UnderWay[] => {
    const sent: UnderWay[] = [];
    while (turns.isTurnOf({ pump: () => undefined }, nowMs)) sent.push(turns.onSent(nowMs));
    turns.callNext(nowMs + 1_000_000);
    return sent;
  };

  it("calls those that wait in their order, one for each answer", () => {
    const turns = new LeaderTurns();
    const sent: UnderWay[] = [];
    while (sent.length < 16) sent.push(turns.onSent(100));
    const called: string[] = [];
    const taker = (name: string) => ({
      pump: (): void => {
        called.push(name);
        if (turns.isTurnOf(takers[name]!, 101)) sent.push(turns.onSent(101));
      },
    });
    const takers: Record<string, { pump: () => void }> = { a: taker("a"), b: taker("b"), c: taker("c") };
    for (const one of Object.values(takers)) expect(turns.isTurnOf(one, 100)).toBe(false);
    turns.callNext(100);
    expect(called).toEqual([]);
    turns.onAnswered(sent[3]!, 101);
    turns.callNext(101);
    expect(called).toEqual(["a"]);
    turns.onAnswered(sent[4]!, 101);
    turns.onAnswered(sent[5]!, 101);
    // Twice told is once answered.
    turns.onEnded(sent[5]!);
    turns.callNext(101);
    expect(called).toEqual(["a", "b", "c"]);
  });

  it("lets nobody overtake one that waits", () => {
    const turns = new LeaderTurns();
    const sent: UnderWay[] = [];
    while (sent.length < 16) sent.push(turns.onSent(100));
    const waiting = { pump: () => undefined };
    expect(turns.isTurnOf(waiting, 100)).toBe(false);
    turns.onAnswered(sent[0]!, 101);
    expect(turns.isTurnOf({ pump: () => undefined }, 100)).toBe(false);
  });

  it("counts a batch no longer than 20 ms, answered or not", () => {
    const turns = new LeaderTurns();
    expect(fill(turns, 100).length).toBe(16);
    let calls = 0;
    const taker = { pump: () => void (calls += 1) };
    while (turns.isTurnOf(taker, 200)) turns.onSent(200);
    expect(turns.wakeAtMs(200)).toBe(220);
    turns.callNext(219);
    expect(calls).toBe(0);
    turns.callNext(220);
    expect(calls).toBe(1);
  });

  it("counts no batch less than nothing that is answered when it has counted no more for long", () => {
    const turns = new LeaderTurns();
    const late = fill(turns, 100);
    expect(turns.isTurnOf({ pump: () => undefined }, 200)).toBe(true);
    for (const sent of late) turns.onEnded(sent);
    expect(fill(turns, 200).length).toBe(16);
  });

  it("counts a batch for longer where answers take longer, and within bounds", () => {
    const turns = new LeaderTurns();
    let nowMs = 0;
    const answerAfter = (ms: number): void => {
      for (let count = 0; count < 100; count += 1) {
        const sent = turns.onSent(nowMs);
        nowMs += ms;
        turns.onAnswered(sent, nowMs);
      }
    };
    const countedMs = (): number => {
      turns.onSent(nowMs);
      const counted = turns.wakeAtMs(nowMs) - nowMs;
      nowMs += 10_000;
      return Math.round(counted);
    };
    answerAfter(60);
    expect(countedMs()).toBe(120);
    answerAfter(5000);
    expect(countedMs()).toBe(500);
    answerAfter(1);
    expect(countedMs()).toBe(20);
  });
});
