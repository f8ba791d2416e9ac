import os from "node:os";
import { connect } from "../../client/index.js";
import type { Cluster } from "../../client/index.js";
import { BrokerLogs } from "../support/broker-logs.js";
import { printMachine, quantile, report } from "../support/figures.js";
import { bytesReadBy, MeasuredCluster } from "../support/measured-cluster.js";

/*
 * Whether producing stalls now and then while nothing is wrong: many runs of `ottla perf produce` with records of 100 bytes,
 * each into a fresh topic of 6 partitions with 3 replicas. A follower that is not told of records leaves a run waiting for
 * seconds, and one that is sent records twice refuses them and waits: so no run may take five times as long as the median
 * of its kind, and no broker's log may say that records were not taken. Of the second kind are runs with next to no memory
 * for the newest records, so that followers, and a reader who goes along, meet the disk.
 */
const runs = Number(process.env["RUNS"] ?? 100);
const smallTailRuns = Number(process.env["RUNS_SMALL_TAIL"] ?? 20);
const records = Number(process.env["RECORDS"] ?? 1_000_000);
const PARTITIONS = 6;
/** A run is slow below this share of the median rate. */
const SLOW = 1 / 5;
const READER_MS_MAX = 120_000;
/** What a follower says of records that it does not append, whether their order or its disk is why. */
const REFUSED = /records of the leader were not taken|its disk refused records/;
/** What a healthy cluster has no reason to say; it is printed beside the run in which it was said. */
const REMARKABLE = /^\S+ \S+ (?:WARN|ERROR) |proposes in-sync replicas|truncates its log|starts anew at/;

interface Run {
  readonly name: string;
  /** 0: it failed. */
  readonly recordsPerSecond: number;
  /** Of the records that are timed, the one that waited longest for its acknowledgement. NaN: it failed. */
  readonly longestWaitMs: number;
  readonly failure: string | undefined;
  /** Lines of the brokers' logs. */
  readonly refused: readonly string[];
  readonly remarkable: readonly string[];
}

printMachine();
await measure("default settings", runs, {}, produce);
await measure("log.tail.bytes=1 MiB, with a reader", smallTailRuns, { "log.tail.bytes": "1048576" }, produceAndRead);

async function measure(
  kind: string,
  count: number,
  settings: Readonly<Record<string, string>>,
  runOnce: (cluster: MeasuredCluster, client: Cluster, topic: string) => Promise<Record<string, unknown>>,
): Promise<void> {
  if (count === 0) return;
  const done: Run[] = [];
  let bytesRead = 0;
  const cluster = await MeasuredCluster.start({ port: 29792, settings });
  try {
    const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "produce-runs" });
    const admin = client.admin();
    const logs = new BrokerLogs(cluster);
    // What they say while they start is nobody's run.
    logs.takeNews();
    for (let index = 1; index <= count; index += 1) {
      const name = `run-${index}`;
      await admin.createTopics([{ name, partitions: PARTITIONS, replicationFactor: 3 }]);
      const [measured, failure] = await runOnce(cluster, client, name).then(
        (line) => [line, undefined] as const,
        (error: Error) => [undefined, error.message] as const,
      );
      const said = logs.takeNews();
      const run: Run = {
        name,
        recordsPerSecond: Number(measured?.["recordsPerSecond"] ?? 0),
        longestWaitMs: Number(measured?.["maxMs"] ?? Number.NaN),
        failure,
        refused: said.filter((line) => REFUSED.test(line)),
        remarkable: said.filter((line) => REFUSED.test(line) || REMARKABLE.test(line)),
      };
      done.push(run);
      print(kind, run);
      await admin.deleteTopics([name]);
    }
    for (const pid of (await cluster.brokerPids()).values()) bytesRead += bytesReadBy(pid);
    await client.close();
  } finally {
    await cluster.stop();
  }
  reportAll(kind, done, bytesRead);
}

async function produce(cluster: MeasuredCluster, _client: Cluster, topic: string): Promise<Record<string, unknown>> {
  const printed = await cluster.ottla("perf", "produce", topic, "--records", String(records), "--size", "100");
  const line = printed.at(-1);
  if (line?.["records"] !== records)
    throw new Error(`${String(line?.["records"])} of ${records} records were produced`);
  return line;
}

/** The same, while somebody reads the topic from its beginning, who must get everything. */
async function produceAndRead(
  cluster: MeasuredCluster,
  client: Cluster,
  topic: string,
): Promise<Record<string, unknown>> {
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, AbortSignal.timeout(READER_MS_MAX)]);
  try {
    const [line, got] = await Promise.all([produce(cluster, client, topic), read(client, topic, signal)]);
    if (got !== records) throw new Error(`a reader got ${got} of ${records} records in ${READER_MS_MAX / 1000} s`);
    return line;
  } finally {
    over.abort();
  }
}

/** Resolves with how many records it got, which are fewer when the signal came first. */
async function read(client: Cluster, topic: string, signal: AbortSignal): Promise<number> {
  const consumer = client.consumer({ topics: [topic], from: "earliest", signal });
  let got = 0;
  try {
    for await (const batch of consumer.batches()) {
      got += batch.recordCount;
      if (got >= records) break;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    await consumer.close();
  }
  return got;
}

function print(kind: string, { name, recordsPerSecond, longestWaitMs, failure, remarkable }: Run): void {
  const figures = `${thousands(recordsPerSecond)} rec/s, longest wait ${longestWaitMs.toFixed(0)} ms`;
  const load = (os.loadavg()[0] ?? 0).toFixed(1);
  console.log(`${kind}: ${name}: ${failure === undefined ? figures : `failed: ${failure}`}, load ${load}`);
  for (const line of remarkable) console.log(`  ${line}`);
}

function reportAll(kind: string, done: readonly Run[], bytesRead: number): void {
  const rates = done.map(({ recordsPerSecond }) => recordsPerSecond);
  const waits = done.map(({ longestWaitMs }) => longestWaitMs).filter((waitMs) => !Number.isNaN(waitMs));
  const median = quantile(rates, 0.5);
  const least = Math.min(...rates);
  const slow = done.filter(({ recordsPerSecond }) => !(recordsPerSecond >= median * SLOW));
  const refusals = done.filter(({ refused }) => refused.length > 0);
  const failures = done.filter(({ failure }) => failure !== undefined);
  report(
    `produce RF3, ${PARTITIONS} partitions, 100 B, ${done.length} runs`,
    `${thousands(median)} rec/s (${thousands(least)} to ${thousands(Math.max(...rates))}): ${kind}`,
    undefined,
  );
  report(
    "  longest wait for an acknowledgement in a run",
    `median ${quantile(waits, 0.5).toFixed(0)} ms, worst ${Math.max(...waits).toFixed(0)} ms`,
    undefined,
  );
  report(
    "  read by brokers for each record of 100 B",
    `${(bytesRead / done.length / records).toFixed(0)} B`,
    undefined,
  );
  report("  failed runs", listOf(failures), failures.length === 0);
  report(`  runs slower than a fifth of the median`, listOf(slow), slow.length === 0);
  report("  slowest run, as a share of the median", (least / median).toFixed(2), undefined);
  report("  runs in which a follower refused records", listOf(refusals), refusals.length === 0);
}

function listOf(some: readonly Run[]): string {
  return some.length === 0 ? "none" : `${some.length}: ${some.map(({ name }) => name).join(", ")}`;
}

function thousands(rate: number): string {
  return `${Math.round(rate / 1000)} k`;
}
