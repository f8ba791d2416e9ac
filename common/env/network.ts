/**
 * TCP as brokers and clients need it: no Node streams, received bytes land in buffers the receiver chose, a send is one
 * gathered write, and the ways in which a connection can end are told apart, because the controller acts on them.
 */
export interface Network {
  /** Resolves with a connected socket that receives nothing until `start`. Rejects with ConnectFailure. */
  connect(options: ConnectOptions): Promise<Socket>;
  /** Resolves once the port is bound. Rejects with ListenFailure when it is taken or not ours. */
  listen(options: ListenOptions, onConnection: (socket: Socket) => void): Promise<Listener>;
}

export interface ConnectOptions {
  readonly host: string;
  readonly port: number;
  /** How long to wait for the peer's kernel to answer. */
  readonly timeoutMs: number;
  /** Ends the attempt when aborted: it rejects with reason `given-up`, and nothing is left of it. */
  readonly signal?: AbortSignal | undefined;
}

export interface ListenOptions {
  readonly host: string;
  /** 0 lets the system choose; `Listener.port` tells. */
  readonly port: number;
}

export interface Listener {
  readonly port: number;
  /** Stops accepting. Open sockets are their owner's business. */
  close(): Promise<void>;
}

/**
 * How a connection ended.
 * `ended`: the peer's FIN arrived; it ends the connection, after what was accepted by `send` before was tried.
 * `reset`: the peer's RST, or the network's word for it. Not noticed while paused with nothing to send.
 * `closed-here`: our own `destroy`, or our `end` after which the peer ended too. `failed`: anything else (timeout).
 */
export type SocketEnd = "ended" | "reset" | "closed-here" | "failed";

export interface SocketHandler {
  /** Where the next received bytes go. Never empty. Asked again after each `onReceived`. */
  receiveBuffer(): Uint8Array;
  /** `count` bytes now stand at the start of the buffer that `receiveBuffer` last returned. */
  onReceived(count: number): void;
  /** `unsentBytes` fell to zero after it had been above it. */
  onDrained(): void;
  /** The last call, made exactly once. */
  onClosed(end: SocketEnd, error?: Error): void;
}

export interface Socket {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  /** Hands over the handler and begins to receive. Called exactly once. */
  start(handler: SocketHandler): void;
  /**
   * Sends the pieces as one gathered write, tried at once. They belong to the socket until `onSent`, which is also called
   * when the connection ends first, and never before `send` has returned. After the end of the connection, or our `end`, a
   * write is dropped in silence.
   */
  send(pieces: readonly Uint8Array[], onSent?: () => void): void;
  /** Bytes accepted by `send` that the kernel has not taken yet. */
  readonly unsentBytes: number;
  pause(): void;
  resume(): void;
  /** Sends FIN once everything was sent. The peer may go on sending until it ends too. */
  end(): void;
  /** Ends at once; what was not sent is lost. Idempotent. */
  destroy(): void;
}

export type ConnectFailureReason = "refused" | "timed-out" | "unreachable" | "name-not-found" | "given-up" | "failed";

/** A connection that could not be made, and why: `refused` proves that nobody listens, the others prove nothing. */
export class ConnectFailure extends Error {
  override readonly name = "ConnectFailure";
  constructor(
    readonly reason: ConnectFailureReason,
    readonly address: string,
    options?: ErrorOptions,
  ) {
    super(`${address}: ${reason}`, options);
  }
}

export class ListenFailure extends Error {
  override readonly name = "ListenFailure";
  constructor(
    readonly reason: "port-taken" | "not-permitted" | "no-such-address" | "failed",
    readonly address: string,
    options?: ErrorOptions,
  ) {
    super(`${address}: ${reason}`, options);
  }
}
