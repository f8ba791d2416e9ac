import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { jsonLines, runOttla, startOttla } from "../support/cluster.js";
import { eventually } from "../support/eventually.js";

/** No cluster runs here: what is wrong with a command line is told before anything is connected to. */
describe("ottla, typed wrongly", () => {
  it.each([
    ["topc list", "did you mean topic?"],
    ["topic lst", "did you mean list?"],
    ["topic list --jsonn", "did you mean --json?"],
    ["consume t --from yesterday", "yesterday is not a position"],
    ["consume t --timeout 5", "5 is not a duration"],
    ["consume t --format {key}", "prints nothing of a record"],
    ["produce t --key-field id", "--key-field is for --format json"],
    ["produce t --idempotent --acks 1", "--idempotent needs --acks all"],
    ["topic create", "no topic is named"],
    ["topic create t --partitions 0", "0 is not a whole number"],
    ["topic records-delete t --before 5", "5 is not PARTITION:OFFSET"],
    ["broker --id 1", "no ZooKeeper is named"],
  ])("answers `ottla %s` with one line and exit code 2", async (line, answer) => {
    const { code, stdout, stderr } = await runOttla(line.split(" "));
    expect(stderr).toMatch(/^error: USAGE: [^\n]+\n$/);
    expect(stderr).toContain(answer);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });

  it.each([
    [
      "kafka-topics --create --topic t --partitions 3 --replication-factor 2",
      "ottla topic create t --partitions 3 --replication 2",
    ],
    ["kafka-console-consumer.sh --topic t --from-beginning", "ottla consume t --from earliest"],
    ["kcat -C -b h:1 -t x -o -5 -e", "ottla consume x --from -5 --until-end -b h:1"],
    ["rpk topic produce t", "ottla produce t"],
  ])("says what to type instead of %s", async (line, instead) => {
    const { code, stderr } = await runOttla(line.split(" "));
    expect(stderr.trimEnd().endsWith(`type: ${instead}`)).toBe(true);
    expect(code).toBe(2);
  });

  it("adds the error as JSON when JSON is wanted", async () => {
    const { stderr } = await runOttla(["topic", "lst", "--json"]);
    const [, json] = stderr.split("\n");
    expect(JSON.parse(json ?? "")).toEqual({
      error: { name: "USAGE", message: "unknown command 'lst'", hint: "did you mean list?", retriable: false },
    });
  });

  it("prints help and version without an error", async () => {
    expect(await runOttla(["--version"])).toMatchObject({
      code: 0,
      stderr: "",
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
    const { code, stdout } = await runOttla(["consume", "--help"]);
    expect(code).toBe(0);
    expect(stdout).toContain("--until-end");
  });

  it("names the addresses when no broker answers, after the given time", async () => {
    const { code, stderr } = await runOttla(["topic", "list", "-b", "127.0.0.1:1", "--timeout", "200ms"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^error: CONNECTION_FAILED: none of 127\.0\.0\.1:1 answered within 200 ms[^\n]* - [^\n]+\n$/,
    );
  });
});

describe("ottla broker, without a ZooKeeper", () => {
  let data: string;
  beforeEach(() => {
    data = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
  });
  afterEach(() => fs.rmSync(data, { recursive: true, force: true }));
  const broker = (...args: string[]): string[] => [
    ...["broker", "--id", "1", "--zookeeper", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--data", data],
    ...args,
  ];

  it("answers a wrong setting like any other wrong usage, with what to do", async () => {
    const { code, stderr } = await runOttla(broker("--json", "--set", "no.such.setting=1"));
    expect(stderr).toMatch(/^error: INVALID_CONFIG: no\.such\.setting[^\n]+ - [^\n]+\n\{[^\n]+\n$/);
    expect(jsonLines(stderr.slice(stderr.indexOf("\n")))).toEqual([
      { error: expect.objectContaining({ name: "INVALID_CONFIG", retriable: false }) },
    ]);
    expect(code).toBe(2);
  });

  it("ends in order when it is told to while it waits, and leaves its directory to others", async () => {
    const waiting = startOttla(broker());
    await eventually("it waits", () => waiting.stderr().includes("No ZooKeeper server can be reached"));
    waiting.kill("SIGTERM");
    const { code, stderr } = await waiting.result;
    expect([code, stderr]).toEqual([0, expect.not.stringContaining("error: ")]);
    expect(fs.readdirSync(data)).toEqual([]);
  });
});
