import { SegmentCache } from "../../../../broker/log/segment/cache.js";
import { OffsetIndex } from "../../../../broker/log/segment/offset-index.js";
import { SegmentFiles } from "../../../../broker/log/segment/segment-files.js";
import { Segment } from "../../../../broker/log/segment/segment.js";
import { TimeIndex } from "../../../../broker/log/segment/time-index.js";
import { batch, DIRECTORY, LogWorld, offset } from "./log-fixtures.js";

describe("SegmentCache", () => {
  it("closes no file between its opening and its use, though others are opened in that moment", async () => {
    const world = await LogWorld.open();
    const { files } = world.process.env;
    const cache = new SegmentCache(1);
    const opened = new Map<Segment, (found: { files: SegmentFiles; damage: readonly never[] }) => void>();
    const reads: Promise<number>[] = [];
    const found: (() => void)[] = [];
    for (const base of [0, 1, 2]) {
      const segment = Segment.create(files, DIRECTORY, offset(base));
      segment.openFiles.file.writeSync([batch()], 0);
      const file = files.openSync(segment.path("log"), "create");
      segment.files = undefined;
      const open = () =>
        new Promise<{ files: SegmentFiles; damage: readonly never[] }>((resolve) => opened.set(segment, resolve));
      const read = (used: SegmentFiles) => used.file.read(Buffer.alloc(8), 0);
      reads.push(cache.use(segment, open, () => undefined, read));
      found.push(() =>
        opened.get(segment)?.({ files: new SegmentFiles(file, new OffsetIndex(), new TimeIndex()), damage: [] }),
      );
    }
    for (const tell of found) tell();
    expect(await world.complete(Promise.all(reads))).toEqual([8, 8, 8]);
  });
});
