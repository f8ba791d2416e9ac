import net from "node:net";
import { ConnectFailure, ListenFailure } from "./network.js";
import { nodeTimers } from "./node-time.js";
import type {
  ConnectFailureReason,
  ConnectOptions,
  Listener,
  ListenOptions,
  Network,
  Socket,
  SocketEnd,
  SocketHandler,
} from "./network.js";
import { formatAddress } from "../host-port.js";
import { onAbort } from "../on-abort.js";

/**
 * Real TCP over `node:net`, with received bytes landing in the handler's own buffers.
 *
 * For an outgoing connection Node offers that publicly (`onread`). For an accepted one it does not, so this file takes
 * the accepted socket's private `_handle` and wraps it in a new socket that has `onread`; where the handle is missing or
 * the wrapping fails, bytes arrive by 'data' events and are copied, which costs 15 to 30 % and nothing else
 * (docs/decisions/0002-private-socket-handle.md). Nothing outside this file knows of the handle.
 *
 * Reading starts at `start`. Until then the kernel holds the peer's bytes, its FIN and its RST.
 */
export function nodeNetwork(options: NodeNetworkOptions = {}): Network {
  const direct = options.receiveDirectly ?? true;
  return { connect, listen: (listenOptions, onConnection) => listen(listenOptions, direct, onConnection) };
}

export interface NodeNetworkOptions {
  /**
   * Whether accepted connections may use the private handle; false tests the way that works without.
   * @defaultValue true
   */
  readonly receiveDirectly?: boolean;
}

/** What `onread` hands over before the handler is known, and after the end; small, because each socket has one. */
const scratchBytes = 256;

function connect(options: ConnectOptions): Promise<Socket> {
  const address = formatAddress(options);
  const { signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(new ConnectFailure("given-up", address));
      return;
    }
    const reader = new DirectReader();
    const socket = net.connect({
      host: options.host,
      port: options.port,
      allowHalfOpen: true,
      noDelay: true,
      onread: { buffer: () => reader.nextBuffer(), callback: (count) => reader.received(count) },
    });
    // Else Node begins to read as soon as it is connected.
    socket.pause();
    const deadline = nodeTimers.after(options.timeoutMs, () => fail("timed-out"));
    const fail = (reason: ConnectFailureReason, cause?: Error): void => {
      deadline.cancel();
      stopListening();
      socket.removeListener("connect", onConnect);
      // The error listener stays: Node may report a second error while the socket is being destroyed.
      socket.destroy();
      reject(new ConnectFailure(reason, address, cause && { cause }));
    };
    const onError = (error: Error): void => fail(connectFailureReason(error), error);
    const onConnect = (): void => {
      deadline.cancel();
      stopListening();
      socket.removeListener("error", onError);
      resolve(new NodeSocket(socket, reader));
    };
    const stopListening = onAbort(signal, () => fail("given-up"));
    socket.on("error", onError);
    socket.once("connect", onConnect);
  });
}

function listen(options: ListenOptions, direct: boolean, onConnection: (socket: Socket) => void): Promise<Listener> {
  const address = formatAddress(options);
  return new Promise((resolve, reject) => {
    const server = net.createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (accepted) =>
      onConnection(direct ? wrapAccepted(accepted) : new NodeSocket(accepted, undefined)),
    );
    const onListenError = (error: Error): void =>
      reject(new ListenFailure(listenFailureReason(error), address, { cause: error }));
    server.once("error", onListenError);
    server.listen({ host: options.host, port: options.port }, () => {
      server.removeListener("error", onListenError);
      // A failed accept (no file descriptors left) concerns a connection that never was; the next one may succeed.
      server.on("error", () => undefined);
      resolve(new NodeListener(server));
    });
  });
}

class NodeListener implements Listener {
  readonly port: number;
  #closed: Promise<void> | undefined;

  constructor(private readonly server: net.Server) {
    const address = server.address();
    this.port = typeof address === "object" && address !== null ? address.port : 0;
  }

  close(): Promise<void> {
    // The server's own callback waits for its open connections in the fallback, where they are still its own: the port
    // is free once the handle is closed, one turn later.
    this.#closed ??= new Promise((resolve) => {
      this.server.close();
      setImmediate(resolve);
    });
    return this.#closed;
  }
}

/** The parts of an accepted socket that are not public. */
interface WithHandle {
  _handle?: object | null;
}

