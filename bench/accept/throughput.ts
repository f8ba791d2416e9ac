import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { MeasuredCluster, residentKiB } from "../support/measured-cluster.js";
import { printMachine, quantile, report } from "../support/figures.js";

/*
 * What `ottla perf` says of this machine: produce and consume at 100 and 1,000 bytes, with one replica and with three, and
 * end-to-end latency; each several times on fresh topics after a warm-up within the run. Beside them, what this machine's
 * disk takes of a plain program in the same minute, because no log is faster than that.
 */
const runs = Number(process.env["RUNS"] ?? 5);

printMachine();
const startedMs = performance.now();
const cluster = await MeasuredCluster.start({ port: 29592 });
report(
  "ottla up: three brokers and a ZooKeeper serve after",
  `${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
  undefined,
);
let topics = 0;
try {
  await plainWrites("file append by a plain program, before");
  await produce("produce RF1 acks=1, 100 B", 1, "1", 100, 3_000_000);
  await produce("produce RF1 acks=1, 1,000 B", 1, "1", 1000, 400_000);
  await produce("produce RF3 acks=all, 100 B", 3, "all", 100, 1_500_000);
  await produce("produce RF3 acks=all, 1,000 B", 3, "all", 1000, 200_000);
  await latency("end to end RF1, acks=all", 1);
  await latency("end to end RF3, acks=all", 3);
  await plainWrites("file append by a plain program, after");
  for (const [id, pid] of await cluster.brokerPids())
    report(`memory of broker ${id} after all that`, `${(residentKiB(pid) / 1024).toFixed(0)} MiB`, undefined);
} finally {
  await cluster.stop();
}

async function newTopic(replication: number): Promise<string> {
  const topic = `load-${topics++}`;
  await cluster.ottla("topic", "create", topic, "--partitions", "1", "--replication", String(replication));
  return topic;
}

async function produce(
  name: string,
  replication: number,
  acks: "1" | "all",
  size: number,
  records: number,
): Promise<void> {
  const produced: number[] = [];
  const consumed: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const topic = await newTopic(replication);
    const warmup = String(Math.round(records / 4));
    const idempotence = acks === "all" ? [] : ["--no-idempotent"];
    const write = await cluster.ottla(
      "perf",
      "produce",
      topic,
      "--records",
      String(records),
      "--warmup",
      warmup,
      "--size",
      String(size),
      "--acks",
      acks,
      ...idempotence,
    );
    produced.push(rateOf(write));
    consumed.push(rateOf(await cluster.ottla("perf", "consume", topic, "--records", String(records))));
    await cluster.ottla("topic", "delete", topic);
  }
  report(name, spread(produced, size), undefined);
  report(`  consume the same`, spread(consumed, size), undefined);
}

async function latency(name: string, replication: number): Promise<void> {
  const p50: number[] = [];
  const p99: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const topic = await newTopic(replication);
    const [line] = (await cluster.ottla("perf", "latency", topic, "--records", "3000", "--warmup", "1000")).slice(-1);
    p50.push(Number(line?.["p50Ms"]));
    p99.push(Number(line?.["p99Ms"]));
  }
  report(
    name,
    `p50 ${quantile(p50, 0.5).toFixed(2)} ms, p99 ${quantile(p99, 0.5).toFixed(2)} ms (${Math.min(...p99).toFixed(2)} to ${Math.max(...p99).toFixed(2)})`,
    undefined,
  );
}

function rateOf(lines: readonly Record<string, unknown>[]): number {
  return Number(lines.at(-1)?.["recordsPerSecond"]);
}

function spread(rates: readonly number[], size: number): string {
  const thousands = (rate: number): string => `${Math.round(rate / 1000)} k`;
  const median = quantile(rates, 0.5);
  return `${thousands(median)} rec/s (${thousands(Math.min(...rates))} to ${thousands(Math.max(...rates))}), ${((median * size) / 1e6).toFixed(0)} MB/s`;
}

async function plainWrites(name: string): Promise<void> {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "ottla-plain-")), "file");
  const fd = fs.openSync(file, "w");
  const block = Buffer.alloc(128 * 1024, 7);
  const beganMs = performance.now();
  for (let count = 0; count < 4000; count += 1) fs.writeSync(fd, block);
  const seconds = (performance.now() - beganMs) / 1000;
  fs.closeSync(fd);
  fs.rmSync(path.dirname(file), { recursive: true });
  report(name, `${((4000 * block.length) / 1e6 / seconds).toFixed(0)} MB/s`, undefined);
}
