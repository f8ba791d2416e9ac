import type { Command } from "commander";
import { Option } from "commander";
import fs from "node:fs";
import type {
  Acknowledgement,
  Admin,
  ConsumerOptions,
  OnAcknowledged,
  ProducerOptions,
  UnreadablePolicy,
} from "../../client/index.js";
import { CliError, usageError } from "../cli/cli-error.js";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { LatencyHistogram } from "../cli/latency-histogram.js";
import { Pace } from "../cli/pace.js";
import { Patience } from "../cli/patience.js";
import type { ProducerFlags } from "../cli/producer-options.js";
import { addProducerOptions, producerOptions } from "../cli/producer-options.js";
import { namingFlag } from "../cli/file-errors.js";
import { formatCount, parseCount, parseRate, parseSizeWithin, plural } from "../cli/quantities.js";
import { describeError, runCommand } from "../cli/run-command.js";
import { withSuggestion } from "../cli/topic-suggestion.js";
import { unreadableOption } from "../cli/unreadable-option.js";

interface PerfOptions extends ProducerFlags {
  readonly records?: number;
  readonly size: number;
  readonly warmup: number;
  readonly partitions?: number;
  readonly replication?: number;
  readonly batchSize?: number;
  readonly bufferMemory?: number;
  readonly maxInFlight?: number;
  readonly rate?: number;
  readonly payloadFile?: string;
  readonly from?: "earliest" | "latest";
  readonly values?: boolean;
  readonly fetchSize?: number;
  readonly onUnreadable?: UnreadablePolicy;
}

/** One measurement, as it is printed. */
interface Measurement {
  readonly what: "produce" | "consume" | "latency";
  readonly topic: string;
  readonly records: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Time from sending to the acknowledgement (produce) or to the reader (latency); from one batch to the next (consume). */
  readonly latency: LatencyHistogram;
  readonly extra?: Readonly<Record<string, number>>;
}

const MEGABYTE = 1e6;
const DEFAULT_TOPIC = "perf";
const DEFAULT_RECORDS = { produce: 1_000_000, consume: 1_000_000, latency: 10_000 } as const;
/** Of an idempotent producer: the broker remembers so many of its batches. */
const IDEMPOTENT_IN_FLIGHT_MAX = 5;
/** A clock read costs as much as encoding a small record: one in so many records is timed. */
const TIMED_EVERY = 64;

/** `ottla perf ...`: how quick the cluster is, measured as Kafka's own tools do. */
export function addPerfCommands(program: Command): void {
  const group = program.command("perf").description("measure rates and latencies");
  const withTopic = (name: string, topic: string, description: string): Command =>
    group.command(name).argument("[topic]", `${topic} (${DEFAULT_TOPIC})`).description(description);
  const producing = (name: string, description: string): Command =>
    addProducerOptions(withTopic(name, "made if it does not exist", description))
      .option("--partitions <number>", "of the topic, if it is made", parseCount(1, 2 ** 31 - 1))
      .option("--replication <number>", "of the topic, if it is made", parseCount(1, 2 ** 31 - 1))
      .option("--size <size>", "bytes of a record's value", parseSizeWithin("0B", "8MiB"), 100)
      .option("--payload-file <file>", "take the values from the lines of this file, by turns")
      .option("--batch-size <size>", "bytes of a batch (128KiB)", parseSizeWithin("1KiB", "8MiB"))
      .option(
        "--buffer-memory <size>",
        "for records that are not acknowledged yet (32MiB)",
        parseSizeWithin("1KiB", "64GiB"),
      )
      .option("--max-in-flight <number>", "batches of a partition without an answer (5)", parseCount(1, 1000))
      .option("--rate <records/s>", "no faster than this", parseRate);
  const produce = producing("produce", "write records as fast as they are taken")
    .option("-n, --records <number>", "how many, beside the warm-up (1,000,000)", parseCount(1))
    .option("--warmup <number>", "records before the clock starts", parseCount(), 0)
    .action((topic: string | undefined, options: PerfOptions) =>
      runCommand(produce, (context) => perfProduce(context, topic ?? DEFAULT_TOPIC, options)),
    );
  const consume = withTopic("consume", "the topic to read", "read records as fast as they come")
    .option(
      "-n, --records <number>",
      "how many, beside the warm-up; fewer are an error (without it up to 1,000,000 of what is there)",
      parseCount(1),
    )
    .option("--warmup <number>", "records before the clock starts", parseCount(), 0)
    .addOption(new Option("--from <position>", "where to begin").choices(["earliest", "latest"]).default("earliest"))
    .option("--values", "make a view of each value, as a program that looks at them would")
    .option("--fetch-size <size>", "bytes of a partition in one answer (1MiB)", parseSizeWithin("1B", "32MiB"))
    .addOption(unreadableOption())
    .action((topic: string | undefined, options: PerfOptions) =>
      runCommand(consume, (context) => perfConsume(context, topic ?? DEFAULT_TOPIC, options)),
    );
  const latency = producing("latency", "write one record at a time and wait until it is read")
    .option("-n, --records <number>", "how many, beside the warm-up (10,000)", parseCount(1))
    .option("--warmup <number>", "records before the clock starts", parseCount(), 2000)
    .addOption(unreadableOption())
    .action((topic: string | undefined, options: PerfOptions) =>
      runCommand(latency, (context) => perfLatency(context, topic ?? DEFAULT_TOPIC, options)),
    );
  for (const command of [produce, consume, latency]) addCommonOptions(command);
}

