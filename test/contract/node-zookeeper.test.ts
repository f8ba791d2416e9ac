import { jest } from "@jest/globals";
import { createRequire } from "node:module";
import net from "node:net";
import { createClient } from "node-zookeeper-client";
import type { Client, ConnectionManager } from "node-zookeeper-client";
import { nodeZooKeeperConnector } from "../../common/env/node-zookeeper.js";
import type { ZooKeeperConnection, ZooKeeperResult } from "../../common/env/zookeeper-connection.js";
import { eventually } from "../support/eventually.js";
import { startRealZooKeeper } from "../support/real-zookeeper.js";
import type { RealZooKeeper } from "../support/real-zookeeper.js";

// Real servers and real time, on machines that may be busy.
jest.setTimeout(60_000);

// common/env/node-zookeeper.ts replaces private parts of the library. Each of them is checked here, so that another version
// of the library fails here and not in production.
describe("the private parts of node-zookeeper-client", () => {
  const manager = (): ConnectionManager => createClient("127.0.0.1:1", options).connectionManager;
  const options = { sessionTimeout: 6000, spinDelay: 0, retries: 0 };

  it("is the version that was read", () => {
    const { version } = createRequire(import.meta.url)("node-zookeeper-client/package.json") as { version: string };
    expect(version).toBe("1.1.3");
  });

  it("keeps session, password and newest transaction in buffers that are sent at the next handshake", () => {
    const session = { sessionId: Buffer.alloc(8, 1), sessionPassword: Buffer.alloc(16, 2) };
    const { connectionManager } = createClient("127.0.0.1:1", { ...options, ...session });
    expect(connectionManager.sessionId).toEqual(session.sessionId);
    expect(connectionManager.sessionPassword).toEqual(session.sessionPassword);
    expect(connectionManager.zxid).toEqual(Buffer.alloc(8));
    expect(connectionManager.sessionTimeout).toBe(6000);
  });

  it("has queues of packets, a state, and a watcher manager with an emit", () => {
    const { pendingQueue, packetQueue, state, watcherManager, connectTimeoutHandler, socket } = manager();
    expect([pendingQueue, packetQueue.queue, state, connectTimeoutHandler, socket]).toEqual([
      [],
      [],
      0,
      null,
      undefined,
    ]);
    expect(typeof watcherManager.emit).toBe("function");
  });

  it("asks for a server through findNextServer, makes its socket at once, and arms a timer of its own", async () => {
    const listener = net.createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    const { port } = listener.address() as net.AddressInfo;
    const client: Client = createClient("127.0.0.1:1", options);
    const { connectionManager } = client;
    const calls: string[] = [];
    connectionManager.findNextServer = (callback) => callback({ host: "127.0.0.1", port });
    connectionManager.onSocketClosed = () => calls.push("closed");
    connectionManager.onSocketError = () => calls.push("error");
    client.connect();
    expect(connectionManager.socket).toBeInstanceOf(net.Socket);
    expect(connectionManager.connectTimeoutHandler).not.toBeNull();
    clearTimeout(connectionManager.connectTimeoutHandler!);
    // The handlers that were put in place are the ones that are called, and nothing reconnects.
    await eventually("closed", () => calls.includes("closed"));
    connectionManager.socket!.destroy();
    await new Promise((resolve) => listener.close(resolve));
  });

  it("sends version 0 of a transaction as -1, and lets it be put right in its list of operations", () => {
    const transaction = createClient("127.0.0.1:1", options).transaction();
    transaction.check("/a", 0).remove("/a", 0).setData("/a", Buffer.alloc(0), 0);
    expect(transaction.ops.map((operation) => operation.version)).toEqual([-1, -1, -1]);
    transaction.ops.at(-1)!.version = 0;
    const queued: unknown[] = [];
    transaction.connectionManager = { queue: (request) => queued.push(request) };
    transaction.commit(() => undefined);
    expect(queued).toHaveLength(1);
  });

  it("registers watchers through three methods of the connection manager", () => {
    const one = manager();
    for (const name of ["registerDataWatcher", "registerChildWatcher", "registerExistenceWatcher"] as const) {
      expect(typeof one[name]).toBe("function");
    }
  });
});

