/**
 * The part of node-zookeeper-client 1.1.3 that node-zookeeper.ts uses, private members included. The library has no types.
 * What is private is pinned by the version and by test/contract/node-zookeeper.test.ts.
 */
declare module "node-zookeeper-client" {
  import type { EventEmitter } from "node:events";
  import type { Socket } from "node:net";

  export interface Stat {
    readonly czxid: Buffer;
    readonly mzxid: Buffer;
    readonly version: number;
    readonly cversion: number;
    readonly ephemeralOwner: Buffer;
    readonly numChildren: number;
  }

  export interface TransactionResult {
    readonly type: number;
    readonly err?: number;
    readonly stat?: Stat;
  }

  type LibraryError = { readonly code: number } | null | undefined;
  type Watcher = (event: unknown) => void;

  export interface Transaction {
    /** Private. */
    readonly ops: { version?: number }[];
    /** Private; what `commit` sends through. */
    connectionManager: Pick<ConnectionManager, "queue">;
    create(path: string, data: Buffer, mode: number): this;
    setData(path: string, data: Buffer, version: number): this;
    check(path: string, version: number): this;
    remove(path: string, version: number): this;
    commit(callback: (error: LibraryError, results?: readonly TransactionResult[]) => void): void;
  }

  export interface Packet {
    readonly request: unknown;
  }

  /** Private: what speaks the protocol over one socket. */
  export interface ConnectionManager {
    state: number;
    /** Undefined before `connect`. */
    socket: Socket | undefined;
    readonly sessionId: Buffer;
    readonly sessionPassword: Buffer;
    readonly sessionTimeout: number;
    readonly zxid: Buffer;
    connectTimeoutHandler: NodeJS.Timeout | null;
    readonly pendingQueue: Packet[];
    readonly packetQueue: { readonly queue: Packet[] };
    readonly watcherManager: { emit(event: { readonly type: number; readonly path: string }): void };
    findNextServer(callback: (server: { readonly host: string; readonly port: number }) => void): void;
    onSocketData(packet: Buffer): void;
    onSocketError(error: Error): void;
    onSocketClosed(hadError: boolean): void;
    registerDataWatcher(path: string, watcher: Watcher): void;
    registerChildWatcher(path: string, watcher: Watcher): void;
    registerExistenceWatcher(path: string, watcher: Watcher): void;
    queue(
      request: unknown,
      callback?: (
        error: LibraryError,
        response?: { readonly payload?: { readonly results?: readonly TransactionResult[] } | null },
      ) => void,
    ): void;
  }

  export interface Client extends EventEmitter {
    /** Private. */
    readonly connectionManager: ConnectionManager;
    connect(): void;
    close(): void;
    create(path: string, data: Buffer, mode: number, callback: (error: LibraryError) => void): void;
    remove(path: string, version: number, callback: (error: LibraryError) => void): void;
    setData(path: string, data: Buffer, version: number, callback: (error: LibraryError, stat?: Stat) => void): void;
    getData(
      path: string,
      watcher: Watcher | undefined,
      callback: (error: LibraryError, data?: Buffer, stat?: Stat) => void,
    ): void;
    getChildren(
      path: string,
      watcher: Watcher | undefined,
      callback: (error: LibraryError, children?: readonly string[], stat?: Stat) => void,
    ): void;
    exists(
      path: string,
      watcher: Watcher | undefined,
      callback: (error: LibraryError, stat?: Stat | null) => void,
    ): void;
    transaction(): Transaction;
  }

  export function createClient(
    connectionString: string,
    options: {
      readonly sessionTimeout: number;
      readonly spinDelay: number;
      readonly retries: number;
      readonly sessionId?: Buffer;
      readonly sessionPassword?: Buffer;
    },
  ): Client;

  export const CreateMode: { readonly PERSISTENT: number; readonly EPHEMERAL: number };
  /** Holds the codes as properties, beside being a constructor. */
  export const Exception: Readonly<Record<string, unknown>>;
}