async function perfProduce(context: CommandContext, topic: string, options: PerfOptions): Promise<void> {
  const { signal } = context;
  const settings = perfProducerOptions(context, options);
  await using cluster = await connectFor(context);
  const valueOf = await values(context, options);
  await using producer = cluster.producer(settings);
  await ensureTopic(context, cluster.admin(), topic, options);
  await cluster.partitionsOf(topic);
  const latency = new LatencyHistogram();
  let failure: Acknowledgement[0];
  const count: OnAcknowledged = (...[error]) => {
    failure ??= error;
  };
  const send = async (records: number, measured: boolean): Promise<{ sent: number; bytes: number }> => {
    const pace = options.rate === undefined ? undefined : new Pace(options.rate, signal);
    let bytes = 0;
    for (let sent = 0; sent < records; sent += 1) {
      if (signal.aborted || failure !== undefined) return { sent, bytes };
      const due = pace?.take();
      if (due !== undefined) await due;
      const value = valueOf(sent);
      bytes += value.length;
      let onAcknowledged = count;
      if (measured && sent % TIMED_EVERY === 0) {
        const sentAt = performance.now();
        onAcknowledged = (...outcome) => {
          latency.add(performance.now() - sentAt);
          count(...outcome);
        };
      }
      const room = producer.produce(topic, { value }, onAcknowledged);
      if (room !== undefined) await room;
    }
    return { sent: records, bytes };
  };
  await send(options.warmup, false);
  await producer.flush();
  const startedMs = performance.now();
  const { sent, bytes } = await send(options.records ?? DEFAULT_RECORDS.produce, true);
  await producer.flush();
  const seconds = (performance.now() - startedMs) / 1000;
  if (failure !== undefined) throw failure;
  report(context, { what: "produce", topic, records: sent, bytes, seconds, latency });
}

