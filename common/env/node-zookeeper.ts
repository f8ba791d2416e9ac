import { createClient, CreateMode, Exception } from "node-zookeeper-client";
import type { Client, ConnectionManager, Stat, TransactionResult } from "node-zookeeper-client";
import { unreachable } from "../assert.js";
import type {
  ZooKeeperConnection,
  ZooKeeperConnectionHandler,
  ZooKeeperConnectOptions,
  ZooKeeperConnector,
  ZooKeeperOperation,
  ZooKeeperRequest,
  ZooKeeperResult,
  ZooKeeperResultCode,
  ZooKeeperSessionToken,
  ZooKeeperStat,
  ZooKeeperWatchEvent,
} from "./zookeeper-connection.js";

/**
 * Real ZooKeeper, through node-zookeeper-client. The library speaks the protocol well, and is not to be trusted with
 * anything that lasts: its reconnecting, its watches and its closing lose or invent sessions
 * (docs/decisions/0003-node-zookeeper-client.md). So one of its clients is exactly one TCP connection here, which never
 * reconnects. For that this file replaces methods and sets fields of the library that are private; the version is pinned,
 * and test/contract/node-zookeeper.test.ts checks each of them. Nothing outside this file knows the library.
 */
export const nodeZooKeeperConnector: ZooKeeperConnector = {
  open: (options, handler) => new NodeZooKeeperConnection(options, handler),
};

/** A longer packet comes from something that is no ZooKeeper. */
const packetMaxBytes = 64 * 1024 * 1024;
/** Pings, watch events and the like have a number below zero in place of a request's. */
const notAnAnswer = 0;
/** Where the parts of an answer's header begin, behind the length: xid, zxid, error code. */
const xidAt = 4;
const zxidAt = 8;
const errorCodeAt = 16;
const headerEnd = 20;
/** What stands for a code the library does not know and would throw at. */
const systemError = -1;
/** The library's own number for a connection that is not to be used any more. */
const libraryClosed = -2;

class NodeZooKeeperConnection implements ZooKeeperConnection {
  readonly #handler: ZooKeeperConnectionHandler;
  readonly #client: Client;
  readonly #manager: ConnectionManager;
  /** Received bytes that are no whole packet yet. */
  #received: Buffer[] = [];
  #receivedBytes = 0;
  /** What the packet in hand told; called once the library has returned, so that it never catches our own faults. */
  #told: (() => void)[] = [];
  readonly #unanswered: ((result: ZooKeeperResult) => void)[] = [];
  #connected = false;
  /** The server's `closeSession` was asked for, then answered. */
  #closing = false;
  #sessionEnded = false;
  #closed = false;
  #error: Error | undefined;
  /** Of the answer in hand. */
  #zxid = 0n;