/** Options that `net.Socket` takes and its published types leave out. */
interface HandleSocketOptions extends net.SocketConstructorOpts {
  readonly handle: object;
  /** Does not begin to read. */
  readonly manualStart: boolean;
  readonly onread: net.OnReadOpts;
}

/** A socket over the accepted one's handle which reads into the handler's buffers, or, failing that, the accepted one. */
function wrapAccepted(accepted: net.Socket): NodeSocket {
  const owner = accepted as unknown as WithHandle;
  const handle = owner._handle;
  if (typeof handle !== "object" || handle === null) return new NodeSocket(accepted, undefined);
  const reader = new DirectReader();
  const socketOptions: HandleSocketOptions = {
    handle,
    manualStart: true,
    allowHalfOpen: true,
    onread: { buffer: () => reader.nextBuffer(), callback: (count) => reader.received(count) },
  };
  let socket: net.Socket;
  try {
    socket = new net.Socket(socketOptions);
  } catch {
    return new NodeSocket(accepted, undefined);
  }
  socket.pause();
  socket.setNoDelay(true);
  // Without a handle the accepted socket's `destroy` touches no connection; it takes it off the server's books, so that
  // the server does not wait for it when closing.
  owner._handle = null;
  accepted.on("error", () => undefined);
  accepted.destroy();
  return new NodeSocket(socket, reader);
}

/** Stands between Node's `onread`, which wants its first buffer before there is a handler, and the handler. */
class DirectReader {
  #buffer: Uint8Array = new Uint8Array(scratchBytes);
  /** Whether `#buffer` is not the handler's, so that what arrives in it must be copied. */
  #scratch = true;
  #socket: NodeSocket | undefined;

  attach(socket: NodeSocket): void {
    this.#socket = socket;
  }

  nextBuffer(): Uint8Array {
    const buffer = this.#socket?.nextReceiveBuffer();
    if (buffer !== undefined) {
      this.#buffer = buffer;
      this.#scratch = false;
    } else if (!this.#scratch) {
      this.#buffer = new Uint8Array(scratchBytes);
      this.#scratch = true;
    }
    return this.#buffer;
  }

