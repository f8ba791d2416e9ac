import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { runTyped } from "../support/command-line.js";
import type { CommandResult } from "../support/cluster.js";
import { runOttla } from "../support/cluster.js";
import { batchesOf, FakeCluster } from "../support/fake-broker.js";
import { shellWords } from "../support/shell-words.js";

/** A wrong command line, and what its error must name: the flag as it was typed, or the word that is wrong. */
type Mistake = readonly [line: string, named: string];

/** Typed wrongly: exit code 2. */
const mistyped: readonly Mistake[] = [
  // Commands and their words.
  ["topc list", "topc"],
  ["toppic", "toppic"],
  ["''", "unknown command"],
  ["'topic list'", "topic list"],
  ["-x", "-x"],
  ["produc orders", "produc"],
  ["consum orders", "consum"],
  ["cluster", "ottla cluster"],
  ["cluster descrbe", "descrbe"],
  ["cluster describe 1", "1"],
  ["topic", "ottla topic"],
  ["topic lst", "lst"],
  ["topic lst --json=1", "lst"],
  ["topic list orders", "orders"],
  ["topic list orders payments", "orders"],
  ["topic list -v", "-v"],
  ["topic create", "no topic is named"],
  ["topic create ''", "empty"],
  ["topic create a a", "a is named a second time"],
  ["topic delete", "no topic is named"],
  ["topic delete ''", "empty"],
  ["topic delete orders orders", "orders is named a second time"],
  ["topic alter", "name"],
  ["topic alter orders", "--partitions"],
  ["topic alter orders payments --partitions 4", "payments"],
  ["topic describe ''", "empty"],
  ["topic describe orders orders", "orders is named a second time"],
  ["topic records-delete", "--before"],
  ["topic records-delete --before 0:1", "name"],
  ["topic records-delete orders", "--before"],
  ["topic records-delete orders payments --before 0:1", "payments"],
  ["topic help creat", "creat"],
  ["help topc", "topc"],
  ["help topic creat", "creat"],
  ["config", "ottla config"],
  ["config sett topic orders a=1", "sett"],
  ["config set", "kind"],
  ["config set topic", "name"],
  ["config set topic orders", "name=value"],
  ["config set topc orders retention.ms=1", "topc"],
  ["config set topic orders retention.ms", "retention.ms"],
  ["config set topic orders =1", "=1"],
  ["config set topic orders retention.ms=1 retention.ms=2", "retention.ms=2"],
  ["config set topic '' retention.ms=1", "empty"],
  ["config set broker one log.retention.ms=1", "one"],
  ["config set broker -1 log.retention.ms=1", "-1"],
  ["config set broker 1.5 log.retention.ms=1", "1.5"],
  ["config describe", "kind"],
  ["config describe topic", "name"],
  ["config describe topic orders payments", "payments"],
  ["config describe brokr 1", "brokr"],
  ["config describe client x", "clients"],
  ["config set client x a=1", "clients"],
  ["config describe broker x", "x"],
  ["config describe topic ''", "empty"],
  ["config unset topic orders", "settings"],
  ["config unset topik orders retention.ms", "topik"],
  ["perf", "ottla perf"],
  ["perf prduce", "prduce"],
  ["perf produce load more", "more"],
  ["perf consume load more", "more"],
  ["perf latency load more", "more"],
  ["log", "ottla log"],
  ["log dmp .", "dmp"],
  ["log dump", "path"],
  ["log dump a b", "b"],
  ["elect-leader", "elect-leader"],
  ["elect-leaders orders payments", "payments"],
  ["elect-leaders --partition 0", "--partition"],
  ["produce", "no topic is named"],
  ["produce ''", "empty"],
  ["produce orders payments", "payments"],
  ["produce orders --topic payments", "--topic payments"],
  ["produce orders -t payments", "-t payments"],
  ["consume", "no topic is named"],
  ["consume ''", "empty"],
  ["consume orders orders", "orders is named a second time"],
  ["consume orders -t orders", "-t orders"],
  ["consume orders --topic orders", "--topic orders"],
  ["consume orders payments --partition 0", "--partition"],
  ["consume orders payments -p 0", "-p"],
  ["up now", "now"],
  ["down now", "now"],
  ["status now", "now"],
  ["kill", "target"],
  ["pause", "target"],
  ["resume", "target"],
  ["restart", "target"],
  ["kill 1 2", "2"],
  ["broker 1", "1"],
  ["broker", "id"],

  // Options that are not there, and options at the wrong place.
  ["--jsonn topic list", "--jsonn"],
  ["--partitions 3 topic create t", "--partitions"],
  ["topic --partitions 3 create t", "--partitions"],
  ["topic list --jsonn", "--jsonn"],
  ["topic list --json=true", "--json=true"],
  ["topic list --debug=yes", "--debug=yes"],
  ["topic create t --partition 3", "--partition"],
  ["topic create t --partitons 3", "--partitons"],
  ["topic create t --replicatoin 3", "--replicatoin"],
  ["topic create t --acks all", "--acks"],
  ["topic create t -x", "-x"],
  ["topic create t --if-not-exist", "--if-not-exist"],
  ["topic delete t --if-exist", "--if-exist"],
  ["topic describe orders --wach", "--wach"],
  ["topic describe orders --watch=2", "--watch=2"],
  ["produce orders --key-seperator :", "--key-seperator"],
  ["produce orders --ack all", "--ack"],
  ["produce orders --until-end", "--until-end"],
  ["produce orders --group g", "--group"],
  ["produce orders --report=yes", "--report=yes"],
  ["produce orders --idempotent=no", "--idempotent=no"],
  ["consume orders --untilend", "--untilend"],
  ["consume orders --until-end=5", "--until-end=5"],
  ["consume orders --acks all", "--acks"],
  ["consume orders --form earliest", "--form"],
  ["consume orders -g g", "-g"],
  ["consume orders --group g", "--group"],
  ["consume orders --group=g", "--group"],
  ["config set topic orders retention.ms=1 --al", "--al"],
  ["config describe broker 1 --al", "--al"],
  ["cluster describe --watch", "--watch"],
  ["elect-leaders --uncleen", "--uncleen"],
  ["perf produce --record 5", "--record"],
  ["perf consume --form latest", "--form"],
  ["log dump . --record", "--record"],
  ["log dump . --verfy", "--verfy"],
  ["up --broker 3", "--broker"],
  ["up --detatch", "--detatch"],
  ["up --detach=1", "--detach=1"],
  ["status --dat x", "--dat"],
  ["kill 1 --forse", "--forse"],
  ["broker --idd 1", "--idd"],

  // Values that are missing.
  ["topic create t -p", "-p"],
  ["topic create t --partitions", "--partitions"],
  ["topic create t --partitions --json", "--partitions"],
  ["topic create t --replication --partitions 3", "--replication"],
  ["topic create t --config", "--config"],
  ["topic list -b", "-b"],
  ["topic list --bootstrap", "--bootstrap"],
  ["topic list --bootstrap --json", "--bootstrap"],
  ["topic list --bootstrap-server", "--bootstrap-server"],
  ["topic list --timeout", "--timeout"],
  ["topic list --timeout --json", "--timeout"],
  ["produce orders --key-separator --json", "--key-separator"],
  ["produce orders -K", "-K"],
  ["produce orders -k", "-k"],
  ["produce orders --from", "--from"],
  ["produce orders --rate", "--rate"],
  ["consume orders --from --until-end", "--from"],
  ["consume orders -o", "-o"],
  ["consume orders --offset", "--offset"],
  ["consume orders --count --json", "--count"],
  ["consume orders -c", "-c"],
  ["consume orders -n", "-n"],
  ["perf produce --records", "--records"],
  ["up --brokers", "--brokers"],
  ["broker --id", "--id"],

  // Values that are empty.
  ["topic list -b ''", "-b"],
  ["topic list --bootstrap=", "--bootstrap"],
  ["topic list --timeout ''", "--timeout"],
  ["topic create t --partitions ''", "--partitions"],
  ["topic create t --config ''", "--config"],
  ["topic create --topic ''", "--topic"],
  ["produce orders --from ''", "--from"],
  ["produce orders -K ''", "-K"],
  ["produce orders --key-field ''", "--key-field"],
  ["produce orders --header ''", "--header"],
  ["consume orders --format ''", "--format"],
  ["consume orders --from ''", "--from"],
  ["consume -t ''", "-t"],
  ["status --data ''", "--data"],
  ["perf produce --payload-file ''", "--payload-file"],
  ["broker --data ''", "--data"],

  // Numbers.
  ["topic create t --partitions 0", "--partitions 0"],
  ["topic create t -p 0", "-p 0"],
  ["topic create t -p0", "-p 0"],
  ["topic create t --partitions=0", "--partitions 0"],
  ["topic create t --partitions -1", "--partitions -1"],
  ["topic create t --partitions 1.5", "--partitions 1.5"],
  ["topic create t --partitions 3x", "--partitions 3x"],
  ["topic create t --partitions 4294967297", "--partitions 4294967297"],
  ["topic create t --partitions 1e3", "--partitions 1e3"],
  ["topic create t --replication 0", "--replication 0"],
  ["topic create t -r 0", "-r 0"],
  ["topic create t --replication-factor -1", "--replication-factor -1"],
  ["topic create t --replicas 0", "--replicas 0"],
  ["topic create t --replication 4294967298", "--replication 4294967298"],
  ["topic alter orders --partitions 0", "--partitions 0"],
  ["topic alter orders -p two", "-p two"],
  ["produce orders --partition -1", "--partition -1"],
  ["produce orders -p x", "-p x"],
  ["produce orders --partition 4294967296", "--partition 4294967296"],
  ["produce orders --rate 0", "--rate 0"],
  ["produce orders --rate -5", "--rate -5"],
  ["produce orders --rate fast", "--rate fast"],
  ["produce orders --rate 5/m", "--rate 5/m"],
  ["consume orders -p -1", "-p -1"],
  ["consume orders --partition 0,x", "--partition"],
  ["consume orders -p 0,", "-p"],
  ["consume orders -p 0,0", "-p 0,0"],
  ["consume orders -p 0 -p 0", "-p 0"],
  ["consume orders --partition 0-2", "--partition 0-2"],
  ["consume orders --count -1", "--count -1"],
  ["consume orders -c ten", "-c ten"],
  ["consume orders -n 1.5", "-n 1.5"],
  ["consume orders --num x", "--num x"],
  ["consume orders --max-messages x", "--max-messages x"],
  ["consume orders -ec x", "-c x"],
  ["elect-leaders orders --partition -1", "--partition -1"],
  ["elect-leaders orders --partition all", "--partition all"],
  ["perf produce --records 0", "--records 0"],
  ["perf produce -n 0", "-n 0"],
  ["perf produce --warmup -1", "--warmup -1"],
  ["perf produce --partitions 0", "--partitions 0"],
  ["perf produce --replication x", "--replication x"],
  ["perf produce --max-in-flight 0", "--max-in-flight 0"],
  ["perf produce --max-in-flight 6", "--max-in-flight 6"],
  ["perf produce --max-in-flight 5000 --no-idempotent", "--max-in-flight 5000"],
  ["perf consume --records x", "--records x"],
  ["perf latency --records 0", "--records 0"],
  ["up --brokers 0", "--brokers 0"],
  ["up --brokers 1000", "--brokers 1000"],
  ["up --brokers three", "--brokers three"],
  ["up --zookeepers 0", "--zookeepers 0"],
  ["up --port 70000", "--port 70000"],
  ["up --data $DIR/up --port 65500 --brokers 100", "--port 65500"],
  ["up --data $DIR/up --port 9092 --zookeeper-port 9094", "--zookeeper-port 9094"],
  ["up --data $DIR/up --zookeeper-port 65534 --zookeepers 3", "--zookeeper-port 65534"],
  ["up --data $DIR/up --zookeepers 2", "--zookeepers 2"],
  ["up --port http", "--port http"],
  ["broker --id -1", "--id -1"],
  ["broker --id one", "--id one"],
  ["broker --id 4294967296", "--id 4294967296"],

  // Sizes and durations.
  ["perf produce --size big", "--size big"],
  ["perf produce --size -1", "--size -1"],
  ["perf produce --size 9MiB", "--size 9MiB"],
  ["perf produce --size 100GiB", "--size 100GiB"],
  ["perf produce --batch-size 0", "--batch-size 0"],
  ["perf produce --batch-size 9MiB", "--batch-size 9MiB"],
  ["perf produce --buffer-memory 1", "--buffer-memory 1"],
  ["perf produce --buffer-memory 1TiB", "--buffer-memory 1TiB"],
  ["perf consume --fetch-size 0", "--fetch-size 0"],
  ["perf consume --fetch-size 1GiB", "--fetch-size 1GiB"],
  ["topic list --timeout 5", "--timeout 5"],
  ["topic list --timeout -5s", "--timeout -5s"],
  ["topic list --timeout '5 s'", "--timeout 5 s"],
  ["topic list --timeout 5sec", "--timeout 5sec"],
  ["topic list --timeout 0s", "--timeout 0s"],
  ["topic list --timeout 999999d", "--timeout 999999d"],
  ["--timeout soon topic list", "--timeout soon"],
  ["topic --timeout soon list", "--timeout soon"],
  ["produce orders --linger 5", "--linger 5"],
  ["produce orders --linger 2h", "--linger 2h"],
  ["produce orders --linger -1ms", "--linger -1ms"],
  ["produce orders --linger 5s --timeout 5s", "--linger 5s"],
  ["perf latency --linger 2m", "--linger 2m"],

  // Words of which there are few.
  ["produce orders --acks 2", "--acks 2"],
  ["produce orders --acks -2", "--acks -2"],
  ["produce orders --acks leader", "--acks leader"],
  ["produce orders --request-required-acks 2", "--request-required-acks 2"],
  ["produce orders --idempotent --acks 1", "--idempotent"],
  ["produce orders --acks 0 --idempotent", "--idempotent"],
  ["produce orders --compression gzip", "--compression gzip"],
  ["produce orders --format xml", "--format xml"],
  ["produce orders --format line", "--format line"],
  ["produce orders --encoding hexx", "--encoding hexx"],
  ["consume orders --encoding utf-8", "--encoding utf-8"],
  ["log dump . --encoding ascii", "--encoding ascii"],
  ["consume orders --on-unreadable", "--on-unreadable"],
  ["consume orders --on-unreadable ignore", "--on-unreadable ignore"],
  ["consume orders --on-unreadable ''", "--on-unreadable"],
  ["perf consume --from 5", "--from 5"],
  ["perf consume --from earlest", "--from earlest"],
  ["broker --log-format xml", "--log-format xml"],

  // Addresses.
  ["topic list -b :9092", "-b :9092"],
  ["topic list -b localhost:", "-b localhost:"],
  ["topic list -b localhost:0", "-b localhost:0"],
  ["topic list -b localhost:99999", "-b localhost:99999"],
  ["topic list -b localhost:http", "-b localhost:http"],
  ["topic list -b ::1", "-b ::1"],
  ["topic list -b ::1:22151", "-b ::1:22151"],
  ["topic list -b '[::1'", "-b [::1"],
  ["topic list -b http://localhost:9092", "-b http://localhost:9092"],
  ["topic list -b ,", "-b ,"],
  ["topic list -b 9092", "-b 9092"],
  ["topic list -b 'a b:9092'", "-b a b:9092"],
  ["topic list --bootstrap a:9092,b:x", "--bootstrap b:x"],
  ["topic list --bootstrap-server b:x", "--bootstrap-server b:x"],
  ["topic list --broker-list b:x", "--broker-list b:x"],
  ["-b b:x topic list", "-b b:x"],

  // Positions.
  ["consume orders --from yesterday", "--from yesterday"],
  ["consume orders -o 1.5", "-o 1.5"],
  ["consume orders -o 5m ago", "-o"],
  ["consume orders --offset +5", "--offset +5"],
  ["consume orders --from 99999999999999999999", "--from 99999999999999999999"],
  ["consume orders --from @now", "--from @now"],
  ["consume orders --from 2026-13-01", "--from 2026-13-01"],
  ["consume orders --from '5 minutes ago'", "--from 5 minutes ago"],
  ["consume orders --from latest --from-beginning", "--from"],
  ["consume orders -o 5 --from-beginning", "-o"],
  ["topic records-delete orders --before 5", "--before 5"],
  ["topic records-delete orders --before 0:-1", "--before 0:-1"],
  ["topic records-delete orders --before x:1", "--before x:1"],
  ["topic records-delete orders --before 0:99999999999999999999", "--before 0:99999999999999999999"],
  ["topic records-delete orders --before 0:1 --before 0:2", "--before 0:2"],

  // Names and values.
  ["topic create t --config retention.ms", "--config retention.ms"],
  ["topic create t --config =5", "--config =5"],
  ["topic create t --config a=1 --config a=2", "--config a=2"],
  ["topic create t -c a=1 -c a=2", "-c a=2"],
  ["topic alter orders --config a", "--config a"],
  ["produce orders --header name", "--header name"],
  ["produce orders -H =value", "-H =value"],
  ["broker --set port", "--set port"],
  ["up --set port", "--set port"],
  ["up --data $DIR/up --set num.partitions=1 --set num.partitions=2", "--set num.partitions=2"],
  ["up --data $DIR/up --set nosuch=1", "--set"],
  ["up --data $DIR/up --set num.partition=1", "num.partitions"],
  ["up --data $DIR/up --set num.partitions=x", "--set"],
  ["up --data $DIR/up --set log.segment.bytes=2048", "--set"],
  ["up --data $DIR/up --set broker.id=7", "--set broker.id"],
  ["up --data $DIR/up --set log.dirs=/tmp", "--set log.dirs"],
  ["up --data $DIR/up --set zookeeper.connect=127.0.0.1:1", "--set zookeeper.connect"],
  ["up --data $DIR/up --set listeners=127.0.0.1:1", "--set listeners"],
  ["broker --set a=1 --set a=2", "--set a=2"],

  // Formats and keys.
  ["consume orders --format '%z'", "--format %z"],
  ["consume orders -f '5%'", "-f 5%"],
  ["consume orders -f '{key}'", "-f {key}"],
  ["consume orders --format 'jsn'", "--format jsn"],
  ["consume orders --format '%v\\q'", "--format \\q"],
  ["produce orders --key-separator '\\q'", "--key-separator \\q"],
  ["produce orders --key-field id", "--key-field"],
  ["produce orders -K : --format json", "-K"],
  ["produce orders --key-separator : --format raw", "--key-separator"],
  ["produce orders -k a -K :", "-k"],
  ["produce orders --key a --key-field id --format json", "--key"],
  ["produce orders --encoding hex --key xy", "--key xy"],
  ["produce orders --encoding base64 -k '*'", "-k *"],
  ["produce orders --encoding hex -H a=b", "-H a=b"],
  ["produce orders --encoding hex --format json", "--encoding hex"],
  ["produce orders --encoding base64 --format raw", "--encoding base64"],

  // Targets of lessons, and brokers.
  ["up --data $DIR/up --zookeeper nonsense:x", "--zookeeper"],
  ["up --data $DIR/up --zookeeper 127.0.0.1:1/a,127.0.0.1:2/a", "--zookeeper"],
  ["up --data $DIR/up --zookeeper 127.0.0.1:1 --zookeepers 3", "--zookeepers"],
  ["up --data $DIR/up --zookeeper 127.0.0.1:1 --zookeeper-port 9", "--zookeeper-port"],
  ["kill everything --data $DIR", "everything"],
  ["broker --id 1 --zookeeper 127.0.0.1:1 --data $DIR/b", "--listen"],
  ["broker --id 1 --listen 127.0.0.1:0 --data $DIR/b", "--zookeeper"],
  ["broker --id 1 --zookeeper 127.0.0.1:1 --listen 127.0.0.1:0", "--data"],
  ["broker --zookeeper 127.0.0.1:1 --listen 127.0.0.1:0 --data $DIR/b", "--id"],
  ["broker --id 1 --zookeeper 127.0.0.1:1 --listen nowhere --data $DIR/b", "--listen"],
  ["broker --id 1 --zookeeper 127.0.0.1:1 --listen 127.0.0.1:99999 --data $DIR/b", "--listen"],
  ["broker --id 1 --zookeeper 127.0.0.1:1 --listen 127.0.0.1:0 --advertise x --data $DIR/b", "--advertise"],
  ["broker --id 1 --zookeeper 'a b' --listen 127.0.0.1:0 --data $DIR/b", "--zookeeper"],
  ["broker --id 1 --zookeeper 127.0.0.1:1 --listen 127.0.0.1:0 --data $DIR/b --set nosuch=1", "--set"],
  ["broker --id 1 --zookeeper 127.0.0.1:1 --listen 127.0.0.1:0 --data $DIR/b --set num.partitions=x", "--set"],
];

