import { FramePool } from "../../../client/frame-pool.js";

describe("FramePool", () => {
  const BYTES = 64 * 1024;

  it("uses a frame again when the last of its users has released it, and not before", () => {
    const pool = new FramePool(1 << 20);
    const bytes = pool.allocate(BYTES);
    const frame = pool.frameOf(bytes.subarray(10, 20));
    frame?.retain();
    frame?.retain();
    frame?.release();
    frame?.release();
    expect(pool.allocate(BYTES).buffer).not.toBe(bytes.buffer);
    frame?.release();
    expect(pool.allocate(BYTES).buffer).toBe(bytes.buffer);
  });
});
