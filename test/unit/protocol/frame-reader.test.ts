import fc from "fast-check";
import { FrameFault, FrameReader } from "../../../protocol/frame-reader.js";
import { encodeRequest } from "../../../protocol/message-codec.js";

/** Feeds bytes in chunks of the given sizes, as a socket would, and returns the frames that came out. */
function feed(
  bytes: Buffer,
  chunkSizes: readonly number[],
  options: Partial<ConstructorParameters<typeof FrameReader>[0]> = {},
): Buffer[] {
  const frames: Buffer[] = [];
  const reader = new FrameReader({
    frameBytesMax: () => 1 << 20,
    allocate: (size) => Buffer.alloc(size),
    onFrame: (frame) => frames.push(frame),
    ...options,
  });
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const target = reader.receiveBuffer();
    const size = Math.min(Math.max(1, chunkSizes[turn % chunkSizes.length] ?? 1), target.length, bytes.length - at);
    target.set(bytes.subarray(at, at + size));
    reader.onReceived(size);
    at += size;
  }
  return frames;
}

const request = (correlationId: number, payloadBytes: number): Buffer =>
  Buffer.concat(
    encodeRequest(correlationId, "produce", { acks: 1, timeoutMs: 1, partitions: [{ topicId: "t", partition: 0 }] }, [
      [Buffer.alloc(payloadBytes, correlationId)],
    ]),
  );

