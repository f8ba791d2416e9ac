import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StorageFailure } from "../../common/env/files.js";
import type { FileSystem } from "../../common/env/files.js";
import { nodeFileSystem } from "../../common/env/node-files.js";
import { Simulation } from "../simulation/sim-env.js";
import type { SimProcess } from "../simulation/sim-process.js";

/** A disk with an empty directory, and the way to let time pass for it. */
interface World {
  readonly files: FileSystem;
  readonly directory: string;
  complete<T>(work: Promise<T>): Promise<T>;
  cleanUp(): void;
}

function realWorld(): World {
  const directory = mkdtempSync(join(tmpdir(), "ottla-files-"));
  return {
    files: nodeFileSystem,
    directory,
    complete: (work) => work,
    cleanUp: () => rmSync(directory, { recursive: true, force: true }),
  };
}

function simulatedWorld(): World {
  const simulation = new Simulation({ seed: 1 });
  const { files } = simulation.startProcess("alpha").env;
  files.makeDirectorySync("/data");
  return { files, directory: "/data", complete: (work) => simulation.complete(work), cleanUp: () => undefined };
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));
const text = (content: Uint8Array): string => Buffer.from(content).toString("latin1");

function pattern(count: number, salt = 0): Uint8Array {
  const made = new Uint8Array(count);
  for (let index = 0; index < count; index += 1) made[index] = (index * 31 + (index >> 8) * 17 + salt) & 255;
  return made;
}

