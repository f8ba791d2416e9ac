import { BrokerCaller } from "../../../client/broker-caller.js";
import type { Metadata } from "../../../client/metadata.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import { TransportError } from "../../../protocol/rpc-error.js";
import { ManualTime } from "../../support/manual-time.js";

describe("BrokerCaller", () => {
  it("leaves no listener and no timer behind, whatever comes of a call", async () => {
    const time = new ManualTime();
    const listeners = new Set<() => void>();
    const outcomes: (() => Promise<unknown>)[] = [
      () => Promise.resolve({ body: { topics: [] } }),
      () => Promise.reject(new TransportError("closed", false, undefined, "it has ended")),
    ];
    let request = outcomes[0];
    const metadata = {
      isClosed: false,
      foreignRefusal: undefined,
      onChange: (listener: () => void) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
      onTrouble: () => undefined,
      nextAnswer: () => Promise.resolve(),
      lookupFailure: () => undefined,
      control: {
        open: () => Promise.resolve({ address: "x:1", request: () => request?.() }),
        onSilence: () => undefined,
      },
    } as unknown as Metadata;
    const caller = new BrokerCaller(nodeEnv({ clock: time, timers: time }), metadata, 1000, 1000);
    const controller = new AbortController();
    const call = () =>
      caller.call({
        kind: "metadata",
        body: () => ({ noTopics: true }),
        target: () => 1,
        targetName: "a broker",
        deadline: caller.deadline(1000),
        signal: controller.signal,
      });
    await call();
    expect([listeners.size, time.pendingTimers]).toEqual([0, 0]);
    let attempts = 0;
    request = () => outcomes[(attempts += 1) > 3 ? 0 : 1]!();
    await call();
    expect([attempts, listeners.size, time.pendingTimers]).toEqual([4, 0, 0]);
    request = () => new Promise(() => undefined);
    const given = call();
    await new Promise((resolve) => setImmediate(resolve));
    expect(listeners.size).toBe(1);
    controller.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
    expect([listeners.size, time.pendingTimers]).toEqual([0, 0]);
  });
});