describe("FrameReader", () => {
  it("cuts the same frames out of any chunks", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 200_000 }), { minLength: 1, maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 100_000 }), { minLength: 1, maxLength: 8 }),
        (payloads, chunks) => {
          const frames = payloads.map((bytes, index) => request(index + 1, bytes));
          const received = feed(Buffer.concat(frames), chunks);
          expect(received.length).toBe(frames.length);
          received.forEach((frame, index) => expect(frame.equals((frames[index] as Buffer).subarray(4))).toBe(true));
        },
      ),
      { numRuns: 60 },
    );
  });

  it("cuts frames that arrive one byte at a time", () => {
    const frames = [request(1, 3), request(2, 0), request(3, 100)];
    expect(feed(Buffer.concat(frames), [1]).map((frame) => frame.length)).toEqual(
      frames.map((frame) => frame.length - 4),
    );
  });

  it("holds little memory for a connection that says little, and more from the first read on that fills it", () => {
    const received: number[] = [];
    const reader = new FrameReader({
      frameBytesMax: () => 1 << 20,
      allocate: (size) => Buffer.alloc(size),
      onFrame: (frame) => received.push(frame.length),
    });
    const sizes: number[] = [];
    const small = request(1, 100);
    const bytes = Buffer.concat(Array.from({ length: 1000 }, () => small));
    for (let at = 0; at < bytes.length;) {
      const target = reader.receiveBuffer();
      sizes.push(target.length);
      const size = bytes.copy(target, 0, at);
      reader.onReceived(size);
      at += size;
    }
    expect(sizes[0]).toBe(8 * 1024);
    // In between comes the rest of the frame that the first read has cut.
    expect(sizes[2]).toBe(64 * 1024);
    expect(received).toEqual(Array.from({ length: 1000 }, () => small.length - 4));
  });

  it("refuses a frame above its limit before memory is allocated for it", () => {
    let allocated = 0;
    const huge = Buffer.from([0xff, 0xff, 0xff, 0xff, 0x08, 0x07, 0x22, 0x01, ...Buffer.alloc(16)]);
    const feedHuge = (): unknown => feed(huge, [100], { allocate: (bytes) => ((allocated += bytes), Buffer.alloc(0)) });
    expect(feedHuge).toThrow(FrameFault);
    expect(feedHuge).toThrow(expect.objectContaining({ kind: "too-large", correlationId: 7 }) as Error);
    expect(allocated).toBe(0);
  });

  it("refuses a frame of no bytes and one that is no message", () => {
    expect(() => feed(Buffer.from([0, 0, 0, 0]), [4])).toThrow(expect.objectContaining({ kind: "empty" }) as Error);
    expect(() => feed(Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), [100])).toThrow(
      expect.objectContaining({ kind: "malformed" }) as Error,
    );
  });

  it("asks for the limit of the very kind of request", () => {
    const kinds: (string | undefined)[] = [];
    feed(request(9, 500), [7], {
      frameBytesMax: (head) => {
        kinds.push(head.kind);
        return 1 << 20;
      },
    });
    expect(new Set(kinds)).toEqual(new Set(["produce"]));
  });

  it("waits for memory and goes on where it stopped", () => {
    const frames: Buffer[] = [];
    let mayAllocate = false;
    const reader = new FrameReader({
      frameBytesMax: () => 1 << 20,
      allocate: (bytes) => (mayAllocate ? Buffer.alloc(bytes) : undefined),
      onFrame: (frame) => frames.push(frame),
    });
    const bytes = Buffer.concat([request(1, 10), request(2, 20)]);
    reader.receiveBuffer().set(bytes);
    reader.onReceived(bytes.length);
    expect(reader.waitsForMemory).toBe(true);
    expect(frames).toEqual([]);
    mayAllocate = true;
    reader.retry();
    expect(reader.waitsForMemory).toBe(false);
    expect(frames.length).toBe(2);
  });

  it("takes bytes that land in a buffer which was asked for while it could not go on", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 150_000 }), { minLength: 1, maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 8 }),
        fc.array(fc.constantFrom("go on", "no memory", "pause"), { minLength: 1, maxLength: 12 }),
        (payloads, chunks, hindrances) => {
          const sent = payloads.map((bytes, index) => request(index + 1, bytes));
          const bytes = Buffer.concat(sent);
          const received: Buffer[] = [];
          let turn = 0;
          let wasRefused = false;
          const hindrance = (): string => hindrances[turn++ % hindrances.length] as string;
          const reader = new FrameReader({
            frameBytesMax: () => 1 << 20,
            allocate: (size) => {
              // Not twice in a row, or else nothing would ever come.
              wasRefused = !wasRefused && hindrance() === "no memory";
              return wasRefused ? undefined : Buffer.alloc(size);
            },
            onFrame: (frame) => {
              received.push(frame);
              if (hindrance() === "pause") reader.pause();
            },
          });
          // As a socket does it: the next buffer is asked for at once, and kept until there are bytes.
          let target = reader.receiveBuffer();
          for (let at = 0, chunk = 0; at < bytes.length; chunk += 1) {
            expect(target.length).toBeGreaterThan(0);
            const count = Math.min(chunks[chunk % chunks.length] ?? 1, target.length, bytes.length - at);
            target.set(bytes.subarray(at, at + count));
            at += count;
            reader.onReceived(count);
            target = reader.receiveBuffer();
            for (let step = 0; step < 100; step += 1) {
              reader.retry();
              reader.resume();
            }
          }
          expect(received.map((frame) => frame.equals((sent[received.indexOf(frame)] as Buffer).subarray(4)))).toEqual(
            sent.map(() => true),
          );
        },
      ),
      { numRuns: 50 },
    );
  });

  it("takes bytes while it waits for memory, also when what it has received is full of them", () => {
    const frame = request(1, 200_000);
    const frames: Buffer[] = [];
    let hasMemory = false;
    const reader = new FrameReader({
      frameBytesMax: () => 1 << 20,
      allocate: (size) => (hasMemory ? Buffer.alloc(size) : undefined),
      onFrame: (received) => frames.push(received),
    });
    for (let at = 0; at < frame.length;) {
      // A socket that was not paused in time.
      if (at > 100_000 && !hasMemory) {
        hasMemory = true;
        reader.retry();
      }
      const target = reader.receiveBuffer();
      expect(target.length).toBeGreaterThan(0);
      const size = Math.min(target.length, frame.length - at);
      target.set(frame.subarray(at, at + size));
      reader.onReceived(size);
      at += size;
    }
    expect(frames.map((received) => received.equals(frame.subarray(4)))).toEqual([true]);
  });

  it("asks for no memory when it goes on after a pause while it waits for some: others may be before it", () => {
    let asked = 0;
    const frames: Buffer[] = [];
    const reader = new FrameReader({
      frameBytesMax: () => 1 << 20,
      allocate: (size) => {
        asked += 1;
        return asked === 1 ? undefined : Buffer.alloc(size);
      },
      onFrame: (frame) => frames.push(frame),
    });
    const bytes = request(1, 10);
    reader.receiveBuffer().set(bytes);
    reader.onReceived(bytes.length);
    reader.pause();
    reader.resume();
    expect([asked, reader.waitsForMemory, frames.length]).toEqual([1, true, 0]);
    reader.retry();
    expect([asked, reader.waitsForMemory, frames.length]).toEqual([2, false, 1]);
  });

  it("says what it leaves unfinished when it is stopped, and takes nothing more", () => {
    const reader = new FrameReader({
      frameBytesMax: () => 1 << 20,
      allocate: (size) => Buffer.alloc(size),
      onFrame: () => undefined,
    });
    const bytes = request(1, 100_000);
    const target = reader.receiveBuffer();
    target.set(bytes.subarray(0, 1000));
    reader.onReceived(1000);
    expect(reader.stop()).toBe(bytes.length - 4);
    expect(reader.stop()).toBe(0);
    for (let step = 0; step < 100; step += 1) {
      const { length } = reader.receiveBuffer();
      expect(length).toBeGreaterThan(0);
      reader.onReceived(length);
    }
    expect(reader.isInsideFrame).toBe(false);
  });

  it("delivers nothing after it was stopped within a frame's delivery", () => {
    let count = 0;
    const reader: FrameReader = new FrameReader({
      frameBytesMax: () => 1 << 20,
      allocate: (bytes) => Buffer.alloc(bytes),
      onFrame: () => {
        count += 1;
        reader.stop();
      },
    });
    const bytes = Buffer.concat([request(1, 10), request(2, 20)]);
    reader.receiveBuffer().set(bytes);
    reader.onReceived(bytes.length);
    expect(count).toBe(1);
  });
});
