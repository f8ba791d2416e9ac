import fc from "fast-check";
import * as api from "../../../client/index.js";
import type { Admin, Cluster, Consumer, ConsumerBatch, Producer } from "../../../client/index.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import { silentLogger } from "../../../common/logger.js";
import { FakeCluster } from "../../support/fake-broker.js";
import { realProcess, warnings } from "../../support/real-process.js";

/** Calls end at their own deadline, of a fraction of a second; this is for a machine that is very busy. */
const HANGING_MS = 10_000;
const DEADLINE_MS = 300;
const RUNS = 150;

type Path = readonly (string | number)[];

/** Whatever a program may pass by mistake, and more. What a callback throws is its own affair: these throw nothing. */
const junk = fc.oneof(
  fc.constantFrom<unknown>(
    ...[undefined, null, "", "t", "x".repeat(10_000), "\ud800", true, Number.NaN, -1, 0, 1.5, 2 ** 31, 2 ** 32 + 1],
    ...[Number.POSITIVE_INFINITY, Number.MAX_SAFE_INTEGER, 5n, Symbol("junk"), {}, [], [undefined], [[]], new Array(3)],
    ...[new Map([["a", 1]]), new Set(["t"]), new Date("never"), Buffer.from("t"), new ArrayBuffer(2), /t/],
    ...[Promise.resolve("t"), new Error("junk"), Object.create(null), new Proxy({}, {}), new AbortController()],
    ...[() => undefined, { then: 5 }, { length: 3 }, { toString: 5, valueOf: 5 }],
  ),
  fc.anything({
    withBigInt: true,
    withBoxedValues: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withObjectString: true,
    withSet: true,
    withSparseArray: true,
    withTypedArray: true,
  }),
);

const isPlain = (value: unknown): value is object =>
  Array.isArray(value) ||
  (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype);

/** Every place in these arguments where something else could stand. */
function pathsIn(value: unknown, path: Path = []): Path[] {
  const within = isPlain(value) ? Object.entries(value).flatMap(([key, inner]) => pathsIn(inner, [...path, key])) : [];
  return path.length === 0 ? within : [path, ...within];
}

/** A copy with something else in one place. */
function withJunk(value: unknown, [key, ...rest]: Path, found: unknown): unknown {
  if (key === undefined) return found;
  const copy = (Array.isArray(value) ? [...(value as unknown[])] : { ...(value as object) }) as Record<string, unknown>;
  copy[key] = withJunk(copy[key], rest, found);
  return copy;
}

/** What it came to. Whatever a call has made is ended again. */
async function outcomeOf(call: () => unknown): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const hanging = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`hangs for ${HANGING_MS} ms`), HANGING_MS);
  });
  const settled = (async () => {
    try {
      const made: unknown = await call();
      if (typeof made === "object" && made !== null) {
        if ("close" in made) await (made as Cluster).close();
        else if ("return" in made) await (made as AsyncIterableIterator<unknown>).return?.();
      }
      return "fine";
    } catch (error) {
      if (error instanceof api.ClientError && error.what !== "" && error.hint !== "") return "refused";
      return `untyped: ${error instanceof Error ? error.stack : String(error)}`;
    }
  })();
  try {
    return await Promise.race([settled, hanging]);
  } finally {
    clearTimeout(timer);
  }
}

const symbolNames = new Map<symbol, string>([
  [Symbol.asyncDispose, "Symbol.asyncDispose"],
  [Symbol.asyncIterator, "Symbol.asyncIterator"],
  [Symbol.iterator, "Symbol.iterator"],
]);

/** Methods of an object that others can call, as `Name.method` or `Name[Symbol.x]`. */
function methodsOf(name: string, object: object): string[] {
  const prototype = Object.getPrototypeOf(object) as object;
  return Reflect.ownKeys(prototype)
    .filter((key) => key !== "constructor")
    .filter((key) => typeof Object.getOwnPropertyDescriptor(prototype, key)?.value === "function")
    .map((key) => (typeof key === "symbol" ? `${name}[${symbolNames.get(key)}]` : `${name}.${key}`));
}

/** The options that a call knows, as it names them to whoever gives another one. */
async function optionsOf(call: (options: object) => unknown): Promise<string[]> {
  const stranger = "?".repeat(60);
  const error: unknown = await Promise.resolve()
    .then(() => call({ [stranger]: 1 }))
    .catch((thrown: unknown) => thrown);
  const { hint } = error as api.InvalidArgumentError;
  expect(hint).toMatch(/^the options are /);
  return hint.replace("the options are ", "").split(", ");
}

/**
 * Goal: nothing that a program passes to the client ends the process, hangs, or is taken for right in silence. Method:
 * every public function gets arguments that are right but for one place, and there junk; it may do its work, or refuse
 * with an error of ours, in its time. The list of functions is that of the exports, and that of options what refusals
 * name: a new one fails this test until it stands here.
 */
