import fc from "fast-check";
import { LineSplitter, separatorPosition, unescape } from "../../../../tools/cli/line-splitter.js";

/** The lines of an input that arrives in these chunks, each read into the same buffer as the one before. */
async function linesOf(chunks: readonly Buffer[], isSlow: boolean, lineBytesMax = 1000): Promise<string[]> {
  const splitter = new LineSplitter(lineBytesMax);
  const lines: string[] = [];
  let busy = false;
  const onLine = (buffer: Buffer, start: number, end: number): void | Promise<void> => {
    expect(busy).toBe(false);
    lines.push(buffer.toString("latin1", start, end));
    expect(splitter.lines).toBe(lines.length);
    if (!isSlow || lines.length % 3 !== 0) return;
    busy = true;
    return Promise.resolve().then(() => {
      busy = false;
    });
  };
  const shared = Buffer.alloc(Math.max(1, ...chunks.map((chunk) => chunk.length)));
  for (const chunk of chunks) {
    chunk.copy(shared);
    await splitter.push(shared.subarray(0, chunk.length), onLine);
    shared.fill("#");
  }
  await splitter.end(onLine);
  return lines;
}

describe("LineSplitter", () => {
  it("finds the lines that splitting the whole text finds, however it arrives", async () => {
    const letters = fc.constantFrom("a", "b", "\n", "\r", "\0", "\xff");
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(letters, { maxLength: 12 })), fc.boolean(), async (pieces, isSlow) => {
        const chunks = pieces.map((piece) => Buffer.from(piece.join(""), "latin1"));
        const text = Buffer.concat(chunks).toString("latin1");
        const expected = text.split("\n");
        // What follows the last newline is a line only if there is something.
        if (expected.at(-1) === "") expected.pop();
        expect(await linesOf(chunks, isSlow)).toEqual(expected);
      }),
    );
  });

  it.each([
    ["in one chunk", ["ok\n", "123456789\n"]],
    ["over many chunks, before its end has come", ["ok\n", "1234", "5678", "9"]],
  ])("refuses a line above the limit %s, by its number", async (_, pieces) => {
    const chunks = pieces.map((piece) => Buffer.from(piece));
    await expect(linesOf(chunks, false, 8)).rejects.toMatchObject({
      errorName: "MESSAGE_TOO_LARGE",
      message: "line 2 is longer than 8 bytes",
    });
  });
});

describe("separatorPosition", () => {
  it("finds the first separator within the line, and not one behind it", () => {
    const buffer = Buffer.from("a::b::c\nd::e");
    expect(separatorPosition({ buffer, start: 0, end: 7, number: 1 }, Buffer.from("::"))).toBe(1);
    expect(() => separatorPosition({ buffer, start: 5, end: 7, number: 4 }, Buffer.from("::"))).toThrow(
      "line 4 does not contain",
    );
    expect(() =>
      separatorPosition({ buffer: Buffer.from("x:\n:"), start: 0, end: 2, number: 1 }, Buffer.from(":\n")),
    ).toThrow("line 1");
  });
});

describe("unescape", () => {
  it("knows what people type for bytes they cannot", () => {
    expect(unescape("a\\tb\\n\\x1f\\\\n")).toBe("a\tb\n\x1f\\n");
    expect(() => unescape("\\q")).toThrow("\\q is not an escape");
  });
});
