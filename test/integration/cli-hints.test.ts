import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { CliError } from "../../tools/cli/cli-error.js";
import { connectFor } from "../../tools/cli/cluster-connection.js";
import type { CommandContext } from "../../tools/cli/command-context.js";
import { writeClusterState } from "../../tools/local-cluster/cluster-state.js";
import { identityOf } from "../../tools/local-cluster/process-identity.js";
import { runTyped } from "../support/command-line.js";
import { FakeCluster } from "../support/fake-broker.js";
import { shellWords } from "../support/shell-words.js";

/** What people of other tools type, and what they are told to type instead; BOOT stands for the cluster's addresses. */
const habits: readonly (readonly [theirs: string, ours: string])[] = [
  ["kafka-topics --list --bootstrap-server BOOT", "topic list -b BOOT"],
  [
    "kafka-topics.sh --create --topic new1 --partitions 3 --replication-factor 1 --config retention.ms=5 --bootstrap-server BOOT",
    "topic create new1 --partitions 3 --replication 1 --config retention.ms=5 -b BOOT",
  ],
  [
    "kafka-topics --create --if-not-exists --topic orders --bootstrap-server=BOOT",
    "topic create orders --if-not-exists -b BOOT",
  ],
  ["kafka-topics --bootstrap-server BOOT --topic orders --describe", "topic describe orders -b BOOT"],
  [
    "kafka-topics --alter --topic orders --partitions 5 --bootstrap-server BOOT",
    "topic alter orders --partitions 5 -b BOOT",
  ],
  ["kafka-topics --delete --if-exists --topic gone --bootstrap-server BOOT", "topic delete gone --if-exists -b BOOT"],
  ["kafka-console-producer --topic orders --bootstrap-server BOOT", "produce orders -b BOOT"],
  [
    "kafka-console-producer --topic orders --property parse.key=true --property key.separator=: --broker-list BOOT",
    "produce orders --key-separator : -b BOOT",
  ],
  [
    "kafka-console-producer --topic orders --property parse.key=true --request-required-acks -1 --bootstrap-server BOOT",
    "produce orders --key-separator '\\t' --acks -1 -b BOOT",
  ],
  [
    "kafka-console-consumer --topic orders --from-beginning --max-messages 1 --bootstrap-server BOOT",
    "consume orders --from earliest --count 1 -b BOOT",
  ],
  [
    "kafka-console-consumer --topic orders --group g --partition 0 --offset 0 --max-messages 1 --property print.key=true --bootstrap-server BOOT",
    "consume orders --from 0 --partition 0 --count 1 --format '%k\\t%v\\n' -b BOOT",
  ],
  [
    "kafka-configs --describe --entity-type topics --entity-name orders --bootstrap-server BOOT",
    "config describe topic orders -b BOOT",
  ],
  [
    "kafka-configs --alter --entity-type topics --entity-name orders --add-config retention.ms=5,segment.ms=6 --bootstrap-server BOOT",
    "config set topic orders retention.ms=5 segment.ms=6 -b BOOT",
  ],
  [
    "kafka-configs --alter --topic orders --delete-config retention.ms --bootstrap-server BOOT",
    "config unset topic orders retention.ms -b BOOT",
  ],
  [
    "kafka-configs --alter --entity-type brokers --entity-default --add-config log.retention.ms=5 --bootstrap-server BOOT",
    "config set broker default log.retention.ms=5 -b BOOT",
  ],
  [
    "kafka-leader-election --election-type preferred --all-topic-partitions --bootstrap-server BOOT",
    "elect-leaders -b BOOT",
  ],
  [
    "kafka-leader-election --election-type unclean --topic orders --partition 0 --bootstrap-server BOOT",
    "elect-leaders orders --partition 0 --unclean -b BOOT",
  ],
  ["kafka-get-offsets --topic orders --bootstrap-server BOOT", "topic describe orders -b BOOT"],
  [
    "kafka-producer-perf-test --topic perf1 --num-records 10 --record-size 10 --throughput -1 --producer-props acks=all bootstrap.servers=BOOT",
    "perf produce perf1 --records 10 --size 10 -b BOOT",
  ],
  [
    "kafka-consumer-perf-test --topic orders --messages 1 --bootstrap-server BOOT",
    "perf consume orders --records 1 -b BOOT",
  ],
  ["kafka-metadata-quorum --bootstrap-server BOOT describe --status", "cluster describe -b BOOT"],
  ["kcat -b BOOT -L", "cluster describe -b BOOT"],
  ["kcat -Lb BOOT", "cluster describe -b BOOT"],
  ["kcat -L -J -b BOOT", "cluster describe --json -b BOOT"],
  ["kcat -L -t orders -b BOOT", "topic describe orders -b BOOT"],
  ["-L -b BOOT", "cluster describe -b BOOT"],
  ["kcat -C -b BOOT -t orders -o beginning -e -q", "consume orders --from beginning --until-end -b BOOT"],
  ["kcat -CeqJ -b BOOT -torders -o-1", "consume orders --from -1 --until-end --json -b BOOT"],
  [
    "kcat -b BOOT -t orders -p 0 -o s@1700000000000 -c 1 -f '%k: %s\\n'",
    "consume orders --from @1700000000000 --partition 0 --count 1 --format '%k: %s\\n' -b BOOT",
  ],
  ["kcat -b BOOT -G g orders payments -e", "consume orders payments --until-end -b BOOT"],
  ["kcat -b BOOT -G g orders -e -o stored", "consume orders --until-end -b BOOT"],
  ["kcat -P -b BOOT -t orders -k 42", "produce orders --key 42 -b BOOT"],
  [
    "kcat -P -b BOOT -t orders -K : -H source=test -p 1",
    "produce orders --key-separator : --partition 1 --header source=test -b BOOT",
  ],
  ["kcat -P -b BOOT -t orders /dev/null", "produce orders --from /dev/null -b BOOT"],
  [
    "rpk topic create new2 -p 2 -r 1 -c retention.ms=5 --if-not-exists --brokers BOOT",
    "topic create new2 --partitions 2 --replication 1 --config retention.ms=5 --if-not-exists -b BOOT",
  ],
  ["rpk topic list -X brokers=BOOT", "topic list -b BOOT"],
  ["rpk topic describe orders --brokers=BOOT", "topic describe orders -b BOOT"],
  [
    "rpk topic alter-config orders --set retention.ms=5 --brokers BOOT",
    "topic alter orders --config retention.ms=5 -b BOOT",
  ],
  ["rpk topic produce orders -k 42 -f '%v\\n' --brokers BOOT", "produce orders --key 42 -b BOOT"],
  ["rpk topic produce orders --acks -1 --brokers BOOT", "produce orders --acks -1 -b BOOT"],
  ["rpk topic consume orders -n 1 -o start --brokers BOOT", "consume orders --count 1 --from start -b BOOT"],
  [
    "rpk topic consume orders -g g --num 1 --offset 0 -p 0,1 --format json --brokers BOOT",
    "consume orders --count 1 --partition 0,1 --from 0 --format json -b BOOT",
  ],
  ["rpk topic delete gone2 --brokers BOOT", "topic delete gone2 -b BOOT"],
  ["rpk cluster info --brokers BOOT", "cluster describe -b BOOT"],
  ["topic consume orders -n 1 -o start -b BOOT", "consume orders -n 1 -o start -b BOOT"],
  ["topic produce orders -k 42 -b BOOT", "produce orders -k 42 -b BOOT"],
  ["list -b BOOT", "topic list -b BOOT"],
  ["topics --list --bootstrap-server BOOT", "topic list -b BOOT"],
  ["topic --list -b BOOT", "topic list -b BOOT"],
  ["topic --describe --topic orders --bootstrap-server BOOT", "topic describe orders -b BOOT"],
  ["version", "--version"],
  ["describe orders -b BOOT", "topic describe orders -b BOOT"],
];

