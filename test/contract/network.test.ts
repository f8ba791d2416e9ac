import type { Network, Socket, SocketEnd, SocketHandler } from "../../common/env/network.js";
import { ConnectFailure, ListenFailure } from "../../common/env/network.js";
import { nodeNetwork } from "../../common/env/node-network.js";
import { Simulation } from "../simulation/sim-env.js";
import type { SimProcess } from "../simulation/sim-process.js";

/** Two programs that can reach each other, and the way to let time pass for them. */
interface World {
  readonly client: Network;
  readonly server: Network;
  /** Under which the client reaches the server, and the server may listen. */
  readonly serverHost: string;
  complete<T>(work: Promise<T>): Promise<T>;
  /** Resolves when the condition holds; rejects after some seconds. */
  until(condition: () => boolean): Promise<void>;
  /** Lets pending events happen. Shows that something does *not* happen, as far as that can be shown. */
  settle(): Promise<void>;
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

function realWorld(receiveDirectly: boolean): World {
  const network = nodeNetwork({ receiveDirectly });
  return {
    client: network,
    server: network,
    serverHost: "127.0.0.1",
    complete: (work) => work,
    until: async (condition) => {
      const deadline = Date.now() + 8000;
      while (!condition()) {
        if (Date.now() > deadline) throw new Error("the condition did not come true within 8 s");
        await turn();
      }
    },
    settle: async () => {
      for (let turns = 0; turns < 20; turns += 1) await turn();
    },
  };
}

function simulatedWorld(seed: number): World {
  const simulation = new Simulation({ seed });
  return {
    client: simulation.startProcess("alpha").env.network,
    server: simulation.startProcess("beta").env.network,
    serverHost: "beta",
    complete: (work) => simulation.complete(work),
    until: (condition) => simulation.runUntil(condition, 60_000),
    settle: () => simulation.run(100),
  };
}

/** Remembers all it is told. */
class Recorder implements SocketHandler {
  readonly chunks: Uint8Array[] = [];
  readonly calls: string[] = [];
  receivedBytes = 0;
  end: SocketEnd | undefined;
  drainedCount = 0;
  onBytes: (() => void) | undefined;
  onEnd: (() => void) | undefined;
  readonly #buffer: Uint8Array;

  constructor(
    readonly socket: Socket,
    bufferBytes = 64 * 1024,
  ) {
    this.#buffer = new Uint8Array(bufferBytes);
  }

  receiveBuffer(): Uint8Array {
    return this.#buffer;
  }