/** What the cluster or the data says no to: exit code 1. */
const refused: readonly Mistake[] = [
  ["topic create orders", "orders"],
  ["topic create new orders", "orders"],
  ["topic describe nosuch", "nosuch"],
  ["topic describe order", "order"],
  ["topic describe orders nosuch", "nosuch"],
  ["topic delete nosuch", "nosuch"],
  ["topic delete orders nosuch", "nosuch"],
  ["topic records-delete nosuch --before 0:1", "nosuch"],
  ["topic records-delete orders --before 9:1", "--before 9"],
  ["topic records-delete orders --before 0:99", "--before 0:99"],
  ["topic records-delete orders --before 0:0 --before 1:99", "--before 1:99"],
  ["produce nosuch", "nosuch"],
  ["produce orders --partition 9", "--partition 9"],
  ["produce orders -p 3", "-p 3"],
  ["produce orders --from $DIR/nosuch", "--from $DIR/nosuch"],
  ["produce orders --from $DIR", "--from $DIR"],
  ["produce orders --key-separator :", "line 1"],
  ["produce orders --encoding hex", "line 1"],
  ["produce orders --format json", "record 0"],
  ["consume nosuch", "nosuch"],
  ["consume orders nosuch --until-end", "nosuch"],
  ["consume orders --partition 9 --until-end", "--partition 9"],
  ["consume orders -p 0,9 --until-end", "-p 9"],
  ["consume orders -p 0,9 --until-end --json", "-p 9"],
  ["consume orders --from 99 --until-end", "offset 99"],
  ["config describe topic nosuch", "nosuch"],
  ["elect-leaders nosuch", "nosuch"],
  ["elect-leaders orders --partition 9", "--partition 9"],
  ["perf consume nosuch", "nosuch"],
  ["perf produce --payload-file $DIR/nosuch", "--payload-file $DIR/nosuch"],
  ["perf produce --payload-file $DIR/empty", "--payload-file $DIR/empty"],
  ["perf produce --payload-file $DIR", "--payload-file $DIR"],
  ["log dump $DIR/nosuch", "$DIR/nosuch"],
  ["log dump $DIR", "$DIR"],
  ["log dump $DIR/junk.properties", "$DIR/junk.properties"],
  ["broker --config $DIR/junk.properties", "--config $DIR/junk.properties"],
  ["broker --config $DIR/nosuch", "--config $DIR/nosuch"],
  ["kill 1 --data $DIR", "$DIR"],
  ["topic list -b 127.0.0.1:1 --timeout 50ms", "127.0.0.1:1"],
  ["produce orders -b 127.0.0.1:1 --timeout 50ms", "127.0.0.1:1"],
  ["consume orders -b '[::1]:1' --timeout 50ms", "[::1]:1"],
];