describe("a habit from another tool", () => {
  let cluster: FakeCluster;
  const at = (text: string): string => text.replaceAll("BOOT", cluster.bootstrapBrokers.join(","));
  const run = (line: string) => runTyped(shellWords([`ottla ${at(line)}`])[0] ?? [], { input: "key:value\tmore\n" });

  beforeAll(async () => {
    cluster = await FakeCluster.start();
    for (const topic of ["orders", "payments", "gone2"]) cluster.createTopic(topic, 3);
    // So that those who read have something to read.
    await run("produce orders --partition 0 -b BOOT");
    await run("produce orders --partition 1 -b BOOT");
  });
  afterAll(() => cluster[Symbol.asyncDispose]());

  it.each(habits)("`ottla %s` is answered with a line that works", async (theirs, ours) => {
    const { code, stderr, stdout } = await run(theirs);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    const hint = /(?: - |; )type: (ottla [^\n]+)\n$/.exec(stderr)?.[1];
    expect(hint).toBe(at(`ottla ${ours}`));
    const pasted = await runTyped(shellWords([hint ?? ""])[0] ?? [], { input: "key:value\tmore\n" });
    expect([pasted.code, pasted.stderr]).toEqual([0, expect.not.stringContaining("error")]);
  });

  it.each([
    ["rpk group list", "there are no consumer groups yet"],
    ["kafka-consumer-groups --list", "there are no consumer groups yet"],
    ["group lag g", "there are no consumer groups yet"],
    ["kcat -b BOOT -G g orders -e", "there are no consumer groups yet; type: ottla consume orders --until-end"],
    ["rpk topic consume orders -g g", "there are no consumer groups yet; type: ottla consume orders"],
    ["consume orders --group g", "leave it out"],
  ])("`ottla %s` is told what there is instead", async (theirs, answer) => {
    const { code, stderr } = await run(theirs);
    expect(stderr).toContain(answer);
    expect(code).toBe(2);
  });
});

