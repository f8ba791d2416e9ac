import type { Command } from "commander";
import fs from "node:fs";
import path from "node:path";
import { parsePartitionDirectoryName, parseSegmentFileName } from "../../broker/log/index.js";
import { BatchFault, batchSizeAt, readBatch } from "../../protocol/record-batch.js";
import type { RecordBatch } from "../../protocol/record-batch.js";
import { readHeaders, RecordCursor } from "../../protocol/record-cursor.js";
import { reasonOf } from "../../common/logger.js";
import { CliError } from "../cli/cli-error.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { isoTime, recordAsJson, recordPrinter } from "../cli/record-format.js";
import type { PrintableRecord, RecordPrinter } from "../cli/record-format.js";
import { plural } from "../cli/quantities.js";
import { runCommand } from "../cli/run-command.js";

interface DumpOptions {
  readonly records?: boolean;
  readonly verify?: boolean;
}

const READ_BYTES = 1024 * 1024;
const NO_COMPRESSION = 0;

/** `ottla log dump`: what segment files hold, read without a broker. */
export function addLogCommands(program: Command): void {
  const group = program.command("log").description("look into the files of a broker, without it");
  const dump = group
    .command("dump")
    .argument("<path>", "a segment file, a partition's directory, or a broker's data directory")
    .description("print the batches of segment files")
    .option("--records", "and the records in them")
    .option("--verify", "check offsets, epochs and every record too, and exit with 1 if anything is wrong")
    .action((from: string, options: DumpOptions) => runCommand(dump, (context) => dumpPath(context, from, options)));
  addCommonOptions(dump);
}

async function dumpPath(context: CommandContext, from: string, options: DumpOptions): Promise<void> {
  const files = segmentFilesIn(from);
  if (files.length === 0)
    throw new CliError("NO_SEGMENTS", `${from} holds no segment files`, {
      hint: "name a .log file, or a directory that has some",
    });
  const dump = new SegmentDump(context, options);
  for (const [index, file] of files.entries()) {
    if (!context.json && files.length > 1) context.out.writeText(`${index === 0 ? "" : "\n"}${file}\n`);
    await dump.file(file);
    if (context.signal.aborted) return;
  }
  const isSegment = files.some((file) => parseSegmentFileName(path.basename(file)) !== undefined);
  if (dump.batches === 0 && dump.unreadable > 0 && !isSegment)
    throw new CliError("NO_SEGMENTS", `${from} is no segment file`, {
      hint: "name a .log file, or a directory that has some",
    });
  context.note(`${plural(dump.batches, "batch")}, ${plural(dump.recordCount, "record")}`);
  const [first] = dump.faults;
  // A damaged checksum is shown in its line; only bytes that are no batch at all end the reading of a file.
  if (first !== undefined && (options.verify === true || dump.unreadable > 0)) {
    const more = dump.faults.length > 1 ? ` (and ${dump.faults.length - 1} more)` : "";
    throw new CliError("CORRUPT_LOG", `${first}${more}`, {
      hint: "a torn end of the newest segment is cut when its broker starts; anything else is fetched again from a replica",
    });
  }
}

/** Segment files below a path, in the order of their partitions and offsets. */
function segmentFilesIn(from: string): string[] {
  if (!fs.statSync(from).isDirectory()) return [from];
  const files: string[] = [];
  const names = fs.readdirSync(from, { withFileTypes: true }).sort((left, right) => (left.name < right.name ? -1 : 1));
  for (const entry of names) {
    const below = path.join(from, entry.name);
    if (entry.isFile() && parseSegmentFileName(entry.name)?.kind === "log") files.push(below);
    else if (entry.isDirectory()) files.push(...segmentFilesIn(below));
  }
  return files;
}

/** Prints files one after the other and remembers what is wrong with them. */
class SegmentDump {
  readonly faults: string[] = [];
  /** Files whose rest could not be read as batches. */
  unreadable = 0;
  batches = 0;
  recordCount = 0;
  readonly #print: RecordPrinter;

  constructor(
    private readonly context: CommandContext,
    private readonly options: DumpOptions,
  ) {
    this.#print = recordPrinter("  %o  %d  %k  %v\\n", context.encoding);
  }

  async file(file: string): Promise<void> {
    const handle = await fs.promises.open(file, "r");
    try {
      await this.#batchesOf(file, handle);
    } finally {
      await handle.close();
    }
  }