const SIDE_BY_SIDE = 20;
/** What a command says while it waits is no error: on a busy machine any of them may. */
const errorsOf = (result: CommandResult | undefined): string =>
  (result?.stderr ?? "").replace(/^waiting for a broker.*\n/gm, "");

describe("a command line that is wrong", () => {
  let cluster: FakeCluster;
  let directory: string;
  let before: ReturnType<typeof done>;
  const results = new Map<string, CommandResult>();
  const done = () => ({
    topics: [...cluster.topics].map(([name, { partitions }]) => [name, partitions.map((one) => batchesOf(one).length)]),
    files: fs.readdirSync(directory),
  });
  const at = (text: string): string => text.replaceAll("$DIR", directory);
  const environment = () => ({ OTTLA_BOOTSTRAP: cluster.bootstrapBrokers.join(","), OTTLA_HOME: directory });
  const wordsOf = (lines: readonly string[]): string[][] => shellWords(lines.map((line) => `ottla ${at(line)}`));

  beforeAll(async () => {
    cluster = await FakeCluster.start();
    cluster.createTopic("orders", 3);
    cluster.createTopic("payments");
    directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    fs.writeFileSync(path.join(directory, "empty"), "");
    fs.writeFileSync(path.join(directory, "junk.properties"), "neither a setting nor a batch\n");
    before = done();
    const lines = [...mistyped, ...refused].map(([line]) => line);
    const world = { environment: environment(), input: "neither JSON, hex, nor a key\n" };
    const waiting = wordsOf(lines).map((words, index) => ({ words, line: lines[index] ?? "" }));
    const worker = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift())
        results.set(next.line, await runTyped(next.words, world));
    };
    // Side by side: a topic that is not there is asked for again for a while.
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  });
  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
    fs.rmSync(directory, { recursive: true, force: true });
  });

  it("comes in more than 250 kinds", () => {
    expect(results.size).toBe(mistyped.length + refused.length);
    expect(results.size).toBeGreaterThanOrEqual(250);
  });

  it.each([
    ...mistyped.map((mistake) => [...mistake, 2] as const),
    ...refused.map((mistake) => [...mistake, 1] as const),
  ])("`ottla %s` is one line that names %s, with code %d", (line, named, code) => {
    const result = results.get(line);
    // Where JSON was wanted, a second line has the error once more.
    const [error = "", ...more] = errorsOf(result).split("\n");
    expect(error).toMatch(/^error: [A-Z_]+: .+ - .+$/);
    expect(error).toContain(at(named));
    expect(more.filter((one) => !one.startsWith('{"error":'))).toEqual([""]);
    expect([result?.code, result?.stdout]).toEqual([code, ""]);
  });

  it("has changed nothing", () => expect(done()).toEqual(before));

  it("is the same in a process of its own", async () => {
    const lines = ["topic create t --partitions 0", "consume orders -p 0,9 --until-end", "produce orders --linger 2h"];
    const ended = await Promise.all(wordsOf(lines).map((words) => runOttla(words, { environment: environment() })));
    const told = (result: CommandResult | undefined) => [result?.code, result?.stdout, errorsOf(result)];
    expect(ended.map(told)).toEqual(lines.map((line) => told(results.get(line))));
  });

  it("tells of a wrong OTTLA_BOOTSTRAP by its name", async () => {
    const { code, stderr } = await runTyped(["topic", "list"], { environment: { OTTLA_BOOTSTRAP: "b:x" } });
    expect(stderr).toMatch(/^error: USAGE: OTTLA_BOOTSTRAP: b:x is not the address of a broker - [^\n]+\n$/);
    expect(code).toBe(2);
  });

  it("prints nothing that a terminal would obey", async () => {
    const { stderr } = await runTyped(["consume", "orders", "--from", "\u001b[31m\nred"]);
    expect(stderr).toMatch(/^error: USAGE: --from \\x1b\[31m red is not a position - [^\n]+\n$/);
  });
});
