import { ConnectionCheck } from "../../../client/connection-check.js";
import type { CheckedConnection } from "../../../client/connection-check.js";
import type { Env } from "../../../common/env/env.js";
import type { RpcConnection } from "../../../protocol/rpc-connection.js";
import { TransportError } from "../../../protocol/rpc-error.js";
import { ManualTime } from "../../support/manual-time.js";

/** A check of a connection that does not answer its handshake, while fresh ones are there at once. */
function checkOf(state: Partial<CheckedConnection> = {}, open?: () => Promise<RpcConnection>) {
  const time = new ManualTime();
  const seen = { opened: 0, outcome: "none" };
  const fresh = { isOpen: true, close: () => undefined } as RpcConnection;
  const env = { clock: time, timers: time } as unknown as Env;
  const checked = {
    request: () => new Promise<never>(() => undefined),
    receivedBytes: 0,
    unsentBytes: 0,
    takenBytes: 0,
    underWayBytes: 0,
    ...state,
  };
  void new ConnectionCheck(env, checked, {
    handshake: {},
    bytesPerMs: 100,
    open: () => {
      seen.opened += 1;
      return open?.() ?? Promise.resolve(fresh);
    },
    onLost: () => (seen.outcome = "lost"),
    onAlive: () => (seen.outcome = "alive"),
  });
  /** What is moved at each step of 50 ms, or less. */
  const pass = async (forMs: number, step: () => void = () => undefined): Promise<void> => {
    for (let passedMs = 0; passedMs < forMs; passedMs += 50) {
      step();
      time.advance(Math.min(50, forMs));
      await Promise.resolve();
      await Promise.resolve();
    }
  };
  return { checked, seen, pass, time };
}

describe("a check of a connection that does not answer", () => {
  it("finds it lost when a fresh one answers and nothing moves", async () => {
    const { seen, pass } = checkOf();
    await pass(200);
    expect(seen).toEqual({ opened: 0, outcome: "none" });
    await pass(200);
    expect(seen).toEqual({ opened: 1, outcome: "lost" });
  });

  it.each([
    ["something is received", { receivedBytes: 1, takenBytes: 0 }],
    ["the kernel takes some of what waits", { receivedBytes: 0, takenBytes: 1 }],
  ])("waits as long as %s", async (_, moved) => {
    const { checked, seen, pass } = checkOf({ unsentBytes: 1000 });
    await pass(10_000, () => {
      checked.receivedBytes += moved.receivedBytes;
      checked.takenBytes += moved.takenBytes;
      checked.unsentBytes -= moved.takenBytes;
    });
    expect(seen).toEqual({ opened: 0, outcome: "none" });
    await pass(600);
    expect(seen).toEqual({ opened: 1, outcome: "lost" });
  });

  it("keeps it when bytes move while a fresh one is there", async () => {
    const { checked, seen, pass } = checkOf();
    await pass(250);
    expect(seen.opened).toBe(1);
    await pass(1000, () => (checked.receivedBytes += 1));
    expect(seen).toEqual({ opened: 1, outcome: "none" });
    await pass(200);
    expect(seen).toEqual({ opened: 1, outcome: "lost" });
  });

  it("is not misled by a kernel that has room for what is sent into the void", async () => {
    const { checked, seen, pass } = checkOf();
    await pass(400, () => (checked.takenBytes += 100));
    expect(seen).toEqual({ opened: 1, outcome: "lost" });
  });

  it("tries a broker that cannot be reached with a pause that grows to half a second, and no further", async () => {
    const { seen, pass, time } = checkOf({}, () =>
      Promise.reject(new TransportError("connect", true, undefined, "refused")),
    );
    const attemptsMs: number[] = [];
    for (let passedMs = 0; passedMs < 5000; passedMs += 5) {
      const before = seen.opened;
      await pass(5);
      if (seen.opened > before) attemptsMs.push(time.monotonicMs());
    }
    const pausesMs = attemptsMs.slice(1).map((atMs, index) => atMs - attemptsMs[index]!);
    expect(pausesMs.slice(0, 5)).toEqual([20, 40, 80, 160, 320]);
    expect(new Set(pausesMs.slice(5))).toEqual(new Set([500]));
    expect(seen.outcome).toBe("none");
  });

  it("gives what was sent the time that it needs, and no more", async () => {
    const { seen, pass } = checkOf({ underWayBytes: 100_000 });
    await pass(1900);
    expect(seen).toEqual({ opened: 0, outcome: "none" });
    await pass(500);
    expect(seen).toEqual({ opened: 1, outcome: "lost" });
  });
});
