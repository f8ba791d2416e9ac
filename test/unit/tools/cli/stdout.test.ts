import { Writable } from "node:stream";
import { Stdout } from "../../../../tools/cli/stdout.js";

/** A reader that takes a write only when it is told to. */
class SlowReader extends Writable {
  readonly writes: Buffer[] = [];
  #waiting: (() => void)[] = [];

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.writes.push(Buffer.from(chunk));
    this.#waiting.push(done);
  }

  take(): void {
    for (const done of this.#waiting.splice(0)) done();
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("Stdout", () => {
  it("gathers small pieces into one write at the end of the turn, in their order", async () => {
    const reader = new SlowReader();
    const out = new Stdout(reader);
    out.writeText("a€");
    out.writeBytes(Buffer.from("b"));
    out.writeByte(10);
    out.writeJson({ c: 1 });
    expect(reader.writes).toEqual([]);
    await turn();
    expect(reader.writes.map(String)).toEqual(['a€b\n{"c":1}\n']);
  });

  it("keeps pieces of all sizes whole and in order", async () => {
    const reader = new SlowReader({ highWaterMark: 1 << 30 });
    const out = new Stdout(reader);
    const pieces = [1, 200_000, 3, 131_072, 40_000, 70_000, 0, 131_073].map((size, index) =>
      String(index).repeat(size),
    );
    pieces.forEach((piece, index) => (index % 2 === 0 ? out.writeText(piece) : out.writeBytes(Buffer.from(piece))));
    const flushed = out.flush();
    const timer = setInterval(() => reader.take(), 1);
    await flushed;
    clearInterval(timer);
    expect(Buffer.concat(reader.writes).toString()).toBe(pieces.join(""));
  });

  it("is full when its reader falls behind, and says when it has caught up", async () => {
    const reader = new SlowReader({ highWaterMark: 1 << 30 });
    const out = new Stdout(reader);
    for (let count = 0; count < 20; count += 1) out.writeBytes(Buffer.alloc(128 * 1024, count));
    expect(out.isFull).toBe(true);
    let isReady = false;
    const ready = out.ready().then(() => (isReady = true));
    await turn();
    expect(isReady).toBe(false);
    while (out.isFull) {
      reader.take();
      await turn();
    }
    await ready;
  });

  it("lets nobody wait for a reader that has gone", async () => {
    const reader = new SlowReader({ highWaterMark: 1 << 30 });
    const out = new Stdout(reader);
    for (let count = 0; count < 20; count += 1) out.writeBytes(Buffer.alloc(128 * 1024));
    const ready = out.ready();
    reader.destroy(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
    await ready;
    await out.closed;
    out.writeText("more");
    await out.flush();
    expect(out.failure).toMatchObject({ code: "EPIPE" });
  });
});
