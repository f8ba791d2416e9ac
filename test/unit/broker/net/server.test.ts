import { BytePool } from "../../../../common/byte-pool.js";
import type { Socket } from "../../../../common/env/network.js";
import { nodeEnv } from "../../../../common/env/node-env.js";
import { silentLogger } from "../../../../common/logger.js";
import { encodeRequest } from "../../../../protocol/message-codec.js";
import type { ConnectionParts } from "../../../../broker/net/connection.js";
import { Connection } from "../../../../broker/net/connection.js";
import { MemoryBudget } from "../../../../broker/net/memory-budget.js";
import type { RequestRouter } from "../../../../broker/net/request-router.js";
import { ResponseBudget } from "../../../../broker/net/response-budget.js";
import type { ServerLimits } from "../../../../broker/net/server.js";
import { Server } from "../../../../broker/net/server.js";
import { ManualTime } from "../../../support/manual-time.js";

const MIB = 1024 * 1024;

/** What a connection has done to it. */
class FakeSocket {
  readonly remotePort = 1;
  readonly localPort = 2;
  unsentBytes = 0;
  isPaused = false;
  isDestroyed = false;
  #onClosed: () => void = () => undefined;

  constructor(readonly remoteAddress: string) {}

  start(handler: Parameters<Socket["start"]>[0]): void {
    this.#onClosed = () => handler.onClosed("closed-here");
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  destroy(): void {
    if (this.isDestroyed) return;
    this.isDestroyed = true;
    this.#onClosed();
  }
}

describe("Server", () => {
  it("lets an address connect again as often as its connections have ended", async () => {
    const time = new ManualTime();
    let accept: (socket: Socket) => void = () => undefined;
    const network = {
      listen: (_: unknown, onConnection: (socket: Socket) => void) => {
        accept = onConnection;
        return Promise.resolve({ port: 1, close: () => Promise.resolve() });
      },
    };
    const env = nodeEnv({ clock: time, timers: time, network: network as never });
    const server = new Server(env, silentLogger, {
      limits: { connectionsMax: 100, connectionsPerAddressMax: 2, connectionsPerSecondMax: 1000 } as ServerLimits,
      responses: new ResponseBudget(MIB),
      router: {} as RequestRouter,
      onFatal: (error) => {
        throw error;
      },
    });
    await server.listen({ name: "CLIENT", host: "10.0.0.1", port: 1, isInterBroker: false } as never);
    const connect = (address: string): FakeSocket => {
      const socket = new FakeSocket(address);
      accept(socket as unknown as Socket);
      return socket;
    };
    for (let round = 0; round < 3; round += 1) {
      const sockets = [1, 2, 3].map(() => connect("10.0.0.2"));
      expect(sockets.map(({ isDestroyed }) => isDestroyed)).toEqual([false, false, true]);
      const [first, second] = sockets as [FakeSocket, FakeSocket];
      first.destroy();
      const again = connect("10.0.0.2");
      expect([again.isDestroyed, connect("10.0.0.2").isDestroyed]).toEqual([false, true]);
      for (const socket of [second, again]) socket.destroy();
    }
    await server.close();
  });
});

describe("Connection", () => {
  it("reads on when there is memory for requests only if little of its answers is unsent", () => {
    const time = new ManualTime();
    const socket = new FakeSocket("10.0.0.2");
    const budget = new MemoryBudget(100);
    const connection = new Connection(
      1,
      "CLIENT",
      false,
      socket as unknown as Socket,
      {
        clock: time,
        budget,
        responses: new ResponseBudget(MIB),
        frames: new BytePool(MIB),
        onFatal: (error: Error) => {
          throw error;
        },
        onClosed: () => undefined,
      } as unknown as ConnectionParts,
    );
    expect(budget.tryReserve(100)).toBe(true);
    const frame = Buffer.concat(encodeRequest(1, "handshake", { clientId: "x".repeat(500) }));
    connection.receiveBuffer().set(frame.subarray(0, 100));
    connection.onReceived(100);
    expect(socket.isPaused).toBe(true);
    socket.unsentBytes = MIB;
    budget.release(100);
    expect(socket.isPaused).toBe(true);
    socket.unsentBytes = 0;
    connection.onDrained();
    expect(socket.isPaused).toBe(false);
    // It has the memory for its request.
    expect(budget.tryReserve(1)).toBe(false);
    socket.destroy();
  });
});
