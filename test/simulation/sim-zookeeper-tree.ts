import type {
  ZooKeeperOperation,
  ZooKeeperResultCode,
  ZooKeeperStat,
  ZooKeeperWatchEvent,
} from "../../common/env/zookeeper-connection.js";

/** A node as a server holds it. */
export interface SimNode {
  data: Uint8Array;
  readonly czxid: bigint;
  mzxid: bigint;
  version: number;
  cversion: number;
  readonly ephemeralOwner: string | undefined;
  readonly children: Set<string>;
}

/** What a transaction does to the tree, with nothing left to decide: every server applies it alike. */
export type Change =
  | {
      readonly kind: "create";
      readonly path: string;
      readonly data: Uint8Array;
      readonly ephemeralOwner: string | undefined;
    }
  | { readonly kind: "set"; readonly path: string; readonly data: Uint8Array }
  | { readonly kind: "delete"; readonly path: string };

/** Whose watch an event fires: those set by reading the node, or those set by reading its children. */
export interface Trigger {
  readonly watch: "data" | "children";
  readonly event: ZooKeeperWatchEvent;
}

/** The nodes of one server, and the rules by which ZooKeeper's leader accepts operations on them. */
export class SimTree {
  readonly #nodes = new Map<string, SimNode>();

  constructor() {
    for (const path of ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]) {
      this.apply({ kind: "create", path, data: new Uint8Array(0), ephemeralOwner: undefined }, 0n);
    }
  }

  clone(): SimTree {
    const copy = new SimTree();
    copy.#nodes.clear();
    for (const [path, node] of this.#nodes) copy.#nodes.set(path, { ...node, children: new Set(node.children) });
    return copy;
  }

  get(path: string): SimNode | undefined {
    return this.#nodes.get(path);
  }

  paths(): string[] {
    return [...this.#nodes.keys()].sort();
  }

  ephemeralsOf(sessionId: string): string[] {
    return this.paths().filter((path) => this.#nodes.get(path)?.ephemeralOwner === sessionId);
  }

  stat(path: string): ZooKeeperStat | undefined {
    const node = this.#nodes.get(path);
    if (node === undefined) return undefined;
    const { czxid, mzxid, version, cversion, ephemeralOwner } = node;
    return { czxid, mzxid, version, cversion, ephemeralOwner, childCount: node.children.size };
  }

  /** The change that an operation makes; undefined for a check that passes; a code when it is refused. */
  judge(operation: ZooKeeperOperation, sessionId: string): Change | ZooKeeperResultCode | undefined {
    const { path } = operation;
    if (!path.startsWith("/")) return "bad-arguments";
    const node = this.#nodes.get(path);
    if (operation.kind === "create") {
      const parent = this.#nodes.get(parentOf(path));
      if (node !== undefined) return "node-exists";
      if (parent === undefined) return "no-node";
      if (parent.ephemeralOwner !== undefined) return "no-children-for-ephemerals";
      const ephemeralOwner = operation.ephemeral ? sessionId : undefined;
      return { kind: "create", path, data: operation.data.slice(), ephemeralOwner };
    }
    if (operation.kind === "delete" && path === "/") return "bad-arguments";
    if (node === undefined) return "no-node";
    if (operation.version !== -1 && operation.version !== node.version) return "bad-version";
    switch (operation.kind) {
      case "check":
        return undefined;
      case "set":
        return { kind: "set", path, data: operation.data.slice() };
      case "delete":
        return node.children.size > 0 ? "not-empty" : { kind: "delete", path };
    }
  }

  /** Makes the change and tells which watches it fires. The change was judged on the same state. */
  apply(change: Change, zxid: bigint): Trigger[] {
    const { path } = change;
    const parentPath = parentOf(path);
    const parent = path === "/" ? undefined : this.#nodes.get(parentPath);
    const parentChanged: Trigger = { watch: "children", event: { kind: "children-changed", path: parentPath } };
    switch (change.kind) {
      case "create":
        this.#nodes.set(path, {
          data: change.data,
          czxid: zxid,
          mzxid: zxid,
          version: 0,
          cversion: 0,
          ephemeralOwner: change.ephemeralOwner,
          children: new Set(),
        });
        parent?.children.add(nameOf(path));
        if (parent !== undefined) parent.cversion += 1;
        return [{ watch: "data", event: { kind: "created", path } }, parentChanged];
      case "set": {
        const node = this.#nodes.get(path);
        if (node === undefined) throw new Error(`set of ${path}, which is not there`);
        node.data = change.data;
        node.mzxid = zxid;
        node.version += 1;
        return [{ watch: "data", event: { kind: "data-changed", path } }];
      }
      case "delete":
        this.#nodes.delete(path);
        parent?.children.delete(nameOf(path));
        if (parent !== undefined) parent.cversion += 1;
        return [
          { watch: "data", event: { kind: "deleted", path } },
          { watch: "children", event: { kind: "deleted", path } },
          parentChanged,
        ];
    }
  }

  /**
   * All of the operations, on this tree, or none. Each result has its code as ZooKeeper reports it: before the one that
   * failed `ok`, after it `runtime-inconsistency`.
   */
  transact(operations: readonly ZooKeeperOperation[], sessionId: string, zxid: bigint): Transaction {
    const changes: Change[] = [];
    const results: OperationResult[] = [];
    const undo: (() => void)[] = [];
    for (const operation of operations) {
      const verdict = this.judge(operation, sessionId);
      if (typeof verdict === "string") {
        for (const step of undo.reverse()) step();
        const failed = operations.map((_, index): OperationResult => ({
          code: index < results.length ? "ok" : index === results.length ? verdict : "runtime-inconsistency",
        }));
        return { code: verdict, changes: [], results: failed };
      }
      if (verdict !== undefined) {
        undo.push(this.#undoOf(verdict.path));
        this.apply(verdict, zxid);
        changes.push(verdict);
      }
      const stat = operation.kind === "set" ? this.stat(operation.path) : undefined;
      results.push({ code: "ok", ...(stat !== undefined && { stat }) });
    }
    return { code: "ok", changes, results };
  }

  /** Puts back the node and its parent as they are now. */
  #undoOf(path: string): () => void {
    const saved = [path, parentOf(path)].map((one) => {
      const node = this.#nodes.get(one);
      return [one, node && { ...node, children: new Set(node.children) }] as const;
    });
    return () => {
      for (const [one, node] of saved) {
        if (node === undefined) this.#nodes.delete(one);
        else this.#nodes.set(one, node);
      }
    };
  }
}

export interface OperationResult {
  readonly code: ZooKeeperResultCode;
  readonly stat?: ZooKeeperStat;
}

export interface Transaction {
  readonly code: ZooKeeperResultCode;
  readonly changes: readonly Change[];
  readonly results: readonly OperationResult[];
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf("/")));
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