describe.each<[string, () => World]>([
  ["real", realWorld],
  ["simulated", simulatedWorld],
])("the file system (%s)", (_name, makeWorld) => {
  let world: World;
  let files: FileSystem;
  let path: (name: string) => string;

  beforeEach(() => {
    world = makeWorld();
    ({ files } = world);
    path = (name) => `${world.directory}/${name}`;
  });

  afterEach(() => world.cleanUp());

  const complete = <T>(work: Promise<T>): Promise<T> => world.complete(work);

  /** What `work` fails with. */
  async function failureOf(work: Promise<unknown> | (() => unknown)): Promise<unknown> {
    try {
      if (typeof work === "function") work();
      else await complete(work);
    } catch (error) {
      return error;
    }
    return undefined;
  }

  async function contentOf(name: string): Promise<string> {
    return text(await complete(files.readFile(path(name))));
  }

  it("makes a missing file with create, and refuses to open it otherwise", async () => {
    const failure = await failureOf(files.open(path("file"), "read"));
    expect(failure).toBeInstanceOf(StorageFailure);
    expect(failure).toMatchObject({ reason: "not-found", path: path("file") });
    expect(await failureOf(files.open(path("file"), "write"))).toMatchObject({ reason: "not-found" });
    expect(await failureOf(() => files.openSync(path("file"), "write"))).toMatchObject({ reason: "not-found" });
    const file = await complete(files.open(path("file"), "create"));
    expect(file.path).toBe(path("file"));
    expect(file.size()).toBe(0);
    await complete(file.close());
    expect(await failureOf(files.open(path("missing/file"), "create"))).toMatchObject({ reason: "not-found" });
  });

  it("does not cut an existing file that is opened with create", async () => {
    await complete(files.writeFile(path("file"), "content"));
    const file = files.openSync(path("file"), "create");
    expect(file.size()).toBe(7);
    await complete(file.close());
    expect(await contentOf("file")).toBe("content");
  });

  it("refuses to write to a file that was opened to read", async () => {
    await complete(files.writeFile(path("file"), "content"));
    const file = await complete(files.open(path("file"), "read"));
    expect(await failureOf(() => file.writeSync([bytes("x")], 0))).toBeInstanceOf(StorageFailure);
    expect(await failureOf(file.write([bytes("x")], 0))).toBeInstanceOf(StorageFailure);
    expect(await failureOf(file.truncate(0))).toBeInstanceOf(StorageFailure);
    await complete(file.close());
    expect(await contentOf("file")).toBe("content");
  });

  it.each(["writeSync", "write"] as const)(
    "%s gathers pieces at a position, more than the system takes in one call",
    async (method) => {
      const file = await complete(files.open(path("file"), "create"));
      const pieces = Array.from({ length: 3000 }, (_, index) => pattern(index % 50, index));
      const whole = Buffer.concat(pieces);
      await complete(Promise.resolve(file[method](pieces, 10)));
      await complete(Promise.resolve(file[method]([bytes("0123456789")], 0)));
      await complete(Promise.resolve(file[method]([], 5)));
      await complete(Promise.resolve(file[method]([new Uint8Array(0)], 5)));
      expect(file.size()).toBe(10 + whole.length);
      const content = Buffer.from(await complete(files.readFile(path("file"))));
      expect(content.subarray(0, 10).toString()).toBe("0123456789");
      expect(content.subarray(10).equals(whole)).toBe(true);
      await complete(file.close());
    },
  );

  it.each(["readSync", "read"] as const)("%s fills what the file has and says how much", async (method) => {
    const file = await complete(files.open(path("file"), "create"));
    file.writeSync([bytes("abcdef")], 0);
    const target = bytes("........");
    expect(await complete(Promise.resolve(file[method](target, 2)))).toBe(4);
    expect(text(target)).toBe("cdef....");
    expect(await complete(Promise.resolve(file[method](target.subarray(0, 2), 1)))).toBe(2);
    expect(text(target)).toBe("bcef....");
    expect(await complete(Promise.resolve(file[method](target, 6)))).toBe(0);
    expect(await complete(Promise.resolve(file[method](target, 100)))).toBe(0);
    await complete(file.close());
  });

  it("reads zeros from a hole", async () => {
    const file = await complete(files.open(path("file"), "create"));
    file.writeSync([bytes("end")], 5);
    expect(await contentOf("file")).toBe("\0\0\0\0\0end");
    await complete(file.close());
  });

  it.each(["truncateSync", "truncate"] as const)("%s cuts, and lengthens with zeros", async (method) => {
    const file = await complete(files.open(path("file"), "create"));
    file.writeSync([bytes("abcdef")], 0);
    await complete(Promise.resolve(file[method](2)));
    expect(file.size()).toBe(2);
    await complete(Promise.resolve(file[method](4)));
    expect(await contentOf("file")).toBe("ab\0\0");
    await complete(file.close());
  });

  it("shows every open file what another wrote", async () => {
    const writer = await complete(files.open(path("file"), "create"));
    const reader = await complete(files.open(path("file"), "read"));
    writer.writeSync([bytes("news")], 0);
    const target = new Uint8Array(4);
    expect(reader.size()).toBe(4);
    expect(reader.readSync(target, 0)).toBe(4);
    expect(text(target)).toBe("news");
    await complete(Promise.all([writer.close(), reader.close()]));
  });

  it("syncs files and directories", async () => {
    const file = await complete(files.open(path("file"), "create"));
    await complete(file.write([bytes("kept")], 0));
    await complete(file.sync());
    await complete(files.syncDirectory(world.directory));
    await complete(file.close());
    expect(await failureOf(files.syncDirectory(path("missing")))).toMatchObject({ reason: "not-found" });
  });

  it("finishes what is in flight before it closes, closes once, and then refuses", async () => {
    const file = await complete(files.open(path("file"), "create"));
    const writes = Array.from({ length: 8 }, (_, index) => file.write([pattern(100_000, index)], index * 100_000));
    await complete(Promise.all([file.close(), file.close(), ...writes]));
    expect((await contentOf("file")).length).toBe(800_000);
    expect(await failureOf(() => file.size())).toMatchObject({ name: "StorageFailure", reason: "io" });
    expect(await failureOf(() => file.writeSync([bytes("x")], 0))).toMatchObject({ name: "StorageFailure" });
    expect(await failureOf(file.read(new Uint8Array(1), 0))).toMatchObject({ name: "StorageFailure" });
    expect(await failureOf(file.sync())).toMatchObject({ name: "StorageFailure" });
  });

  it("lists names, sorted", async () => {
    for (const name of ["b", "c", "a"]) await complete(files.writeFile(path(name), name));
    await complete(files.makeDirectory(path("directory")));
    expect(await complete(files.list(world.directory))).toEqual(["a", "b", "c", "directory"]);
    expect(await failureOf(files.list(path("missing")))).toMatchObject({ reason: "not-found" });
  });

  it("makes directories with their parents, again and again", async () => {
    await complete(files.makeDirectory(path("one/two/three")));
    await complete(files.makeDirectory(path("one/two/three")));
    files.makeDirectorySync(path("one/other"));
    files.makeDirectorySync(path("one/other"));
    expect(await complete(files.list(path("one")))).toEqual(["other", "two"]);
  });

  it("renames a file over another, and a directory with what is in it", async () => {
    await complete(files.writeFile(path("new"), "new"));
    await complete(files.writeFile(path("old"), "old"));
    await complete(files.rename(path("new"), path("old")));
    expect(await complete(files.list(world.directory))).toEqual(["old"]);
    expect(await contentOf("old")).toBe("new");
    await complete(files.makeDirectory(path("from")));
    await complete(files.writeFile(path("from/file"), "inside"));
    await complete(files.rename(path("from"), path("to")));
    expect(await contentOf("to/file")).toBe("inside");
    expect(await failureOf(files.rename(path("missing"), path("to")))).toMatchObject({ reason: "not-found" });
    await complete(files.makeDirectory(path("empty")));
    expect(await failureOf(files.rename(path("empty"), path("to")))).toMatchObject({ reason: "exists" });
  });

  it("keeps an open file readable when its name is taken away", async () => {
    await complete(files.writeFile(path("file"), "content"));
    const file = await complete(files.open(path("file"), "read"));
    await complete(files.remove(path("file")));
    const target = new Uint8Array(7);
    expect(file.readSync(target, 0)).toBe(7);
    expect(text(target)).toBe("content");
    await complete(file.close());
  });

  it("removes files and trees, also those that do not exist", async () => {
    await complete(files.writeFile(path("file"), "content"));
    await complete(files.makeDirectory(path("tree/branch")));
    await complete(files.writeFile(path("tree/branch/leaf"), "leaf"));
    expect(await failureOf(files.remove(path("tree")))).toBeInstanceOf(StorageFailure);
    await complete(files.remove(path("file")));
    await complete(files.remove(path("file")));
    await complete(files.removeTree(path("tree")));
    await complete(files.removeTree(path("tree")));
    expect(await complete(files.list(world.directory))).toEqual([]);
  });

  it("knows what exists", async () => {
    await complete(files.writeFile(path("file"), ""));
    expect(await complete(files.exists(path("file")))).toBe(true);
    expect(await complete(files.exists(world.directory))).toBe(true);
    expect(await complete(files.exists(path("missing")))).toBe(false);
    expect(await complete(files.exists(path("file/below")))).toBe(false);
  });

  it("writes a whole file in place of what it held", async () => {
    await complete(files.writeFile(path("file"), "a long content"));
    await complete(files.writeFile(path("file"), "short é"));
    expect(Buffer.from(await complete(files.readFile(path("file")))).toString("utf8")).toBe("short é");
    await complete(files.writeFile(path("file"), pattern(3)));
    expect(await complete(files.readFile(path("file")))).toHaveLength(3);
    expect(await failureOf(files.readFile(path("missing")))).toMatchObject({ reason: "not-found" });
  });

  it("says how much may still be written", async () => {
    expect(await complete(files.freeBytes(world.directory))).toBeGreaterThan(0);
    expect(await failureOf(files.freeBytes(path("missing")))).toMatchObject({ reason: "not-found" });
  });

  it("gives a lock to one at a time", async () => {
    const lock = await complete(files.lock(path("lock")));
    expect(lock).toBeDefined();
    expect(await complete(files.exists(path("lock")))).toBe(true);
    expect(await complete(files.lock(path("lock")))).toBeUndefined();
    await complete(lock!.release());
    await complete(lock!.release());
    const locks = await complete(Promise.all([1, 2, 3, 4, 5].map(() => files.lock(path("lock")))));
    const [held, ...others] = locks.filter((each) => each !== undefined);
    expect(others).toEqual([]);
    await complete(held!.release());
    expect(await complete(files.list(world.directory))).toEqual([]);
  });
});

