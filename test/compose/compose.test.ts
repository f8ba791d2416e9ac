import { spawn, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { jsonLines, runOttla } from "../support/cluster.js";
import { eventually } from "../support/eventually.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const PROJECT = "ottla-test";
const BUILD_AND_START_MS_MAX = 420_000;
const COMMAND_MS_MAX = 60_000;
const RECORDS = 2000;
const FROM_HOST = "localhost:9092,localhost:9093,localhost:9094";

/** `docker compose`, or the program that it once was. */
const compose = [["docker", "compose"], ["docker-compose"]].find(
  ([program = "", ...rest]) => spawnSync(program, [...rest, "version"]).status === 0,
);
/** Whether a program of its own could listen on the ports that the file publishes. */
const arePortsFree =
  spawnSync(process.execPath, [
    "-e",
    "for (const port of [9092, 9093, 9094]) require('net').createServer().listen(port, '127.0.0.1').unref()",
  ]).status === 0;
const obstacle =
  spawnSync("docker", ["info"]).status !== 0
    ? "no Docker engine answers"
    : compose === undefined
      ? "docker compose is not installed"
      : ["zookeeper:3.9", "node:24-bookworm-slim"]
          .filter((image) => spawnSync("docker", ["image", "inspect", image]).status !== 0)
          .map((image) => `the image ${image} is not here (docker pull ${image})`)
          .concat(arePortsFree ? [] : ["a port from 9092 to 9094 is taken"])
          .join(", ");

function run(
  program: string,
  args: readonly string[],
  options: { input?: string; deadlineMs?: number } = {},
): Promise<string> {
  const child = spawn(program, args, {
    cwd: root,
    stdio: ["pipe", "pipe", "pipe"],
    timeout: options.deadlineMs ?? COMMAND_MS_MAX,
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => (stdout += String(chunk)));
  child.stderr.on("data", (chunk) => (stderr += String(chunk)));
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(stdout);
      else reject(new Error(`${program} ${args.join(" ")} ended with ${code}: ${stderr.slice(-2000)}`));
    });
  });
}

function composed(args: readonly string[], options?: { input?: string; deadlineMs?: number }): Promise<string> {
  const [program = "", ...rest] = compose ?? [];
  return run(program, [...rest, "-p", PROJECT, ...args], options);
}

const inContainer = (broker: number, args: readonly string[], input = ""): Promise<string> =>
  composed(["exec", "-T", `broker-${broker}`, "ottla", ...args], { input });

interface Described {
  readonly partitions: readonly { readonly leader: number; readonly isr: readonly number[] }[];
}

// A test that is left out says so in the summary, and why.
const describeHere = obstacle === "" ? describe : describe.skip;

describeHere(`docker-compose.yml${obstacle === "" ? "" : ` (left out: ${obstacle})`}`, () => {
  beforeAll(async () => {
    await composed(["down", "--volumes", "--timeout", "5"]);
    await composed(["up", "--detach", "--build"], { deadlineMs: BUILD_AND_START_MS_MAX });
    await eventually(
      "three brokers are in the cluster",
      async () => {
        const { code, stdout } = await runOttla(["cluster", "describe", "--json", "-b", FROM_HOST, "--timeout", "2s"]);
        return (
          code === 0 &&
          jsonLines<{ brokers: unknown[]; controller: number }>(stdout).some(
            ({ brokers, controller }) => brokers.length === 3 && controller > 0,
          )
        );
      },
      120_000,
    );
  }, BUILD_AND_START_MS_MAX + 150_000);
  afterAll(() => composed(["down", "--volumes", "--timeout", "10"]), COMMAND_MS_MAX);

  const describeTopic = async (topic: string): Promise<Described> => {
    const { stdout, stderr, code } = await runOttla(["topic", "describe", topic, "--json", "-b", FROM_HOST]);
    if (code !== 0) throw new Error(stderr);
    return jsonLines<Described>(stdout)[0] as Described;
  };

  it("loses no acknowledged record when the leader's container is killed while records come in", async () => {
    await inContainer(1, ["topic", "create", "lesson", "--partitions", "1", "--replication", "3"]);
    const leader = (await describeTopic("lesson")).partitions[0]?.leader as number;
    const other = leader === 1 ? 2 : 1;
    const lines = Array.from({ length: RECORDS }, (_, index) => `record ${index}\n`).join("");
    // So many seconds of records, from a container that stays, that the kill comes in the middle.
    const producing = inContainer(other, ["produce", "lesson", "--rate", `${RECORDS / 15}/s`, "--json"], lines);
    let hasEnded = false;
    void producing.then(() => (hasEnded = true));
    await eventually("records come in", async () => {
      const { stdout } = await runOttla(["consume", "lesson", "-b", FROM_HOST, "--from", "earliest", "--until-end"]);
      return stdout.split("\n").length > RECORDS / 10;
    });
    await composed(["kill", `broker-${leader}`]);
    expect(hasEnded).toBe(false);
    expect(jsonLines(await producing)).toEqual([
      { records: RECORDS, acked: RECORDS, failed: 0, seconds: expect.any(Number) },
    ]);
    await eventually(
      "another broker leads",
      async () => ![leader, -1].includes((await describeTopic("lesson")).partitions[0]?.leader ?? -1),
    );

    const { stdout } = await runOttla(["consume", "lesson", "-b", FROM_HOST, "--from", "earliest", "--until-end"]);
    expect(stdout).toBe(lines);

    await composed(["start", `broker-${leader}`]);
    await eventually(
      "the killed broker is in sync again",
      async () => (await describeTopic("lesson")).partitions[0]?.isr.length === 3,
      60_000,
    );
  }, 180_000);

  it("keeps records over a stop of everything", async () => {
    await composed(["stop", "--timeout", "20"], { deadlineMs: 120_000 });
    await composed(["start"], { deadlineMs: 120_000 });
    await eventually(
      "all records are there",
      async () => {
        const { stdout } = await runOttla([
          "consume",
          "lesson",
          "-b",
          FROM_HOST,
          "--from",
          "earliest",
          "--until-end",
          "--timeout",
          "5s",
        ]);
        return stdout.split("\n").length === RECORDS + 1;
      },
      90_000,
    );
  }, 300_000);
});
