import { nodeNetwork } from "../../../common/env/node-network.js";
import { nodeTimers } from "../../../common/env/node-time.js";
import { sleep } from "../../../common/env/time.js";
import { Pace } from "../../../tools/cli/pace.js";
import { Patience } from "../../../tools/cli/patience.js";
import { warnings } from "../../support/real-process.js";

/** One more than a timer of Node can hold: it warns, and fires after 1 ms. */
const LONG_MS = 2 ** 31;

/** Each begins a wait of `LONG_MS` and returns what tells whether it is over, and what ends it. */
const waits: Record<string, () => Promise<{ isOver(): boolean; end(): unknown }>> = {
  "a timer": async () => {
    let isOver = false;
    const timer = nodeTimers.after(LONG_MS, () => (isOver = true));
    return { isOver: () => isOver, end: () => timer.cancel() };
  },
  "a sleep": async () => {
    let isOver = false;
    const controller = new AbortController();
    sleep(nodeTimers, LONG_MS, controller.signal).then(
      () => (isOver = true),
      () => undefined,
    );
    return { isOver: () => isOver, end: () => controller.abort() };
  },
  "an attempt to connect": async () => {
    const network = nodeNetwork();
    const listener = await network.listen({ host: "127.0.0.1", port: 0 }, (socket) => socket.destroy());
    const socket = await network.connect({ host: "127.0.0.1", port: listener.port, timeoutMs: LONG_MS });
    socket.destroy();
    await listener.close();
    return { isOver: () => false, end: () => undefined };
  },
  "the patience of a command": async () => {
    const patience = new Patience(LONG_MS);
    return { isOver: () => patience.signal.aborted, end: () => patience.end() };
  },
  "the pace of a slow producer": async () => {
    const controller = new AbortController();
    const pace = new Pace(1000 / LONG_MS, controller.signal, () => 0);
    expect(pace.take()).toBeUndefined();
    let isOver = false;
    const turn = pace.take()?.then(() => (isOver = true));
    expect(turn).toBeDefined();
    return { isOver: () => isOver, end: () => controller.abort() };
  },
};

describe("a time above 2^31 ms", () => {
  it.each(Object.entries(waits))("is waited for by %s", async (_name, begin) => {
    const said = warnings();
    const wait = await begin();
    // A wait that was cut to 1 ms is over before a shorter one that began after it.
    await sleep(nodeTimers, 5);
    expect(wait.isOver()).toBe(false);
    wait.end();
    said.stop();
    expect(said.names).toEqual([]);
  });
});