/** What is typed wrongly, and what the hint of the error makes of it. */
const corrections: readonly (readonly [wrong: string, hint: string, right: string])[] = [
  ["topc list", "did you mean topic?", "topic list"],
  ["topic lst", "did you mean list?", "topic list"],
  ["topic list --jsonn", "did you mean --json?", "topic list --json"],
  ["--partitions 2 topic create new3", "write it behind ottla topic create", "topic create --partitions 2 new3"],
  ["topic list --json=true", "write --json", "topic list --json"],
  ["topic list payments", "type ottla topic list", "topic list"],
  ["consume orders --from earliest -f %k '%v\\n'", "put both in quotes", "consume orders --until-end -f '%k %v\\n'"],
  ["topic describe order", "did you mean orders?", "topic describe orders"],
  ["produce", "type ottla produce TOPIC", "produce orders"],
  ["produce orders --encoding hexx", "did you mean hex?", "produce orders --encoding hex"],
  ["produce orders -p 9", "choose from 0 to 2", "produce orders -p 2"],
  ["produce orders --key-field id", "use --key-separator with lines", "produce orders --key-separator ,"],
  ["produce orders --acks 1 --idempotent", "leave out one of them", "produce orders --acks 1"],
  ["consume orders --from 99 --until-end", "give --from earliest", "consume orders --from earliest --until-end"],
  [
    "consume orders -f '{key}' --until-end",
    "or a template like '%p:%o %k %v\\n'",
    "consume orders -f '%p:%o %k %v\\n' --until-end",
  ],
  ["consume orders --from yesterday --until-end", "or 5m for five minutes ago", "consume orders --from 5m --until-end"],
  ["elect-leaders --partition 0", "type ottla elect-leaders TOPIC --partition N", "elect-leaders orders --partition 0"],
  [
    "topic records-delete orders --before 5",
    "write one like 0:120, or 0:end",
    "topic records-delete orders --before 0:end",
  ],
  ["config describe topc orders", "did you mean topic?", "config describe topic orders"],
  ["config describe broker x", "give a number, or default for all", "config describe broker default"],
  [
    "perf produce new4 -n 5 --max-in-flight 6",
    "add --no-idempotent",
    "perf produce new4 -n 5 --max-in-flight 6 --no-idempotent",
  ],
];

describe("the hint of a command that reaches nobody at the usual addresses", () => {
  it("names the cluster that runs here on other ports", async () => {
    const data = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    const before = process.env["OTTLA_HOME"];
    process.env["OTTLA_HOME"] = data;
    const hint = async (): Promise<string | undefined> => {
      const context = { bootstrap: "127.0.0.1:1", bootstrapFrom: undefined, timeoutMs: 200, note: () => undefined };
      const signal = new AbortController().signal;
      const error: unknown = await connectFor({ ...context, signal } as unknown as CommandContext).catch(
        (failure: unknown) => failure,
      );
      return (error as CliError).hint;
    };
    try {
      expect(await hint()).toMatch(/^start a cluster with ottla up, /);
      const own = identityOf(process.pid);
      const brokers = [
        { id: 1, port: 19092, process: own },
        { id: 2, port: 19093 },
      ];
      writeClusterState(data, { version: 1, brokers, zookeepers: [], settings: {} });
      expect(await hint()).toBe(
        "a cluster runs on other ports: add --bootstrap 127.0.0.1:19092, or set OTTLA_BOOTSTRAP to that",
      );
    } finally {
      if (before === undefined) delete process.env["OTTLA_HOME"];
      else process.env["OTTLA_HOME"] = before;
      fs.rmSync(data, { recursive: true });
    }
  });
});

describe("a hint", () => {
  let cluster: FakeCluster;
  const run = (line: string) =>
    runTyped(shellWords([`ottla ${line}`])[0] ?? [], {
      environment: { OTTLA_BOOTSTRAP: cluster.bootstrapBrokers.join(",") },
    });
  beforeAll(async () => {
    cluster = await FakeCluster.start();
    cluster.createTopic("orders", 3);
  });
  afterAll(() => cluster[Symbol.asyncDispose]());

  it.each(corrections)("for `ottla %s` is %s, and that works", async (wrong, hint, right) => {
    const { code, stderr } = await run(wrong);
    expect(stderr).toContain(hint);
    expect(code).toBeGreaterThan(0);
    expect(await run(right)).toMatchObject({ code: 0, stderr: expect.not.stringContaining("error") });
  });
});
