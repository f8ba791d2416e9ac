import { StorageFailure } from "../../common/env/files.js";
import type { File, FileLock, FileSystem, StorageFailureReason } from "../../common/env/files.js";
import type { Scheduler } from "./scheduler.js";
import type { SimProcess } from "./sim-process.js";
import type { SimRandom } from "./sim-random.js";

/**
 * One host's disk. It outlives the host's processes and promises what files.ts says and no more: each file and each
 * directory has what the page cache shows and what a power cut leaves, and between the two a list of changes that only
 * `sync` and `syncDirectory` make certain. `powerCut` draws for every uncertain change on its own whether it happened.
 */
export class SimDisk {
  /** How long an asynchronous write or directory operation takes, on the average. */
  delayMeanMs = 0.1;
  /** The same of an asynchronous read; undefined: like any other operation. */
  readDelayMeanMs: number | undefined;
  /** How long a sync takes, on the average. */
  syncDelayMeanMs = 1;
  /** For how long a synchronous write blocks the event loop of its process. */
  syncWriteStallMs = 0;
  /** Operations of one process that run at once; the others wait for a thread, first come, first served. */
  poolThreads = 4;
  #capacityBytes = Number.POSITIVE_INFINITY;
  #usedBytes = 0;
  readonly random: SimRandom;
  /** Grows whenever the disk may have less than it had: what it had before proves nothing then. */
  generation = 0;
  /** A bit was turned over, at some time: whoever finds that out has lost something. */
  hasRotted = false;
  readonly #faults = new Set<Fault>();
  readonly #root = new Directory();
  /** Changes of names that no `syncDirectory` has made durable, oldest first. */
  #uncertainNames: NameChange[] = [];
  #nameChanges = 0;
  readonly #locks = new Map<string, SimProcess>();
  /** Reads that the device has not answered yet, by path. */
  readonly #reads = new Map<string, number>();