  async #batchesOf(file: string, handle: fs.promises.FileHandle): Promise<void> {
    // A segment that is being written grows: what is there now is dumped.
    const { size } = await handle.stat();
    const order = { offset: parseSegmentFileName(path.basename(file))?.offset ?? 0, epoch: 0 };
    let buffer = Buffer.allocUnsafe(READ_BYTES);
    for (let position = 0; position < size && !this.context.signal.aborted;) {
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, size - position), position);
      let at = 0;
      try {
        for (;;) {
          const bytes = batchSizeAt(buffer, at, bytesRead);
          const isWhole = bytes !== undefined && at + bytes <= bytesRead;
          const goesOn = position + bytesRead < size && (bytes === undefined || position + at + bytes <= size);
          if (!isWhole && goesOn) {
            // Its rest lies behind what was read. If it begins the buffer, a larger one is needed.
            if (at === 0) buffer = Buffer.allocUnsafe(Math.max(buffer.length * 2, bytes ?? 0));
            break;
          }
          if (at === bytesRead) break;
          const batch = readBatch(buffer, at, bytesRead);
          await this.#batch(file, batch, position + at, order);
          at = batch.end;
        }
      } catch (error) {
        if (!(error instanceof BatchFault)) throw error;
        this.unreadable += 1;
        this.#fault(
          file,
          position + at,
          `no batch begins here: ${error.message}; ${size - position - at} bytes are left out`,
        );
        return;
      }
      position += at;
    }
  }

  async #batch(
    file: string,
    batch: RecordBatch,
    position: number,
    order: { offset: number; epoch: number },
  ): Promise<void> {
    const { out, json } = this.context;
    const crcOk = batch.crcMatches && batch.stampMatches;
    this.batches += 1;
    this.recordCount += batch.recordCount;
    if (!crcOk) this.#fault(file, position, `the checksum of the batch at offset ${batch.baseOffset} does not match`);
    const line = {
      baseOffset: batch.baseOffset,
      lastOffset: batch.lastOffset,
      leaderEpoch: batch.leaderEpoch,
      producerId: batch.producerId,
      producerEpoch: batch.producerEpoch,
      baseSequence: batch.baseSequence,
      records: batch.recordCount,
      bytes: batch.sizeBytes,
      compression: batch.compression === NO_COMPRESSION ? "none" : String(batch.compression),
      crcOk,
      maxTimestamp: batch.maxTimestamp,
    };
    if (json) out.writeJson(line);
    else {
      out.writeText(
        `${line.baseOffset}-${line.lastOffset}  epoch ${line.leaderEpoch}  records ${line.records}  bytes ${line.bytes}  ` +
          `producer ${line.producerId}:${line.producerEpoch}:${line.baseSequence}  ${line.compression}  ` +
          `crc ${crcOk ? "ok" : "WRONG"}  ${isoTime(line.maxTimestamp)}  at byte ${position}\n`,
      );
    }
    if (this.options.verify === true) {
      if (batch.baseOffset < order.offset)
        this.#fault(file, position, `offset ${batch.baseOffset} where ${order.offset} or more must come`);
      if (batch.leaderEpoch < order.epoch)
        this.#fault(file, position, `leader epoch ${batch.leaderEpoch} behind ${order.epoch}`);
      order.offset = batch.endOffset;
      order.epoch = batch.leaderEpoch;
    }
    if (this.options.records === true || this.options.verify === true) this.#records(file, batch, position);
    if (out.isFull) await out.ready();
  }

  #records(file: string, batch: RecordBatch, position: number): void {
    const place = parsePartitionDirectoryName(path.basename(path.dirname(path.resolve(file))));
    const { out, json, encoding } = this.context;
    const cursor = new RecordCursor(batch);
    try {
      while (cursor.next()) {
        if (this.options.records !== true) continue;
        const { buffer } = batch;
        const record: PrintableRecord = {
          topic: place?.topic ?? "",
          partition: place?.partition ?? 0,
          offset: cursor.offset,
          timestamp: cursor.timestamp,
          key: cursor.keyStart < 0 ? null : buffer.subarray(cursor.keyStart, cursor.keyEnd),
          value: cursor.valueStart < 0 ? null : buffer.subarray(cursor.valueStart, cursor.valueEnd),
          headers: readHeaders(buffer, cursor.headersStart, cursor.headersEnd),
        };
        if (json) out.writeText(recordAsJson(record, encoding));
        else this.#print(record, out);
      }
    } catch (error) {
      if (!(error instanceof BatchFault)) throw error;
      this.#fault(
        file,
        position,
        `the records of the batch at offset ${batch.baseOffset} cannot be read: ${reasonOf(error)}`,
      );
    }
  }

  #fault(file: string, position: number, what: string): void {
    this.faults.push(`${file}: byte ${position}: ${what}`);
  }
}
