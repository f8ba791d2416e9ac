import type { CheckedConnection, CheckHost } from "../../../client/connection-check.js";
import { ConnectionCheck } from "../../../client/connection-check.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import type { RpcConnection } from "../../../protocol/rpc-connection.js";
import { ManualTime } from "../../support/manual-time.js";

/** Goal: of the connections that a check makes one is left at most, and only if its owner has got it. */
describe("ConnectionCheck", () => {
  const setUp = () => {
    const time = new ManualTime();
    const told: unknown[] = [];
    const opened: { isOpen: boolean; close: () => void }[] = [];
    let answer = (): void => undefined;
    let connect = (): void => undefined;
    const connection: CheckedConnection = {
      request: () => new Promise<never>((resolve) => (answer = resolve as () => void)),
      receivedBytes: 0,
      unsentBytes: 0,
      takenBytes: 0,
      underWayBytes: 0,
    };
    const host: CheckHost = {
      handshake: {},
      bytesPerMs: 1000,
      open: () =>
        new Promise((resolve) => {
          connect = () => {
            const fresh = { isOpen: true, close: () => void (fresh.isOpen = false) };
            opened.push(fresh);
            resolve(fresh as unknown as RpcConnection);
          };
        }),
      onLost: (fresh) => told.push(fresh),
      onAlive: () => told.push("alive"),
    };
    const check = new ConnectionCheck(nodeEnv({ clock: time, timers: time }), connection, host);
    const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    return {
      time,
      check,
      told,
      opened,
      answer: async () => {
        answer();
        await settled();
      },
      connect: async () => {
        connect();
        await settled();
      },
    };
  };

  it("hands over the fresh connection where the old one stays silent, open", async () => {
    const { time, told, opened, connect } = setUp();
    time.advance(250);
    await connect();
    time.advance(100);
    expect(told).toEqual([opened[0]]);
    expect(opened.map(({ isOpen }) => isOpen)).toEqual([true]);
  });

  it("ends the fresh connection when the old one answers after all, before that is made or after", async () => {
    for (const isMade of [false, true]) {
      const { time, told, opened, answer, connect } = setUp();
      time.advance(250);
      if (isMade) await connect();
      await answer();
      if (!isMade) await connect();
      time.advance(10_000);
      expect(told).toEqual(["alive"]);
      expect(opened.map(({ isOpen }) => isOpen)).toEqual([false]);
    }
  });

  it("ends the fresh connection and tells nothing when it is ended, whatever comes of it afterwards", async () => {
    for (const isMade of [false, true]) {
      const { time, check, told, opened, answer, connect } = setUp();
      time.advance(250);
      if (isMade) await connect();
      check.end();
      if (!isMade) await connect();
      await answer();
      time.advance(10_000);
      expect(told).toEqual([]);
      expect(opened.map(({ isOpen }) => isOpen)).toEqual([false]);
    }
  });
});