describe("the real file system", () => {
  let world: World;

  beforeEach(() => {
    world = realWorld();
  });

  afterEach(() => world.cleanUp());

  it("keeps a file that only its owner may read from others, also when it was there before", async () => {
    const path = `${world.directory}/secret`;
    await nodeFileSystem.writeFile(path, "open");
    await nodeFileSystem.writeFile(path, "closed", { ownerOnly: true });
    await nodeFileSystem.writeFile(`${path}2`, "closed", { ownerOnly: true });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(`${path}2`).mode & 0o777).toBe(0o600);
  });

  it.each([
    ["of a process that is gone", "4194305 17 00000000-0000-4000-8000-000000000000\n"],
    ["of an earlier process with the id of a living one", `${process.pid} 1 00000000-0000-4000-8000-000000000000\n`],
    ["that a power cut damaged", ""],
  ])("replaces a lock %s, for one of many who want it", async (_which, content) => {
    const path = `${world.directory}/lock`;
    writeFileSync(path, content);
    const locks = await Promise.all(Array.from({ length: 8 }, () => nodeFileSystem.lock(path)));
    const held = locks.filter((lock) => lock !== undefined);
    expect(held).toHaveLength(1);
    expect(readFileSync(path, "latin1")).toMatch(new RegExp(`^${process.pid} `));
    await held[0]!.release();
    expect(await nodeFileSystem.list(world.directory)).toEqual([]);
  });

  it("tells a directory that may not be read or a name that is a directory from a missing one", async () => {
    await expect(nodeFileSystem.readFile(world.directory)).rejects.toMatchObject({ reason: "io" });
    await expect(nodeFileSystem.open(`${world.directory}`, "write")).rejects.toMatchObject({ reason: "io" });
  });
});

