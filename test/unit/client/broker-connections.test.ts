import { BrokerConnections, openConnection } from "../../../client/broker-connections.js";
import type { Network } from "../../../common/env/network.js";
import { ConnectFailure } from "../../../common/env/network.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import type { FakeAnswer } from "../../support/fake-broker.js";
import { FakeCluster, surfacingIn, until } from "../../support/fake-broker.js";

/** Knows one broker, wherever it is asked for. */
const directoryOf = (fake: FakeCluster) => ({
  clusterId: "fake-cluster",
  addressOf: () => ({ host: "127.0.0.1", port: fake.broker(1).port }),
  epochOf: () => undefined,
  onChange: () => () => undefined,
  onTrouble: () => undefined,
});

describe("BrokerConnections", () => {
  it("keeps one connection to a broker, though one is adopted while another is being opened", async () => {
    await using fake = await FakeCluster.start();
    const env = nodeEnv();
    const held: ((answer: FakeAnswer) => void)[] = [];
    fake.broker(1).answer = ({ kind, count }) =>
      kind === "handshake" && count === 1 ? new Promise((resolve) => held.push(resolve)) : undefined;
    const address = { host: "127.0.0.1", port: fake.broker(1).port };
    const settings = { clientId: "c", connectTimeoutMs: 5000, requestTimeoutMs: 5000 };
    const troubled: number[] = [];
    const connections = new BrokerConnections(
      env,
      {
        clusterId: "fake-cluster",
        addressOf: () => address,
        epochOf: () => undefined,
        onChange: () => () => undefined,
        onTrouble: (brokerId) => troubled.push(brokerId),
      },
      settings,
    );
    const opening = connections.open(1);
    await until(() => held.length > 0, "it is being opened");
    const adopted = await openConnection(env, address, "fake-cluster", settings, () => undefined);
    expect(connections.adopt(adopted)).toBeDefined();
    held[0]?.(undefined);
    expect((await opening) === adopted).toBe(true);
    await until(() => fake.broker(1).connectionCount === 1, "the other one has ended");
    expect(connections.tryGet(1) === adopted).toBe(true);
    expect(troubled).toEqual([]);
    connections.close();
    await until(() => fake.broker(1).connectionCount === 0, "it has ended");
  });

  it("leaves no connection behind when it is closed, at whatever moment of one being made", async () => {
    await using fake = await FakeCluster.start();
    const env = nodeEnv();
    const directory = directoryOf(fake);
    const settings = { clientId: "c", connectTimeoutMs: 600_000, requestTimeoutMs: 5000 };
    for (let microtasks = 0; microtasks < 20; microtasks += 1) {
      let close = (): void => undefined;
      const onReceived = (): void => {
        let left = microtasks;
        const step = (): void => {
          if (left === 0) close();
          else queueMicrotask(step);
          left -= 1;
        };
        step();
      };
      // Counts from the moment at which the handshake has been answered.
      const network: Network = {
        ...env.network,
        connect: async (options) => {
          const socket = await env.network.connect(options);
          const start = socket.start.bind(socket);
          socket.start = (handler) =>
            start({
              receiveBuffer: () => handler.receiveBuffer(),
              onDrained: () => handler.onDrained(),
              onClosed: (...end) => handler.onClosed(...end),
              onReceived: (count) => {
                handler.onReceived(count);
                onReceived();
              },
            });
          return socket;
        },
      };
      const connections = new BrokerConnections({ ...env, network }, directory, settings);
      close = () => connections.close();
      await connections.open(1).catch(() => undefined);
      await until(() => fake.broker(1).connectionCount === 0, `it has ended, closed after ${microtasks} microtasks`);
      expect(connections.isOpen(1)).toBe(false);
    }
  });

  it("leaves no connection behind to whoever answers in the place of the broker", async () => {
    await using fake = await FakeCluster.start();
    const directory = directoryOf(fake);
    const settings = { clientId: "c", connectTimeoutMs: 5000, requestTimeoutMs: 5000 };
    const connections = new BrokerConnections(nodeEnv(), directory, settings);
    await expect(connections.open(2)).rejects.toMatchObject({ errorName: "WRONG_BROKER" });
    await until(() => fake.broker(1).connectionCount === 0, "it has ended");
    connections.close();
  });

  it("does not go on making a connection when it is closed, whatever it waits for", async () => {
    await using fake = await FakeCluster.start();
    const env = nodeEnv();
    const signals: (AbortSignal | undefined)[] = [];
    const settings = { clientId: "c", connectTimeoutMs: 600_000, requestTimeoutMs: 5000 };
    const directory = directoryOf(fake);
    // For the answer to its handshake.
    fake.broker(1).isSilent = true;
    const shaking = new BrokerConnections(env, directory, settings);
    const shaken = shaking.open(1);
    await until(() => fake.broker(1).bodies("handshake").length > 0, "it shakes hands");
    shaking.close();
    await expect(shaken).rejects.toMatchObject({ kind: "connect", notSent: true });
    await until(() => fake.broker(1).connectionCount === 0, "nothing is left of it");
    // For the network.
    const network: Network = {
      ...env.network,
      connect: ({ signal }) => {
        signals.push(signal);
        return new Promise((_, reject) =>
          signal?.addEventListener("abort", () => reject(new ConnectFailure("given-up", "127.0.0.1"))),
        );
      },
    };
    const connecting = new BrokerConnections({ ...env, network }, directory, settings);
    const connected = connecting.open(1);
    await until(() => signals.length > 0, "it connects");
    expect(signals[0]).toBeDefined();
    connecting.close();
    await expect(connected).rejects.toMatchObject({ kind: "connect", notSent: true });
  });

  it("drops a connection when a newer registration of its broker is told of, and only then", async () => {
    await using fake = await FakeCluster.start();
    let registeredEpoch = "";
    fake.broker(1).answer = ({ kind }) =>
      kind === "handshake"
        ? { body: { clusterId: "fake-cluster", brokerId: 1, brokerEpoch: registeredEpoch } }
        : undefined;
    let toldEpoch: string | undefined;
    let onChange = (): void => undefined;
    const connections = new BrokerConnections(
      nodeEnv(),
      {
        clusterId: "fake-cluster",
        addressOf: () => ({ host: "127.0.0.1", port: fake.broker(1).port }),
        epochOf: () => toldEpoch,
        onChange: (listener) => {
          onChange = listener;
          return () => undefined;
        },
        onTrouble: () => undefined,
      },
      { clientId: "c", connectTimeoutMs: 5000, requestTimeoutMs: 5000 },
    );
    const keeps = (epoch: string | undefined): boolean => {
      toldEpoch = epoch;
      onChange();
      return connections.isOpen(1);
    };
    registeredEpoch = "9";
    const first = await connections.open(1);
    for (const epoch of [undefined, "", "0", "8", "9"]) expect(keeps(epoch)).toBe(true);
    expect(keeps("10")).toBe(false);
    await until(() => !first.isOpen, "it is closed");
    // The news of it come late, and from a broker that is behind.
    registeredEpoch = "11";
    await connections.open(1);
    for (const epoch of ["10", "9", "11"]) expect(keeps(epoch)).toBe(true);
    expect(keeps("12")).toBe(false);
    // A process that is not registered yet: the next registration is its own.
    registeredEpoch = "";
    await connections.open(1);
    for (const epoch of ["12", "11", "13", "13"]) expect(keeps(epoch)).toBe(true);
    expect(keeps("14")).toBe(false);
    connections.close();
  });

  it.each([
    ["replaces a silent connection by a fresh one", "silence", false],
    ["keeps a connection that answers a handshake, though other answers are overdue", undefined, true],
    ["keeps a connection that refuses a second handshake", { refuse: "INVALID_REQUEST" }, true],
  ] as const)("%s", async (_, answer, isKept) => {
    await using fake = await FakeCluster.start();
    // The first one opens the connection, the second one is the question whether it is alive.
    fake.broker(1).answer = ({ kind, count }) => (kind === "handshake" && count === 2 ? answer : undefined);
    let opened = 0;
    const troubled: number[] = [];
    const connections = new BrokerConnections(
      nodeEnv(),
      {
        clusterId: "fake-cluster",
        addressOf: () => ({ host: "127.0.0.1", port: fake.broker(1).port }),
        epochOf: () => undefined,
        onChange: () => () => undefined,
        onTrouble: (brokerId) => troubled.push(brokerId),
      },
      { clientId: "c", connectTimeoutMs: 5000, requestTimeoutMs: 5000 },
      () => (opened += 1),
    );
    const first = await connections.open(1);
    connections.onSilence(1);
    connections.onSilence(1);
    if (isKept) {
      // It is asked again when it was found alive, and only then.
      const isAskedAgain = (): boolean => {
        connections.onSilence(1);
        return fake.broker(1).bodies("handshake").length === 3;
      };
      await until(isAskedAgain, "it is asked again");
      expect(fake.broker(1).connectionCount).toBe(1);
      expect(connections.tryGet(1) === first).toBe(true);
    } else {
      await until(() => opened === 2, "the owner hears of the fresh one");
      expect(connections.tryGet(1) === first).toBe(false);
      await until(() => !first.isOpen && fake.broker(1).connectionCount === 1, "the old one has ended");
    }
    expect(troubled).toEqual([]);
    connections.close();
    await until(() => fake.broker(1).connectionCount === 0, "it has ended");
  });

  it("lets surface what its owner throws when a connection is opened, and keeps the connection", async () => {
    await using fake = await FakeCluster.start();
    const surfaced: unknown[] = [];
    const fault = new Error("a fault of the owner");
    const connections = new BrokerConnections(
      surfacingIn(surfaced),
      {
        clusterId: "fake-cluster",
        addressOf: () => ({ host: "127.0.0.1", port: fake.broker(1).port }),
        epochOf: () => undefined,
        onChange: () => () => undefined,
        onTrouble: () => undefined,
      },
      { clientId: "c", connectTimeoutMs: 5000, requestTimeoutMs: 5000 },
      () => {
        throw fault;
      },
    );
    expect(connections.tryGet(1)).toBeUndefined();
    await until(() => surfaced.length > 0, "the exception surfaces", 2000);
    expect(surfaced).toEqual([fault]);
    expect(connections.isOpen(1)).toBe(true);
    connections.close();
  });
});
