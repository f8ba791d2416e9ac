import type { Env } from "../../../../common/env/env.js";
import type { Socket, SocketHandler } from "../../../../common/env/network.js";
import { silentLogger } from "../../../../common/logger.js";
import type { RequestRouter } from "../../../../broker/net/request-router.js";
import { ResponseBudget } from "../../../../broker/net/response-budget.js";
import { Server } from "../../../../broker/net/server.js";
import { encodeRequest } from "../../../../protocol/message-codec.js";
import { ManualTime } from "../../../support/manual-time.js";

const MIB = 1024 * 1024;

/** The broker's end of a connection whose client reads when the test says so. */
class Peer implements Socket {
  readonly remoteAddress = "127.0.0.1";
  readonly remotePort = 1;
  readonly localPort = 2;
  unsentBytes = 0;
  isDestroyed = false;
  #handler: SocketHandler | undefined;

  start(handler: SocketHandler): void {
    this.#handler = handler;
  }
  send(pieces: readonly Uint8Array[]): void {
    for (const { length } of pieces) this.unsentBytes += length;
  }
  pause(): void {}
  resume(): void {}
  end(): void {}
  destroy(): void {
    this.isDestroyed = true;
  }

  request(kind: "handshake" | "metadata"): void {
    const bytes = Buffer.concat(encodeRequest(1, kind, {}));
    for (let at = 0; at < bytes.length;) {
      const count = bytes.copy(this.#handler!.receiveBuffer(), 0, at);
      this.#handler!.onReceived(count);
      at += count;
    }
  }
  read(bytes = this.unsentBytes): void {
    this.unsentBytes -= bytes;
    if (this.unsentBytes === 0) this.#handler!.onDrained();
  }
  closed(): void {
    this.unsentBytes = 0;
    this.#handler!.onClosed("closed-here");
  }
}

/** Goal: responses that nobody reads are bounded over all connections. */
describe("the memory of responses", () => {
  async function setUp() {
    const time = new ManualTime();
    const responses = new ResponseBudget(16 * MIB);
    let accept: (socket: Socket) => void = () => undefined;
    const network = {
      listen: (_options: unknown, onConnection: (socket: Socket) => void) => {
        accept = onConnection;
        return Promise.resolve({ port: 1, close: () => Promise.resolve() });
      },
    };
    const answer = { bytes: MIB / 2 };
    const router = {
      route: (_request: unknown, _context: unknown, respond: (answer: { pieces: Uint8Array[] }) => void) =>
        respond({ pieces: [Buffer.alloc(answer.bytes)] }),
    } as unknown as RequestRouter;
    const server = new Server({ clock: time, timers: time, network } as unknown as Env, silentLogger, {
      limits: {
        connectionsMax: 1000,
        connectionsPerAddressMax: 1000,
        connectionsPerSecondMax: 1000,
        inFlightBytesMax: 16 * MIB,
        handshakeTimeoutMs: 5000,
        frameProgressTimeoutMs: 5000,
        idleTimeoutMs: 60_000,
        unreadBytesMax: 32 * MIB,
        unreadMsMax: 30_000,
      },
      responses,
      router,
      onFatal: (error) => {
        throw error;
      },
    });
    await server.listen({ name: "CLIENT", host: "localhost", port: 0, isInterBroker: false });
    const connect = (): Peer => {
      const peer = new Peer();
      accept(peer);
      answer.bytes = 0;
      peer.request("handshake");
      answer.bytes = MIB / 2;
      return peer;
    };
    return { time, responses, connect, answer };
  }

  it("is taken by what waits to be sent, until it was read or the connection has ended", async () => {
    const { responses, connect } = await setUp();
    const [one, two] = [connect(), connect()];
    for (const peer of [one, two]) peer.request("metadata");
    expect(responses.used).toBe(MIB);
    one.read();
    expect(responses.used).toBe(MIB / 2);
    two.closed();
    expect(responses.used).toBe(0);
  });

  it("never counts more than waits, however long a client is a little behind", async () => {
    const { responses, connect } = await setUp();
    const peer = connect();
    for (let count = 0; count < 100; count += 1) {
      peer.request("metadata");
      if (count > 0) peer.read(MIB / 2);
    }
    expect(responses.used).toBeLessThanOrEqual(MIB);
  });

  it("costs those who leave most unread their connections when more is taken than there is", async () => {
    const { responses, connect, answer } = await setUp();
    const peers = Array.from({ length: 100 }, connect);
    for (const [index, peer] of peers.entries()) {
      answer.bytes = index === 20 ? MIB : MIB / 2;
      peer.request("metadata");
      for (const gone of peers.filter(({ isDestroyed }) => isDestroyed)) gone.closed();
      expect(responses.used).toBeLessThanOrEqual(16 * MIB);
    }
    expect(peers[20]?.isDestroyed).toBe(true);
    expect(peers.filter(({ isDestroyed }) => !isDestroyed).length).toBe(32);
  });

  it("costs who has left some unread for longest the connection when others wait for it, and nobody who reads", async () => {
    const { time, responses, connect } = await setUp();
    const [lazy, later, reader] = [connect(), connect(), connect()];
    for (const peer of [lazy, reader]) peer.request("metadata");
    reader.read();
    time.advance(900);
    later.request("metadata");
    responses.onLack?.("short");
    expect([lazy, later, reader].map(({ isDestroyed }) => isDestroyed)).toEqual([false, false, false]);
    time.advance(200);
    responses.onLack?.("short");
    expect([lazy, later, reader].map(({ isDestroyed }) => isDestroyed)).toEqual([true, false, false]);
  });
});
