import type { Command } from "commander";
import { Option } from "commander";
import type { Acknowledgement, OnAcknowledged, Producer, ProducerRecord } from "../../client/index.js";
import { CliError, usageError } from "../cli/cli-error.js";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { openInput } from "../cli/input.js";
import type { Input } from "../cli/input.js";
import { unlessAborted } from "../cli/interruption.js";
import { JsonValues } from "../cli/json-values.js";
import { LineSplitter, separatorPosition, unescape } from "../cli/line-splitter.js";
import { Pace } from "../cli/pace.js";
import type { ProducerFlags } from "../cli/producer-options.js";
import { addProducerOptions, producerOptions } from "../cli/producer-options.js";
import { InputProgress } from "../cli/progress.js";
import { checkPartitions } from "../cli/partitions.js";
import { collect, formatCount, parseCount, parseHeader, parseRate, plural } from "../cli/quantities.js";
import { describeError, EXIT_FAILED, runCommand } from "../cli/run-command.js";
import { withSuggestion } from "../cli/topic-suggestion.js";
import type { TextEncoding } from "../cli/byte-text.js";
import { bytesOf } from "../cli/byte-text.js";
import { namingFlag } from "../cli/file-errors.js";
import { addTopicOption, topicNamed } from "../cli/topic-names.js";
import { mayBeEmpty } from "../cli/typed-options.js";

interface ProduceOptions extends ProducerFlags {
  readonly keySeparator?: string;
  readonly partition?: number;
  readonly compression?: string;
  readonly header?: readonly (readonly [string, string])[];
  readonly from: string;
  readonly format: "lines" | "json" | "raw";
  readonly keyField?: string;
  readonly rate?: number;
  readonly report?: boolean;
  readonly key?: string;
  readonly topic?: readonly string[];
}

/** A topic accepts batches of up to 7 MiB at most: a longer record is refused before it is gathered. */
const RECORD_BYTES_MAX = 8 * 1024 * 1024;
/** After an interruption, records under way have so long to be acknowledged. */
const FLUSH_AFTER_SIGNAL_MS = 4000;

/** `ottla produce`: lines, JSON values or a whole input become records. */
export function addProduceCommand(program: Command): void {
  const command = program
    .command("produce")
    .argument("[topic]", "the topic to write to")
    .description("write records from standard input or a file")
    .option("-K, --key-separator <text>", "the key is what stands before it in a line (\\t for a tab)", unescape)
    .addOption(mayBeEmpty(new Option("-k, --key <text>", "the key of every record")))
    .option(
      "-p, --partition <number>",
      "write to this partition instead of choosing by key",
      parseCount(0, 2 ** 31 - 1),
    )
    .addOption(new Option("--compression <codec>", "none: others come later").choices(["none"]))
    .option("-H, --header <name=value>", "a header of every record; may be repeated", collect(parseHeader))
    .option("--from <file>", "where the records come from; - is standard input", "-")
    .addOption(
      new Option("--format <format>", "a line is a record, a JSON value or array element is, or the whole input is")
        .choices(["lines", "json", "raw"])
        .default("lines"),
    )
    .option("--key-field <name>", "with --format json: the field that holds the key")
    .option("--rate <records/s>", "write no faster than this", parseRate)
    .option("--report", "print a JSON line for each record when it is acknowledged")
    .action((topic: string | undefined, options: ProduceOptions) =>
      runCommand(command, (context) => produce(context, topicNamed(context, topic, options.topic), options)),
    );
  addTopicOption(command);
  addProducerOptions(command);
  addCommonOptions(command);
}

async function produce(context: CommandContext, topic: string | undefined, options: ProduceOptions): Promise<number> {
  if (topic === undefined) throw usageError("no topic is named", "type ottla produce TOPIC");
  checkOptions(context, options);
  const settings = { bufferBytes: BUFFER_BYTES, ...producerOptions(context, options) };
  const input = await namingFlag(context.flag("from"), options.from, () => openInput(options.from, context.stdin));
  await using cluster = await connectFor(context);
  // Asked before anything is read, so that a misspelt topic is one error and not one for each record.
  const partitions = await withSuggestion(cluster.admin(), [topic], () => cluster.partitionsOf(topic));
  checkPartitions(context, topic, partitions, options.partition === undefined ? undefined : [options.partition]);
  if (options.from === "-" && context.isTyped)
    context.note(
      options.format === "lines"
        ? `type records for ${topic}, one a line; Ctrl-D ends`
        : `type ${options.format === "json" ? "JSON values" : "one record"} for ${topic}; Ctrl-D ends`,
    );
  const producer = cluster.producer(settings);
  const run = new ProduceRun(context, producer, topic, options);
  const progress = new InputProgress(context, input.sizeBytes);
  let failure: unknown;
  try {
    await run.read(input, progress);
  } catch (error) {
    failure = error;
  }
  progress.end();
  await run.finish();
  const { records, acked, failed, seconds } = run.summary();
  context.out.writeJsonIf(context.json || options.report === true, { records, acked, failed, seconds });
  // When nothing was written, the error says all there is to say.
  if (acked > 0 || context.signal.aborted || (failed === 0 && failure === undefined))
    context.note(
      `${formatCount(acked)} of ${plural(records, "record")} acknowledged in ${seconds} s${failed > 0 ? `, ${formatCount(failed)} failed` : ""}${failure === undefined ? "" : ", up to the error"}`,
    );
  if (failure !== undefined) throw acked > 0 ? withWhatIsWritten(failure) : failure;
  if (run.firstFailure !== undefined && !context.signal.aborted) throw run.firstFailure;
  return failed > 0 ? EXIT_FAILED : 0;
}

