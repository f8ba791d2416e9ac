import net from "node:net";
import { decodeResponse, encodeRequest } from "../../protocol/message-codec.js";
import type { DecodedResponse } from "../../protocol/message-codec.js";
import { errorNameOf } from "../../protocol/error-codes.js";
import { RpcConnection } from "../../protocol/rpc-connection.js";
import { acksCodes } from "../../protocol/types.js";
import { batchOf, batchOfRecords } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { InProcessCluster } from "../support/in-process-cluster.js";

const MIB = 1024 * 1024;

let cluster: InProcessCluster;
let topicId: string;
let leader: number;

beforeAll(async () => {
  cluster = await InProcessCluster.start({
    brokers: 3,
    settings: {
      "handshake.timeout.ms": "1500",
      "frame.progress.timeout.ms": "1500",
      "message.max.bytes": "65536",
      "unread.responses.max.ms": "1500",
      "in.flight.bytes.max": String(16 * MIB),
      "response.bytes.max": String(16 * MIB),
    },
  });
  topicId = await cluster.createTopic({ name: "orders", partitions: 1, replicationFactor: 3 });
  leader = cluster.leaderOf(topicId, 0) as number;
}, 60_000);

afterAll(async () => {
  await cluster.stop();
}, 30_000);

/** After whatever a test did, the cluster must serve as before, with nothing broken inside. */
afterEach(async () => {
  const connection = await cluster.connect(leader);
  const produced = await produce(connection, batchOf(["still alive"]));
  connection.close();
  expect(produced.error).toBeNull();
  expect(cluster.fatal).toEqual([]);
  expect(cluster.lines.filter((line) => line.includes(" error "))).toEqual([]);
});

async function produce(
  connection: RpcConnection,
  records: Buffer,
  acks: number = acksCodes.all,
): Promise<{ error: { code: number; message: string } | null; baseOffset: number }> {
  const { body } = await connection.request(
    "produce",
    { acks, timeoutMs: 5000, partitions: [{ topicId, partition: 0 }] },
    { records: [[records]] },
  );
  return body.partitions[0] as { error: { code: number; message: string } | null; baseOffset: number };
}

/** Sends bytes as they are; collects what comes back until the broker ends the connection. */
async function sendRaw(
  port: number,
  chunks: readonly Uint8Array[],
  deadlineMs = 8000,
): Promise<{ received: Buffer; tookMs: number }> {
  const startedMs = performance.now();
  return new Promise((resolve, reject) => {
    const received: Buffer[] = [];
    const socket = net.connect(port, "127.0.0.1", () => {
      for (const chunk of chunks) socket.write(chunk);
    });
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`the broker kept the connection for ${deadlineMs} ms`));
    }, deadlineMs);
    socket.on("data", (chunk) => received.push(chunk));
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve({ received: Buffer.concat(received), tookMs: performance.now() - startedMs });
    });
  });
}

const batchWithDeltas = (deltas: readonly number[]): Buffer =>
  batchOfRecords(deltas.map((offsetDelta) => ({ offsetDelta, value: Buffer.from("v") })));

const handshake = Buffer.concat(encodeRequest(1, "handshake", { clientId: "raw" }));

/** The first bytes of a produce request that takes so many. */
function largeFrameHead(frameBytes: number): Buffer {
  const head = Buffer.concat(encodeRequest(2, "produce", { acks: 1, timeoutMs: 1000, partitions: [] })).subarray(0, 20);
  head.writeUInt32BE(frameBytes);
  return head;
}

