import { connect } from "../../../client/index.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import type { Socket } from "../../../common/env/network.js";
import { FakeCluster, until } from "../../support/fake-broker.js";

/** Whatever listens on some port of this machine. */
async function listen(accept: (socket: Socket) => void) {
  const listener = await nodeEnv().network.listen({ host: "127.0.0.1", port: 0 }, accept);
  return { port: listener.port, [Symbol.asyncDispose]: () => listener.close() };
}

describe("connect", () => {
  it("finds the cluster through any of its addresses, dead ones included", async () => {
    await using fake = await FakeCluster.start(3);
    await fake.broker(1).kill();
    await using cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers.join(", ") });
    expect(cluster.clusterId).toBe("fake-cluster");
    expect((await cluster.admin().describeCluster()).brokers.map(({ id }) => id)).toEqual([2, 3]);
  });

  it("asks the next address when one accepts and then stays silent", async () => {
    await using fake = await FakeCluster.start(2);
    fake.broker(1).isSilent = true;
    const begun = Date.now();
    // It is the silence of half a second that decides, not the time that connecting may take.
    const options = { bootstrapBrokers: fake.bootstrapBrokers, connectTimeoutMs: 20_000 };
    await using cluster = await connect(options);
    expect(cluster.clusterId).toBe("fake-cluster");
    expect(Date.now() - begun).toBeLessThan(4000);
  });

  it("waits for a cluster that is starting, until its deadline", async () => {
    await using fake = await FakeCluster.start(1);
    await fake.broker(1).kill();
    const early = connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 5000 });
    await fake.broker(1).restart();
    await (await early).close();
    await fake.broker(1).kill();
    await expect(connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 50 })).rejects.toMatchObject({
      code: "CONNECTION_FAILED",
      what: expect.stringContaining(fake.bootstrapBrokers[0]!),
      hint: expect.stringContaining("check that the brokers run"),
    });
  });

  it.each<[string, Buffer | undefined, RegExp, RegExp]>([
    [
      "speaks HTTP",
      Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"),
      /no ottla broker \(it speaks HTTP\)/,
      /something else/,
    ],
    ["sends a frame of no bytes", Buffer.alloc(4), /no ottla broker \(/, /something else/],
    ["sends garbage", Buffer.from("0000000cdeadbeefdeadbeefdeadbeef", "hex"), /no ottla broker \(/, /something else/],
    ["answers without a body", Buffer.from("000000020801", "hex"), /no ottla broker \(/, /something else/],
    ["hangs up", undefined, /the connection to \S+ ended .* before handshake/, /check that the brokers run/],
  ])("says that what %s is no broker", async (_, bytes, what, hint) => {
    const sockets: Socket[] = [];
    await using listener = await listen((socket) => {
      sockets.push(socket);
      const received = Buffer.alloc(1024);
      socket.start({
        receiveBuffer: () => received,
        onReceived: () => (bytes === undefined ? socket.destroy() : socket.send([bytes])),
        onDrained: () => undefined,
        onClosed: () => undefined,
      });
    });
    const address = `127.0.0.1:${listener.port}`;
    const error: unknown = await connect({ bootstrapBrokers: address, deadlineMs: 50 }).catch(
      (thrown: unknown) => thrown,
    );
    for (const socket of sockets) socket.destroy();
    expect(error).toMatchObject({
      code: "CONNECTION_FAILED",
      what: expect.stringMatching(what),
      hint: expect.stringMatching(hint),
      message: expect.stringContaining(address),
    });
  });

  it("says of each address why it is of no use", async () => {
    await using fake = await FakeCluster.start(2);
    await fake.broker(1).kill();
    fake.broker(2).isSilent = true;
    const [gone, silent] = fake.bootstrapBrokers;
    const connecting = connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 1500, connectTimeoutMs: 9000 });
    await expect(connecting).rejects.toMatchObject({
      code: "CONNECTION_FAILED",
      what: expect.stringMatching(
        new RegExp(`within 1500 ms \\(no connection to ${gone}: refused; ${silent} has not answered\\)`),
      ),
    });
  });

  it("gives up at its deadline also when an address accepts, stays silent and may take longer", async () => {
    await using fake = await FakeCluster.start(1);
    fake.broker(1).isSilent = true;
    const begun = performance.now();
    const options = { bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 50, connectTimeoutMs: 2 ** 32 };
    await expect(connect(options)).rejects.toMatchObject({
      code: "CONNECTION_FAILED",
      what: expect.stringContaining("answered within 50 ms (no answer came)"),
    });
    expect(performance.now() - begun).toBeLessThan(10_000);
  });

  it("leaves nothing of attempts to connect that may take long when it gives up, or is closed", async () => {
    await using fake = await FakeCluster.start(1);
    const broker = fake.broker(1);
    broker.isSilent = true;
    const options = { bootstrapBrokers: fake.bootstrapBrokers, connectTimeoutMs: 600_000 };
    await expect(connect({ ...options, deadlineMs: 1200 })).rejects.toMatchObject({ code: "CONNECTION_FAILED" });
    await until(() => broker.connectionCount === 0, "nothing is left of it");
    broker.isSilent = false;
    const cluster = await connect(options);
    fake.createTopic("t");
    const producer = cluster.producer();
    await cluster.partitionsOf("t");
    broker.answer = ({ kind }) => (kind === "handshake" ? "silence" : undefined);
    const sent = cluster.producer({ deliveryTimeoutMs: 100 }).send("t", { value: "x" });
    await expect(sent).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    const reading = (async () => {
      for await (const record of cluster.consumer({ topics: ["t"], from: "earliest" })) return record;
      return undefined;
    })();
    const shaking = (): number => broker.bodies("handshake").length;
    const before = shaking();
    await until(() => shaking() > before, "the consumer connects");
    await producer.close();
    await cluster.close();
    expect(await reading).toBeUndefined();
    await until(() => broker.connectionCount === 0, "nothing is left of it");
  });

  it("can be ended early by a signal", async () => {
    const controller = new AbortController();
    await using fake = await FakeCluster.start(1);
    fake.broker(1).isSilent = true;
    const connecting = connect({ bootstrapBrokers: fake.bootstrapBrokers, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(connecting).rejects.toThrow("enough");
  });

  it("refuses addresses and options that cannot work", async () => {
    await expect(connect({ bootstrapBrokers: [] })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(connect({ bootstrapBrokers: "localhost:0" })).rejects.toThrow(/"localhost:0" is not the address/);
    await expect(connect({ bootstrapBrokers: "localhost", timeout: 5 } as never)).rejects.toThrow(
      /no option "timeout"/,
    );
    await expect(connect({ bootstrapBrokers: "localhost", deadlineMs: 0 })).rejects.toThrow(/deadlineMs is 0/);
  });

  it("closes its producers, which send what they hold, and its consumers", async () => {
    await using fake = await FakeCluster.start(1);
    fake.createTopic("t");
    const cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
    const sent = cluster.producer({ lingerMs: 60_000 }).send("t", { value: "x" });
    const reading = (async () => {
      for await (const record of cluster.consumer({ topics: ["t"], from: "earliest" })) return record.value?.toString();
      return undefined;
    })();
    await cluster.close();
    expect((await sent).offset).toBe(0);
    expect([undefined, "x"]).toContain(await reading);
    expect(() => cluster.producer()).toThrow(/the cluster is closed/);
  });
});