/** Whoever corrects the input and gives it again would write its beginning twice. */
function withWhatIsWritten(error: unknown): CliError {
  const { name, message, hint, retriable, exitCode } = describeError(error);
  const written = "what stands before is written already: give only the rest, or it is written twice";
  return new CliError(name, message, {
    hint: hint === undefined ? written : `${hint}; ${written}`,
    retriable,
    exitCode,
    cause: error,
  });
}

function checkOptions({ flag, encoding }: CommandContext, options: ProduceOptions): void {
  const { format, key, keyField, keySeparator } = options;
  if (keyField !== undefined && format !== "json")
    throw usageError(`${flag("keyField")} is for --format json`, "use --key-separator with lines");
  if (keySeparator !== undefined && format !== "lines")
    throw usageError(
      `${flag("keySeparator")} is for lines, not --format ${format}`,
      "use --key-field with --format json",
    );
  const other = keyField !== undefined ? "keyField" : keySeparator !== undefined ? "keySeparator" : undefined;
  if (key !== undefined && other !== undefined)
    throw usageError(`${flag("key")} and ${flag(other)} both say what the key is`, "leave out one of them");
  if (encoding !== "utf8" && format !== "lines")
    throw usageError(`${flag("encoding")} ${encoding} is for lines, not --format ${format}`, "leave it out");
  if (key !== undefined && bytesOf(key, encoding) === undefined)
    throw usageError(`${flag("key")} ${key} is not ${encoding}`, `write it as ${flag("encoding")} says`);
  for (const [name, text] of options.header ?? []) {
    if (bytesOf(text, encoding) === undefined)
      throw usageError(`${flag("header")} ${name}=${text} is not ${encoding}`, `write it as ${flag("encoding")} says`);
  }
}

/** What a line, or the key or value in it, stands for. */
function decodedLine(bytes: Buffer, encoding: TextEncoding, line: number): Buffer {
  const decoded = bytesOf(bytes.toString("latin1").trimEnd(), encoding);
  if (decoded !== undefined) return decoded;
  throw new CliError("INVALID_ENCODING", `line ${line} is not ${encoding}`, {
    hint: "correct the line, or leave out --encoding",
  });
}

/** Less than the library's own: a file waits on the disk as well as in memory, and the process stays small. */
const BUFFER_BYTES = 12 * 1024 * 1024;

/** One run: hands records to the producer as fast as it takes them, and counts what becomes of them. */
class ProduceRun {
  /** The first record that failed for good, as an error of its own. */
  firstFailure: Error | undefined;
  #records = 0;
  #acked = 0;
  #failed = 0;
  readonly #startedMs = performance.now();
  readonly #pace: Pace | undefined;
  readonly #headers: ProducerRecord["headers"];
  /** Of every record, unless each has its own. */
  readonly #key: Buffer | null;
  readonly #count: OnAcknowledged;

  constructor(
    private readonly context: CommandContext,
    private readonly producer: Producer,
    private readonly topic: string,
    private readonly options: ProduceOptions,
  ) {
    this.#pace = options.rate === undefined ? undefined : new Pace(options.rate, context.signal);
    this.#headers = options.header?.map(([key, text]) => ({ key, value: bytesOf(text, context.encoding) ?? null }));
    this.#key = options.key === undefined ? null : (bytesOf(options.key, context.encoding) ?? null);
    this.#count = (...[error]) => this.#onOutcome(error);
  }

  async read(input: Input, progress: InputProgress): Promise<void> {
    switch (this.options.format) {
      case "lines":
        return this.#readLines(input, progress);
      case "json":
        return this.#readJson(input, progress);
      case "raw":
        return this.#readRaw(input, progress);
    }
  }

  /** Waits for what is under way; after an interruption not for long. */
  async finish(): Promise<void> {
    const { signal } = this.context;
    const closing = this.producer.close();
    await unlessAborted(closing, signal);
    if (!signal.aborted) return;
    const timeout = new Promise<void>((resolve) => setTimeout(resolve, FLUSH_AFTER_SIGNAL_MS).unref());
    await Promise.race([closing.catch(() => undefined), timeout]);
  }

