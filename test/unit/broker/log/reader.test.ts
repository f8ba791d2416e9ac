import { Writability } from "../../../../broker/log/content/writability.js";
import { LogReader } from "../../../../broker/log/operations/reader.js";
import { BytePool } from "../../../../common/byte-pool.js";
import { StorageFailure } from "../../../../common/env/files.js";
import { offset } from "./log-fixtures.js";

const gone = (): StorageFailure => new StorageFailure("not-found", "/data/t-0/00000000000000000000.log", "open");

/** A reader of a log whose segments `all` cannot be opened; `onOpening` is called at each try. */
function readerOf(
  all: { readonly baseOffset: number; readonly endOffset: number }[],
  onOpening: () => void,
): LogReader {
  const content = {
    name: "t-0",
    cuts: 0,
    offsets: { logStart: offset(0), logEnd: offset(20) },
    segments: {
      all,
      use: () => {
        onOpening();
        return Promise.reject(gone());
      },
    },
  };
  const writability = new Writability("t-0", () => undefined, undefined);
  const parts = [new BytePool(0), content, writability, undefined] as unknown as ConstructorParameters<
    typeof LogReader
  >;
  return new LogReader(...parts);
}

describe("a search by time", () => {
  it("begins again when a segment was removed before it could be opened", async () => {
    const segments = [{ baseOffset: 0, endOffset: 10 }];
    let openings = 0;
    const reader = readerOf(segments, () => {
      openings += 1;
      segments.shift();
    });
    expect(await reader.offsetForTimestamp(0, offset(20))).toBeUndefined();
    expect(openings).toBe(1);
  });

  it("is refused with the reason when a segment that is there cannot be opened", async () => {
    const reader = readerOf([{ baseOffset: 0, endOffset: 10 }], () => undefined);
    await expect(reader.offsetForTimestamp(0, offset(20))).rejects.toMatchObject({
      errorName: "STORAGE_ERROR",
      message: expect.stringContaining("not-found"),
    });
  });
});