async function perfConsume(context: CommandContext, topic: string, options: PerfOptions): Promise<void> {
  await using cluster = await connectFor(context);
  const latency = new LatencyHistogram();
  const wanted = options.records ?? DEFAULT_RECORDS.consume;
  const startedMs = performance.now();
  await withSuggestion(cluster.admin(), [topic], () => cluster.partitionsOf(topic));
  // One that follows waits for ever; one that reads to an end must not.
  const untilEnd = options.from !== "latest";
  const patience = untilEnd ? new Patience(context.timeoutMs) : undefined;
  const signal = patience === undefined ? context.signal : AbortSignal.any([context.signal, patience.signal]);
  await using consumer = cluster.consumer(consumerOptions(topic, options, signal));
  let firstAt = 0;
  let lastBatchAt = 0;
  let bytes = 0;
  let records = 0;
  let skipped = 0;
  const begin = (): void => {
    firstAt = performance.now();
    lastBatchAt = firstAt;
  };
  try {
    for await (const batch of consumer.batches({ untilEnd })) {
      patience?.begin();
      if (firstAt === 0 && skipped >= options.warmup) begin();
      const recordsBefore = records;
      for (const record of batch) {
        if (skipped < options.warmup) {
          skipped += 1;
          if (skipped === options.warmup) begin();
          continue;
        }
        if (options.values === true) bytes += record.value?.length ?? 0;
        records += 1;
        if (records >= wanted) break;
      }
      // Of a batch that is measured in part, the bytes of that part.
      if (options.values !== true)
        bytes += Math.round((batch.sizeBytes * (records - recordsBefore)) / batch.recordCount);
      const now = performance.now();
      if (firstAt > 0) latency.add(now - lastBatchAt);
      lastBatchAt = now;
      if (records >= wanted || context.signal.aborted) break;
    }
  } finally {
    patience?.end();
  }
  const endedMs = performance.now();
  report(context, {
    what: "consume",
    topic,
    records,
    bytes,
    seconds: (endedMs - (firstAt || endedMs)) / 1000,
    latency,
    extra: { joinSeconds: rounded(((firstAt || endedMs) - startedMs) / 1000) },
  });
  // What is measured over fewer is another figure.
  if (options.records !== undefined && records < options.records && !context.signal.aborted)
    throw new CliError(
      "TOO_FEW_RECORDS",
      `${topic}: ${context.flag("records")} ${options.records} were to be read behind a warm-up of ${options.warmup}, and ` +
        `${plural(skipped + records, "record")} are there`,
      { hint: "write more with ottla perf produce, or ask for fewer" },
    );
}

/** As Kafka's EndToEndLatency: a record is sent, its acknowledgement awaited, and then that it is read. */
async function perfLatency(context: CommandContext, topic: string, options: PerfOptions): Promise<void> {
  const { signal } = context;
  const settings = perfProducerOptions(context, options);
  await using cluster = await connectFor(context);
  const valueOf = await values(context, options);
  const records = options.records ?? DEFAULT_RECORDS.latency;
  await using producer = cluster.producer(settings);
  await ensureTopic(context, cluster.admin(), topic, options);
  await using consumer = cluster.consumer(consumerOptions(topic, { ...options, from: "latest" }, signal));
  // Positions are fixed before the first record, or it would be missed.
  for (const target of await consumer.partitions()) await consumer.position(target);
  const reader = consumer.records()[Symbol.asyncIterator]();
  const latency = new LatencyHistogram();
  const pace = options.rate === undefined ? undefined : new Pace(options.rate, signal);
  let startedMs = performance.now();
  let bytes = 0;
  for (let sent = -options.warmup; sent < records && !signal.aborted; sent += 1) {
    if (sent === 0) startedMs = performance.now();
    await pace?.take();
    const value = valueOf(sent + options.warmup);
    const sentAt = performance.now();
    const { offset, partition } = await producer.send(topic, { value });
    for (;;) {
      const { value: record, done } = await reader.next();
      if (done === true || (record.partition === partition && record.offset >= offset)) break;
    }
    if (sent < 0) continue;
    bytes += value.length;
    latency.add(performance.now() - sentAt);
  }
  const seconds = (performance.now() - startedMs) / 1000;
  report(context, { what: "latency", topic, records: latency.count, bytes, seconds, latency });
}

function perfProducerOptions(context: CommandContext, options: PerfOptions): ProducerOptions {
  const isIdempotent = options.idempotent ?? (options.acks === undefined || ["all", "-1"].includes(options.acks));
  if (isIdempotent && (options.maxInFlight ?? 0) > IDEMPOTENT_IN_FLIGHT_MAX)
    throw usageError(
      `--max-in-flight ${options.maxInFlight} is above ${IDEMPOTENT_IN_FLIGHT_MAX}, the most of an idempotent producer`,
      "give less, or add --no-idempotent",
    );
  return {
    ...producerOptions(context, options),
    ...(options.batchSize === undefined ? {} : { batchBytes: options.batchSize }),
    ...(options.bufferMemory === undefined ? {} : { bufferBytes: options.bufferMemory }),
    ...(options.maxInFlight === undefined ? {} : { maxInFlight: options.maxInFlight }),
  };
}