  constructor(options: ZooKeeperConnectOptions, handler: ZooKeeperConnectionHandler) {
    this.#handler = handler;
    const { session } = options;
    // The address given here is never used (see findNextServer), because the library cannot parse every one.
    this.#client = createClient("127.0.0.1:1", {
      sessionTimeout: options.sessionTimeoutMs,
      spinDelay: 0,
      retries: 0,
      ...(session !== undefined && {
        sessionId: Buffer.from(session.id, "hex"),
        sessionPassword: Buffer.from(session.password),
      }),
    });
    const manager = this.#client.connectionManager;
    this.#manager = manager;
    if (session !== undefined) manager.zxid.writeBigInt64BE(BigInt(session.lastZxid));
    this.#takeOver(manager, options);
    this.#client.on("connected", () => this.#told.push(() => this.#onConnected()));
    this.#client.on("expired", () => this.#told.push(() => this.#onExpired()));
    try {
      this.#client.connect();
    } catch (error) {
      // A port or host that cannot be one.
      this.#error = error as Error;
      setImmediate(() => this.#onClosed());
      return;
    }
    if (manager.connectTimeoutHandler !== null) clearTimeout(manager.connectTimeoutHandler);
  }

  request(request: ZooKeeperRequest, onResult: (result: ZooKeeperResult) => void): void {
    if (this.#closed || this.#closing || !this.#connected) {
      onResult({ code: "connection-loss" });
      return;
    }
    this.#unanswered.push(onResult);
    try {
      this.#send(request);
    } catch (error) {
      // The library threw after having taken the request or before: the connection cannot be used either way.
      this.#fail(error as Error);
    }
  }

  closeSession(): void {
    if (this.#closed || this.#closing) return;
    if (!this.#connected) {
      this.destroy();
      return;
    }
    this.#closing = true;
    this.#client.close();
  }

  destroy(): void {
    if (!this.#closed) this.#fail(new Error("closed here"));
  }

  /** Replaces what the library would do about servers, packets, watches and ends. */
  #takeOver(manager: ConnectionManager, options: ZooKeeperConnectOptions): void {
    // At once, so that the socket exists when `connect` returns.
    manager.findNextServer = (callback) => callback({ host: options.host, port: options.port });
    const onPacket = manager.onSocketData.bind(manager);
    manager.onSocketData = (chunk) => this.#onData(chunk, onPacket);
    manager.onSocketError = (error) => {
      this.#error ??= error;
    };
    // The library would reconnect here.
    manager.onSocketClosed = () => this.#onClosed();
    manager.watcherManager.emit = (event) => {
      const kind = watchEventKinds.get(event.type);
      if (kind === undefined) throw new Error(`a watch event of the unknown type ${event.type}`);
      this.#told.push(() => this.#handler.onWatch({ kind, path: event.path }));
    };
    manager.registerDataWatcher = ignore;
    manager.registerChildWatcher = ignore;
    manager.registerExistenceWatcher = ignore;
  }

  /** Cuts what arrives into packets, because the library's own cutting copies all that follows once per packet. */
  #onData(chunk: Buffer, onPacket: (packet: Buffer) => void): void {
    if (this.#closed) return;
    this.#received.push(chunk);
    this.#receivedBytes += chunk.length;
    if (this.#received.length > 1 && this.#receivedBytes < this.#wantedBytes()) return;
    let bytes = this.#received.length === 1 ? chunk : Buffer.concat(this.#received);
    while (!this.#closed && bytes.length >= 4) {
      const length = bytes.readInt32BE(0);
      if (length < 0 || length > packetMaxBytes) {
        this.#fail(new Error(`a packet of ${length} bytes: what answers there is no ZooKeeper`));
        return;
      }
      if (bytes.length < 4 + length) break;
      this.#onPacket(bytes.subarray(0, 4 + length), onPacket);
      bytes = bytes.subarray(4 + length);
    }
    this.#received = bytes.length > 0 ? [bytes] : [];
    this.#receivedBytes = bytes.length;
  }

  /** How many bytes the packet that has begun takes, as far as its first chunk tells. */
  #wantedBytes(): number {
    const first = this.#received[0];
    return first === undefined || first.length < 4 ? 4 : 4 + first.readInt32BE(0);
  }

  #onPacket(packet: Buffer, onPacket: (packet: Buffer) => void): void {
    try {
      if (this.#connected) this.#readHeader(packet);
      onPacket(packet);
    } catch (error) {
      this.#fail(error as Error);
    }
    const told = this.#told;
    this.#told = [];
    for (const tell of told) if (!this.#closed) tell();
  }

  #readHeader(packet: Buffer): void {
    if (packet.length < headerEnd) throw new Error(`an answer of ${packet.length} bytes`);
    if (packet.readInt32BE(xidAt) < notAnAnswer) return;
    this.#zxid = packet.readBigInt64BE(zxidAt);
    if (!codeNames.has(packet.readInt32BE(errorCodeAt))) packet.writeInt32BE(systemError, errorCodeAt);
    // The answer to `closeSession` comes after all others; the library passes it on to nobody.
    if (this.#closing && this.#unanswered.length === 0) this.#sessionEnded = true;
  }

  #onConnected(): void {
    this.#connected = true;
    const manager = this.#manager;
    const token: ZooKeeperSessionToken = {
      id: manager.sessionId.toString("hex"),
      password: new Uint8Array(manager.sessionPassword),
      lastZxid: manager.zxid.readBigInt64BE().toString(),
    };
    this.#handler.onConnected(token, manager.sessionTimeout);
  }

  #onExpired(): void {
    this.#handler.onSessionExpired();
    this.#fail(new Error("the session has expired"));
  }

  /** Destroys the socket; `#onClosed` follows. */
  #fail(error: Error): void {
    this.#error ??= error;
    this.#manager.socket?.destroy();
  }

  #onClosed(): void {
    if (this.#closed) return;
    this.#closed = true;
    // Whatever the library still holds is never to be sent, nor answered by it.
    const manager = this.#manager;
    manager.state = libraryClosed;
    manager.pendingQueue.length = 0;
    manager.packetQueue.queue.length = 0;
    this.#received = [];
    for (const onResult of this.#unanswered.splice(0)) onResult({ code: "connection-loss" });
    if (this.#sessionEnded) this.#handler.onClosed();
    else this.#handler.onClosed(this.#error ?? new Error("the server has closed the connection"));
  }

  #answer(result: ZooKeeperResult): void {
    const onResult = this.#unanswered.shift();
    const zxid = this.#zxid;
    this.#told.push(() => onResult?.({ ...result, zxid }));
  }

  #send(request: ZooKeeperRequest): void {
    const client = this.#client;
    switch (request.kind) {
      case "create":
        client.create(request.path, bufferOf(request.data), createModeOf(request), (error) =>
          this.#answer({ code: codeOf(error) }),
        );
        return;
      case "set":
        client.setData(request.path, bufferOf(request.data), request.version, (error, stat) =>
          this.#answer({ code: codeOf(error), ...withStat(stat) }),
        );
        return;
      case "delete":
        client.remove(request.path, request.version, (error) => this.#answer({ code: codeOf(error) }));
        return;
      case "check":
        this.#sendTransaction([request], (results) => this.#answer({ code: results[0]?.code ?? "unknown" }));
        return;
      case "get":
        client.getData(request.path, watcherOf(request), (error, data, stat) =>
          this.#answer({ code: codeOf(error), data: bytesOf(data), ...withStat(stat) }),
        );
        return;
      case "children":
        client.getChildren(request.path, watcherOf(request), (error, children, stat) =>
          this.#answer({ code: codeOf(error), children: children ?? [], ...withStat(stat) }),
        );
        return;
      case "exists":
        client.exists(request.path, watcherOf(request), (error, stat) =>
          this.#answer({ code: !error && !stat ? "no-node" : codeOf(error), ...withStat(stat) }),
        );
        return;
      case "multi":
        this.#sendTransaction(request.operations, (results) =>
          this.#answer({ code: results.find((one) => one.code !== "ok")?.code ?? "ok", results }),
        );
        return;
      default:
        unreachable(request);
    }
  }

  #sendTransaction(
    operations: readonly ZooKeeperOperation[],
    onResults: (results: readonly OperationResult[]) => void,
  ): void {
    const transaction = this.#client.transaction();
    for (const operation of operations) {
      switch (operation.kind) {
        case "create":
          transaction.create(operation.path, bufferOf(operation.data), createModeOf(operation));
          break;
        case "set":
          transaction.setData(operation.path, bufferOf(operation.data), operation.version);
          break;
        case "delete":
          transaction.remove(operation.path, operation.version);
          break;
        case "check":
          transaction.check(operation.path, operation.version);
          break;
        default:
          unreachable(operation);
      }
      // The library sends version 0 as -1, which is any version: a check that passes always.
      const added = transaction.ops.at(-1);
      if (added !== undefined && operation.kind !== "create") added.version = operation.version;
    }
    // In place of the library's own reading of the results, which throws at a code it does not know.
    transaction.connectionManager = {
      queue: (request) =>
        this.#manager.queue(request, (error, response) => {
          if (error) this.#answer({ code: codeOf(error) });
          else onResults((response?.payload?.results ?? []).map(operationResultOf));
        }),
    };
    transaction.commit(ignore);
  }
}

