import { usageError, CliError } from "./cli-error.js";

const NEWLINE = 0x0a;

/**
 * Cuts lines out of chunks of any size without making a string of them. A line is the bytes up to `\n`; a last line
 * without one counts. Lines are handed out as views that are valid only until `onLine` returns, so the caller may fill
 * the same buffer again. A line above `lineBytesMax` is refused before more of it is gathered.
 */
export class LineSplitter {
  #carry: Buffer[] = [];
  #carryBytes = 0;
  #lines = 0;

  constructor(private readonly lineBytesMax: number) {}

  /** Lines handed out so far; while `onLine` runs, the number of its line, from 1. */
  get lines(): number {
    return this.#lines;
  }

  /**
   * Hands out each line that ends in `chunk`. `onLine` may return a promise (the producer's memory is full): then this
   * does too, and goes on when it resolves.
   */
  push(chunk: Buffer, onLine: OnLine): void | Promise<void> {
    return this.#from(chunk, 0, onLine);
  }

  /** The last line, if the input did not end with a newline. */
  end(onLine: OnLine): void | Promise<void> {
    if (this.#carryBytes === 0) return;
    const line = this.#takeCarry();
    this.#lines += 1;
    return onLine(line, 0, line.length);
  }

  #from(chunk: Buffer, from: number, onLine: OnLine): void | Promise<void> {
    let start = from;
    while (start < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, start);
      if (newline < 0) break;
      let pending: void | Promise<void>;
      if (this.#carryBytes > 0) {
        this.#keep(chunk, start, newline);
        const line = this.#takeCarry();
        this.#lines += 1;
        pending = onLine(line, 0, line.length);
      } else {
        this.#lines += 1;
        this.#refuseAbove(newline - start, this.#lines);
        pending = onLine(chunk, start, newline);
      }
      start = newline + 1;
      if (pending !== undefined) {
        const next = start;
        return pending.then(() => this.#from(chunk, next, onLine));
      }
    }
    if (start < chunk.length) this.#keep(chunk, start, chunk.length);
  }

  #keep(chunk: Buffer, start: number, end: number): void {
    // Copied: the caller may read the next chunk into the same buffer.
    this.#carry.push(Buffer.from(chunk.subarray(start, end)));
    this.#carryBytes += end - start;
    this.#refuseAbove(this.#carryBytes, this.#lines + 1);
  }

  #takeCarry(): Buffer {
    const line = this.#carry.length === 1 ? (this.#carry[0] as Buffer) : Buffer.concat(this.#carry);
    this.#carry = [];
    this.#carryBytes = 0;
    return line;
  }

  #refuseAbove(bytes: number, line: number): void {
    if (bytes <= this.lineBytesMax) return;
    throw new CliError("MESSAGE_TOO_LARGE", `line ${line} is longer than ${this.lineBytesMax} bytes`, {
      hint: "no topic accepts such a record; split it, or see --format raw and json",
    });
  }
}

type OnLine = (buffer: Buffer, start: number, end: number) => void | Promise<void>;

/** Where `separator` stands in a line; throws, naming the line, when it does not. */
export function separatorPosition(
  line: { readonly buffer: Buffer; readonly start: number; readonly end: number; readonly number: number },
  separator: Buffer,
): number {
  const at = line.buffer.indexOf(separator, line.start);
  if (at >= 0 && at + separator.length <= line.end) return at;
  const shown = JSON.stringify(separator.toString());
  throw new CliError("NO_KEY_SEPARATOR", `line ${line.number} does not contain the key separator ${shown}`, {
    hint: "correct the line, or leave out --key-separator",
  });
}

/** For commander: `\t`, `\n`, `\r`, `\0`, `\\` and `\x1f` in an argument mean what they mean in source code. */
export function unescape(text: string): string {
  return text.replace(/\\(?:x([0-9a-fA-F]{2})|(.))/gs, (whole, hex: string | undefined, letter: string | undefined) => {
    if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16));
    const known: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", "0": "\0", "\\": "\\" };
    const character = known[letter ?? ""];
    if (character === undefined)
      throw usageError(`${whole} is not an escape`, "known are \\n \\t \\r \\0 \\\\ and \\xNN");
    return character;
  });
}