describe("faults of the simulated file system", () => {
  let simulation: Simulation;
  let process: SimProcess;

  const begin = (seed: number): void => {
    simulation = new Simulation({ seed });
    process = simulation.startProcess("alpha");
  };

  const complete = <T>(work: Promise<T>): Promise<T> => simulation.complete(work);

  const disk = (): ReturnType<Simulation["host"]>["disk"] => simulation.host("alpha").disk;

  /** What a file holds, or that it is not there. */
  const contentOf = (path: string): string | undefined => {
    const content = disk().contentOf(path);
    return content && text(content);
  };

  /** Runs `story` under many seeds and gives what each left in `path` after a power cut. */
  async function afterPowerCuts(
    path: string,
    story: (files: FileSystem) => Promise<void>,
  ): Promise<Map<string | undefined, number>> {
    const outcomes = new Map<string | undefined, number>();
    for (let seed = 1; seed <= 150; seed += 1) {
      begin(seed);
      await complete(story(process.env.files));
      simulation.host("alpha").powerCut();
      const outcome = contentOf(path);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    return outcomes;
  }

  /** A file whose name is durable. */
  async function durableFile(files: FileSystem, path = "/file"): Promise<Awaited<ReturnType<FileSystem["open"]>>> {
    const file = await files.open(path, "create");
    await files.syncDirectory("/");
    return file;
  }

  beforeEach(() => begin(1));

  it("keeps synced bytes through every power cut, and any or no part of the others", async () => {
    const outcomes = await afterPowerCuts("/file", async (files) => {
      const file = await durableFile(files);
      await file.write([bytes("synced")], 0);
      await file.sync();
      await file.write([bytes("B".repeat(1000))], 6);
      await file.write([bytes("C".repeat(10))], 1006);
    });
    for (const outcome of outcomes.keys()) expect(outcome?.slice(0, 6)).toBe("synced");
    const tails = [...outcomes.keys()].map((outcome) => outcome!.slice(6));
    expect(tails).toContain("");
    expect(tails).toContain(`${"B".repeat(1000)}${"C".repeat(10)}`);
    expect(tails).toContain("B".repeat(1000));
    // The first sectors of a write end at a sector of the file.
    expect(tails).toContain("B".repeat(506));
    // The later write alone, behind a hole; and the length without the bytes.
    expect(tails).toContain(`${"\0".repeat(1000)}${"C".repeat(10)}`);
    expect(tails).toContain("\0".repeat(1000));
  });

  it("keeps a cut only if it was synced", async () => {
    const story =
      (synced: boolean) =>
      async (files: FileSystem): Promise<void> => {
        const file = await durableFile(files);
        file.writeSync([bytes("abcdef")], 0);
        await file.sync();
        file.truncateSync(2);
        if (synced) await file.sync();
      };
    expect([...(await afterPowerCuts("/file", story(true))).keys()]).toEqual(["ab"]);
    expect([...(await afterPowerCuts("/file", story(false))).keys()].sort()).toEqual(["ab", "abcdef"]);
  });

  it("keeps a new name only if its directory was synced", async () => {
    const story =
      (synced: boolean) =>
      async (files: FileSystem): Promise<void> => {
        const file = await files.open("/file", "create");
        file.writeSync([bytes("x")], 0);
        await file.sync();
        if (synced) await files.syncDirectory("/");
      };
    expect([...(await afterPowerCuts("/file", story(true))).keys()]).toEqual(["x"]);
    expect(new Set((await afterPowerCuts("/file", story(false))).keys())).toEqual(new Set(["x", undefined]));
  });

  it("replaces a file by rename wholly or not at all", async () => {
    const story =
      (synced: boolean) =>
      async (files: FileSystem): Promise<void> => {
        const file = await durableFile(files);
        file.writeSync([bytes("old")], 0);
        await file.sync();
        const next = await files.open("/file.tmp", "create");
        next.writeSync([bytes("new")], 0);
        await next.sync();
        await files.rename("/file.tmp", "/file");
        if (synced) await files.syncDirectory("/");
      };
    expect([...(await afterPowerCuts("/file", story(true))).keys()]).toEqual(["new"]);
    expect([...(await afterPowerCuts("/file", story(false))).keys()].sort()).toEqual(["new", "old"]);
  });

  it("forgets or keeps an unsynced removal, and never brings back a synced one", async () => {
    const story =
      (synced: boolean) =>
      async (files: FileSystem): Promise<void> => {
        await files.makeDirectory("/other");
        const file = await durableFile(files, "/other/file");
        file.writeSync([bytes("x")], 0);
        await file.sync();
        await files.syncDirectory("/other");
        await files.rename("/other/file", "/file");
        await files.syncDirectory("/");
        await files.remove("/file");
        if (synced) await files.syncDirectory("/");
      };
    expect([...(await afterPowerCuts("/file", story(true))).keys()]).toEqual([undefined]);
    expect(new Set((await afterPowerCuts("/file", story(false))).keys())).toEqual(new Set(["x", undefined]));
    expect(contentOf("/other/file")).toBeUndefined();
  });

  it("does not bring a name back that a durable rename took away", async () => {
    // The rename is durable by the sync of its target's directory, while the making of the old name is still uncertain.
    const outcomes = await afterPowerCuts("/other/file", async (files) => {
      await files.makeDirectory("/other");
      await files.syncDirectory("/");
      await files.writeFile("/other/file", "x");
      await files.rename("/other/file", "/file");
      await files.syncDirectory("/");
    });
    expect([...outcomes.keys()]).toEqual([undefined]);
  });

  it("does not let a directory's sync settle a later change of another directory", async () => {
    // A rename from /a to /b, then the removal of the new name; syncing /a settles the rename and says nothing of the
    // removal, which a later sync of /b must still be able to settle.
    const outcomes = await afterPowerCuts("/b/file", async (files) => {
      await files.makeDirectory("/a");
      await files.makeDirectory("/b");
      await files.syncDirectory("/");
      await files.writeFile("/a/file", "x");
      await files.rename("/a/file", "/b/file");
      await files.remove("/b/file");
      await files.syncDirectory("/a");
      await files.syncDirectory("/b");
    });
    expect([...outcomes.keys()]).toEqual([undefined]);
  });

  it("keeps everything written through the crash of a process, and gives it a new boot id only after a power cut", async () => {
    const { files, bootId } = process.env;
    files.openSync("/file", "create").writeSync([bytes("page cache")], 0);
    process.crash();
    expect(contentOf("/file")).toBe("page cache");
    const next = simulation.startProcess("alpha");
    expect(next.env.bootId).toBe(bootId);
    expect(next.env.process.isAlive(process.pid)).toBe(false);
    expect(next.env.process.isAlive(next.pid)).toBe(true);
    simulation.host("alpha").powerCut();
    simulation.host("alpha").powerOn();
    expect(simulation.startProcess("alpha").env.bootId).not.toBe(bootId);
  });

  it("leaves nothing, all or a part of a write that was in flight when its process crashed", async () => {
    const lengths = new Set<number>();
    for (let seed = 1; seed <= 40; seed += 1) {
      begin(seed);
      const file = process.env.files.openSync("/file", "create");
      let settled = false;
      void file.write([bytes("x".repeat(100))], 0).then(() => (settled = true));
      process.crash();
      await simulation.run(100);
      expect(settled).toBe(false);
      lengths.add(contentOf("/file")!.length);
    }
    expect(lengths).toContain(0);
    expect([...lengths].some((length) => length > 0 && length < 100)).toBe(true);
  });

  it("gives a dead process's lock to the next", async () => {
    const lock = await complete(process.env.files.lock("/lock"));
    const next = simulation.startProcess("alpha");
    expect(await complete(next.env.files.lock("/lock"))).toBeUndefined();
    process.crash();
    expect(await complete(next.env.files.lock("/lock"))).toBeDefined();
    void lock!.release();
    expect(await complete(next.env.files.lock("/lock"))).toBeUndefined();
  });

  it("takes nothing from a dead process", async () => {
    const { files } = process.env;
    const file = files.openSync("/file", "create");
    process.crash();
    file.writeSync([bytes("ghost")], 0);
    void file.write([bytes("ghost")], 0);
    void files.writeFile("/other", "ghost");
    await simulation.run(100);
    expect(contentOf("/file")).toBe("");
    expect(disk().paths()).toEqual(["/file"]);
  });

  it("refuses writes when full, after writing what fits, and goes on when there is space", async () => {
    disk().setCapacity(100);
    const { files } = process.env;
    const file = files.openSync("/file", "create");
    file.writeSync([new Uint8Array(80)], 0);
    expect(await complete(files.freeBytes("/"))).toBe(20);
    expect(() => file.writeSync([new Uint8Array(30)], 80)).toThrow(
      expect.objectContaining({ name: "StorageFailure", reason: "full" }),
    );
    expect(file.size()).toBe(100);
    // Overwriting needs no space.
    file.writeSync([new Uint8Array(10)], 0);
    await complete(files.writeFile("/empty", ""));
    await complete(file.close());
    await complete(files.remove("/file"));
    expect(await complete(files.freeBytes("/"))).toBe(100);
  });

  it("gives the space of a removed file back when its last user is gone", async () => {
    disk().setCapacity(100);
    const file = process.env.files.openSync("/file", "create");
    file.writeSync([new Uint8Array(80)], 0);
    await complete(process.env.files.remove("/file"));
    expect(disk().freeBytes).toBe(20);
    process.crash();
    expect(disk().freeBytes).toBe(100);
  });

  it("fails chosen writes as often as it was told", async () => {
    disk().fail("write", (path) => path.endsWith(".log"), { times: 1 });
    const log = process.env.files.openSync("/a.log", "create");
    const other = process.env.files.openSync("/a.index", "create");
    other.writeSync([bytes("fine")], 0);
    await expect(complete(log.write([bytes("lost")], 0))).rejects.toMatchObject({ reason: "io" });
    await complete(log.write([bytes("fine")], 0));
    expect([contentOf("/a.log"), contentOf("/a.index")]).toEqual(["fine", "fine"]);
  });

  it("takes pages for clean after a failed sync, so that a second sync succeeds and saves nothing", async () => {
    const file = await complete(durableFile(process.env.files));
    file.writeSync([bytes("lost")], 0);
    const heal = disk().fail("sync", () => true);
    await expect(complete(file.sync())).rejects.toMatchObject({ reason: "io" });
    heal();
    await complete(file.sync());
    expect(contentOf("/file")).toBe("lost");
    simulation.host("alpha").powerCut();
    expect(contentOf("/file")).toBe("");
  });

  it("turns a bit over for good", async () => {
    const file = await complete(durableFile(process.env.files));
    file.writeSync([bytes("abc")], 0);
    await complete(file.sync());
    disk().flipBit("/file", 1, 0);
    expect(contentOf("/file")).toBe("acc");
    simulation.host("alpha").powerCut();
    expect(contentOf("/file")).toBe("acc");
  });

  it("lets as many operations run as there are threads, and the others wait", async () => {
    disk().syncDelayMeanMs = 50;
    disk().random.delayMs = (meanMs): number => meanMs;
    const file = process.env.files.openSync("/file", "create");
    const syncs = [1, 2, 3, 4].map(() => file.sync());
    const read = file.read(new Uint8Array(1), 0);
    await complete(read);
    expect(simulation.scheduler.nowMs).toBeGreaterThanOrEqual(50);
    await complete(Promise.all(syncs));
  });

  it("blocks its process for as long as a synchronous write takes", () => {
    disk().syncWriteStallMs = 7;
    const before = process.env.clock.monotonicMs();
    process.env.files.openSync("/file", "create").writeSync([bytes("x")], 0);
    expect(process.env.clock.monotonicMs() - before).toBe(7);
  });
});