  summary(): { records: number; acked: number; failed: number; seconds: number } {
    const seconds = Math.round(performance.now() - this.#startedMs) / 1000;
    return { records: this.#records, acked: this.#acked, failed: this.#failed, seconds };
  }

  async #readLines(input: Input, progress: InputProgress): Promise<void> {
    const { signal, encoding } = this.context;
    const lines = new LineSplitter(RECORD_BYTES_MAX);
    const { keySeparator } = this.options;
    const separator = keySeparator === undefined ? undefined : Buffer.from(keySeparator);
    const decoded = (bytes: Buffer): Buffer =>
      encoding === "utf8" ? bytes : decodedLine(bytes, encoding, lines.lines);
    const onLine = (buffer: Buffer, start: number, end: number): void | Promise<void> => {
      if (signal.aborted) return;
      if (separator === undefined) return this.#send(this.#key, decoded(buffer.subarray(start, end)));
      const at = separatorPosition({ buffer, start, end, number: lines.lines }, separator);
      return this.#send(decoded(buffer.subarray(start, at)), decoded(buffer.subarray(at + separator.length, end)));
    };
    for await (const chunk of input.chunks(signal)) {
      const pending = lines.push(chunk, onLine);
      // While the producer's memory is full this may take as long as a leader is away.
      if (pending !== undefined) await unlessAborted(pending, signal);
      progress.add(chunk.length);
      await this.#letOthersRun();
    }
    if (!signal.aborted) await unlessAborted(Promise.resolve(lines.end(onLine)), signal);
  }

  async #readJson(input: Input, progress: InputProgress): Promise<void> {
    const { signal } = this.context;
    const values = new JsonValues(this.options.keyField, RECORD_BYTES_MAX);
    const onRecord = ({ text, key }: { text: string; key: string | null }): void | Promise<void> => {
      if (signal.aborted) return;
      return this.#send(key ?? this.#key, text);
    };
    for await (const chunk of input.chunks(signal)) {
      await unlessAborted(values.push(chunk, onRecord), signal);
      progress.add(chunk.length);
      if (signal.aborted) return;
    }
    await unlessAborted(values.end(onRecord), signal);
  }

  async #readRaw(input: Input, progress: InputProgress): Promise<void> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of input.chunks(this.context.signal)) {
      chunks.push(Buffer.from(chunk));
      bytes += chunk.length;
      progress.add(chunk.length);
      if (bytes > RECORD_BYTES_MAX)
        throw new CliError("MESSAGE_TOO_LARGE", `${input.name} is longer than ${RECORD_BYTES_MAX} bytes`, {
          hint: "no topic accepts such a record; split it, or use --format lines",
        });
    }
    const { signal } = this.context;
    if (!signal.aborted) await unlessAborted(Promise.resolve(this.#send(this.#key, Buffer.concat(chunks))), signal);
  }

  #send(key: Uint8Array | string | null, value: Uint8Array | string): void | Promise<void> {
    const wait = this.#pace?.take();
    if (wait !== undefined) {
      // The views are of a buffer that stays as it is until this promise resolves.
      return wait.then(() => (this.context.signal.aborted ? undefined : this.#hand(key, value)));
    }
    return this.#hand(key, value);
  }

  #hand(key: Uint8Array | string | null, value: Uint8Array | string): void | Promise<void> {
    this.#records += 1;
    const onAcknowledged = this.options.report === true ? this.#reporterOf(this.#records) : this.#count;
    const record: { -readonly [Name in keyof ProducerRecord]: ProducerRecord[Name] } = { key, value };
    if (this.options.partition !== undefined) record.partition = this.options.partition;
    if (this.#headers !== undefined) record.headers = this.#headers;
    try {
      const pending = this.producer.produce(this.topic, record, onAcknowledged);
      // Nobody reads the report: stop filling memory with it.
      return this.context.out.isFull ? Promise.all([pending, this.context.out.ready()]).then(() => undefined) : pending;
    } catch (error) {
      // A record that can never be sent: too large, or for a partition that is not there.
      onAcknowledged(error as NonNullable<Acknowledgement[0]>, undefined);
    }
  }

  #reporterOf(line: number): OnAcknowledged {
    return (error, place) => {
      this.#onOutcome(error);
      if (error !== undefined) {
        const { name, message, hint, retriable } = describeError(error);
        return this.context.out.writeJson({ line, error: { name, message, hint: hint ?? null, retriable } });
      }
      const { partition, offset, timestamp } = place as NonNullable<typeof place>;
      this.context.out.writeText(
        `{"line":${line},"partition":${partition},"offset":${offset},"timestamp":${timestamp}}\n`,
      );
    };
  }

  #onOutcome(error: Acknowledgement[0]): void {
    if (error === undefined) {
      this.#acked += 1;
      return;
    }
    this.#failed += 1;
    this.firstFailure ??= error;
  }

  /** A file is read faster than anything else gets a turn: sockets and signals need one. */
  #letOthersRun(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }
}