function responsesIn(bytes: Buffer): DecodedResponse[] {
  const responses: DecodedResponse[] = [];
  for (let at = 0; at + 4 <= bytes.length;) {
    const length = bytes.readUInt32BE(at);
    responses.push(decodeResponse(bytes.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return responses;
}
const refusalsIn = (bytes: Buffer): string[] =>
  responsesIn(bytes).flatMap(({ error }) => (error === undefined ? [] : [errorNameOf(error.code)]));

describe("bytes that are not ours", () => {
  it("tells HTTP what it has reached", async () => {
    const { received, tookMs } = await sendRaw(cluster.port(leader), [
      Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ]);
    expect(received.toString()).toMatch(/^HTTP\/1\.1 400 .*ottla protocol, not HTTP/s);
    expect(tookMs).toBeLessThan(1000);
  });

  it("names a Kafka client in the log", async () => {
    const apiVersions = Buffer.concat([
      Buffer.from([0, 0, 0, 25, 0, 18, 0, 3, 0, 0, 0, 1, 0, 9]),
      Buffer.from("rdkafka-1"),
      Buffer.from([0, 2, 97, 2, 98, 0]),
    ]);
    await sendRaw(cluster.port(leader), [apiVersions]);
    await eventually("the log names it", () =>
      cluster.lines.some((line) => line.includes("Kafka client; this port speaks ottla")),
    );
  });

  it("ends a connection that sends random bytes, a frame of no bytes, or one of 4 GiB", async () => {
    for (const bytes of [
      Buffer.alloc(300, 0xa7),
      Buffer.from([0, 0, 0, 0]),
      Buffer.from([0xff, 0xff, 0xff, 0xff, 0x08, 0x01, 0x22, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ]) {
      const { tookMs } = await sendRaw(cluster.port(leader), [bytes]);
      expect(tookMs).toBeLessThan(1400);
    }
  });

  it("answers a frame above the limit of its kind with a typed refusal", async () => {
    const tooLarge = Buffer.concat([
      Buffer.from([0x00, 0x20, 0x00, 0x00]),
      Buffer.from([0x08, 0x05, 0x1a, 0xff, 0xff, 0x7f]),
      Buffer.alloc(32),
    ]);
    const { received } = await sendRaw(cluster.port(leader), [handshake, tooLarge]);
    expect(refusalsIn(received)).toContain("FRAME_TOO_LARGE");
  });

  it("accepts nothing before the handshake", async () => {
    const { received } = await sendRaw(cluster.port(leader), [Buffer.concat(encodeRequest(4, "metadata", {}))]);
    expect(refusalsIn(received)).toEqual(["HANDSHAKE_REQUIRED"]);
  });

  it("ends a connection that never shakes hands, and one that stops in the middle of a frame", async () => {
    const silent = await sendRaw(cluster.port(leader), []);
    const slow = await sendRaw(cluster.port(leader), [handshake, Buffer.from([0, 0, 0, 90, 8, 1])]);
    for (const { tookMs } of [silent, slow]) expect(tookMs).toBeGreaterThan(1400);
  }, 20_000);
});

describe("who may say what", () => {
  it("serves nothing on a connection whose handshake it refused", async () => {
    const stranger = Buffer.concat(encodeRequest(1, "handshake", { clusterId: "another" }));
    const { received } = await sendRaw(cluster.port(leader), [
      Buffer.concat([stranger, Buffer.concat(encodeRequest(2, "metadata", {}))]),
    ]);
    expect(refusalsIn(received)).toEqual(["INCONSISTENT_CLUSTER_ID"]);
  });

  it("has the memory back of frames that never end", async () => {
    const begun = await Promise.all(
      [1, 2].map(
        () =>
          new Promise<net.Socket>((resolve) => {
            const socket = net.connect(cluster.port(leader), "127.0.0.1", () => resolve(socket));
            socket.on("error", () => undefined);
            socket.write(Buffer.concat([handshake, largeFrameHead(8 * MIB), Buffer.alloc(MIB)]));
          }),
      ),
    );
    await eventually("all memory is held", () => begun.every(({ writableLength }) => writableLength === 0));
    for (const socket of begun) socket.destroy();
    // After each test a record is produced, for which there would be no memory left.
  });

  it("does not wait for a frame that comes byte by byte", async () => {
    const socket = net.connect(cluster.port(leader), "127.0.0.1");
    socket.on("error", () => undefined);
    socket.resume();
    socket.write(Buffer.concat([handshake, largeFrameHead(MIB)]));
    const drip = setInterval(() => socket.write("x"), 200);
    await eventually("the connection is ended", () => socket.closed);
    clearInterval(drip);
  });

  it("closes the connection of a peer that was refused and stays", async () => {
    const socket = net.connect({ port: cluster.port(leader), host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => undefined);
    socket.resume();
    socket.write(Buffer.concat(encodeRequest(1, "metadata", {})));
    await new Promise((resolve) => socket.once("end", resolve));
    // A connection that is closed at the other side is reset by what is sent into it.
    await eventually("it is closed", () => {
      socket.write("x");
      return socket.closed;
    });
  });

  it("lets no client fetch as a replica, and the high watermark does not move", async () => {
    const connection = await cluster.connect(leader);
    const partition = cluster.brokers.get(leader)?.partitions?.get(topicId, 0);
    const before = partition?.highWatermark;
    const asReplica = {
      maxWaitMs: 0,
      maxBytes: 1000,
      partitions: [{ topicId, partition: 0, fetchOffset: 1_000_000, maxBytes: 100 }],
      replica: { brokerId: 2, brokerEpoch: "1" },
    };
    await expect(connection.request("fetch", asReplica)).rejects.toMatchObject({
      errorName: "CLUSTER_AUTHORIZATION_FAILED",
    });
    connection.close();
    expect(partition?.highWatermark).toBe(before);
  });

  it("takes orders and proposals from brokers only, on the inter-broker listener only", async () => {
    for (const listener of ["CLIENT", "INTERNAL"]) {
      const connection = await cluster.connect(leader, listener);
      await expect(
        connection.request("controllerOrders", { controllerId: 1, controllerEpoch: 999 }),
      ).rejects.toMatchObject({ errorName: "CLUSTER_AUTHORIZATION_FAILED" });
      await expect(connection.request("alterPartitions", { brokerId: 1 })).rejects.toMatchObject({
        errorName: "CLUSTER_AUTHORIZATION_FAILED",
      });
      connection.close();
    }
  });

  it("refuses a process that claims to be a broker and cannot prove it", async () => {
    const claim = (listener: string): Promise<RpcConnection> =>
      RpcConnection.open(cluster.env, {
        host: "127.0.0.1",
        port: cluster.port(leader, listener),
        handshake: {
          clientId: "impostor",
          broker: {
            brokerId: 2,
            incarnation: "00000000-0000-4000-8000-000000000000",
            brokerEpoch: "99999999",
            toBrokerId: leader,
          },
        },
        connectTimeoutMs: 2000,
        requestTimeoutMs: 2000,
      });
    // What it would need to know is told to nobody who has not proved it.
    for (const listener of ["CLIENT", "INTERNAL"]) {
      const connection = await cluster.connect(leader, listener);
      expect(connection.peer.incarnation).toBe("");
      connection.close();
    }
    await expect(claim("INTERNAL")).rejects.toMatchObject({ errorName: "CLUSTER_AUTHORIZATION_FAILED" });
    await expect(claim("CLIENT")).rejects.toMatchObject({ errorName: "CLUSTER_AUTHORIZATION_FAILED" });
  });
});

describe("what is asked for in vain, or again and again", () => {
  it("is told of a topic once, however often the request names it", async () => {
    const connection = await cluster.connect(leader);
    const topics = Array<string>(9000).fill("orders");
    const { body } = await connection.request("metadata", { topics, topicIds: Array<string>(9000).fill(topicId) });
    expect(body.topics.map(({ name }) => name)).toEqual(["orders", "orders"]);
    connection.close();
  });

  it("is refused shortly for a topic id that is none", async () => {
    const connection = await cluster.connect(leader);
    const partitions = [{ topicId: "x".repeat(50_000), partition: 0 }];
    const listed = await connection.request("listOffsets", { partitions });
    const deleted = await connection.request("deleteRecords", { partitions });
    const produced = await connection.request(
      "produce",
      { acks: acksCodes.leader, timeoutMs: 1000, partitions },
      { records: [[batchOf(["a"])]] },
    );
    for (const { body } of [listed, deleted, produced]) {
      const [answer] = body.partitions;
      expect(errorNameOf(answer?.error?.code ?? 0)).toBe("INVALID_REQUEST");
      expect(answer?.error?.message.length).toBeLessThan(200);
    }
    await expect(connection.request("fetch", { partitions })).rejects.toMatchObject({ errorName: "INVALID_REQUEST" });
    connection.close();
  });
});

describe("records that may not be appended", () => {
  const refused = async (records: Buffer, acks: number = acksCodes.all): Promise<string> => {
    const connection = await cluster.connect(leader);
    const log = cluster.brokers.get(leader)?.partitions?.get(topicId, 0)?.log;
    const endBefore = log?.logEndOffset;
    const { error } = await produce(connection, records, acks);
    connection.close();
    expect(log?.logEndOffset).toBe(endBefore);
    return error === null ? "none" : errorNameOf(error.code);
  };

  it("are refused by what is wrong with them, and nothing is appended", async () => {
    const flipped = batchOf(["a"]);
    flipped[flipped.length - 1] = (flipped[flipped.length - 1] as number) ^ 1;
    expect(await refused(flipped)).toBe("CORRUPT_MESSAGE");
    expect(await refused(batchOf(["a", "b"], { recordCount: 50, lastOffsetDelta: 49 }))).not.toBe("none");
    expect(await refused(batchOf(["a", "b"], { lastOffsetDelta: 7 }))).toBe("INVALID_RECORD");
    // The checksum is right, and nobody could ever read them.
    expect(await refused(batchOf(["a", "b"], { recordCount: 1, lastOffsetDelta: 0 }))).toBe("INVALID_RECORD");
    expect(await refused(batchOf(["a longer one"], { recordCount: 2, lastOffsetDelta: 1 }))).toBe("INVALID_RECORD");
    expect(await refused(batchWithDeltas([0, 0]))).toBe("INVALID_RECORD");
    expect(await refused(batchWithDeltas([1, 0]))).toBe("INVALID_RECORD");
    expect(await refused(batchWithDeltas([0, 2]))).toBe("INVALID_RECORD");
    expect(await refused(batchOf(["a"], { attributes: 0x20 }))).toBe("INVALID_RECORD");
    expect(await refused(batchOf(["a"], { attributes: 0x100 }))).toBe("INVALID_RECORD");
    expect(await refused(batchOf(["x".repeat(70_000)]))).toBe("MESSAGE_TOO_LARGE");
    expect(await refused(batchOf(["a"], {}, Date.now() + 2 * 3_600_000))).toBe("INVALID_TIMESTAMP");
    expect(await refused(batchOf(["a"], { producerId: 7, producerEpoch: 0, baseSequence: 0 }), acksCodes.leader)).toBe(
      "INVALID_REQUIRED_ACKS",
    );
    expect(await refused(Buffer.alloc(0))).toBe("INVALID_RECORD");
    expect(await refused(Buffer.concat([batchOf(["a"]), Buffer.from([1, 2, 3])]))).toBe("INVALID_RECORD");
  });

  it("are refused for a topic or partition that is not there", async () => {
    const connection = await cluster.connect(leader);
    const to = async (id: string, partition: number): Promise<string> => {
      const { body } = await connection.request(
        "produce",
        { acks: -1, timeoutMs: 1000, partitions: [{ topicId: id, partition }] },
        { records: [[batchOf(["a"])]] },
      );
      return errorNameOf(body.partitions[0]?.error?.code ?? 0);
    };
    expect(await to("00000000-0000-4000-8000-000000000000", 0)).toBe("UNKNOWN_TOPIC_ID");
    expect(await to("__proto__", 0)).toBe("INVALID_REQUEST");
    expect(await to(topicId, 5)).toBe("UNKNOWN_TOPIC_OR_PARTITION");
    connection.close();
  });
});

describe("values that this broker does not know yet", () => {
  it("are refused, and end nothing", async () => {
    const connection = await cluster.connect(leader);
    const { body } = await connection.request("listOffsets", {
      partitions: [{ topicId, partition: 0, spec: 7 as never }],
    });
    expect(errorNameOf(body.partitions[0]?.error?.code ?? 0)).toBe("INVALID_REQUEST");
    const described = connection.request("describeConfigs", { resource: 7 as never, name: "orders" });
    await expect(described).rejects.toMatchObject({ errorName: "INVALID_REQUEST" });
    connection.close();
  });
});

describe("administration that cannot be", () => {
  it("is refused by name", async () => {
    const connection = await cluster.connect(cluster.controllerId as number);
    const create = async (topic: Record<string, unknown>): Promise<string> => {
      const { body } = await connection.request("createTopics", { topics: [topic], timeoutMs: 5000 });
      return errorNameOf(body.topics[0]?.error?.code ?? 0);
    };
    for (const name of ["a/b", "..", ".", "", "x".repeat(250), "new\nline", "\u001b[31m", "nul\0"])
      expect(await create({ name })).toBe("INVALID_TOPIC");
    expect(await create({ name: "t", partitions: 1, replicationFactor: 4 })).toBe("INVALID_REPLICATION_FACTOR");
    expect(await create({ name: "t", partitions: 1_000_000_000 })).toBe("INVALID_PARTITIONS");
    expect(await create({ name: "t", config: [{ name: "retention.sm", value: "1" }] })).toBe("INVALID_CONFIG");
    expect(await create({ name: "orders" })).toBe("TOPIC_ALREADY_EXISTS");
    connection.close();
  });
});

describe("many connections", () => {
  it("serves others as before while 5,000 are idle", async () => {
    const idle = await Promise.all(
      Array.from(
        { length: 5000 },
        () =>
          new Promise<net.Socket>((resolve, reject) => {
            const socket = net.connect(cluster.port(leader), "127.0.0.1", () => {
              socket.write(handshake);
              resolve(socket);
            });
            socket.on("error", reject);
          }),
      ),
    );
    const connection = await cluster.connect(leader);
    expect((await produce(connection, batchOf(["beside idle ones"]))).error).toBeNull();
    connection.close();
    for (const socket of idle) socket.destroy();
  }, 30_000);

  it("keeps brokers' places free of those that do not prove to be brokers, and cuts off the oldest of them", async () => {
    const strangers: net.Socket[] = [];
    for (let count = 0; count < 150; count += 1) {
      const socket = net.connect(cluster.port(leader, "INTERNAL"), "127.0.0.1");
      socket.on("error", () => undefined);
      socket.resume();
      await new Promise((resolve) => socket.once("connect", resolve));
      socket.write(handshake);
      strangers.push(socket);
    }
    await eventually("the oldest are cut off", () => strangers.slice(0, 50).every(({ closed }) => closed));
    expect(strangers.slice(-90).every(({ closed }) => !closed)).toBe(true);
    // It leads, and those that follow it are connected to it as before.
    const connection = await cluster.connect(leader);
    expect((await produce(connection, batchOf(["beside strangers"]))).error).toBeNull();
    connection.close();
    for (const socket of strangers) socket.destroy();
  }, 30_000);

  it("serves who reads, while many others leave more unread than there is memory for", async () => {
    const writer = await cluster.connect(leader);
    for (let count = 0; count < 100; count += 1) await produce(writer, batchOf(["y".repeat(60_000)]));
    const fetch = {
      maxWaitMs: 8000,
      minBytes: 1,
      maxBytes: 5_000_000,
      partitions: [{ topicId, partition: 0, fetchOffset: 0, maxBytes: 5_000_000 }],
    };
    const ask = Buffer.concat(encodeRequest(9, "fetch", fetch));
    const lazy = Array.from({ length: 40 }, () => {
      const socket = net.connect(cluster.port(leader), "127.0.0.1");
      socket.on("error", () => undefined);
      socket.pause();
      socket.write(Buffer.concat([handshake, ...Array<Buffer>(8).fill(ask)]));
      return socket;
    });
    await eventually("memory is short, and one of them goes", () =>
      cluster.lines.some((line) => /left \d+ bytes of responses unread while memory for responses is short/.test(line)),
    );
    const { records } = await writer.request("fetch", fetch, { timeoutMs: 20_000 });
    expect(records[0]?.length).toBeGreaterThan(60_000);
    writer.close();
    for (const socket of lazy) socket.destroy();
  }, 40_000);

  it("does not grow when a peer never reads its answers", async () => {
    const large = batchOf(["y".repeat(60_000)]);
    const writer = await cluster.connect(leader);
    for (let count = 0; count < 100; count += 1) await produce(writer, large);
    writer.close();
    const socket = net.connect(cluster.port(leader), "127.0.0.1");
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => undefined);
    socket.pause();
    socket.write(handshake);
    const ask = Buffer.concat(
      encodeRequest(9, "fetch", {
        maxWaitMs: 0,
        minBytes: 1,
        maxBytes: 5_000_000,
        partitions: [{ topicId, partition: 0, fetchOffset: 0, maxBytes: 5_000_000 }],
      }),
    );
    for (let count = 0; count < 50; count += 1) socket.write(ask);
    const left = (): number => {
      const line = cluster.lines.find((one) => /left \d+ bytes of responses unread for/.test(one));
      return Number(/left (\d+) bytes/.exec(line ?? "")?.[1] ?? -1);
    };
    await eventually("the broker ends the connection", () => left() >= 0);
    // Fifty answers were asked for; the broker stopped reading long before it held them all.
    expect(left()).toBeLessThan(12_000_000);
    socket.destroy();
    await closed;
  }, 30_000);
});