  constructor(
    private readonly scheduler: Scheduler,
    readonly hostName: string,
  ) {
    this.random = scheduler.random.stream(`disk/${hostName}`);
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get freeBytes(): number {
    return Math.max(0, this.#capacityBytes - this.#usedBytes);
  }

  /** Less than is used is allowed: then nothing more can be written. */
  setCapacity(bytes: number): void {
    this.#capacityBytes = bytes;
  }

  /**
   * Makes an operation fail on the paths that `matches` names, `times` times. A failed write may have written a part. A
   * failed sync takes the unsynced pages for clean, as Linux does: they are still read, never reach the disk, and the
   * next sync succeeds. Returns the end of the fault.
   */
  fail(
    operation: "create" | "read" | "write" | "sync",
    matches: (path: string) => boolean,
    options: { readonly reason?: StorageFailureReason; readonly times?: number } = {},
  ): () => void {
    const fault: Fault = {
      operation,
      matches,
      reason: options.reason ?? "io",
      left: options.times ?? Number.POSITIVE_INFINITY,
    };
    this.#faults.add(fault);
    return () => this.#faults.delete(fault);
  }

  /** Whether a read of a file below this directory is under way. */
  isReading(directory: string): boolean {
    for (const path of this.#reads.keys()) if (path.startsWith(`${directory}/`)) return true;
    return false;
  }

  /** A read begins (1) or has ended (-1). For SimFile. */
  countRead(path: string, change: 1 | -1): void {
    const count = (this.#reads.get(path) ?? 0) + change;
    if (count <= 0) this.#reads.delete(path);
    else this.#reads.set(path, count);
  }

  /** Rot: turns one bit of a file over, in the page cache and on the disk. */
  flipBit(path: string, position: number, bit = 0): void {
    this.scheduler.note(`${this.hostName} rot in ${path} at ${position}`);
    this.generation += 1;
    this.hasRotted = true;
    this.#file(path, "flip a bit of").flipBit(position, bit);
  }

  /** What a program would read now. For checks by the test. */
  contentOf(path: string): Uint8Array | undefined {
    const node = this.#find(path);
    return node instanceof FileNode ? node.content() : undefined;
  }

  /** The same without a copy: not to be kept nor changed. */
  viewOf(path: string): Uint8Array | undefined {
    const node = this.#find(path);
    return node instanceof FileNode ? node.view() : undefined;
  }

  /** What is there for certain after a power cut, by names that are there for certain. For checks by the test. */
  durableContentOf(path: string): Uint8Array | undefined {
    const view = this.durableViewOf(path);
    return view && new Uint8Array(view);
  }

  /** The same without a copy: not to be kept nor changed. */
  durableViewOf(path: string): Uint8Array | undefined {
    let node: Node | undefined = this.#root;
    for (const name of namesOf(path)) node = node instanceof Directory ? node.durableEntries.get(name) : undefined;
    return node instanceof FileNode ? node.durableView() : undefined;
  }

  /** Names in a directory, sorted; none where there is no such directory. For checks by the test. */
  namesIn(path: string): readonly string[] {
    const node = this.#find(path);
    return node instanceof Directory ? node.sortedNames : [];
  }

  /** Paths of all files, sorted. For checks by the test. */
  paths(): string[] {
    const found: string[] = [];
    const walk = (directory: Directory, path: string): void => {
      for (const [name, node] of directory.entries) {
        if (node instanceof Directory) walk(node, `${path}/${name}`);
        else found.push(`${path}/${name}`);
      }
    };
    walk(this.#root, "");
    return found.sort();
  }

  /** Forgets what was uncertain, or not: a draw for each change. To be called when all processes of the host are dead. */
  powerCut(): void {
    this.scheduler.note(`${this.hostName} disk loses power`);
    this.generation += 1;
    const survivors = this.#uncertainNames.filter(() => this.random.chance(0.5));
    this.#uncertainNames = [];
    const everyNode = new Set<Node>();
    collect(this.#root, everyNode);
    for (const change of survivors)
      for (const { node } of change.names) if (node !== undefined) collect(node, everyNode);
    for (const node of everyNode) if (node instanceof Directory) node.entries = new Map(node.durableEntries);
    for (const change of survivors) change.apply("both");
    for (const node of everyNode) if (node instanceof FileNode) node.powerCut(this.random);
    this.#locks.clear();
    this.#usedBytes = 0;
    const left = new Set<Node>();
    collect(this.#root, left);
    for (const node of left) {
      if (!(node instanceof FileNode)) continue;
      node.linked = true;
      this.#usedBytes += node.size;
    }
  }

  /** The kernel writes back all that the page cache holds, in its own time and without being asked. */
  writeBack(): void {
    for (const change of this.#uncertainNames) change.apply("durable");
    this.#uncertainNames = [];
    const everyNode = new Set<Node>();
    collect(this.#root, everyNode);
    for (const node of everyNode) if (node instanceof FileNode) node.sync(true);
  }

  /** A new disk takes the place of this one, empty. To be called when all processes of the host are dead. */
  replace(): void {
    this.scheduler.note(`${this.hostName} disk is replaced`);
    this.generation += 1;
    this.#uncertainNames = [];
    this.#root.entries = new Map();
    this.#root.durableEntries.clear();
    this.#locks.clear();
    this.#usedBytes = 0;
  }

  /** The disk as this process has it. */
  fileSystemOf(process: SimProcess): FileSystem {
    return new SimFileSystem(this, process);
  }

  // The rest is for SimFileSystem and SimFile: what the kernel does, in one instant.

  open(path: string, mode: "read" | "write" | "create"): FileNode {
    const found = this.#find(path);
    if (found instanceof FileNode) {
      found.openCount += 1;
      return found;
    }
    if (found !== undefined) throw new StorageFailure("io", path, "open");
    if (mode !== "create") throw new StorageFailure("not-found", path, "open");
    const failure = this.#drawFault("create", path);
    if (failure !== undefined) throw new StorageFailure(failure, path, "open");
    const made = new FileNode();
    made.openCount = 1;
    this.#change([{ ...this.#place(path, "open"), node: made }]);
    return made;
  }

  close(node: FileNode): void {
    node.openCount -= 1;
    this.#release(node);
  }

  list(path: string): string[] {
    return [...this.#directory(path, "list").sortedNames];
  }

  makeDirectory(path: string): void {
    let directory = this.#root;
    for (const name of namesOf(path)) {
      const found = directory.entries.get(name);
      if (found instanceof FileNode) throw new StorageFailure("exists", path, "make directory");
      const child = found ?? new Directory();
      if (found === undefined) this.#change([{ directory, name, node: child }]);
      directory = child;
    }
  }

  syncDirectory(path: string): void {
    const directory = this.#directory(path, "sync directory");
    const reason = this.#drawFault("sync", path);
    if (reason !== undefined) throw new StorageFailure(reason, path, "sync directory");
    const certain = this.#uncertainNames.filter((change) => change.concerns(directory));
    this.#uncertainNames = this.#uncertainNames.filter((change) => !change.concerns(directory));
    for (const change of certain) {
      change.apply("durable");
      // An older change of a name that this one settles must not come back.
      this.#uncertainNames = this.#uncertainNames.filter((other) => !other.isOvertakenBy(change));
    }
  }

  rename(from: string, to: string): void {
    const node = this.#find(from);
    if (node === undefined) throw new StorageFailure("not-found", from, "rename");
    const target = this.#find(to);
    if (target === node) return;
    if (target instanceof Directory && target.entries.size > 0) throw new StorageFailure("exists", to, "rename");
    if (target !== undefined && target instanceof Directory !== node instanceof Directory)
      throw new StorageFailure("io", to, "rename");
    this.#change([
      { ...this.#place(from, "rename"), node: undefined },
      { ...this.#place(to, "rename"), node },
    ]);
    if (target instanceof FileNode) this.#unlinked(target);
  }

  remove(path: string): void {
    const node = this.#find(path);
    if (node === undefined) return;
    if (node instanceof Directory) throw new StorageFailure("io", path, "remove");
    this.#change([{ ...this.#place(path, "remove"), node: undefined }]);
    this.#unlinked(node);
  }

  removeTree(path: string): void {
    const node = this.#find(path);
    if (node === undefined) return;
    this.#change([{ ...this.#place(path, "remove"), node: undefined }]);
    const removed = new Set<Node>();
    collect(node, removed, "cached");
    for (const each of removed) if (each instanceof FileNode) this.#unlinked(each);
  }

  exists(path: string): boolean {
    return this.#find(path) !== undefined;
  }

  /** Writes `bytes`, which are the disk's from now on, or a part of them and then throws. */
  write(node: FileNode, path: string, bytes: Uint8Array, position: number): void {
    const reason = this.#drawFault("write", path);
    const growth = Math.max(0, position + bytes.length - node.size);
    const possible = growth <= this.freeBytes ? bytes.length : Math.max(0, bytes.length - (growth - this.freeBytes));
    const count = reason === undefined ? possible : this.random.below(possible + 1);
    this.#resized(node, () => node.write(bytes.subarray(0, count), position));
    if (reason !== undefined) throw new StorageFailure(reason, path, "write");
    if (count < bytes.length) throw new StorageFailure("full", path, "write");
  }

  read(node: FileNode, path: string, target: Uint8Array, position: number): number {
    const reason = this.#drawFault("read", path);
    if (reason !== undefined) throw new StorageFailure(reason, path, "read");
    return node.read(target, position);
  }

  truncate(node: FileNode, path: string, length: number): void {
    const reason = this.#drawFault("write", path);
    if (reason !== undefined) throw new StorageFailure(reason, path, "truncate");
    this.#resized(node, () => node.truncate(length));
  }

  sync(node: FileNode, path: string): void {
    const reason = this.#drawFault("sync", path);
    node.sync(reason === undefined);
    if (reason !== undefined) throw new StorageFailure(reason, path, "sync");
  }

  /** Undefined when another living process holds it. */
  lock(path: string, process: SimProcess): FileLock | undefined {
    const holder = this.#locks.get(path);
    if (holder !== undefined && !holder.dead) return undefined;
    this.close(this.open(path, "create"));
    this.#locks.set(path, process);
    return {
      release: async () => {
        if (this.#locks.get(path) === process && !process.dead) {
          this.#locks.delete(path);
          this.remove(path);
        }
      },
    };
  }

  #find(path: string): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const name of namesOf(path)) node = node instanceof Directory ? node.entries.get(name) : undefined;
    return node;
  }

  #file(path: string, operation: string): FileNode {
    const node = this.#find(path);
    if (node instanceof FileNode) return node;
    throw new StorageFailure(node === undefined ? "not-found" : "io", path, operation);
  }

  #directory(path: string, operation: string): Directory {
    const node = this.#find(path);
    if (node instanceof Directory) return node;
    throw new StorageFailure("not-found", path, operation);
  }

  #place(path: string, operation: string): { readonly directory: Directory; readonly name: string } {
    const names = namesOf(path);
    const name = names.at(-1);
    if (name === undefined) throw new StorageFailure("io", path, operation);
    return { directory: this.#directory(names.slice(0, -1).join("/"), operation), name };
  }

  #change(names: readonly NamedNode[]): void {
    this.#nameChanges += 1;
    const change = new NameChange(this.#nameChanges, names);
    change.apply("cached");
    this.#uncertainNames.push(change);
  }

  #resized(node: FileNode, work: () => void): void {
    const before = node.size;
    work();
    this.#usedBytes += node.size - before;
  }

  #unlinked(node: FileNode): void {
    node.linked = false;
    this.#release(node);
  }

  /** The space of a removed file comes back when nobody has it open any more. */
  #release(node: FileNode): void {
    if (!node.linked && node.openCount === 0) this.#usedBytes -= node.size;
  }

  #drawFault(operation: Fault["operation"], path: string): StorageFailureReason | undefined {
    for (const fault of this.#faults) {
      if (fault.operation !== operation || !fault.matches(path)) continue;
      fault.left -= 1;
      if (fault.left <= 0) this.#faults.delete(fault);
      this.scheduler.note(`${this.hostName} ${operation} of ${path} fails: ${fault.reason}`);
      return fault.reason;
    }
    return undefined;
  }
}

interface Fault {
  readonly operation: "create" | "read" | "write" | "sync";
  readonly matches: (path: string) => boolean;
  readonly reason: StorageFailureReason;
  left: number;
}

type Node = Directory | FileNode;

class Directory {
  #entries = new Map<string, Node>();
  #sortedNames: readonly string[] | undefined;
  /** As a power cut leaves it, but for what `SimDisk` holds as uncertain. */
  readonly durableEntries = new Map<string, Node>();

  /** As the page cache has it. To be changed by `change` only. */
  get entries(): ReadonlyMap<string, Node> {
    return this.#entries;
  }

  set entries(entries: Map<string, Node>) {
    this.#entries = entries;
    this.#sortedNames = undefined;
  }

  /** Checks look after every event, and names seldom change. */
  get sortedNames(): readonly string[] {
    return (this.#sortedNames ??= [...this.#entries.keys()].sort());
  }

  /** Undefined: the name goes. */
  change(name: string, node: Node | undefined): void {
    this.#sortedNames = undefined;
    setOrDelete(this.#entries, name, node);
  }
}

function setOrDelete(map: Map<string, Node>, name: string, node: Node | undefined): void {
  if (node === undefined) map.delete(name);
  else map.set(name, node);
}

interface NamedNode {
  readonly directory: Directory;
  readonly name: string;
  /** Undefined: the name goes. */
  readonly node: Node | undefined;
}

/** One operation on names, which happens wholly or not at all: a rename is two names. */
class NameChange {
  constructor(
    private readonly sequence: number,
    readonly names: readonly NamedNode[],
  ) {}

  apply(where: "cached" | "durable" | "both"): void {
    for (const { directory, name, node } of this.names) {
      if (where !== "durable") directory.change(name, node);
      if (where !== "cached") setOrDelete(directory.durableEntries, name, node);
    }
  }

  concerns(directory: Directory): boolean {
    return this.names.some((named) => named.directory === directory);
  }

  isOvertakenBy(later: NameChange): boolean {
    if (this.sequence > later.sequence) return false;
    return this.names.some((mine) =>
      later.names.some((its) => its.directory === mine.directory && its.name === mine.name),
    );
  }
}

/** All nodes below `node` and itself. Nodes that only the durable names lead to count too, unless `cached`. */
function collect(node: Node, into: Set<Node>, names: "cached" | "all" = "all"): void {
  if (into.has(node)) return;
  into.add(node);
  if (!(node instanceof Directory)) return;
  for (const child of node.entries.values()) collect(child, into, names);
  if (names === "all") for (const child of node.durableEntries.values()) collect(child, into, names);
}

type ContentChange =
  | { readonly kind: "write"; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly length: number };

/** A file's bytes: as the page cache has them, as a power cut leaves them, and the changes between the two. */
class FileNode {
  openCount = 0;
  linked = true;
  readonly #cached = new Bytes();
  readonly #durable = new Bytes();
  #uncertain: ContentChange[] = [];

  get size(): number {
    return this.#cached.length;
  }

  content(): Uint8Array {
    return this.#cached.slice();
  }

  view(): Uint8Array {
    return this.#cached.view();
  }

  durableView(): Uint8Array {
    return this.#durable.view();
  }

  write(bytes: Uint8Array, position: number): void {
    if (bytes.length === 0) return;
    this.#cached.write(bytes, position);
    this.#uncertain.push({ kind: "write", position, bytes });
  }

  truncate(length: number): void {
    this.#cached.resize(length);
    this.#uncertain.push({ kind: "truncate", length });
  }

  read(target: Uint8Array, position: number): number {
    return this.#cached.read(target, position);
  }

  /** `honest`: the changes reach the disk. Else they are forgotten, and the page cache goes on showing them. */
  sync(honest: boolean): void {
    if (honest) {
      for (const change of this.#uncertain) {
        if (change.kind === "write") this.#durable.write(change.bytes, change.position);
        else this.#durable.resize(change.length);
      }
    }
    this.#uncertain = [];
  }

  flipBit(position: number, bit: number): void {
    this.#cached.flipBit(position, bit);
    this.#durable.flipBit(position, bit);
  }

  /** For each change: all of it, nothing, its first sectors, or (a write that made the file longer) zeros in its place. */
  powerCut(random: SimRandom): void {
    for (const change of this.#uncertain) {
      const draw = random.below(4);
      if (draw === 0) continue;
      if (change.kind === "truncate") {
        if (draw === 1) this.#durable.resize(change.length);
        continue;
      }
      const { bytes, position } = change;
      if (draw === 1) this.#durable.write(bytes, position);
      else if (draw === 2) this.#durable.write(bytes.subarray(0, tornLength(position, bytes.length, random)), position);
      else if (position + bytes.length > this.#durable.length) this.#durable.resize(position + bytes.length);
    }
    this.#uncertain = [];
    this.#cached.copyFrom(this.#durable);
    this.openCount = 0;
  }
}

const sectorBytes = 512;
const KNOWN_NAMES_MAX = 10_000;

/** A length at which a write may tear: whole sectors of the file. */
function tornLength(position: number, length: number, random: SimRandom): number {
  const firstSector = Math.floor(position / sectorBytes);
  const sectors = Math.ceil((position + length) / sectorBytes) - firstSector;
  const end = (firstSector + random.below(sectors)) * sectorBytes;
  return Math.max(0, Math.min(length, end - position));
}

/** Files grow a batch at a time, and to some kilobytes. */
const BYTES_MIN = 1024;

/**
 * A growing array of bytes; what is skipped over is zero. Its memory is of Node's pool: an array of its own costs several
 * times as much.
 */
class Bytes {
  #buffer: Uint8Array = NO_BYTES;
  #length = 0;
  /** Of `#buffer`, as long as nothing changes. */
  #view: Uint8Array | undefined;
  /** The buffer is that of a write, which the list of uncertain changes and the durable bytes may hold too. */
  #isShared = false;

  get length(): number {
    return this.#length;
  }

  slice(): Uint8Array {
    return new Uint8Array(this.view());
  }

  view(): Uint8Array {
    return (this.#view ??= this.#buffer.subarray(0, this.#length));
  }

  write(bytes: Uint8Array, position: number): void {
    const end = position + bytes.length;
    this.#view = undefined;
    if (this.#length === 0 && position === 0) {
      this.#buffer = bytes;
      this.#isShared = true;
      this.#length = end;
      return;
    }
    this.#own(Math.max(end, this.#length));
    if (position > this.#length) this.#buffer.fill(0, this.#length, position);
    this.#buffer.set(bytes, position);
    this.#length = Math.max(this.#length, end);
  }

  read(target: Uint8Array, position: number): number {
    const count = Math.max(0, Math.min(target.length, this.#length - position));
    if (count > 0) target.set(this.#buffer.subarray(position, position + count));
    return count;
  }

  resize(length: number): void {
    this.#view = undefined;
    if (length > this.#length) {
      this.#own(length);
      this.#buffer.fill(0, this.#length, length);
    }
    this.#length = length;
  }

  flipBit(position: number, bit: number): void {
    if (position >= this.#length) return;
    this.#own(this.#length);
    this.#buffer[position] = (this.#buffer[position] as number) ^ (1 << bit);
  }

  copyFrom(other: Bytes): void {
    this.#view = undefined;
    this.#buffer = other.slice();
    this.#isShared = false;
    this.#length = other.length;
  }

  /** From here on the buffer is nobody else's, and has room for so many bytes. */
  #own(length: number): void {
    if (!this.#isShared && length <= this.#buffer.length) return;
    const grown = length > this.#buffer.length ? Math.max(length, 2 * this.#buffer.length, BYTES_MIN) : length;
    const own = Buffer.allocUnsafe(grown);
    own.set(this.view());
    this.#buffer = own;
    this.#view = undefined;
    this.#isShared = false;
  }
}

const NO_BYTES = new Uint8Array(0);

/** What paths consist of: most are asked for again and again. */
const knownNames = new Map<string, readonly string[]>();

function namesOf(path: string): readonly string[] {
  let names = knownNames.get(path);
  if (names === undefined) {
    names = path.split("/").filter((name) => name !== "" && name !== ".");
    if (knownNames.size > KNOWN_NAMES_MAX) knownNames.clear();
    knownNames.set(path, names);
  }
  return names;
}

/** What a process sees of its host's disk: operations that take time, one of a few threads, and end with the process. */
class SimFileSystem implements FileSystem {
  #busyThreads = 0;
  readonly #waiting: (() => void)[] = [];
  /** One entry for each descriptor; the kernel closes them with the process. */
  readonly #open: FileNode[] = [];

  constructor(
    private readonly disk: SimDisk,
    private readonly process: SimProcess,
  ) {
    process.onDeath(() => {
      for (const node of this.#open.splice(0)) this.disk.close(node);
    });
  }

  open(path: string, mode: "read" | "write" | "create"): Promise<File> {
    return this.inPool("open", path, () => this.openSync(path, mode));
  }

  openSync(path: string, mode: "read" | "write" | "create"): File {
    return new SimFile(this, this.disk, this.process, path, this.openNode(path, mode), mode !== "read");
  }

  openNode(path: string, mode: "read" | "write" | "create"): FileNode {
    const node = this.disk.open(path, mode);
    this.#open.push(node);
    return node;
  }

  closeNode(node: FileNode): void {
    this.#open.splice(this.#open.indexOf(node), 1);
    this.disk.close(node);
  }

  list(path: string): Promise<string[]> {
    return this.inPool("list", path, () => this.disk.list(path));
  }

  makeDirectory(path: string): Promise<void> {
    return this.inPool("make directory", path, () => this.disk.makeDirectory(path));
  }

  makeDirectorySync(path: string): void {
    if (!this.process.dead) this.disk.makeDirectory(path);
  }

  syncDirectory(path: string): Promise<void> {
    return this.inPool("sync directory", path, () => this.disk.syncDirectory(path), {
      meanMs: this.disk.syncDelayMeanMs,
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.inPool("rename", `${from} ${to}`, () => this.disk.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.inPool("remove", path, () => this.disk.remove(path));
  }

  removeTree(path: string): Promise<void> {
    return this.inPool("remove tree", path, () => this.disk.removeTree(path));
  }

  exists(path: string): Promise<boolean> {
    return this.inPool("look for", path, () => this.disk.exists(path));
  }

  readFile(path: string): Promise<Uint8Array> {
    return this.inPool("read", path, () => {
      const node = this.openNode(path, "read");
      try {
        const content = new Uint8Array(node.size);
        this.disk.read(node, path, content, 0);
        return content;
      } finally {
        this.closeNode(node);
      }
    });
  }

  async writeFile(path: string, content: Uint8Array | string): Promise<void> {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    // In two steps, as the kernel sees it: a crash between them leaves an empty file.
    const node = await this.inPool("empty", path, () => {
      const opened = this.openNode(path, "create");
      if (opened.size > 0) this.disk.truncate(opened, path, 0);
      return opened;
    });
    await this.inPool(
      "write",
      path,
      () => {
        try {
          this.disk.write(node, path, Buffer.from(bytes), 0);
        } finally {
          this.closeNode(node);
        }
      },
      { ifCut: () => this.writePart(node, path, Buffer.from(bytes), 0) },
    );
  }

  freeBytes(path: string): Promise<number> {
    return this.inPool("measure", path, () => {
      if (!this.disk.exists(path)) throw new StorageFailure("not-found", path, "measure");
      return this.disk.freeBytes;
    });
  }

  lock(path: string): Promise<FileLock | undefined> {
    return this.inPool("lock", path, () => this.disk.lock(path, this.process));
  }

  /** Does `work` in one instant, after a wait for a thread and a drawn delay. `ifCut` is what a death in between does. */
  inPool<T>(operation: string, path: string, work: () => T, options: PoolOptions = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.process.dead) return;
      const start = (): void => {
        this.#busyThreads += 1;
        const delayMs = this.disk.random.delayMs(options.meanMs ?? this.disk.delayMeanMs);
        const forget = this.process.onDeath(() => {
          done.cancel();
          if (this.disk.random.chance(0.5)) options.ifCut?.();
        });
        // The device finishes whether or not the process runs; the process learns of it when it does.
        const done = this.process.scheduler.after(delayMs, this.process.labelledPath(operation, path), () => {
          forget();
          this.#busyThreads -= 1;
          let settle: () => void;
          try {
            const result = work();
            settle = () => {
              options.onEnd?.();
              resolve(result);
            };
          } catch (error) {
            settle = () => {
              options.onEnd?.();
              reject(error as Error);
            };
          }
          this.#waiting.shift()?.();
          this.process.arrive("io", settle);
        });
      };
      if (this.#busyThreads < this.disk.poolThreads) start();
      else this.#waiting.push(start);
    });
  }

  /** A write that its process did not live to see finished. */
  writePart(node: FileNode, path: string, bytes: Uint8Array, position: number): void {
    try {
      this.disk.write(node, path, bytes.subarray(0, this.disk.random.below(bytes.length + 1)), position);
    } catch (error) {
      // Nobody is left to be told of a full or failing disk.
      if (!(error instanceof StorageFailure)) throw error;
    }
  }
}

interface PoolOptions {
  readonly meanMs?: number;
  /** What a death before the end does. */
  readonly ifCut?: () => void;
  /** Called when the process learns of the end. */
  readonly onEnd?: () => void;
}

class SimFile implements File {
  #closed: Promise<void> | undefined;
  #inFlight = 0;
  #onIdle: (() => void) | undefined;

  constructor(
    private readonly files: SimFileSystem,
    private readonly disk: SimDisk,
    private readonly process: SimProcess,
    readonly path: string,
    private readonly node: FileNode,
    private readonly writable: boolean,
  ) {}

  size(): number {
    this.#checkOpen("measure");
    return this.node.size;
  }

  writeSync(pieces: readonly Uint8Array[], position: number): void {
    this.#checkWritable("write");
    if (this.process.dead) return;
    this.process.stall(this.disk.syncWriteStallMs);
    this.disk.write(this.node, this.path, joined(pieces), position);
  }

  write(pieces: readonly Uint8Array[], position: number): Promise<void> {
    // The bytes are taken when the device takes them, so that a buffer used again too early shows.
    return this.#inPool("write", () => this.disk.write(this.node, this.path, joined(pieces), position), {
      ifCut: () => this.files.writePart(this.node, this.path, joined(pieces), position),
    });
  }

  read(target: Uint8Array, position: number): Promise<number> {
    const refusal = this.#unreadable("read");
    if (refusal !== undefined) return Promise.reject(refusal);
    this.disk.countRead(this.path, 1);
    const forget = this.process.onDeath(() => this.disk.countRead(this.path, -1));
    return this.#inPool("read", () => this.disk.read(this.node, this.path, target, position), {
      meanMs: this.disk.readDelayMeanMs ?? this.disk.delayMeanMs,
      onEnd: () => {
        forget();
        this.disk.countRead(this.path, -1);
      },
    });
  }

  readSync(target: Uint8Array, position: number): number {
    this.#checkOpen("read");
    return this.disk.read(this.node, this.path, target, position);
  }

  sync(): Promise<void> {
    return this.#inPool("sync", () => this.disk.sync(this.node, this.path), { meanMs: this.disk.syncDelayMeanMs });
  }

  truncate(length: number): Promise<void> {
    return this.#inPool("truncate", () => this.disk.truncate(this.node, this.path, length));
  }

  truncateSync(length: number): void {
    this.#checkWritable("truncate");
    if (!this.process.dead) this.disk.truncate(this.node, this.path, length);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    await this.files.inPool("close", this.path, () => this.files.closeNode(this.node));
  }

  #inPool<T>(operation: string, work: () => T, options: PoolOptions = {}): Promise<T> {
    const refusal =
      operation === "read" || operation === "sync" ? this.#unreadable(operation) : this.#unwritable(operation);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.#inFlight += 1;
    const onEnd = (): void => {
      options.onEnd?.();
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#onIdle?.();
    };
    return this.files.inPool(operation, this.path, work, { ...options, onEnd });
  }

  #checkWritable(operation: string): void {
    const refusal = this.#unwritable(operation);
    if (refusal !== undefined) throw refusal;
  }

  #checkOpen(operation: string): void {
    const refusal = this.#unreadable(operation);
    if (refusal !== undefined) throw refusal;
  }

  #unwritable(operation: string): StorageFailure | undefined {
    if (this.writable) return this.#unreadable(operation);
    return new StorageFailure("io", this.path, operation, { cause: new Error("the file was opened to read") });
  }

  #unreadable(operation: string): StorageFailure | undefined {
    if (this.#closed === undefined) return undefined;
    return new StorageFailure("io", this.path, operation, { cause: new Error("the file was closed here") });
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const piece of pieces) length += piece.length;
  const bytes = Buffer.allocUnsafe(length);
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
}