  onReceived(count: number): void {
    this.calls.push("received");
    expect(count).toBeGreaterThan(0);
    expect(count).toBeLessThanOrEqual(this.#buffer.length);
    this.chunks.push(this.#buffer.slice(0, count));
    this.receivedBytes += count;
    this.onBytes?.();
  }

  onDrained(): void {
    this.calls.push("drained");
    this.drainedCount += 1;
  }

  onClosed(end: SocketEnd): void {
    this.calls.push("closed");
    this.end = end;
    this.onEnd?.();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get text(): string {
    return this.bytes.toString("latin1");
  }
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));

/** Bytes in which every place can be told from its neighbours. */
function pattern(count: number, salt = 0): Uint8Array {
  const made = new Uint8Array(count);
  for (let index = 0; index < count; index += 1) made[index] = (index * 31 + (index >> 8) * 17 + salt) & 255;
  return made;
}

describe.each<[string, () => World]>([
  ["real", () => realWorld(true)],
  ["real, without the private handle", () => realWorld(false)],
  ["simulated", () => simulatedWorld(1)],
  ["simulated, with another seed", () => simulatedWorld(2)],
])("the network (%s)", (_name, makeWorld) => {
  let world: World;
  let cleanUps: (() => void)[];

  beforeEach(() => {
    world = makeWorld();
    cleanUps = [];
  });

  afterEach(async () => {
    for (const cleanUp of cleanUps) cleanUp();
    await world.settle();
  });

  /** A connection: the client's and the server's socket, neither started. */
  async function pair(): Promise<{ near: Socket; far: Socket; port: number; closeListener: () => Promise<void> }> {
    let far: Socket | undefined;
    const listener = await world.complete(
      world.server.listen({ host: world.serverHost, port: 0 }, (socket) => (far = socket)),
    );
    cleanUps.push(() => void listener.close());
    const near = await world.complete(
      world.client.connect({ host: world.serverHost, port: listener.port, timeoutMs: 5000 }),
    );
    await world.until(() => far !== undefined);
    const accepted = far as unknown as Socket;
    cleanUps.push(() => near.destroy());
    cleanUps.push(() => accepted.destroy());
    return { near, far: accepted, port: listener.port, closeListener: () => listener.close() };
  }

  function started(socket: Socket, bufferBytes?: number): Recorder {
    const recorder = new Recorder(socket, bufferBytes);
    socket.start(recorder);
    return recorder;
  }

  it("carries bytes both ways", async () => {
    const { near, far } = await pair();
    const [client, server] = [started(near), started(far)];
    near.send([bytes("question")]);
    await world.until(() => server.text === "question");
    far.send([bytes("answer")]);
    await world.until(() => client.text === "answer");
  });

  it("names both ends", async () => {
    const { near, far, port } = await pair();
    expect(near.remotePort).toBe(port);
    expect(far.localPort).toBe(port);
    expect(far.remotePort).toBe(near.localPort);
    expect(far.remoteAddress).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
    expect(near.remoteAddress).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
  });

  it("sends pieces and sends in order, whatever their sizes", async () => {
    const { near, far } = await pair();
    const server = started(far, 1000);
    const sent: Uint8Array[] = [];
    for (let index = 0; index < 60; index += 1) {
      const pieces = [
        pattern(index * 37, index),
        new Uint8Array(0),
        pattern(1, index),
        pattern(index % 7 === 0 ? 70_000 : 3, index),
      ];
      near.send(pieces);
      sent.push(...pieces);
    }
    const whole = Buffer.concat(sent);
    await world.until(() => server.receivedBytes >= whole.length);
    expect(server.bytes.equals(whole)).toBe(true);
  });

  it("receives nothing before start, and then what has come by", async () => {
    const { near, far } = await pair();
    near.send([bytes("early")]);
    await world.settle();
    const server = started(far);
    await world.until(() => server.text === "early");
  });

  it("tells a handler that starts late that the peer has ended", async () => {
    const { near, far } = await pair();
    near.send([bytes("last words")]);
    near.end();
    await world.settle();
    const server = started(far);
    await world.until(() => server.end !== undefined);
    expect(server.text).toBe("last words");
    expect(server.end).toBe("ended");
  });

  it("receives nothing while paused, and loses nothing", async () => {
    const { near, far } = await pair();
    const server = started(far, 500);
    server.onBytes = (): void => far.pause();
    const data = pattern(5000);
    near.send([data]);
    await world.until(() => server.chunks.length === 1);
    await world.settle();
    expect(server.chunks.length).toBe(1);
    far.resume();
    await world.until(() => server.chunks.length === 2);
    await world.settle();
    expect(server.chunks.length).toBe(2);
    server.onBytes = undefined;
    far.resume();
    await world.until(() => server.receivedBytes === data.length);
    expect(server.bytes.equals(data)).toBe(true);
  });

  it("calls onSent once for each send, in order and not before send has returned", async () => {
    const { near, far } = await pair();
    const server = started(far);
    started(near);
    const sent: number[] = [];
    for (let index = 0; index < 20; index += 1)
      near.send(index % 3 === 0 ? [] : [pattern(10_000), pattern(10)], () => sent.push(index));
    expect(sent).toEqual([]);
    await world.until(() => sent.length === 20 && server.receivedBytes === 13 * 10_010);
    expect([...sent].sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, index) => index));
    const withBytes = sent.filter((index) => index % 3 !== 0);
    expect(withBytes).toEqual([...withBytes].sort((a, b) => a - b));
  });

  it("holds bytes back when the peer does not read, says how many, and tells when they are gone", async () => {
    const { near, far } = await pair();
    const client = started(near);
    let sent = 0;
    const data = pattern(1024 * 1024);
    for (let count = 0; count < 16; count += 1) near.send([data], () => (sent += 1));
    await world.settle();
    expect(near.unsentBytes).toBeGreaterThan(0);
    expect(near.unsentBytes).toBeLessThanOrEqual(16 * data.length);
    expect(sent).toBeLessThan(16);
    expect(client.drainedCount).toBe(0);
    const server = started(far, 256 * 1024);
    await world.until(() => server.receivedBytes === 16 * data.length);
    await world.until(() => client.drainedCount === 1 && sent === 16);
    expect(near.unsentBytes).toBe(0);
    expect(server.bytes.subarray(15 * data.length).equals(data)).toBe(true);
  });

  it("ends after everything was sent, and still receives what the peer sends before it ends", async () => {
    const { near, far } = await pair();
    const [client, server] = [started(near), started(far, 64 * 1024)];
    let answered = false;
    server.onBytes = (): void => {
      if (answered) return;
      answered = true;
      far.send([bytes("answer")]);
    };
    const data = pattern(3_000_000);
    near.send([data]);
    near.end();
    await world.until(() => client.end !== undefined && server.end !== undefined);
    expect(server.bytes.equals(Buffer.from(data))).toBe(true);
    expect(client.text).toBe("answer");
    expect([client.end, server.end]).toEqual(["closed-here", "ended"]);
  });

  it("tries to send what was accepted before the peer ended", async () => {
    const { near, far } = await pair();
    const data = pattern(8 * 1024 * 1024);
    const server = started(far);
    let sent = false;
    far.send([data], () => (sent = true));
    near.end();
    await world.settle();
    expect(sent).toBe(false);
    const client = started(near, 256 * 1024);
    await world.until(() => client.end !== undefined && server.end !== undefined);
    expect(client.bytes.equals(Buffer.from(data))).toBe(true);
    expect(sent).toBe(true);
    expect(server.end).toBe("ended");
  });

  it("tells the peer of a destroyed connection that it ended", async () => {
    const { near, far } = await pair();
    const [client, server] = [started(near), started(far)];
    near.destroy();
    near.destroy();
    await world.until(() => client.end !== undefined && server.end !== undefined);
    expect([client.end, server.end]).toEqual(["closed-here", "ended"]);
  });

  it("tells the peer of a connection destroyed with unread bytes that it was reset", async () => {
    const { near, far } = await pair();
    const server = started(far);
    far.send([bytes("never read")]);
    await world.settle();
    near.destroy();
    await world.until(() => server.end !== undefined);
    expect(server.end).toBe("reset");
  });

  it("calls onClosed exactly once and nothing after it, also when destroyed while receiving", async () => {
    const { near, far } = await pair();
    const server = started(far, 10);
    server.onBytes = (): void => far.destroy();
    near.send([pattern(1000)]);
    await world.until(() => server.end !== undefined);
    await world.settle();
    expect(server.calls).toEqual(["received", "closed"]);
    expect(server.end).toBe("closed-here");
  });

  it("does not call onClosed before destroy has returned", async () => {
    const { near } = await pair();
    const client = started(near);
    near.destroy();
    expect(client.end).toBeUndefined();
    await world.until(() => client.end !== undefined);
  });

  it("gives pieces back when the connection ends before they were sent, and then tells of the end", async () => {
    const { near } = await pair();
    const client = started(near);
    let sent = 0;
    for (let count = 0; count < 16; count += 1) near.send([pattern(1024 * 1024)], () => (sent += 1));
    await world.settle();
    expect(sent).toBeLessThan(16);
    let sentWhenClosed = 0;
    client.onEnd = (): void => {
      sentWhenClosed = sent;
    };
    near.destroy();
    await world.until(() => client.end !== undefined);
    expect(sentWhenClosed).toBe(16);
  });

  it("drops in silence what is sent after end, after destroy and after the peer's end", async () => {
    const first = await pair();
    const server = started(first.far);
    const client = started(first.near);
    let sent = 0;
    first.near.end();
    first.near.send([bytes("late")], () => (sent += 1));
    await world.until(() => server.end !== undefined && client.end !== undefined);
    first.far.send([bytes("later")], () => (sent += 1));
    first.near.destroy();
    first.near.send([bytes("latest")], () => (sent += 1));
    await world.until(() => sent === 3);
    expect(server.text).toBe("");
  });

  it("refuses a connection where nobody listens", async () => {
    const { port, near, closeListener } = await pair();
    await world.complete(closeListener());
    near.destroy();
    await world.settle();
    const failure: unknown = await world.complete(
      world.client.connect({ host: world.serverHost, port, timeoutMs: 5000 }).then(
        () => undefined,
        (error: unknown) => error,
      ),
    );
    expect(failure).toBeInstanceOf(ConnectFailure);
    expect(failure).toMatchObject({ reason: "refused", address: `${world.serverHost}:${port}` });
  });

  it("gives an attempt up when it is told to, at once, and leaves nothing of it", async () => {
    const { client, server, serverHost } = world;
    const accepted: Socket[] = [];
    const listener = await world.complete(
      server.listen({ host: serverHost, port: 0 }, (socket) => accepted.push(socket)),
    );
    const ends = new Map<Socket, Recorder>();
    const controller = new AbortController();
    const target = { host: serverHost, port: listener.port, timeoutMs: 600_000, signal: controller.signal };
    const failing = (): Promise<unknown> => client.connect(target).catch((error: unknown) => error);
    const given = [failing(), failing()];
    controller.abort(new Error("enough"));
    given.push(failing());
    for (const attempt of given) {
      const outcome = await world.complete(attempt);
      expect(outcome).toBeInstanceOf(ConnectFailure);
      expect(outcome).toMatchObject({ reason: "given-up" });
    }
    await world.settle();
    for (const socket of accepted) {
      const recorder = new Recorder(socket);
      ends.set(socket, recorder);
      socket.start(recorder);
    }
    await world.until(() => [...ends.values()].every(({ end }) => end !== undefined));
    for (const socket of accepted) socket.destroy();
    await world.complete(listener.close());
  });

  it("keeps open connections when the listener closes", async () => {
    const { near, far, closeListener } = await pair();
    await world.complete(closeListener());
    await world.complete(closeListener());
    const server = started(far);
    near.send([bytes("still there")]);
    await world.until(() => server.text === "still there");
  });

  it("refuses to listen on a port that is taken or at an address that is not ours", async () => {
    const { port } = await pair();
    const listening = (host: string): Promise<unknown> =>
      world.complete(
        world.server
          .listen({ host, port }, () => undefined)
          .then(
            () => undefined,
            (error: unknown) => error,
          ),
      );
    const taken = await listening(world.serverHost);
    expect(taken).toBeInstanceOf(ListenFailure);
    expect(taken).toMatchObject({ reason: "port-taken" });
    expect(await listening("192.0.2.1")).toMatchObject({ name: "ListenFailure", reason: "no-such-address" });
  });

  it("can listen on a port again once its listener is closed", async () => {
    const { port, closeListener, near } = await pair();
    near.destroy();
    await world.complete(closeListener());
    const again = await world.complete(world.server.listen({ host: world.serverHost, port }, () => undefined));
    expect(again.port).toBe(port);
    await world.complete(again.close());
  });
});

describe("the real network", () => {
  it("receives straight into the handler's buffer on accepted connections too, with this version of Node", async () => {
    const { client, server, until } = realWorld(true);
    let accepted: Recorder | undefined;
    const listener = await server.listen({ host: "127.0.0.1", port: 0 }, (socket) => {
      accepted = new Recorder(socket, 1024 * 1024);
      // Lets the kernel gather more than Node reads into a buffer of its own.
      setTimeout(() => socket.start(accepted as Recorder), 20);
    });
    const socket = await client.connect({ host: "localhost", port: listener.port, timeoutMs: 5000 });
    socket.start(new Recorder(socket));
    for (let count = 0; count < 32; count += 1) socket.send([pattern(256 * 1024)]);
    await until(() => accepted?.receivedBytes === 32 * 256 * 1024);
    expect(Math.max(...(accepted?.chunks ?? []).map((chunk) => chunk.length))).toBeGreaterThan(64 * 1024);
    socket.destroy();
    await until(() => accepted?.end !== undefined);
    await listener.close();
  });
});

describe("faults of the simulated network", () => {
  let simulation: Simulation;
  let alpha: SimProcess;
  let beta: SimProcess;

  beforeEach(() => {
    simulation = new Simulation({ seed: 3 });
    alpha = simulation.startProcess("alpha");
    beta = simulation.startProcess("beta");
  });

  /** The newest connection that beta accepted. */
  let latest: Recorder | undefined;

  async function pair(): Promise<{ near: Recorder; far: Recorder }> {
    latest = undefined;
    await simulation.complete(
      beta.env.network.listen({ host: "beta", port: 9092 }, (socket) => {
        latest = new Recorder(socket);
        socket.start(latest);
      }),
    );
    const socket = await simulation.complete(connect());
    const near = new Recorder(socket);
    socket.start(near);
    await simulation.runUntil(() => latest !== undefined, 1000);
    return { near, far: latest as unknown as Recorder };
  }

  const connect = (timeoutMs = 1000, host = "beta"): Promise<Socket> =>
    alpha.env.network.connect({ host, port: 9092, timeoutMs });

  const failureOf = (work: Promise<unknown>): Promise<unknown> =>
    simulation.complete(
      work.then(
        () => undefined,
        (error: unknown) => error,
      ),
    );

  it("holds bytes while the way is blocked and delivers them after the heal", async () => {
    const { near, far } = await pair();
    simulation.network.partition("alpha", "beta");
    near.socket.send([bytes("held")]);
    far.socket.send([bytes("back")]);
    await simulation.run(10_000);
    expect([near.text, far.text, near.end, far.end]).toEqual(["", "", undefined, undefined]);
    simulation.network.heal();
    await simulation.runUntil(() => near.text === "back" && far.text === "held", 20_000);
  });

  it("blocks one way only when told so", async () => {
    const { near, far } = await pair();
    simulation.network.partition("alpha", "beta", { oneWay: true });
    near.socket.send([bytes("held")]);
    far.socket.send([bytes("through")]);
    await simulation.run(1000);
    expect([near.text, far.text]).toEqual(["through", ""]);
  });

  it("times a connect out while the way or the way back is blocked, and finds it after the heal", async () => {
    await pair();
    for (const [from, to] of [["alpha", "beta"] as const, ["beta", "alpha"] as const]) {
      simulation.network.partition(from, to, { oneWay: true });
      const startMs = simulation.scheduler.nowMs;
      expect(await failureOf(connect(1500))).toMatchObject({ reason: "timed-out" });
      expect(simulation.scheduler.nowMs - startMs).toBeCloseTo(1500, 3);
      simulation.network.heal();
    }
    simulation.network.partition("alpha", "beta");
    const late = connect(10_000);
    await simulation.run(500);
    simulation.network.heal("alpha", "beta");
    (await simulation.complete(late)).destroy();
  });

  it("does not find a name nobody has", async () => {
    expect(await failureOf(connect(1000, "gamma"))).toMatchObject({ reason: "name-not-found" });
  });

  it("ends the connections of a crashed process and refuses new ones", async () => {
    const { near } = await pair();
    beta.crash();
    await simulation.runUntil(() => near.end !== undefined, 100);
    expect(near.end).toBe("ended");
    expect(await failureOf(connect())).toMatchObject({ reason: "refused" });
  });

  it("resets the connection of a process that crashed with unread bytes", async () => {
    const { near, far } = await pair();
    far.socket.pause();
    near.socket.send([bytes("unread")]);
    await simulation.run(10);
    beta.crash();
    await simulation.runUntil(() => near.end !== undefined, 100);
    expect(near.end).toBe("reset");
  });

  it("says nothing of a host without power, and answers RST for it when it is back", async () => {
    const { near } = await pair();
    simulation.host("beta").powerCut();
    near.socket.send([bytes("anyone?")]);
    await simulation.run(5000);
    expect(near.end).toBeUndefined();
    expect(await failureOf(connect())).toMatchObject({ reason: "timed-out" });
    simulation.host("beta").powerOn();
    await simulation.runUntil(() => near.end !== undefined, 20_000);
    expect(near.end).toBe("reset");
    expect(await failureOf(connect())).toMatchObject({ reason: "refused" });
  });

  it("does not send again what a host had sent that has lost its power since", async () => {
    const { near, far } = await pair();
    simulation.network.partition("alpha", "beta");
    near.socket.send([bytes("lost")]);
    await simulation.run(100);
    simulation.host("alpha").powerCut();
    simulation.network.heal();
    simulation.host("alpha").powerOn();
    await simulation.run(100_000);
    expect(far.text).toBe("");
  });

  it("answers RST for a host that lost its power in the middle of sending", async () => {
    const { near, far } = await pair();
    near.socket.send([bytes("on its way")]);
    simulation.network.partition("alpha", "beta");
    simulation.host("alpha").powerCut();
    await simulation.run(100);
    simulation.network.heal();
    simulation.host("alpha").powerOn();
    far.socket.send([bytes("are you there?")]);
    await simulation.runUntil(() => far.end !== undefined, 20_000);
    expect([far.text, far.end]).toEqual(["", "reset"]);
  });

  it("accepts and buffers for a paused process, which hears of it when it goes on", async () => {
    const { near, far } = await pair();
    beta.pause();
    near.socket.send([bytes("patience")]);
    const second = await simulation.complete(connect());
    await simulation.run(1000);
    expect(far.text).toBe("");
    beta.resume();
    await simulation.runUntil(() => far.text === "patience", 100);
    second.destroy();
  });

  it("tells a paused process's timer of a lapsed connect before the connection that was made meanwhile", async () => {
    await pair();
    const connecting = connect(100);
    alpha.pause();
    connecting.catch(() => undefined);
    await simulation.run(1000);
    alpha.resume();
    expect(await failureOf(connecting)).toMatchObject({ reason: "timed-out" });
    await simulation.runUntil(() => latest?.end !== undefined, 100);
    expect(latest?.end).toBe("ended");
  });

  it("holds as many bytes as the window has for a process that does not read, and no more", async () => {
    const { near, far } = await pair();
    far.socket.pause();
    simulation.network.windowBytes = 1000;
    for (let count = 0; count < 10; count += 1) near.socket.send([pattern(300)]);
    expect(near.socket.unsentBytes).toBe(2000);
    await simulation.run(100);
    expect(near.socket.unsentBytes).toBe(2000);
    far.socket.resume();
    await simulation.runUntil(() => far.receivedBytes === 3000, 100);
    expect(near.socket.unsentBytes).toBe(0);
  });

  it("resets every connection of a host at both ends", async () => {
    const { near, far } = await pair();
    simulation.network.resetAll("alpha");
    await simulation.runUntil(() => near.end !== undefined && far.end !== undefined, 100);
    expect([near.end, far.end]).toEqual(["reset", "reset"]);
  });

  it("splits what is received at other places than it was sent", async () => {
    const { near, far } = await pair();
    near.socket.send([pattern(50_000)]);
    await simulation.runUntil(() => far.receivedBytes === 50_000, 1000);
    near.socket.send([pattern(50_000)]);
    near.socket.send([pattern(50_000)]);
    await simulation.runUntil(() => far.receivedBytes === 150_000, 1000);
    expect(new Set(far.chunks.map((chunk) => chunk.length)).size).toBeGreaterThan(1);
    expect(far.bytes.equals(Buffer.concat([pattern(50_000), pattern(50_000), pattern(50_000)]))).toBe(true);
  });

  it("lets bytes over a slow link at its pace", async () => {
    const { near, far } = await pair();
    simulation.network.setLink("alpha", "beta", { delayMeanMs: 1, bytesPerMs: 100 });
    const startMs = simulation.scheduler.nowMs;
    near.socket.send([pattern(100_000)]);
    await simulation.runUntil(() => far.receivedBytes === 100_000, 5000);
    expect(simulation.scheduler.nowMs - startMs).toBeGreaterThanOrEqual(1000);
    expect(simulation.scheduler.nowMs - startMs).toBeLessThan(1100);
  });

  it("does the same again with the same seed", async () => {
    const run = async (seed: number): Promise<number> => {
      simulation = new Simulation({ seed });
      alpha = simulation.startProcess("alpha");
      beta = simulation.startProcess("beta");
      const { near, far } = await pair();
      near.socket.send([pattern(100_000)]);
      far.socket.send([pattern(300_000)]);
      simulation.network.partition("alpha", "beta", { oneWay: true });
      await simulation.run(50);
      simulation.network.heal();
      await simulation.runUntil(() => near.receivedBytes === 300_000 && far.receivedBytes === 100_000, 10_000);
      return simulation.scheduler.traceHash;
    };
    const hashes = [await run(8), await run(8), await run(9)];
    expect(hashes[1]).toBe(hashes[0]);
    expect(hashes[2]).not.toBe(hashes[0]);
  });
});
