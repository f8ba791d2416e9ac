import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import { MeasuredCluster, residentKiB } from "../support/measured-cluster.js";
import { printMachine, report } from "../support/figures.js";

/*
 * Real data through the command line, on 6 partitions of 3 replicas with acks=all, while leaders are killed with
 * SIGKILL: per partition, what comes out is byte for byte what went in, in order, once.
 *
 * What went in to a partition is known without asking the cluster: records with a key go where its hash says, records
 * without one are told by `produce --report`.
 */
const bigBytes = Number(process.env["BIG_BYTES"] ?? 2 ** 30);
const PARTITIONS = 6;

printMachine();
const cluster = await MeasuredCluster.start({ port: 29492 });
const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "real-input" });
let brokerPeakKiB = 0;
const watch = setInterval(() => void watchBrokers(), 500);
try {
  const data = path.resolve("node_modules/vega-datasets");
  await through(
    "zipcodes.csv, lines",
    path.join(data, "data/zipcodes.csv"),
    ["--format", "lines", "--rate", "15000/s"],
    1,
  );
  await through(
    "flights-200k.json, array, key origin",
    path.join(data, "data/flights-200k.json"),
    ["--format", "json", "--key-field", "origin"],
    2,
  );
  const big = path.join(cluster.directory, "big.txt");
  generateLines(big, bigBytes);
  await through(`${(bigBytes / 2 ** 20).toFixed(0)} MiB of generated lines`, big, ["--format", "lines"], 3);
  report("memory of each broker, at most", `${(brokerPeakKiB / 1024).toFixed(0)} MiB`, brokerPeakKiB < 400 * 1024);
} finally {
  clearInterval(watch);
  await client.close();
  await cluster.stop();
}

async function through(name: string, input: string, format: string[], kills: number): Promise<void> {
  const topic = `real-${crypto.randomUUID().slice(0, 8)}`;
  await client.admin().createTopics([{ name: topic, partitions: PARTITIONS, replicationFactor: 3 }]);
  const reportFile = path.join(cluster.directory, `${topic}.report`);
  const producing = cluster.ottlaInto(reportFile, [
    "produce",
    topic,
    "--from",
    input,
    ...format,
    "--acks",
    "all",
    "--report",
    "--json",
    "--timeout",
    "120s",
  ]);
  let done = false;
  void producing.then(() => (done = true));
  let killed = 0;
  while (killed < kills) {
    await delay(killed === 0 ? 1000 : 4000);
    if (done) break;
    await killLeader(topic, killed % PARTITIONS);
    killed += 1;
  }
  const produced = await producing;
  const output = path.join(cluster.directory, `${topic}.out`);
  const consumed = await cluster.ottlaInto(output, [
    "consume",
    topic,
    "--from",
    "earliest",
    "--until-end",
    "--format",
    "json",
    "--encoding",
    "base64",
  ]);
  const verdict = await compare(input, format.includes("json"), reportFile, output);
  report(
    `${name}, ${killed} leaders killed`,
    verdict.sentence,
    verdict.equal && killed > 0 && produced.code === 0 && consumed.code === 0,
  );
  report(
    "  memory of produce and consume, at most",
    `${(produced.peakKiB / 1024).toFixed(0)} and ${(consumed.peakKiB / 1024).toFixed(0)} MiB`,
    Math.max(produced.peakKiB, consumed.peakKiB) < 200 * 1024,
  );
  for (const file of [reportFile, output]) fs.rmSync(file, { force: true });
}

async function killLeader(topic: string, partition: number): Promise<void> {
  const [description] = await client.admin().describeTopics([topic]);
  const leader = description?.partitions[partition]?.leader;
  const pid = (await cluster.brokerPids()).get(leader as number);
  if (pid === undefined) return;
  process.kill(pid, "SIGKILL");
  await delay(2000);
  await cluster.ottla("restart", String(leader));
}

async function watchBrokers(): Promise<void> {
  for (const pid of await cluster.brokerPids().then(
    (pids) => [...pids.values()],
    () => [],
  ))
    brokerPeakKiB = Math.max(brokerPeakKiB, residentKiB(pid));
}

/** A hash for each partition of its values in order: of the input, where the report says each went; and of the output. */
async function compare(
  input: string,
  isJson: boolean,
  reportFile: string,
  output: string,
): Promise<{ equal: boolean; sentence: string }> {
  const values = isJson ? jsonValues(input) : lineValues(input);
  const placed = new Map<number, { partition: number; offset: number }>();
  for await (const line of linesOf(reportFile)) {
    const entry = JSON.parse(line.toString()) as { line?: number; partition: number; offset: number };
    if (entry.line !== undefined && entry.partition !== undefined) placed.set(entry.line, entry);
  }
  const wanted = Array.from({ length: PARTITIONS }, () => crypto.createHash("sha256"));
  const nextOffset = new Array<number>(PARTITIONS).fill(0);
  let count = 0;
  let inOrder = true;
  for await (const value of values) {
    count += 1;
    const place = placed.get(count);
    if (place === undefined) return { equal: false, sentence: `record ${count} was not acknowledged` };
    inOrder &&= place.offset === nextOffset[place.partition];
    nextOffset[place.partition] = place.offset + 1;
    wanted[place.partition]?.update(`${value.length}:`).update(value);
  }
  const got = Array.from({ length: PARTITIONS }, () => crypto.createHash("sha256"));
  const seenOffset = new Array<number>(PARTITIONS).fill(0);
  let seen = 0;
  for await (const line of linesOf(output)) {
    const record = JSON.parse(line.toString()) as { partition: number; offset: number; value: string };
    const value = Buffer.from(record.value, "base64");
    inOrder &&= record.offset === seenOffset[record.partition];
    seenOffset[record.partition] = record.offset + 1;
    got[record.partition]?.update(`${value.length}:`).update(value);
    seen += 1;
  }
  const equal =
    inOrder &&
    seen === count &&
    wanted.every((hash, partition) => hash.digest("hex") === got[partition]?.digest("hex"));
  return {
    equal,
    sentence: `${count} in, ${seen} out, ${equal ? "equal and in order in each partition" : "DIFFERENT"}`,
  };
}

async function* lineValues(file: string): AsyncGenerator<Buffer> {
  yield* linesOf(file);
}

async function* jsonValues(file: string): AsyncGenerator<Buffer> {
  for (const element of JSON.parse(fs.readFileSync(file, "utf8")) as unknown[])
    yield Buffer.from(JSON.stringify(element));
}

async function* linesOf(file: string): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of fs.createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    const data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    for (let end = data.indexOf(10, at); end >= 0; end = data.indexOf(10, at)) {
      yield data.subarray(at, end);
      at = end + 1;
    }
    rest = data.subarray(at);
  }
  if (rest.length > 0) yield rest;
}

function generateLines(file: string, bytes: number): void {
  const fd = fs.openSync(file, "w");
  let number = 0;
  for (let written = 0; written < bytes;) {
    const lines: string[] = [];
    for (let count = 0; count < 5000; count += 1) lines.push(`${number++} ${"abcdefghij".repeat(3 + (number % 40))}`);
    written += fs.writeSync(fd, `${lines.join("\n")}\n`);
  }
  fs.closeSync(fd);
}
