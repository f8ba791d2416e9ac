import net from "node:net";
import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import { FakeCluster } from "../../support/fake-broker.js";

const STEP_MS = 20;

/** A way to a port that takes its time, as one over a long distance does. Everything arrives, in order. */
class SlowLink implements AsyncDisposable {
  readonly #sockets = new Set<net.Socket>();
  readonly #cut = new Set<net.Socket>();
  connections = 0;
  /** Of each connection, each way. */
  bytesPerMs = 200;

  static async to(target: number): Promise<SlowLink> {
    const link = new SlowLink(net.createServer());
    link.server.on("connection", (socket) => {
      link.connections += 1;
      const onward = net.connect(target, "127.0.0.1");
      link.#pass(socket, onward);
      link.#pass(onward, socket);
    });
    await new Promise<void>((resolve) => link.server.listen(0, "127.0.0.1", resolve));
    return link;
  }

  private constructor(private readonly server: net.Server) {}

  get port(): number {
    return (this.server.address() as net.AddressInfo).port;
  }

  /** Nothing passes on the connections that there are, and nobody is told; new ones work. */
  cut(): void {
    for (const socket of this.#sockets) this.#cut.add(socket.pause());
  }

  #pass(from: net.Socket, to: net.Socket): void {
    this.#sockets.add(from);
    from.on("error", () => to.destroy());
    from.on("close", () => to.destroy());
    let queued = Buffer.alloc(0);
    from.on("data", (bytes) => (queued = Buffer.concat([queued, bytes])));
    const timer = setInterval(() => {
      if (this.#cut.has(from)) return;
      const step = this.bytesPerMs * STEP_MS;
      if (queued.length > 0) to.write(queued.subarray(0, step));
      queued = queued.subarray(step);
    }, STEP_MS);
    from.on("close", () => clearInterval(timer));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Goal: what takes long because there is much of it arrives, though a handshake would be quicker on its own. */
describe("a client behind a slow link", () => {
  let fake: FakeCluster;
  let link: SlowLink;
  let cluster: Cluster;
  /** Two seconds on their way. */
  const large = "x".repeat(400_000);

  beforeEach(async () => {
    fake = await FakeCluster.start(1);
    fake.createTopic("t");
    link = await SlowLink.to(fake.broker(1).port);
    Object.assign(fake.broker(1), { port: link.port });
    cluster = await connect({ bootstrapBrokers: [`127.0.0.1:${link.port}`] });
  });

  afterEach(async () => {
    await cluster.close().catch(() => undefined);
    await fake[Symbol.asyncDispose]();
    await link[Symbol.asyncDispose]();
  });

  it("sends a record that takes seconds", async () => {
    const producer = cluster.producer({ deliveryTimeoutMs: 8000 });
    await producer.send("t", { value: "known" });
    const before = link.connections;
    const begunMs = performance.now();
    expect(await producer.send("t", { value: large })).toMatchObject({ offset: 1 });
    expect(performance.now() - begunMs).toBeLessThan(4000);
    expect(link.connections - before).toBeLessThan(3);
  });

  it("sends a record that takes longer than was believed", async () => {
    const producer = cluster.producer({ deliveryTimeoutMs: 8000 });
    await producer.send("t", { value: "known" });
    link.bytesPerMs = 10;
    const before = link.connections;
    expect(await producer.send("t", { value: "x".repeat(16_500) })).toMatchObject({ offset: 1 });
    expect(link.connections - before).toBeLessThan(4);
  });

  it("reads a record that takes seconds", async () => {
    await using near = await connect({ bootstrapBrokers: [`127.0.0.1:${link.port}`] });
    const producer = near.producer({ batchBytes: 100_000 });
    for (let index = 0; index < 8; index += 1) await producer.send("t", { value: "x".repeat(50_000) });
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", signal: AbortSignal.timeout(10_000) });
    const before = link.connections;
    let read = 0;
    for await (const { offset } of consumer) {
      read += 1;
      if (offset === 7) break;
    }
    expect(read).toBe(8);
    expect(link.connections - before).toBeLessThan(4);
  });

  it("reads records of which an answer takes longer than requestTimeoutMs", async () => {
    const producer = cluster.producer({ batchBytes: 100_000 });
    for (let index = 0; index < 8; index += 1) await producer.send("t", { value: "x".repeat(50_000) });
    const bootstrapBrokers = [`127.0.0.1:${link.port}`];
    await using hasty = await connect({ bootstrapBrokers, requestTimeoutMs: 500 });
    const consumer = hasty.consumer({ topics: ["t"], from: "earliest", signal: AbortSignal.timeout(10_000) });
    for await (const { offset } of consumer) if (offset === 7) break;
  });

  it("reads to the end what takes longer to arrive than deadlineMs, as long as it arrives", async () => {
    const producer = cluster.producer({ batchBytes: 100_000 });
    for (let index = 0; index < 8; index += 1) await producer.send("t", { value: "x".repeat(50_000) });
    await using hasty = await connect({ bootstrapBrokers: [`127.0.0.1:${link.port}`], deadlineMs: 1000 });
    const consumer = hasty.consumer({ topics: ["t"], from: "earliest", signal: AbortSignal.timeout(10_000) });
    let read = 0;
    // Two seconds of bytes that come without a pause.
    for await (const { offset } of consumer.records({ untilEnd: true })) read = offset + 1;
    expect(read).toBe(8);
  });

  it("leaves a connection that was cut, also where no answers tell what has arrived", async () => {
    link.bytesPerMs = 100_000;
    const producer = cluster.producer({ acks: "none", idempotent: false, deliveryTimeoutMs: 20_000 });
    for (let index = 0; index < 60; index += 1) await producer.send("t", { value: "x".repeat(100_000) });
    const before = link.connections;
    link.cut();
    // More than the kernels hold.
    const sent = Array.from({ length: 200 }, () => producer.send("t", { value: "x".repeat(100_000) }));
    await Promise.all(sent);
    expect(link.connections).toBeGreaterThan(before);
  }, 40_000);

  it("lists topics that take seconds", async () => {
    for (let index = 0; index < 2000; index += 1) fake.createTopic(`${"t".repeat(150)}${index}`);
    const before = link.connections;
    expect(await cluster.admin().listTopics({ deadlineMs: 10_000 })).toHaveLength(2001);
    expect(link.connections - before).toBeLessThan(4);
  });
});