describe("every public function of the client, given junk,", () => {
  const { signal } = new AbortController();
  const here = { topic: "t", partition: 0 };
  const call = { deadlineMs: DEADLINE_MS, signal };
  let fake: FakeCluster;
  let cluster: Cluster;
  let producer: Producer;
  let consumer: Consumer;
  let admin: Admin;
  let batch: ConsumerBatch;
  let said: ReturnType<typeof warnings>;
  const uncaught: unknown[] = [];
  const onUncaught = (error: unknown): void => void uncaught.push(error);

  const connectOptions = (): object => ({
    bootstrapBrokers: [...fake.bootstrapBrokers],
    clientId: "junk",
    logger: silentLogger,
    env: nodeEnv(),
    ...call,
    requestTimeoutMs: 1000,
    connectTimeoutMs: 100,
    metadataMaxAgeMs: 1000,
    unknownTopicTimeoutMs: 20,
  });

  beforeAll(async () => {
    realProcess.on("unhandledRejection", onUncaught);
    realProcess.on("uncaughtException", onUncaught);
    said = warnings();
    fake = await FakeCluster.start(2);
    fake.createTopic("t", 2);
    // A number of partitions that is allowed may be more than this broker can hold, and topics stay for what comes after.
    const refused = new Set<string>(["createTopics", "createPartitions", "deleteTopics"]);
    for (const broker of fake.brokers)
      broker.answer = ({ kind }) => (refused.has(kind) ? { refuse: "INVALID_REQUEST" } : undefined);
    cluster = await api.connect(connectOptions() as api.ConnectOptions);
    producer = cluster.producer({ deliveryTimeoutMs: 2000 });
    await producer.sendBatch("t", [
      { partition: 0, value: "a" },
      { partition: 1, value: "b" },
    ]);
    consumer = cluster.consumer({ topic: "t", from: "earliest" });
    for await (const read of consumer.batches()) {
      batch = read;
      break;
    }
    admin = cluster.admin();
  });

  afterAll(async () => {
    await cluster.close();
    await fake[Symbol.asyncDispose]();
    said.stop();
    realProcess.off("unhandledRejection", onUncaught);
    realProcess.off("uncaughtException", onUncaught);
  });

  /** Arguments that are right, with every option there is. */
  const rows: Record<string, readonly unknown[]> = {
    connect: [connectOptions],
    murmur2: [Buffer.from("key"), 3],
    partitionOfKey: ["key", 3],
    "Cluster.producer": [
      {
        acks: "all",
        idempotent: true,
        lingerMs: 0,
        batchBytes: 2048,
        bufferBytes: 65_536,
        deliveryTimeoutMs: 1000,
        maxInFlight: 1,
        partitioner: () => 0,
      },
    ],
    "Cluster.consumer": [
      {
        topic: "t",
        partitions: [0],
        from: [{ ...here, offset: 0 }],
        onOutOfRange: "error",
        onUnreadable: "error",
        prefetchBytes: 1000,
        partitionBytes: 1000,
        fetchBytesMin: 1,
        fetchWaitMs: 10,
        stallMs: 1000,
        signal,
      },
    ],
    "Cluster.admin": [],
    "Cluster.partitionsOf": ["t"],
    "Producer.send": ["t", { key: "k", value: "v", headers: [{ key: "h", value: "x" }], partition: 0, timestamp: 5 }],
    "Producer.sendBatch": ["t", [{ value: "v", headers: { h: "x" } }]],
    "Producer.produce": ["t", { key: Buffer.from("k"), value: Buffer.from("v") }, () => undefined],
    "Producer.flush": [],
    "Consumer.records": [{ untilEnd: true }],
    "Consumer.batches": [{ untilEnd: true, reuseMemory: false }],
    "Consumer.partitions": [],
    "Consumer.seek": [here, { offset: 0 }],
    "Consumer.pause": [[here]],
    "Consumer.resume": [[here]],
    "Consumer.position": [here],
    "Consumer.endOffsets": [],
    "Consumer[Symbol.asyncIterator]": [],
    "ConsumerBatch[Symbol.iterator]": [],
    "Admin.createTopics": [
      [
        { name: "new", partitions: 1, replicationFactor: 1, config: { "retention.ms": 5 } },
        { name: "placed", assignment: [[1]] },
      ],
      { ...call, validateOnly: true },
    ],
    "Admin.deleteTopics": [["nope"], call],
    "Admin.createPartitions": ["t", 2, call],
    "Admin.listTopics": [call],
    "Admin.describeTopics": [["t"], call],
    "Admin.describeConfigs": [{ topic: "t" }, call],
    "Admin.alterConfigs": [{ broker: 1 }, { "retention.ms": 5 }, { ...call, validateOnly: true }],
    "Admin.electLeaders": [[here], { ...call, unclean: false }],
    "Admin.deleteRecords": [[{ ...here, before: 0 }], call],
    "Admin.describeCluster": [call],
    "Admin.listOffsets": [[{ ...here, query: { timestamp: 5 } }], call],
  };
  /** Called at the end of this test, where nothing can be called any more. */
  const ends = ["Cluster.close", "Producer.close", "Consumer.close"];
  const disposals = ["Cluster", "Producer", "Consumer"].map((name) => `${name}[Symbol.asyncDispose]`);
  const argumentsOf = (name: string): unknown[] =>
    (rows[name] ?? []).map((argument) => (argument === connectOptions ? connectOptions() : argument));

  const objects = (): Record<string, object> => ({
    Cluster: cluster,
    Producer: producer,
    Consumer: consumer,
    Admin: admin,
    ConsumerBatch: batch,
  });

  /** The function of this name, as a program calls it. */
  function functionOf(name: string): (...args: unknown[]) => unknown {
    const [, object, symbol, method] = /^(\w+)(?:\[Symbol\.(\w+)\]|\.(\w+))$/.exec(name) ?? [];
    if (object === undefined) return (api as unknown as Record<string, (...args: unknown[]) => unknown>)[name]!;
    const key = method ?? Symbol[symbol as "iterator"];
    const owner = objects()[object] as Record<string | symbol, (...args: unknown[]) => unknown>;
    return (...args) => owner[key]!(...args);
  }

  it("stands in this list", () => {
    const functions = Object.entries(api)
      .filter(([, exported]) => typeof exported === "function" && !(exported.prototype instanceof Error))
      .map(([name]) => name);
    const methods = Object.entries(objects()).flatMap(([name, object]) => methodsOf(name, object));
    const [record] = batch;
    expect(methodsOf("ConsumerRecord", record!)).toEqual([]);
    expect([...Object.keys(rows), ...ends, ...disposals].sort()).toEqual([...functions, ...methods].sort());
  });

  const withOptions = Object.keys(rows).filter((name) =>
    /^connect$|^Admin|^Cluster.(producer|consumer)$|^Consumer.(records|batches)$/.test(name),
  );
  it.each(withOptions)("%s: stands in this list with each of its options", async (name) => {
    const args = argumentsOf(name);
    const options = args.pop() as object;
    const known = await optionsOf((given) => functionOf(name)(...args, given));
    // A consumer has topics or topic.
    expect(known.filter((option) => option !== "topics").sort()).toEqual(Object.keys(options).sort());
  });

  it.each(Object.keys(rows))("%s: does its work or refuses with a typed error, in time", async (name) => {
    const apply = functionOf(name);
    const args = argumentsOf(name);
    expect(await outcomeOf(() => apply(...args))).toMatch(/^(fine|refused)$/);
    const paths = pathsIn(args);
    await fc.assert(
      fc.asyncProperty(paths.length === 0 ? fc.constant([0]) : fc.constantFrom(...paths), junk, async (path, found) => {
        // No name of a machine is made up here: looking it up would be for the network to answer.
        const given = path[1] === "bootstrapBrokers" && typeof found === "string" ? `:${found}` : found;
        // Whoever gives a clock must give one that works.
        fc.pre(!(path[1] === "env" && typeof found === "function"));
        const tried = withJunk(args, path, given) as unknown[];
        expect(await outcomeOf(() => apply(...tried))).toMatch(/^(fine|refused)$/);
      }),
      { numRuns: RUNS },
    );
    expect({ uncaught, warnings: said.names }).toEqual({ uncaught: [], warnings: [] });
  });

  /** Iteration passes what it likes. */
  const counted = Object.keys(rows).filter((name) => !/Symbol/.test(name));
  it.each(counted)("%s: refuses an argument that it does not take", async (name) => {
    for (const more of [{ signal }, undefined, "junk"]) {
      const refusal: unknown = await Promise.resolve()
        .then(() => functionOf(name)(...argumentsOf(name), more))
        .catch((thrown: unknown) => thrown);
      expect(refusal).toBeInstanceOf(api.InvalidArgumentError);
      expect((refusal as api.InvalidArgumentError).what).toMatch(/takes .* arguments?, and was given \d/);
    }
  });

  it("leaves a cluster that works", async () => {
    const { partition, offset } = await producer.send("t", { partition: 1, value: "after" });
    const reader = cluster.consumer({ topic: "t", from: [{ topic: "t", partition, offset }], partitions: [partition] });
    const values: string[] = [];
    for await (const { value } of reader.records({ untilEnd: true })) values.push(String(value));
    expect(values).toEqual(["after"]);
  });
});