function consumerOptions(
  topic: string,
  options: Pick<PerfOptions, "from" | "fetchSize" | "onUnreadable">,
  signal: AbortSignal,
): ConsumerOptions {
  return {
    topics: [topic],
    from: options.from ?? "earliest",
    signal,
    ...(options.fetchSize === undefined ? {} : { partitionBytes: options.fetchSize }),
    ...(options.onUnreadable === undefined ? {} : { onUnreadable: options.onUnreadable }),
  };
}

/** Makes the topic as asked for, if it is not there. */
async function ensureTopic(
  { signal, note }: CommandContext,
  admin: Admin,
  topic: string,
  options: PerfOptions,
): Promise<void> {
  try {
    await admin.createTopics(
      [
        {
          name: topic,
          ...(options.partitions === undefined ? {} : { partitions: options.partitions }),
          ...(options.replication === undefined ? {} : { replicationFactor: options.replication }),
        },
      ],
      { signal },
    );
  } catch (error) {
    if (describeError(error).name !== "TOPIC_ALREADY_EXISTS") throw error;
    if (options.partitions !== undefined || options.replication !== undefined)
      note(`${topic} exists: --partitions and --replication are ignored`);
  }
}

/** The value of each record: lines of a file by turns, or bytes that do not compress well, the same ones in each run. */
async function values(context: CommandContext, options: PerfOptions): Promise<(record: number) => Buffer> {
  const { payloadFile } = options;
  if (payloadFile !== undefined) {
    const text = await namingFlag(context.flag("payloadFile"), payloadFile, () =>
      fs.promises.readFile(payloadFile, "utf8"),
    );
    const lines = text.split("\n").filter((line) => line !== "");
    if (lines.length === 0)
      throw new CliError("FILE_ERROR", `${context.flag("payloadFile")} ${payloadFile} has no lines`, {
        hint: "give a file with one value a line",
      });
    const payloads = lines.map((line) => Buffer.from(line));
    return (record) => payloads[record % payloads.length] as Buffer;
  }
  const many = 64;
  const pool = Buffer.alloc(options.size * many);
  let state = 0x9e3779b9;
  for (let at = 0; at < pool.length; at += 1) {
    // xorshift: quick, and from a fixed seed.
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    pool[at] = 32 + ((state >>> 0) % 95);
  }
  const payloads = Array.from({ length: many }, (_, index) =>
    pool.subarray(index * options.size, (index + 1) * options.size),
  );
  return (record) => payloads[record % many] as Buffer;
}

function report({ json, out }: CommandContext, measured: Measurement): void {
  const { what, topic, records, bytes, seconds, latency, extra } = measured;
  const perSecond = seconds > 0 ? records / seconds : 0;
  const megabytesPerSecond = seconds > 0 ? bytes / MEGABYTE / seconds : 0;
  const [p50, p99, p999] = [0.5, 0.99, 0.999].map((share) => rounded(latency.quantile(share)));
  if (json) {
    return out.writeJson({
      perf: what,
      topic,
      records,
      bytes,
      seconds: rounded(seconds),
      recordsPerSecond: Math.round(perSecond),
      megabytesPerSecond: rounded(megabytesPerSecond),
      p50Ms: p50,
      p99Ms: p99,
      p999Ms: p999,
      meanMs: rounded(latency.mean),
      maxMs: rounded(latency.max),
      ...extra,
    });
  }
  const times = { produce: "acknowledged after", consume: "batch to batch", latency: "read after" }[what];
  out.writeText(
    `${plural(records, "record")} in ${seconds.toFixed(3)} s: ${formatCount(perSecond)} rec/s, ${megabytesPerSecond.toFixed(1)} MB/s\n` +
      `${times}: p50 ${p50} ms, p99 ${p99} ms, p99.9 ${p999} ms, mean ${rounded(latency.mean)} ms, max ${rounded(latency.max)} ms\n`,
  );
}

const rounded = (value: number): number => Math.round(value * 1000) / 1000;