  /** False stops reading; Node then waits for `resume`. */
  received(count: number): boolean {
    if (this.#socket === undefined) return false;
    if (this.#scratch) this.#socket.receivedElsewhere(this.#buffer.subarray(0, count));
    else this.#socket.received(count);
    return !this.#socket.receivePaused;
  }
}

/** One connection. Its end is told by the handler's `onClosed` only: Node's events stay in here. */
class NodeSocket implements Socket {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  #handler: SocketHandler | undefined;
  #receivePaused = false;
  /** What the connection ended by; the first cause stands. */
  #end: { readonly how: SocketEnd; readonly error?: Error } | undefined;
  /** Node has let go of the socket and of every buffer given to it. */
  #closed = false;
  #ending = false;
  /** The kernel did not take all of an earlier send at once, so `onDrained` is owed. */
  #drainOwed = false;
  /** Received in a buffer that is not the handler's, and left over when it paused. */
  #held: Uint8Array | undefined;
  /** One entry for each write that Node has not confirmed, oldest first. */
  readonly #unconfirmed: ((() => void) | undefined)[] = [];

  constructor(
    private readonly socket: net.Socket,
    private readonly reader: DirectReader | undefined,
  ) {
    this.remoteAddress = socket.remoteAddress ?? "";
    this.remotePort = socket.remotePort ?? 0;
    this.localPort = socket.localPort ?? 0;
    socket.on("error", (error) => this.#ended(socketEndOf(error), error));
    socket.on("end", () => this.#onPeerEnded());
    socket.on("close", () => this.#onClose());
  }

  get unsentBytes(): number {
    return this.socket.writableLength;
  }

  get receivePaused(): boolean {
    return this.#receivePaused;
  }

  start(handler: SocketHandler): void {
    this.#handler = handler;
    if (this.#closed) {
      process.nextTick(() => this.#tellClosed());
      return;
    }
    if (this.reader === undefined) this.socket.on("data", (chunk) => this.receivedElsewhere(chunk));
    else this.reader.attach(this);
    if (this.#receivePaused) this.socket.pause();
    else this.socket.resume();
  }

  send(pieces: readonly Uint8Array[], onSent?: () => void): void {
    const last = pieces.length - 1;
    if (this.#ending || this.#end !== undefined || last < 0) {
      if (onSent !== undefined) process.nextTick(onSent);
      return;
    }
    this.#unconfirmed.push(onSent);
    if (last === 0) {
      this.socket.write(pieces[0] as Uint8Array, this.#onWritten);
    } else {
      this.socket.cork();
      for (let index = 0; index < last; index += 1) this.socket.write(pieces[index] as Uint8Array);
      this.socket.write(pieces[last] as Uint8Array, this.#onWritten);
      this.socket.uncork();
    }
    if (this.socket.writableLength > 0) this.#drainOwed = true;
  }

  pause(): void {
    this.#receivePaused = true;
    if (this.#handler !== undefined) this.socket.pause();
  }

  resume(): void {
    this.#receivePaused = false;
    if (this.#handler === undefined || this.#closed) return;
    if (this.#held === undefined) this.socket.resume();
    else process.nextTick(() => this.#deliverHeld());
  }

  end(): void {
    if (this.#ending || this.#end !== undefined) return;
    this.#ending = true;
    this.socket.end();
  }

  destroy(): void {
    this.#ended("closed-here");
    this.socket.destroy();
  }

  /** Called by the reader: the handler's next buffer; undefined before `start` and after the end. */
  nextReceiveBuffer(): Uint8Array | undefined {
    return this.#end === undefined ? this.#handler?.receiveBuffer() : undefined;
  }

  /** Called by the reader: bytes stand in the handler's buffer. */
  received(count: number): void {
    this.#handler?.onReceived(count);
  }

  /** Bytes stand in a buffer that is not the handler's. */
  receivedElsewhere(bytes: Uint8Array): void {
    let offset = 0;
    while (offset < bytes.length) {
      if (this.#receivePaused) {
        this.#held = bytes.slice(offset);
        return;
      }
      const buffer = this.nextReceiveBuffer();
      if (buffer === undefined) return;
      const count = Math.min(buffer.length, bytes.length - offset);
      buffer.set(bytes.subarray(offset, offset + count));
      offset += count;
      this.received(count);
    }
  }

  #deliverHeld(): void {
    const held = this.#held;
    if (held === undefined || this.#receivePaused) return;
    this.#held = undefined;
    this.receivedElsewhere(held);
    if (!this.#receivePaused) this.socket.resume();
  }

  readonly #onWritten = (): void => {
    const onSent = this.#unconfirmed.shift();
    onSent?.();
    if (this.#drainOwed && this.#end === undefined && this.socket.writableLength === 0) {
      this.#drainOwed = false;
      this.#handler?.onDrained();
    }
  };

  #onPeerEnded(): void {
    this.#ended(this.#ending ? "closed-here" : "ended");
    // Tries to send what is pending; Node destroys the socket when both directions have ended.
    this.socket.end();
  }

  #ended(how: SocketEnd, error?: Error): void {
    this.#end ??= error === undefined ? { how } : { how, error };
  }

  #onClose(): void {
    this.#ended("failed");
    this.#closed = true;
    // Node confirms all writes before this, in the versions there are; but nothing says that it must.
    for (const onSent of this.#unconfirmed.splice(0)) onSent?.();
    this.#tellClosed();
  }

  #tellClosed(): void {
    if (this.#end !== undefined) this.#handler?.onClosed(this.#end.how, this.#end.error);
  }
}

/** The system's name of an error; of the first one where Node tried several addresses. */
function codeOf(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== undefined) return code;
  return error instanceof AggregateError && error.errors[0] instanceof Error ? codeOf(error.errors[0]) : "";
}

function connectFailureReason(error: Error): ConnectFailureReason {
  switch (codeOf(error)) {
    case "ECONNREFUSED":
      return "refused";
    case "ETIMEDOUT":
      return "timed-out";
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "EHOSTDOWN":
      return "unreachable";
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return "name-not-found";
    default:
      return "failed";
  }
}

function listenFailureReason(error: Error): ListenFailure["reason"] {
  switch (codeOf(error)) {
    case "EADDRINUSE":
      return "port-taken";
    case "EACCES":
    case "EPERM":
      return "not-permitted";
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return "no-such-address";
    default:
      return "failed";
  }
}

function socketEndOf(error: Error): SocketEnd {
  switch (codeOf(error)) {
    // EPIPE is what a write gets when the RST came after the peer's FIN.
    case "EPIPE":
    case "ECONNRESET":
    case "ECONNABORTED":
      return "reset";
    default:
      return "failed";
  }
}