interface OperationResult {
  readonly code: ZooKeeperResultCode;
  readonly stat?: ZooKeeperStat;
}

const codeNames: ReadonlyMap<number, ZooKeeperResultCode> = new Map(
  Object.entries({
    OK: "ok",
    RUNTIME_INCONSISTENCY: "runtime-inconsistency",
    CONNECTION_LOSS: "connection-loss",
    BAD_ARGUMENTS: "bad-arguments",
    NO_NODE: "no-node",
    NO_AUTH: "no-auth",
    BAD_VERSION: "bad-version",
    NO_CHILDREN_FOR_EPHEMERALS: "no-children-for-ephemerals",
    NODE_EXISTS: "node-exists",
    NOT_EMPTY: "not-empty",
    SESSION_EXPIRED: "session-expired",
    INVALID_ACL: "invalid-acl",
  } satisfies Record<string, ZooKeeperResultCode>).map(([name, code]) => [Exception[name] as number, code]),
);

/** The library's numbers for watch events. */
const watchEventKinds: ReadonlyMap<number, ZooKeeperWatchEvent["kind"]> = new Map([
  [1, "created"],
  [2, "deleted"],
  [3, "data-changed"],
  [4, "children-changed"],
]);

function codeOf(error: { readonly code: number } | null | undefined): ZooKeeperResultCode {
  return error ? (codeNames.get(error.code) ?? "unknown") : "ok";
}

function operationResultOf(result: TransactionResult): OperationResult {
  return { code: codeNames.get(result.err ?? 0) ?? "unknown", ...withStat(result.stat) };
}

function withStat(stat: Stat | null | undefined): { readonly stat?: ZooKeeperStat } {
  if (!stat) return {};
  const owner = stat.ephemeralOwner.toString("hex");
  return {
    stat: {
      czxid: stat.czxid.readBigInt64BE(),
      mzxid: stat.mzxid.readBigInt64BE(),
      version: stat.version,
      cversion: stat.cversion,
      ephemeralOwner: owner === "0000000000000000" ? undefined : owner,
      childCount: stat.numChildren,
    },
  };
}

function createModeOf(operation: { readonly ephemeral: boolean }): number {
  return operation.ephemeral ? CreateMode.EPHEMERAL : CreateMode.PERSISTENT;
}

/** The library takes the presence of a watcher for the wish to watch; events come through `watcherManager.emit`. */
function watcherOf(request: { readonly watch: boolean }): (() => void) | undefined {
  return request.watch ? ignore : undefined;
}

function ignore(): void {
  // Watches are not the library's business, and neither are results that are read elsewhere.
}

/** A view, because the library accepts nothing but a Buffer. */
function bufferOf(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

function bytesOf(buffer: Buffer | undefined): Uint8Array {
  return buffer === undefined ? new Uint8Array(0) : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}
