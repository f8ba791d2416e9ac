import { ProtocolError } from "../../../client/errors.js";
import { FetchBuffer } from "../../../client/fetch-buffer.js";
import type { FetchedChunk } from "../../../client/partition-reader.js";

describe("FetchBuffer", () => {
  it("tells an error behind what came before it, and before what comes later", () => {
    const buffer = new FetchBuffer();
    const [before, after] = [{ next: 0 }, { next: 1 }] as unknown as [FetchedChunk, FetchedChunk];
    const error = new ProtocolError("CORRUPT_LOG", undefined, { topic: "t", partition: 0 });
    buffer.push([before]);
    buffer.fail(error);
    buffer.push([after]);
    expect(buffer.take()).toBe(before);
    expect(() => buffer.take()).toThrow(error);
  });
});
