import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { InProcessCluster } from "../support/in-process-cluster.js";

/*
 * A client that was written from docs/protocol.md and the schemas, in another language and with the protobuf library of
 * others: what the document says must be enough, and true. The checks are in test/python-client/checks.py.
 */

const pythons = ["python3", "/usr/bin/python3"];
const checks = [
  "handshake",
  "refusals_of_connections",
  "metadata",
  "create_topics",
  "produce",
  "keys_go_where_those_of_others_go",
  "refusals_of_produce",
  "idempotence",
  "fetch_waits",
  "fetch_sessions",
  "refusals_of_fetch",
  "list_offsets",
];
const withoutABroker = "while_a_broker_is_away";

/** Errors of the table that no client meets in a cluster that is well, with one broker away or not. */
const notMet: Readonly<Record<string, string>> = {
  UNKNOWN_SERVER_ERROR: "a fault of the broker",
  LEADER_NOT_AVAILABLE: "all replicas away",
  REQUEST_TIMED_OUT: "followers that stand still",
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: "a replica that leaves while it is waited for",
  STORAGE_ERROR: "a full disk",
  STALE_BROKER_EPOCH: "said to brokers",
  OFFSET_NOT_AVAILABLE: "a leader that is elected this moment",
  THROTTLING_QUOTA_EXCEEDED: "quotas, which do not exist yet",
  INVALID_UPDATE_VERSION: "said to brokers",
  INELIGIBLE_REPLICA: "said to brokers",
  LEADERSHIP_UNCERTAIN: "a broker that is cut off",
  ZOOKEEPER_UNAVAILABLE: "no ZooKeeper",
  WRONG_BROKER: "said to brokers",
  SHUTTING_DOWN: "a broker that is stopping",
  CORRUPT_LOG: "a damaged disk",
};

/** The first python3 that has the package protobuf, or a sentence on how to get it. */
function findPython(): string {
  for (const python of pythons) {
    try {
      execFileSync(python, ["-c", "import google.protobuf"], { stdio: "ignore", timeout: 30_000 });
      return python;
    } catch {
      continue;
    }
  }
  throw new Error(
    "python3 with its package protobuf is needed and not here: install it (Debian and Ubuntu: apt-get install " +
      "python3-protobuf protobuf-compiler; elsewhere: brew install protobuf, pip install protobuf)",
  );
}

let cluster: InProcessCluster;
let python: string;
let generated: string;
const met = new Set<string>();

function run(...args: string[]): Promise<string[]> {
  const env = {
    ...process.env,
    PYTHONPATH: [generated, "test/python-client"].join(delimiter),
    PYTHONDONTWRITEBYTECODE: "1",
    OTTLA_BOOTSTRAP: `127.0.0.1:${cluster.port(1)}`,
    OTTLA_PROTOCOL: "docs/protocol.md",
  };
  return new Promise((resolve, reject) => {
    execFile(python, ["test/python-client/checks.py", ...args], { env, timeout: 90_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout.split("\n").filter((line) => line !== ""));
      else reject(new Error(`${args.join(" ")}: ${stderr === "" ? error.message : stderr}`));
    });
  });
}

beforeAll(async () => {
  python = findPython();
  generated = mkdtempSync(join(tmpdir(), "ottla-python-"));
  const schemas = ["messages.proto", "record-batch.proto"];
  execFileSync("protoc", ["--proto_path=protocol/schema", `--python_out=${generated}`, ...schemas], {
    timeout: 30_000,
  });
  cluster = await InProcessCluster.start({ brokers: 3 });
  await cluster.createTopic({
    name: "all-three",
    assignment: [{ brokerIds: [3, 1, 2] }],
    config: [{ name: "min.insync.replicas", value: "3" }],
  });
  await cluster.createTopic({ name: "only-three", assignment: [{ brokerIds: [3] }] });
}, 90_000);

afterAll(async () => {
  await cluster.stop();
  rmSync(generated, { recursive: true, force: true });
}, 30_000);

describe("a client in Python", () => {
  it.each(checks)(
    "%s",
    async (check) => {
      for (const name of await run(check)) met.add(name);
      expect(cluster.fatal).toEqual([]);
    },
    100_000,
  );

  it(
    withoutABroker,
    async () => {
      await cluster.brokers.get(3)?.stop();
      cluster.brokers.delete(3);
      for (const name of await run(withoutABroker)) met.add(name);
    },
    100_000,
  );

  it("has all of its checks run here, and meets each error that a client can meet", async () => {
    expect([...checks, withoutABroker]).toEqual(await run("--list"));
    const missing = (await run("--errors")).filter((name) => !met.has(name) && notMet[name] === undefined);
    expect(missing).toEqual([]);
  });
});
