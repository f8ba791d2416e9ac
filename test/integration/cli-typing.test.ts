import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { readBatch } from "../../protocol/record-batch.js";
import { toOffset } from "../../protocol/types.js";
import { batchOf } from "../support/batches.js";
import { runTyped, typeCommand } from "../support/command-line.js";
import { jsonLines } from "../support/cluster.js";
import { eventually } from "../support/eventually.js";
import { batchesOf, FakeCluster } from "../support/fake-broker.js";
import { writeClusterState } from "../../tools/local-cluster/cluster-state.js";
import { identityOf } from "../../tools/local-cluster/process-identity.js";

/** What people type and see, with a cluster of fakes. */
describe("ottla, typed by a person", () => {
  let cluster: FakeCluster;
  let topics = 0;

  beforeAll(async () => {
    cluster = await FakeCluster.start();
  });
  afterAll(() => cluster[Symbol.asyncDispose]());

  const environment = () => ({ OTTLA_BOOTSTRAP: cluster.bootstrapBrokers.join(",") });
  const run = (line: string, input = "") => runTyped(line.split(" "), { environment: environment(), input });
  const newTopic = (partitions = 1): string => {
    const name = `t${(topics += 1)}`;
    cluster.createTopic(name, partitions);
    return name;
  };
  const read = async (topic: string, ...more: string[]): Promise<Record<string, unknown>[]> => {
    const { stdout } = await run(["consume", topic, "--from earliest --until-end --json", ...more].join(" "));
    return jsonLines(stdout);
  };

  describe("what other tools call it", () => {
    it.each(["-t", "--topic"])("takes %s for the topic, to write and to read", async (flag) => {
      const topic = newTopic();
      expect(await run(`produce ${flag} ${topic} --acks -1`, "a\n")).toMatchObject({ code: 0 });
      const { code, stdout } = await run(`consume ${flag} ${topic} --offset start -n 1`);
      expect([code, stdout]).toEqual([0, "a\n"]);
    });

    it("takes a list of partitions", async () => {
      const topic = newTopic(3);
      for (const partition of [0, 1, 2]) await run(`produce ${topic} -p ${partition}`, `${partition}\n`);
      const values = (await read(topic, "-p 0,2")).map(({ value }) => value);
      expect(values.sort()).toEqual(["0", "2"]);
      expect((await read(topic, "-p 0,1 -p 2")).length).toBe(3);
    });

    it("writes every record with the key that is given", async () => {
      const topic = newTopic();
      await run(`produce ${topic} --key 42`, "a\nb\n");
      await run(`produce ${topic} -k 43 --format json`, '{"a":1}');
      await run(`produce ${topic} -k 44 --format raw`, "raw");
      const keyless = runTyped(["produce", topic, "-k", ""], { environment: environment(), input: "c\n" });
      expect(await keyless).toMatchObject({ code: 0 });
      expect((await read(topic)).map(({ key }) => key)).toEqual(["42", "42", "43", "44", ""]);
    });

    it("leaves a topic that exists as it is with --if-not-exists, and calls one that is gone deleted with --if-exists", async () => {
      const topic = newTopic(2);
      const created = await run(`topic create ${topic} other${topic} --if-not-exists -p 5 --json`);
      expect([created.code, jsonLines(created.stdout)]).toMatchObject([
        0,
        [
          { topic, partitions: 2 },
          { topic: `other${topic}`, partitions: 5 },
        ],
      ]);
      const deleted = await run(`topic delete nosuch other${topic} --if-exists --json`);
      expect([deleted.code, jsonLines(deleted.stdout)]).toEqual([
        0,
        [
          { topic: "nosuch", deleted: false },
          { topic: `other${topic}`, deleted: true },
        ],
      ]);
    });

    it("makes or deletes none of several topics while it cannot do all", async () => {
      const topic = newTopic();
      expect(await run(`topic create new${topic} ${topic}`)).toMatchObject({ code: 1, stdout: "" });
      expect(await run(`topic delete ${topic} nosuch`)).toMatchObject({ code: 1, stdout: "" });
      expect([cluster.topics.has(`new${topic}`), cluster.topics.has(topic)]).toEqual([false, true]);
    });

    it("describes a topic again and again with --watch, until it is interrupted", async () => {
      const topic = newTopic();
      const watching = typeCommand(["topic", "describe", topic, "--watch", "--json"], { environment: environment() });
      await eventually("it has been described twice", () => jsonLines(watching.stdout()).length >= 2);
      watching.interrupt();
      expect(await watching.result).toMatchObject({ code: 130, stderr: "" });
    });
  });

  describe("a terminal", () => {
    it("says how typing records ends", async () => {
      const topic = newTopic();
      const typing = typeCommand(["produce", topic], { environment: environment(), isTyped: true });
      await eventually("it is said", () => typing.stderr() === `type records for ${topic}, one a line; Ctrl-D ends\n`);
      typing.stdin.end("a\n");
      const { code, stderr } = await typing.result;
      expect(stderr).toMatch(/\n1 of 1 record acknowledged in [\d.]+ s\n$/);
      expect(code).toBe(0);
    });

    it.each([
      ["what is piped in", ["produce", "TOPIC"], false],
      ["scripts", ["produce", "TOPIC", "--json"], true],
      ["a file", ["produce", "TOPIC", "--from", "/dev/null"], true],
    ])("does not say so to %s", async (_, words, isTyped) => {
      const topic = newTopic();
      const given = words.map((word) => word.replace("TOPIC", topic));
      const { stderr } = await runTyped(given, { environment: environment(), isTyped });
      expect(stderr).not.toContain("Ctrl-D");
    });

    it("says that it waits for new records, and how to see the others", async () => {
      const topic = newTopic();
      const waiting = typeCommand(["consume", topic], { environment: environment() });
      await eventually("it is said", () =>
        waiting.stderr().startsWith(`waiting for new records of ${topic}; Ctrl-C ends, --from earliest shows`),
      );
      waiting.interrupt();
      const { code, stdout, stderr } = await waiting.result;
      expect([code, stdout]).toEqual([130, ""]);
      expect(stderr.endsWith("\n0 records\n")).toBe(true);
    });

    it("says why it shows no records when nobody has said where to begin", async () => {
      const topic = newTopic();
      expect((await run(`consume ${topic} --until-end`)).stderr).toBe(
        "0 records\nwithout --from it begins at the end; --from earliest shows the records that are there\n",
      );
      for (const from of ["--from latest", "--from earliest", "--from-beginning"])
        expect((await run(`consume ${topic} --until-end ${from}`)).stderr).toBe("0 records\n");
    });

    it("counts one record as one", async () => {
      const topic = newTopic();
      await run(`produce ${topic}`, "a\n");
      const { stderr } = await run(`consume ${topic} --from earliest --until-end`);
      expect(stderr).toBe("1 record\n");
    });
  });

  describe("--encoding", () => {
    it.each([
      ["hex", "0aff:00fe\n", "0aff", "00fe"],
      ["base64", "Cv8=:AP4=\r\n", "Cv8=", "AP4="],
    ])("reads keys and values in %s as consume prints them", async (encoding, line, key, value) => {
      const topic = newTopic();
      const header = encoding === "hex" ? "ff" : "/w==";
      const words = `produce ${topic} -K : --encoding ${encoding} -H h=${header}`;
      expect(await run(words, line)).toMatchObject({ code: 0 });
      const bytes = Buffer.from(value, encoding as BufferEncoding);
      expect(await read(topic, `--encoding ${encoding}`)).toMatchObject([{ key, value, headers: { h: header } }]);
      expect(batchesOf(cluster.partition(topic))).toHaveLength(1);
      expect((await read(topic))[0]?.["value"]).toBe(bytes.toString());
    });

    it.each([
      ["hex", "abc\n"],
      ["hex", "xy\n"],
      ["base64", "a\n"],
      ["base64", "a*bc\n"],
    ])("refuses what is not %s, with the line: %j", async (encoding, line) => {
      const topic = newTopic();
      const { code, stderr } = await run(`produce ${topic} --encoding ${encoding} --json`, line);
      expect(stderr).toMatch(new RegExp(`^error: INVALID_ENCODING: line 1 is not ${encoding} - `));
      expect(code).toBe(1);
      expect(batchesOf(cluster.partition(topic))).toEqual([]);
    });
  });

  describe("--key-field", () => {
    it("refuses a record without the field, with the name that is near; null is no key", async () => {
      const topic = newTopic();
      const words = `produce ${topic} --format json --key-field name`;
      const { code, stderr } = await run(words, '{"name":null}{"nmae":"x"}{"name":"y"}');
      expect(stderr).toMatch(/^1 of 1 record acknowledged in [\d.]+ s, up to the error\n/);
      expect(stderr).toContain(
        "error: NO_KEY_FIELD: record 2 has no field name (--key-field) - did you mean nmae?; " +
          "what stands before is written already: give only the rest, or it is written twice\n",
      );
      expect(code).toBe(1);
      expect(await read(topic)).toMatchObject([{ key: null, value: '{"name":null}' }]);
      for (const keyless of ["5", '["name"]', '{"deep":{"name":"x"}}'])
        expect((await run(words, keyless === '["name"]' ? `[${keyless}]` : keyless)).code).toBe(1);
    });
  });

  it("waits for long times as for short ones", async () => {
    const topic = newTopic();
    await run(`produce ${topic} --timeout 30d`, "a\n");
    expect(await run(`consume ${topic} --from earliest --until-end --timeout 30d`)).toMatchObject({
      code: 0,
      stdout: "a\n",
      stderr: "1 record\n",
    });
    expect(await run(`perf consume ${topic} --timeout 30d --json`)).toMatchObject({ code: 0, stderr: "" });
  });

  it("ends perf consume with an error when there are fewer records than were asked for", async () => {
    const topic = newTopic();
    await run(`produce ${topic}`, "a\nb\nc\n");
    expect(await run(`perf consume ${topic} -n 2 --warmup 1 --json`)).toMatchObject({ code: 0, stderr: "" });
    const { code, stdout, stderr } = await run(`perf consume ${topic} --records 3 --warmup 1`);
    expect(stdout).toMatch(/^2 records in /);
    expect(stderr).toMatch(
      new RegExp(`^error: TOO_FEW_RECORDS: ${topic}: --records 3 .* a warm-up of 1, and 3 records are there - `),
    );
    expect(code).toBe(1);
    expect(await run(`perf consume ${topic} --json`)).toMatchObject({ code: 0, stderr: "" });
  });

  it("names partitions that are not there before it reads, writes or elects", async () => {
    const topic = newTopic();
    for (const words of [`produce ${topic} -p 1`, `consume ${topic} -p 1`, `elect-leaders ${topic} --partition 1`]) {
      const { code, stderr } = await run(words, "a\n");
      expect(stderr).toMatch(
        /^error: UNKNOWN_TOPIC_OR_PARTITION: -\S+ 1: t\d+ has no partition 1 - it has partition 0 only\n$/,
      );
      expect(code).toBe(1);
    }
  });

  it.each([
    ["topic create new --replication-factor 9", "INVALID_REPLICATION_FACTOR", "(--replication-factor)"],
    ["topic create new -p 20000", "INVALID_PARTITIONS", "(-p)"],
    ["topic create new -c a=1", "INVALID_CONFIG", "(-c)"],
    ["topic alter t1 --config a=1", "INVALID_CONFIG", "(--config)"],
    ["topic alter t1 --partitions 1", "INVALID_PARTITIONS", "(--partitions)"],
  ] as const)("names the flag of what the cluster refuses: `ottla %s`", async (line, name, flag) => {
    const [broker] = cluster.brokers;
    if (broker === undefined) throw new Error("no broker");
    broker.answer = ({ kind }) =>
      ["createTopics", "createPartitions", "alterConfigs"].includes(kind) ? { refuse: name } : undefined;
    try {
      const { code, stderr } = await run(line);
      expect(stderr).toMatch(new RegExp(`^error: ${name}: .* - .* `));
      expect(stderr.endsWith(` ${flag}\n`)).toBe(true);
      expect(code).toBe(1);
    } finally {
      broker.answer = () => undefined;
    }
  });

  it.each([
    [["-b", "127.0.0.1:1"], {}, "(-b)"],
    [[], { OTTLA_BOOTSTRAP: "127.0.0.1:1" }, "(OTTLA_BOOTSTRAP)"],
  ])("says where the addresses come from at which nobody answers: %j %j", async (words, named, source) => {
    const given = ["topic", "list", "--timeout", "50ms", ...words];
    const { stderr } = await runTyped(given, { environment: named });
    expect(stderr).toMatch(/^error: CONNECTION_FAILED: none of 127\.0\.0\.1:1 answered [^\n]*\n$/);
    expect(stderr.endsWith(` ${source}\n`)).toBe(true);
  });

  it("prints addresses as --bootstrap takes them", async () => {
    const [broker] = cluster.brokers;
    if (broker === undefined) throw new Error("no broker");
    const usual = broker.answer;
    broker.answer = ({ kind }) =>
      kind === "metadata"
        ? {
            body: {
              clusterId: "fake-cluster",
              controllerId: 1,
              brokers: [{ id: 1, host: "::1", port: 22151, epoch: "7" }],
            },
          }
        : undefined;
    try {
      expect((await run("cluster describe")).stdout).toContain("[::1]:22151");
    } finally {
      broker.answer = usual;
    }
    const { stderr } = await run("topic list -b [::1]:22151 --timeout 200ms");
    expect(stderr).toMatch(/none of \[::1\]:22151 answered within 200 ms \(no connection to \[::1\]:22151: [a-z-]+\)/);
    expect(stderr).not.toMatch(/[^[]::1:22151/);
  });

  it("takes port 9092 for an address without one", async () => {
    const { stderr } = await run("topic list -b 127.9.9.9,[::9] --timeout 100ms");
    expect(stderr).toContain("none of 127.9.9.9:9092, [::9]:9092 answered within 100 ms");
  });

  it("asks a cluster of this machine once for its status", async () => {
    const data = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    try {
      const brokers = cluster.bootstrapBrokers.map((address, index) => ({
        id: index + 1,
        port: Number(address.split(":").at(-1)),
        process: identityOf(process.pid),
      }));
      writeClusterState(data, { version: 1, cluster: "fake-cluster", brokers, zookeepers: [], settings: {} });
      const asked = (): number =>
        cluster.brokers.flatMap((broker) => broker.bodies("metadata")).filter(({ noTopics }) => noTopics === true)
          .length;
      const before = asked();
      const { code, stdout } = await run(`status --json --data ${data}`);
      expect([code, jsonLines(stdout).length]).toEqual([0, brokers.length]);
      expect(jsonLines(stdout)[0]).toMatchObject({ health: "serving", controller: true });
      // One answer makes the connection, the other is the status.
      expect(asked() - before).toBe(2);
    } finally {
      fs.rmSync(data, { recursive: true });
    }
  });

  it("names the command that lists the settings where one is refused", async () => {
    const topic = newTopic();
    const [broker] = cluster.brokers;
    if (broker === undefined) throw new Error("no broker");
    broker.answer = ({ kind }) => (kind === "alterConfigs" ? { refuse: "INVALID_CONFIG" } : undefined);
    try {
      for (const [target, hint] of [
        [`topic ${topic}`, `ottla config describe topic ${topic}`],
        ["broker 1", "ottla config describe broker 1 --all"],
        ["broker default", "ottla config describe broker default --all"],
      ]) {
        const { code, stderr } = await run(`config set ${target} nosuch=1`);
        expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: INVALID_CONFIG: [^\n]* - [^\n]*\n$/)]);
        expect(stderr.endsWith(` - see ${hint}\n`)).toBe(true);
      }
    } finally {
      broker.answer = () => undefined;
    }
  });

  it("says that there was nothing to elect", async () => {
    expect(await run("elect-leaders")).toEqual({
      code: 0,
      stdout: "",
      stderr: "every partition is led by its preferred replica\n",
    });
    expect((await run("elect-leaders --unclean")).stderr).toBe("every partition has a leader\n");
    expect(await run("elect-leaders --json")).toEqual({ code: 0, stdout: "", stderr: "" });
  });

  it("reports why a record was not written, in the line of the record", async () => {
    const topic = newTopic();
    const { code, stdout } = await run(`produce ${topic} --report`, `a\n${"x".repeat(3 * 1024 * 1024)}\n`);
    expect(code).toBe(1);
    const failed = jsonLines(stdout).find(({ line, error }) => line === 2 && error !== undefined);
    const message = expect.stringMatching(/3145\d{3} bytes/) as string;
    const error = { name: "RECORD_TOO_LARGE", message, hint: expect.stringMatching(/\w/) as string, retriable: false };
    expect(failed).toEqual({ line: 2, error });
  });

  it("ends at a batch whose records nobody can read, or leaves it out and says which", async () => {
    const topic = newTopic();
    await run(`produce ${topic}`, "a\n");
    const { batches } = cluster.partition(topic);
    const stamped = (bytes: Buffer, offset: number): Buffer => {
      readBatch(bytes, 0).stamp(toOffset(offset), 0);
      return bytes;
    };
    batches.push(stamped(batchOf(["b", "long enough for two more"], { recordCount: 3, lastOffsetDelta: 2 }), 1));
    batches.push(stamped(batchOf(["d"]), 4));
    const line = `consume ${topic} --from earliest --until-end`;
    for (const more of ["", " --on-unreadable error"]) {
      const { code, stderr } = await run(line + more);
      expect(stderr).toMatch(
        / - begin behind with --from 4, or leave out what is unreadable with --on-unreadable skip\n$/,
      );
      expect(code).toBe(1);
    }
    expect((await run(`consume ${topic} --from 4 --until-end`)).stdout).toBe("d\n");
    const { code, stdout, stderr } = await run(`${line} --on-unreadable skip`);
    expect([code, stdout]).toEqual([0, "a\nd\n"]);
    expect(stderr).toMatch(
      new RegExp(
        `^a batch is left out, because its records cannot be read \\(${topic}-0, offset 1, next offset 4\\): [^\\n]+\\n2 records\\n$`,
      ),
    );
  });

  it.each(["help", "help topic", "help topic create", "topic help create", "help topics describe"])(
    "prints help for `ottla %s`",
    async (line) => {
      const { code, stdout, stderr } = await run(line);
      expect([code, stderr]).toEqual([0, ""]);
      expect(stdout).toMatch(/^Usage: ottla /);
    },
  );
});
