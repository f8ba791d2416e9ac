import fs from "node:fs";
import net from "node:net";
import type { Readable } from "node:stream";
import { finished } from "node:stream/promises";
import { promisify } from "node:util";
import { onAbort } from "../../common/on-abort.js";

const READ_BYTES = 256 * 1024;

/** An input that is read once, from its beginning, as fast as its reader takes it. */
export interface Input {
  /** Where it comes from, for sentences. */
  readonly name: string;
  /** Bytes in all, when they are known before. */
  readonly sizeBytes: number | undefined;
  /** Chunks, each valid until the next one is asked for. */
  chunks(signal: AbortSignal): AsyncIterable<Buffer>;
}

/** A file, or standard input for `-`. Rejects as the system does when it cannot be opened. */
export async function openInput(path: string, stdin: Readable | 0 = 0): Promise<Input> {
  if (path !== "-") {
    const fd = await promisify(fs.open)(path, "r");
    const stat = fs.fstatSync(fd);
    if (stat.isDirectory()) {
      fs.closeSync(fd);
      throw Object.assign(new Error(`${path} is a directory`), { code: "EISDIR", path });
    }
    if (stat.isFile()) return { name: path, sizeBytes: stat.size, chunks: (signal) => chunksOfFile(fd, signal, true) };
    // A pipe is not opened twice: its writer would find that its reader has gone, and what it wrote would be lost. And
    // it is read as a socket: nothing ends the read of a file before its writer has something to say.
    const open = (): Readable =>
      stat.isFIFO() ? new net.Socket({ fd, readable: true, writable: false }) : fs.createReadStream(path, { fd });
    return { name: path, sizeBytes: undefined, chunks: (signal) => chunksOfStream(open(), signal) };
  }
  const isFile = stdin === 0 && fs.fstatSync(0).isFile();
  return {
    name: "standard input",
    sizeBytes: undefined,
    chunks: (signal) =>
      isFile ? chunksOfFile(0, signal) : chunksOfStream(stdin === 0 ? process.stdin : stdin, signal),
  };
}

/** Reads into two buffers by turns: while one is worked on, the other is being filled. */
async function* chunksOfFile(fd: number, signal: AbortSignal, isOwner = false): AsyncGenerator<Buffer> {
  const buffers = [Buffer.allocUnsafe(READ_BYTES), Buffer.allocUnsafe(READ_BYTES)] as const;
  const read = (buffer: Buffer): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      fs.read(fd, buffer, 0, buffer.length, null, (error, bytes) => {
        if (error) reject(error);
        else resolve(buffer.subarray(0, bytes));
      });
    });
  let next = read(buffers[0]);
  try {
    for (let turn = 1; !signal.aborted; turn += 1) {
      const chunk = await next;
      if (chunk.length === 0) return;
      next = read(buffers[turn % 2 === 0 ? 0 : 1]);
      // A failure is thrown at its turn.
      next.catch(() => undefined);
      yield chunk;
    }
  } finally {
    await next.catch(() => undefined);
    if (isOwner) fs.closeSync(fd);
  }
}

async function* chunksOfStream(stream: Readable, signal: AbortSignal): AsyncGenerator<Buffer> {
  // Ending the stream ends a read that waits for somebody to type.
  const stopListening = onAbort(signal, () => void stream.destroy());
  try {
    if (signal.aborted) return;
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    stopListening();
    if (signal.aborted) await finished(stream).catch(() => undefined);
  }
}
