import type { Broker } from "../../../../broker/controller/cluster-state.js";
import { EvidenceOfLife } from "../../../../broker/controller/evidence-of-life.js";
import type { Env } from "../../../../common/env/env.js";
import type { BrokerId } from "../../../../protocol/types.js";
import { ManualTime } from "../../../support/manual-time.js";

describe("EvidenceOfLife", () => {
  function setUp() {
    const time = new ManualTime();
    const brokers = new Map([1, 2, 3].map((id): [BrokerId, Broker] => [id, { id, epoch: String(id) } as Broker]));
    const noticed: number[] = [];
    const evidence = new EvidenceOfLife({ clock: time, timers: time } as unknown as Env, {
      brokers,
      isGoing: () => false,
      ask: () => undefined,
      onPatienceOver: () => noticed.push(time.monotonicMs()),
    });
    const answer = (...ids: number[]): void =>
      ids.forEach((id) => evidence.noteAnswer(brokers.get(id) as Broker, evidence.doubts));
    for (const broker of brokers.values()) evidence.noteRegistered(broker);
    answer(1, 2, 3);
    time.advance(1000);
    return { time, evidence, noticed, answer };
  }

  it("says in time that somebody is not waited for any more, while another one is waited for longer", () => {
    const { time, evidence, noticed, answer } = setUp();
    // Broker 3 is gone, and might yet be waited for where there is nobody else.
    evidence.doubt();
    answer(1, 2);
    time.advance(200);
    const askedMs = time.monotonicMs();
    // Now broker 2 is gone too.
    evidence.doubt();
    answer(1);
    noticed.length = 0;
    time.advance(150);
    expect(evidence.isAwaited(2)).toBe(false);
    expect(noticed.map((atMs) => atMs - askedMs)).toEqual([100]);
  });

  it("holds nobody up longer than an answer is waited for", async () => {
    const { time, evidence, answer } = setUp();
    evidence.doubt();
    answer(1, 2);
    time.advance(200);
    let isOver = false;
    const asked = evidence.askAgainIfLongSince(time.monotonicMs() - 150).then(() => (isOver = true));
    answer(1);
    time.advance(99);
    await Promise.resolve();
    expect(isOver).toBe(false);
    time.advance(1);
    await Promise.race([asked, new Promise((resolve) => setImmediate(resolve))]);
    expect(isOver).toBe(true);
  });

  it("waits longer where nobody has answered, and not for the rest once somebody has", () => {
    const { time, evidence, answer } = setUp();
    evidence.doubt();
    expect(evidence.areAwaited([2, 3])).toBe(true);
    time.advance(100);
    expect([evidence.isAwaited(2), evidence.areAwaited([2, 3])]).toEqual([false, true]);
    answer(2);
    expect([evidence.areAwaited([2, 3]), evidence.areAwaited([3])]).toEqual([false, true]);
    time.advance(1900);
    expect(evidence.areAwaited([3])).toBe(false);
  });
});
