/**
 * One TCP connection to one ZooKeeper server, nothing more: the level at which the simulator stands in, so that the
 * wrapper that makes sessions safe (`broker/zookeeper/`) runs in both worlds. A connection never reconnects.
 */
export interface ZooKeeperConnector {
  /** Starts to connect; everything after that is told to `handler`. Never throws. */
  open(options: ZooKeeperConnectOptions, handler: ZooKeeperConnectionHandler): ZooKeeperConnection;
}

export interface ZooKeeperConnectOptions {
  readonly host: string;
  readonly port: number;
  readonly sessionTimeoutMs: number;
  /** The session to take up again. Absent: a new one is made. */
  readonly session?: ZooKeeperSessionToken;
}

export interface ZooKeeperSessionToken {
  /** 16 hexadecimal digits. */
  readonly id: string;
  readonly password: Uint8Array;
  /** The newest transaction this session has seen: an older server must not answer it. Decimal digits. */
  readonly lastZxid: string;
}

export interface ZooKeeperConnectionHandler {
  /** The server granted or took up the session. At most once, before any result. */
  onConnected(session: ZooKeeperSessionToken, negotiatedTimeoutMs: number): void;
  /** The server said that the session is over. `onClosed` follows. */
  onSessionExpired(): void;
  /** A watch fired. */
  onWatch(event: ZooKeeperWatchEvent): void;
  /**
   * The last call, made exactly once: the socket is gone. Operations in flight were answered `connection-loss` before.
   * Without an error: `closeSession` was asked for, and the server has confirmed that the session is over.
   */
  onClosed(error?: Error): void;
}

export interface ZooKeeperWatchEvent {
  readonly kind: "created" | "deleted" | "data-changed" | "children-changed";
  readonly path: string;
}

/** Raw results, not yet errors: the wrapper decides what they mean. */
export type ZooKeeperResultCode =
  | "ok"
  | "no-node"
  | "node-exists"
  | "bad-version"
  | "not-empty"
  | "no-auth"
  | "bad-arguments"
  | "no-children-for-ephemerals"
  | "invalid-acl"
  | "runtime-inconsistency"
  | "session-expired"
  | "connection-loss"
  | "unknown";

export interface ZooKeeperStat {
  /** The transaction that made the node; a broker's epoch. */
  readonly czxid: bigint;
  readonly mzxid: bigint;
  readonly version: number;
  readonly cversion: number;
  /** The session that owns an ephemeral node, 16 hexadecimal digits; undefined for a persistent one. */
  readonly ephemeralOwner: string | undefined;
  readonly childCount: number;
}

export type ZooKeeperOperation =
  | { readonly kind: "create"; readonly path: string; readonly data: Uint8Array; readonly ephemeral: boolean }
  | { readonly kind: "set"; readonly path: string; readonly data: Uint8Array; readonly version: number }
  | { readonly kind: "delete"; readonly path: string; readonly version: number }
  | { readonly kind: "check"; readonly path: string; readonly version: number };

export type ZooKeeperRequest =
  | ZooKeeperOperation
  | { readonly kind: "get"; readonly path: string; readonly watch: boolean }
  | { readonly kind: "children"; readonly path: string; readonly watch: boolean }
  | { readonly kind: "exists"; readonly path: string; readonly watch: boolean }
  | { readonly kind: "multi"; readonly operations: readonly ZooKeeperOperation[] };

export interface ZooKeeperResult {
  readonly code: ZooKeeperResultCode;
  /** The newest transaction that the server had applied when it answered; absent when no server answered. */
  readonly zxid?: bigint;
  readonly data?: Uint8Array;
  readonly stat?: ZooKeeperStat;
  readonly children?: readonly string[];
  /** Of a multi: one code per operation, in order; after the first failure the rest are `runtime-inconsistency`. */
  readonly results?: readonly { readonly code: ZooKeeperResultCode; readonly stat?: ZooKeeperStat }[];
}

export interface ZooKeeperConnection {
  /**
   * Sends one request. `onResult` is called exactly once, in the order of sending; at once, with `connection-loss`, after
   * `onClosed` and after `closeSession`. Only from `onConnected` on.
   */
  request(request: ZooKeeperRequest, onResult: (result: ZooKeeperResult) => void): void;
  /** Asks the server to end the session; `onClosed` follows. */
  closeSession(): void;
  /** Drops the socket; the session lives on at the server. Idempotent. */
  destroy(): void;
}