describe("nodeZooKeeperConnector", () => {
  let real: RealZooKeeper;
  const opened: ZooKeeperConnection[] = [];

  beforeAll(async () => {
    real = await startRealZooKeeper();
  });
  afterAll(() => real.stop());
  afterEach(() => {
    for (const connection of opened.splice(0)) connection.destroy();
  });

  const open = (port: number, host = "127.0.0.1"): { connection: ZooKeeperConnection; events: string[] } => {
    const events: string[] = [];
    const connection = nodeZooKeeperConnector.open(
      { host, port, sessionTimeoutMs: 6000 },
      {
        onConnected: () => events.push("connected"),
        onSessionExpired: () => events.push("expired"),
        onWatch: (event) => events.push(event.kind),
        onClosed: (error) => events.push(`closed: ${error?.message ?? "as asked"}`),
      },
    );
    opened.push(connection);
    return { connection, events };
  };

  it("tells of a host or a port that cannot be one as of any failed connection", async () => {
    const { events } = open(70_000);
    const unknown = open(2181, "no-such-host.invalid");
    await eventually("both closed", () => events.length === 1 && unknown.events.length === 1);
    expect(events[0]).toMatch(/^closed: .*port/i);
    expect(unknown.events[0]).toMatch(/^closed: getaddrinfo/);
  });

  it("can be destroyed in the turn in which it was opened", async () => {
    const { connection, events } = open(real.servers[0]!.port);
    connection.destroy();
    await eventually("closed", () => events.length === 1);
    expect(events).toEqual(["closed: closed here"]);
  });

  it("ends a connection to something that is no ZooKeeper, whatever that says", async () => {
    const answers = [
      Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"),
      Buffer.from([0xff, 0xff, 0xff, 0xff, 0]),
      Buffer.from([0, 0, 0, 3, 1, 2, 3]),
      Buffer.from([0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (const answer of answers) {
      const liar = net.createServer((socket) => {
        socket.on("error", () => socket.destroy());
        socket.resume();
        socket.write(answer);
      });
      await new Promise<void>((resolve) => liar.listen(0, "127.0.0.1", resolve));
      const { events } = open((liar.address() as net.AddressInfo).port);
      await eventually("closed", () => events.length === 1);
      expect(events[0]).toMatch(/^closed: /);
      await new Promise((resolve) => liar.close(resolve));
    }
  });

  it("passes on a code it does not know as unknown, and answers everything else", async () => {
    // ZooKeeper 3.8 answers a request of a kind it does not implement with a code the library does not know; here the proxy
    // of this test changes the code in the answer to the second request.
    const proxy = net.createServer((client) => {
      const server = net.connect({ port: real.servers[0]!.port, host: "127.0.0.1" });
      let answers = 0;
      client.pipe(server);
      for (const socket of [client, server]) socket.on("error", () => socket.destroy());
      client.on("close", () => server.destroy());
      // An answer may arrive in parts, its length alone among them.
      let received = Buffer.alloc(0);
      server.on("data", (chunk) => {
        received = Buffer.concat([received, chunk]);
        while (received.length >= 4 && received.length >= 4 + received.readInt32BE(0)) {
          const answer = received.subarray(0, 4 + received.readInt32BE(0));
          received = received.subarray(answer.length);
          answers += 1;
          if (answers === 3) answer.writeInt32BE(-125, 16);
          client.write(answer);
        }
      });
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    const { connection, events } = open((proxy.address() as net.AddressInfo).port);
    await eventually("connected", () => events.length === 1);
    const codes: string[] = [];
    const note = (result: ZooKeeperResult): void => void codes.push(result.code);
    for (let count = 0; count < 3; count += 1) connection.request({ kind: "exists", path: "/", watch: false }, note);
    await eventually("answers", () => codes.length === 3);
    expect(codes).toEqual(["ok", "unknown", "ok"]);
    connection.destroy();
    await new Promise((resolve) => proxy.close(resolve));
  });

  it("never catches an error of its user's code", async () => {
    const { connection, events } = open(real.servers[0]!.port);
    await eventually("connected", () => events.length === 1);
    // The process would stop here; the listener stands in for that.
    const thrown = new Promise<unknown>((resolve) => {
      const real = (setImmediate.constructor as FunctionConstructor)("return process")() as NodeJS.Process;
      const others = real.listeners("uncaughtException");
      real.removeAllListeners("uncaughtException");
      real.once("uncaughtException", (error) => {
        for (const other of others) real.on("uncaughtException", other);
        resolve(error);
      });
    });
    const bug = new Error("a bug of the user");
    connection.request({ kind: "exists", path: "/", watch: false }, () => {
      throw bug;
    });
    expect(await thrown).toBe(bug);
  });
});
