import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { jsonLines, runOttla, TestCluster } from "../support/cluster.js";
import { eventually } from "../support/eventually.js";

/** Records through the command line and a real cluster, in the shapes that scripts rely on. */
describe("ottla produce and consume", () => {
  let cluster: TestCluster;
  let topics = 0;

  beforeAll(async () => {
    cluster = await TestCluster.start();
  }, 60_000);
  afterAll(() => cluster.close(), 60_000);

  async function newTopic(...args: string[]): Promise<string> {
    const name = `t${(topics += 1)}`;
    await cluster.json(["topic", "create", name, ...args]);
    return name;
  }

  const read = (topic: string, ...args: string[]): Promise<Record<string, unknown>[]> =>
    cluster.json(["consume", topic, "--from", "earliest", "--until-end", ...args]);

  it("reports each record of standard input as it is acknowledged, then the sum", async () => {
    const topic = await newTopic();
    const { code, stdout } = await cluster.ottla(["produce", topic, "--report"], "a\n\nlast without a newline");
    expect(code).toBe(0);
    const lines = jsonLines(stdout);
    expect(lines.pop()).toEqual({ records: 3, acked: 3, failed: 0, seconds: expect.any(Number) });
    expect(lines).toEqual(
      [0, 1, 2].map((offset) => ({ line: offset + 1, partition: 0, offset, timestamp: expect.any(Number) })),
    );
    const records = await read(topic);
    expect(records.map(({ value }) => value)).toEqual(["a", "", "last without a newline"]);
    expect(records[0]).toEqual({
      topic,
      partition: 0,
      offset: 0,
      timestamp: expect.any(Number),
      key: null,
      value: "a",
      headers: {},
    });
  });

  it("keeps keys, headers and bytes that are no text", async () => {
    const topic = await newTopic("--partitions", "2");
    await cluster.json(["produce", topic, "--key-separator", "\\t", "-H", "source=test", "-H", "n=1"], "k\tv\tw\n");
    expect(await read(topic)).toMatchObject([{ key: "k", value: "v\tw", headers: { source: "test", n: "1" } }]);
    expect(await read(topic, "--encoding", "hex")).toMatchObject([{ key: "6b", value: "760977" }]);
  });

  it("takes a record of any size that the topic's max.message.bytes allows, and says which setting to raise", async () => {
    const topic = await newTopic();
    const line = "x".repeat(3_000_000);
    const refused = await cluster.ottla(["produce", topic], line);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/RECORD_TOO_LARGE: .*max\.message\.bytes of the topic allows 1048576/);
    await cluster.json(["config", "set", "topic", topic, "max.message.bytes=4194304"]);
    await eventually("the topic takes it", async () => (await cluster.ottla(["produce", topic], line)).code === 0);
    expect((await read(topic)).map(({ value }) => (value as string).length)).toEqual([line.length]);
  });

  it("stops at a line without the key separator and names it; what came before is written", async () => {
    const topic = await newTopic();
    const { code, stderr, stdout } = await cluster.ottla(
      ["produce", topic, "--key-separator", ":", "--json"],
      "a:1\nb:2\nc\nd:4\n",
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: NO_KEY_SEPARATOR: line 3 /);
    expect(stderr.split("\n")[0]).toMatch(
      / - correct the line, [^;]+; what stands before is written already: give only /,
    );
    expect(jsonLines(stdout)).toEqual([{ records: 2, acked: 2, failed: 0, seconds: expect.any(Number) }]);
    expect(await read(topic)).toHaveLength(2);
  });

  it("carries every element of a real JSON file, with its key", async () => {
    const topic = await newTopic("--partitions", "3");
    const file = fileURLToPath(new URL("../../node_modules/vega-datasets/data/cars.json", import.meta.url));
    const cars = JSON.parse(fs.readFileSync(file, "utf8")) as { Name: string }[];
    await cluster.json(["produce", topic, "--from", file, "--format", "json", "--key-field", "Name"]);
    const records = await read(topic);
    expect(records).toHaveLength(cars.length);
    const sorted = (texts: unknown[]): unknown[] => [...texts].sort();
    expect(sorted(records.map(({ value }) => value))).toEqual(sorted(cars.map((car) => JSON.stringify(car))));
    for (const { key, value } of records) expect((JSON.parse(value as string) as { Name: string }).Name).toBe(key);
  }, 20_000);

  it("takes all that was written to a named pipe, however early, until it is interrupted", async () => {
    const topic = await newTopic();
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    try {
      const pipe = path.join(directory, "pipe");
      execFileSync("mkfifo", [pipe]);
      const written = fs.promises.writeFile(pipe, "a\nb\n");
      expect(await cluster.json(["produce", topic, "--from", pipe])).toMatchObject([{ records: 2, acked: 2 }]);
      await written;

      const waiting = cluster.startOttla(["produce", topic, "--report", "--from", pipe]);
      const writer = await fs.promises.open(pipe, "w");
      await writer.write("c\n");
      await eventually("the record is acknowledged", () => waiting.stdout().includes('"line":1'));
      waiting.kill("SIGINT");
      const { code, stdout } = await waiting.result;
      await writer.close();
      expect([code, jsonLines(stdout).at(-1)]).toMatchObject([130, { records: 1, acked: 1 }]);
    } finally {
      fs.rmSync(directory, { recursive: true, force: true });
    }
  });

  it("reads from an offset, from the last N, and from a time", async () => {
    const topic = await newTopic();
    await cluster.json(["produce", topic], "0\n1\n2\n3\n4\n");
    const values = async (...args: string[]): Promise<unknown[]> =>
      (await cluster.json(["consume", topic, "--until-end", ...args])).map(({ value }) => value);
    expect(await values("--from", "3")).toEqual(["3", "4"]);
    expect(await values("--from", "-2")).toEqual(["3", "4"]);
    expect(await values("--from", "-50")).toEqual(["0", "1", "2", "3", "4"]);
    expect(await values("--from", "5m", "--count", "2")).toEqual(["0", "1"]);
    expect(await values("--from", "@0", "--partition", "0", "--count", "1")).toEqual(["0"]);
    expect(await values()).toEqual([]);
  });

  it("refuses to read where the log does not reach, with its reach", async () => {
    const topic = await newTopic();
    await cluster.json(["produce", topic], "0\n");
    const { code, stderr } = await cluster.ottla(["consume", topic, "--from", "9"]);
    expect(code).toBe(1);
    expect(stderr).toContain("error: OFFSET_OUT_OF_RANGE: ");
  });

  it("follows a topic until it is interrupted, and then ends with 130", async () => {
    const topic = await newTopic();
    const following = cluster.startOttla(["consume", topic, "--from", "earliest", "--format", "%p:%o %v\\n"]);
    await cluster.json(["produce", topic], "now\n");
    await eventually("the record is printed", () => following.stdout() === "0:0 now\n");
    following.kill("SIGINT");
    expect((await following.result).code).toBe(130);
  });

  it("writes what was typed so far when it is interrupted, and says how much", async () => {
    const topic = await newTopic();
    const typing = cluster.startOttla(["produce", topic, "--report"]);
    typing.write("typed\n");
    await eventually("the record is acknowledged", () => typing.stdout().includes('"line":1'));
    typing.kill("SIGTERM");
    const { code, stdout } = await typing.result;
    expect(code).toBe(130);
    expect(jsonLines(stdout).at(-1)).toMatchObject({ records: 1, acked: 1 });
  });

  it("says how much was written also when it is interrupted while the leader does not answer", async () => {
    await using alone = await TestCluster.start({ brokers: 1 });
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    const { O_WRONLY, O_NONBLOCK } = fs.constants;
    /** A command that reads from a pipe and has had its first record acknowledged. */
    const begin = async (topic: string) => {
      await alone.json(["topic", "create", topic]);
      const pipe = path.join(directory, topic);
      execFileSync("mkfifo", [pipe]);
      const command = alone.startOttla(["produce", topic, "--report", "--from", pipe]);
      const writer = await fs.promises.open(pipe, "w");
      await writer.write("first\n");
      await eventually("the record is acknowledged", () => command.stdout().includes('"line":1'));
      return { pipe, command, writer };
    };
    /** Whether the call fails with this code. */
    const fails = (code: string, call: () => unknown): boolean => {
      try {
        call();
        return false;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === code) return true;
        throw error;
      }
    };
    try {
      const [waiting, full] = await Promise.all([begin("waiting"), begin("full")]);
      await alone.json(["pause", "1"]);
      await waiting.writer.write("never acknowledged\n");
      await waiting.writer.close();
      await eventually("it has read all", () =>
        fails("ENXIO", () => fs.closeSync(fs.openSync(waiting.pipe, O_WRONLY | O_NONBLOCK))),
      );
      const lines = `${"x".repeat(32_767)}\n`;
      const filling = fs.openSync(full.pipe, O_WRONLY | O_NONBLOCK);
      let written = 0;
      await eventually("its memory is full", () => {
        const before = written;
        while (!fails("EAGAIN", () => (written += fs.writeSync(filling, lines))));
        return written > 8 * 1024 * 1024 && written === before;
      });
      for (const { command } of [waiting, full]) command.kill("SIGINT");
      const results = await Promise.all([waiting.command.result, full.command.result]);
      expect(results.map(({ code, stdout }) => [code, jsonLines(stdout).at(-1)])).toMatchObject([
        [130, { records: 2, acked: 1 }],
        [130, { records: expect.any(Number), acked: 1 }],
      ]);
      fs.closeSync(filling);
      await full.writer.close();
    } finally {
      fs.rmSync(directory, { recursive: true, force: true });
    }
  }, 60_000);

  it("tells a topic that does not exist once, with the name that is near", async () => {
    const { code, stderr } = await cluster.ottla(["produce", "nothing-like-it"], "a\nb\nc\n");
    expect(code).toBe(1);
    expect(stderr.split("\n").filter((line) => line.startsWith("error: "))).toHaveLength(1);
    expect(stderr).toMatch(/^error: UNKNOWN_TOPIC_OR_PARTITION: /);
    const misspelt = (await newTopic()).replace("t", "tt");
    const commands = [
      ["topic", "describe", misspelt],
      ["topic", "records-delete", misspelt, "--before", "0:end"],
      ["produce", misspelt],
      ["consume", misspelt, "--until-end"],
      ["perf", "consume", misspelt],
      ["config", "describe", "topic", misspelt],
      ["elect-leaders", misspelt],
    ];
    const results = await Promise.all(commands.map((command) => cluster.ottla(command, "")));
    expect(results.map((result, index) => [commands[index]?.[0], result.code, result.stderr])).toEqual(
      commands.map(([name]) => [name, 1, expect.stringContaining("did you mean ")]),
    );
  });

  it("describes, alters and deletes topics in the documented shape", async () => {
    const topic = await newTopic("--partitions", "2", "--replication", "2", "--config", "retention.ms=60000");
    await cluster.json(["produce", topic, "--partition", "1"], "a\nb\n");
    const [described] = await cluster.json(["topic", "describe", topic]);
    expect(described).toEqual({
      topic,
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      partitions: [0, 1].map((partition) => ({
        partition,
        leader: expect.any(Number),
        leaderEpoch: expect.any(Number),
        replicas: [expect.any(Number), expect.any(Number)],
        isr: expect.any(Array),
        startOffset: 0,
        highWatermark: partition * 2,
        endOffset: partition * 2,
      })),
      config: { "retention.ms": "60000" },
    });
    await cluster.json(["topic", "alter", topic, "--partitions", "3", "--config", "retention.ms="]);
    expect(await cluster.json(["topic", "records-delete", topic, "--before", "1:1"])).toEqual([
      { topic, partition: 1, startOffset: 1 },
    ]);
    const [altered] = await cluster.json<{ partitions: unknown[]; config: unknown }>(["topic", "describe", topic]);
    expect(altered?.partitions).toHaveLength(3);
    expect(altered?.config).toEqual({});
    await cluster.json(["topic", "delete", topic]);
    await eventually(
      "the topic is gone",
      async () => !(await cluster.json(["topic", "list"])).some((one) => one["topic"] === topic),
    );
  });

  it("dumps segment files without a broker, and finds a flipped bit", async () => {
    const topic = await newTopic("--replication", "1");
    await cluster.json(["produce", topic], "first\nsecond\n");
    const [described] = await cluster.json<{ partitions: { leader: number }[] }>(["topic", "describe", topic]);
    const leader = described?.partitions[0]?.leader as number;
    const directory = path.join(cluster.data, `broker-${leader}`, "logs", `${topic}-0`);
    const dump = (from: string, ...args: string[]) => runOttla(["log", "dump", from, "--json", ...args]);
    const [batch, ...records] = jsonLines((await dump(directory, "--records")).stdout);
    expect(batch).toEqual({
      baseOffset: 0,
      lastOffset: 1,
      leaderEpoch: expect.any(Number),
      producerId: expect.any(Number),
      producerEpoch: 0,
      baseSequence: 0,
      records: 2,
      bytes: expect.any(Number),
      compression: "none",
      crcOk: true,
      maxTimestamp: expect.any(Number),
    });
    expect(records).toMatchObject([
      { offset: 0, value: "first" },
      { offset: 1, value: "second" },
    ]);
    expect((await dump(directory, "--verify")).code).toBe(0);

    const copy = path.join(cluster.data, "00000000000000000000.log");
    const bytes = fs.readFileSync(path.join(directory, path.basename(copy)));
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] ?? 0) ^ 1;
    fs.writeFileSync(copy, bytes);
    const damaged = await dump(copy, "--verify");
    expect(damaged.code).toBe(1);
    expect(jsonLines(damaged.stdout)[0]).toMatchObject({ crcOk: false });
    expect(damaged.stderr).toMatch(/^error: CORRUPT_LOG: .*checksum/);
  });

  it("ends quietly when its reader has gone", async () => {
    const topic = await newTopic();
    await cluster.json(["produce", topic], "x\n".repeat(50_000));
    const reading = cluster.startOttla(["consume", topic, "--from", "earliest"]);
    await eventually("something is printed", () => reading.stdout() !== "");
    reading.closeOutput();
    const more = cluster.startOttla(["produce", topic]);
    // A closed pipe is noticed at the next write.
    more.write("y\n".repeat(1000));
    more.endInput();
    await more.result;
    expect(await reading.result).toMatchObject({ code: 0, stderr: expect.not.stringContaining("error") });
  });

  it("does not take a reader that lets it wait for a cluster that does", async () => {
    const topic = await newTopic();
    await cluster.json(["produce", topic], `${"x".repeat(100_000)}\n`.repeat(40));
    const reading = cluster.startOttla(["consume", topic, "--from", "earliest", "--until-end", "--timeout", "3s"]);
    reading.pauseOutput();
    const pausedMs = performance.now();
    await eventually("it has waited for longer than its patience", () => performance.now() - pausedMs > 6000);
    reading.resumeOutput();
    const { code, stdout, stderr } = await reading.result;
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.not.stringContaining("error") });
    expect(stdout.length).toBe(40 * 100_001);
  });

  it("measures producing, consuming and latency", async () => {
    const topic = await newTopic();
    const [produced] = await cluster.json([
      "perf",
      "produce",
      topic,
      "--records",
      "2000",
      "--warmup",
      "100",
      "--size",
      "10",
    ]);
    expect(produced).toMatchObject({
      perf: "produce",
      records: 2000,
      bytes: 20_000,
      p50Ms: expect.any(Number),
      p999Ms: expect.any(Number),
    });
    const [consumed] = await cluster.json([
      "perf",
      "consume",
      topic,
      "--records",
      "2000",
      "--warmup",
      "100",
      "--values",
    ]);
    expect(consumed).toMatchObject({ perf: "consume", records: 2000, bytes: 20_000 });
    /** The bytes of so many records behind so many others, as they are stored. */
    const bytesOf = async (records: number, warmup: number): Promise<number> => {
      const counts = ["--records", String(records), "--warmup", String(warmup)];
      const [line] = await cluster.json<{ bytes: number }>(["perf", "consume", topic, ...counts]);
      return line?.bytes ?? 0;
    };
    const [whole, begin, rest] = [await bytesOf(2100, 0), await bytesOf(700, 0), await bytesOf(1400, 700)];
    expect(whole).toBeGreaterThan(21_000);
    // Each batch may be rounded.
    expect(Math.abs(begin + rest - whole)).toBeLessThan(20);
    const [latency] = await cluster.json(["perf", "latency", topic, "--records", "20", "--warmup", "5"]);
    expect(latency).toMatchObject({ perf: "latency", records: 20 });
  });

  it("describes the cluster and changes settings", async () => {
    const [described] = await cluster.json(["cluster", "describe"]);
    expect(described).toEqual({
      cluster: cluster.clusterId,
      controller: expect.any(Number),
      controllerEpoch: expect.any(Number),
      brokers: [1, 2, 3].map((id) => ({
        id,
        host: "127.0.0.1",
        port: expect.any(Number),
        rack: null,
        epoch: expect.stringMatching(/^\d+$/),
      })),
    });
    const topic = await newTopic();
    await cluster.json(["config", "set", "topic", topic, "retention.ms=1234"]);
    const setting = async (): Promise<unknown> =>
      (await cluster.json(["config", "describe", "topic", topic])).find(({ name }) => name === "retention.ms")?.[
        "value"
      ];
    await eventually("the setting is in force", async () => (await setting()) === "1234");
    await cluster.json(["config", "unset", "topic", topic, "retention.ms"]);
    await eventually("the default is back", async () => (await setting()) === "604800000");
    const refused = await cluster.ottla(["config", "set", "topic", topic, "retentio.ms=5"]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^error: INVALID_CONFIG: .*did you mean retention\.ms/);
  });
});
