import { WatchTable } from "../../../../broker/zookeeper/watch-table.js";
import { ZooKeeperError } from "../../../../broker/zookeeper/zookeeper-error.js";
import type { Timers } from "../../../../common/env/time.js";
import type { ZooKeeperRequest, ZooKeeperResult } from "../../../../common/env/zookeeper-connection.js";
import { silentLogger } from "../../../../common/logger.js";

const stat = { czxid: 1n, mzxid: 1n, version: 0, cversion: 0, ephemeralOwner: undefined, childCount: 0 };
const absent: ZooKeeperResult = { code: "no-node" };
const lost = new ZooKeeperError("OutcomeUnknown", "the connection ended");
const data = (byte: number): ZooKeeperResult => ({ code: "ok", data: Uint8Array.of(byte), stat });

/** A table whose reads the test answers one by one, and whose timers it fires. */
class Bench {
  readonly reads: {
    readonly request: ZooKeeperRequest;
    readonly settle: (result: ZooKeeperResult | ZooKeeperError) => void;
  }[] = [];
  readonly timers: (() => void)[] = [];
  readonly seen: (number | undefined)[] = [];
  readonly table: WatchTable;

  constructor() {
    const timers: Timers = {
      after: (_delayMs, callback) => {
        this.timers.push(callback);
        return { cancel: () => void this.timers.splice(this.timers.indexOf(callback), 1) };
      },
      soon: (callback) => callback(),
      afterThisTurn: (callback) => callback(),
    };
    this.table = new WatchTable(timers, silentLogger, (request, settle) => this.reads.push({ request, settle }));
  }

  watch(): ReturnType<WatchTable["watchData"]> {
    return this.table.watchData("/a", (node) => this.seen.push(node?.data[0]));
  }

  /** The kind of the read that was answered. */
  answer(result: ZooKeeperResult | ZooKeeperError): string | undefined {
    const read = this.reads.shift();
    read?.settle(result);
    return read?.request.kind;
  }
}

describe("WatchTable", () => {
  it("reads again when the node was created between the read that found none and the one that arms for its creation", () => {
    const bench = new Bench();
    bench.table.resume();
    bench.watch();
    expect(bench.answer(absent)).toBe("get");
    expect(bench.answer({ code: "ok", stat })).toBe("exists");
    expect(bench.seen).toEqual([]);
    expect(bench.answer(data(7))).toBe("get");
    expect(bench.seen).toEqual([7]);
    expect(bench.reads).toEqual([]);
  });

  it("reads once more when something happened while a read was on its way, and shows both states", () => {
    const bench = new Bench();
    bench.table.resume();
    bench.watch();
    bench.table.onEvent({ kind: "data-changed", path: "/a" });
    bench.table.onEvent({ kind: "deleted", path: "/a" });
    bench.answer(data(1));
    bench.answer(data(2));
    expect(bench.seen).toEqual([1, 2]);
    expect(bench.reads).toEqual([]);
  });

  it("reads nothing without a connection, and everything at the next", () => {
    const bench = new Bench();
    const watch = bench.watch();
    expect(bench.reads).toEqual([]);
    bench.table.resume();
    bench.table.pause();
    bench.answer(lost);
    expect(bench.reads).toEqual([]);
    bench.table.resume();
    bench.answer(data(1));
    expect(bench.seen).toEqual([1]);
    watch.close();
    bench.table.resume();
    expect(bench.reads).toEqual([]);
  });

  it("ignores events of other kinds, of other nodes and of watches that were closed", () => {
    const bench = new Bench();
    bench.table.resume();
    const watch = bench.watch();
    bench.answer(data(1));
    bench.table.onEvent({ kind: "children-changed", path: "/a" });
    bench.table.onEvent({ kind: "data-changed", path: "/b" });
    watch.close();
    bench.table.onEvent({ kind: "data-changed", path: "/a" });
    expect(bench.reads).toEqual([]);
  });

  it("delivers nothing to a watch that was closed while its read was on its way, or by another listener", () => {
    const bench = new Bench();
    bench.table.resume();
    const early = bench.watch();
    bench.table.watchData("/a", () => late.close());
    const late = bench.watch();
    early.close();
    bench.answer(data(1));
    expect(bench.seen).toEqual([]);
  });

  it("tries again later when a node cannot be read, and not after the connection is gone", () => {
    const bench = new Bench();
    bench.table.resume();
    bench.watch();
    bench.answer({ code: "no-auth" });
    expect([bench.reads.length, bench.timers.length]).toEqual([0, 1]);
    bench.timers.shift()?.();
    bench.answer({ code: "no-auth" });
    bench.table.pause();
    expect(bench.timers).toEqual([]);
    expect(bench.seen).toEqual([]);
  });
});
