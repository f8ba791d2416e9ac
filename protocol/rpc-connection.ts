import { EarliestTimer } from "../common/earliest-timer.js";
import type { Env } from "../common/env/env.js";
import type { Socket, SocketEnd } from "../common/env/network.js";
import { ConnectFailure } from "../common/env/network.js";
import { formatAddress } from "../common/host-port.js";
import { reasonOf } from "../common/logger.js";
import { onAbort } from "../common/on-abort.js";
import type { RequestKind } from "./api-keys.js";
import { RESPONSE_FRAME_BYTES_MAX } from "./api-keys.js";
import { ApiError, errorNameOf } from "./error-codes.js";
import { FrameFault, FrameReader } from "./frame-reader.js";
import type { RecordsInPlace, RequestBody, ResponseBody } from "./message-codec.js";
import { decodeResponse, encodeRequest, encodeRequestInFront } from "./message-codec.js";
import type { HandshakeRequest, HandshakeResponse, Init } from "./messages.js";
import { TransportError } from "./rpc-error.js";

export interface RpcConnectionOptions {
  readonly host: string;
  readonly port: number;
  readonly handshake: Init<HandshakeRequest>;
  /** For the connection and the handshake together, in milliseconds. */
  readonly connectTimeoutMs: number;
  /** Ends the attempt to connect and to shake hands. Once that is done it means nothing. */
  readonly signal?: AbortSignal | undefined;
  /** For requests that name none, in milliseconds. */
  readonly requestTimeoutMs: number;
  /** Where response frames are received; the receiver of a response owns its frame. @defaultValue a new buffer each */
  readonly allocate?: (bytes: number) => Buffer;
  /** The last call; everything in flight was failed before. */
  readonly onClosed?: (end: SocketEnd) => void;
}

/** An answered request. */
export interface RpcResponse<Kind extends RequestKind> {
  readonly body: ResponseBody<Kind>;
  readonly records: readonly Buffer[];
}

/** How a request ended: an answer, or why there is none (TransportError), or a refusal as a whole (ApiError). */
export type RpcOutcome<Kind extends RequestKind> = RpcResponse<Kind> | TransportError | ApiError;

/** The records of a request. */
interface SentRecords {
  readonly records?: readonly (readonly Uint8Array[])[];
  /** One element of records, instead of `records`, to be sent as one piece with the head of the request. */
  readonly inPlace?: RecordsInPlace;
}

/** What the answer to a request is waited for by. */
interface Patience {
  readonly timeoutMs: number;
  /** Also longer, as long as bytes of some answer arrive: it may stand behind that one, or be it. @defaultValue false */
  readonly whileArriving?: boolean;
}

/** So often it is looked whether bytes arrive. */
const ARRIVING_MS = 1000;

/** How fast bytes arrive at the peer is told by requests that have at least so many in front of their own end. */
export const MEASURED_BYTES_MIN = 16 * 1024;
/** The kernels hold about as much as this at most. */
const KERNEL_BYTES_MAX = 4 * 1024 * 1024;

interface PendingRequest {
  readonly kind: RequestKind;
  readonly sentAtMs: number;
  deadlineMs: number;
  readonly timeoutMs: number;
  readonly whileArriving: boolean;
  /** `#receivedBytes` when it was last out of time. */
  receivedBytes: number;
  /** Where it ends among the bytes of all that is answered, and how many of them were under way with it. */
  readonly askedBytes: number;
  readonly underWayBytes: number;
  readonly onOutcome: (outcome: RpcOutcome<RequestKind>) => void;
}

/**
 * One connection to a broker, from the side that connected: correlation ids, deadlines, responses in any order. Clients
 * and brokers use it. It never reconnects: whoever holds it decides what its end means.
 */
export class RpcConnection {
  readonly address: string;
  readonly #env: Env;
  readonly #options: RpcConnectionOptions;
  readonly #socket: Socket;
  readonly #reader: FrameReader;
  readonly #pending = new Map<number, PendingRequest>();
  #peer: HandshakeResponse | undefined;
  #nextCorrelationId = 1;
  #receivedBytes = 0;
  /** Of all requests, whether the kernel has taken them or not. */
  #sentBytes = 0;
  /** Of these, what belongs to requests that are answered. */
  #askedBytes = 0;
  /** So many of them the peer has received: it has answered what stands at their end. */
  #arrivedBytes = 0;
  #bytesPerMs = 0;
  /** One timer for the deadlines of all requests: one each would cost more than the requests. */
  readonly #earliest: EarliestTimer;
  #end: SocketEnd | undefined;
  /** Why what the peer has sent is nothing that a broker sends. */
  #nonsense: string | undefined;

  /** Connects and shakes hands. Rejects with TransportError, or with ApiError when the broker refused. */
  static async open(env: Env, options: RpcConnectionOptions): Promise<RpcConnection> {
    const { host, port, connectTimeoutMs: timeoutMs, signal } = options;
    const startedMs = env.clock.monotonicMs();
    let socket: Socket;
    try {
      socket = await env.network.connect({ host, port, timeoutMs, signal });
    } catch (cause) {
      const refused = cause instanceof ConnectFailure && cause.reason === "refused";
      throw new TransportError(
        "connect",
        true,
        refused ? "refused" : undefined,
        // The reason begins with the address.
        `no connection to ${reasonOf(cause)}`,
        { cause },
      );
    }
    const connection = new RpcConnection(env, options, socket);
    const stopListening = onAbort(signal, () => connection.close());
    // Between the end of the attempt and this turn.
    if (signal?.aborted === true) connection.close();
    const leftMs = Math.max(1, timeoutMs - (env.clock.monotonicMs() - startedMs));
    try {
      const { body } = await connection.request("handshake", options.handshake, { timeoutMs: leftMs });
      connection.#peer = body;
      return connection;
    } catch (error) {
      connection.close();
      if (error instanceof TransportError) {
        const isNoBroker = connection.#nonsense !== undefined;
        const detail = isNoBroker ? error.message : `no handshake: ${error.message}`;
        throw new TransportError("connect", true, error.end, detail, { cause: error, isNoBroker });
      }
      throw error;
    } finally {
      stopListening();
    }
  }

  private constructor(env: Env, options: RpcConnectionOptions, socket: Socket) {
    this.address = formatAddress(options);
    this.#env = env;
    this.#earliest = new EarliestTimer(env, () => this.#onDeadline());
    this.#options = options;
    this.#socket = socket;
    this.#reader = new FrameReader({
      frameBytesMax: () => RESPONSE_FRAME_BYTES_MAX,
      allocate: options.allocate ?? ((bytes) => Buffer.allocUnsafeSlow(bytes)),
      onFrame: (frame) => this.#onFrame(frame),
    });
    socket.start({
      receiveBuffer: () => this.#reader.receiveBuffer(),
      onReceived: (count) => this.#onReceived(count),
      onDrained: () => undefined,
      onClosed: (end) => this.#onClosed(end),
    });
  }

  /** What the broker said of itself. */
  get peer(): HandshakeResponse {
    if (this.#peer === undefined) throw new Error("the handshake is not answered yet");
    return this.#peer;
  }

  get isOpen(): boolean {
    return this.#end === undefined;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Some of an answer is here, and not all of it. */
  get isReceiving(): boolean {
    return this.#reader.isInsideFrame;
  }

  /** Bytes that wait here for the kernel to take them. */
  get unsentBytes(): number {
    return this.#socket.unsentBytes;
  }

  /** Bytes that the kernel has taken. Their growth tells something of the way only while others wait: it has room first. */
  get takenBytes(): number {
    return this.#sentBytes - this.#socket.unsentBytes;
  }

  /**
   * Bytes of requests that the peer may not have received yet, at the most. Without those that are not answered: nothing tells
   * when they arrive, and they would count for ever.
   */
  get underWayBytes(): number {
    return Math.min(this.#askedBytes - this.#arrivedBytes, this.#socket.unsentBytes + KERNEL_BYTES_MAX);
  }

  /** How many bytes in a millisecond were sent and answered when there were last enough to tell; 0: there never were. */
  get bytesPerMs(): number {
    return this.#bytesPerMs;
  }

  /** Resolves with the answer. Rejects with TransportError, or with ApiError when the request as a whole was refused. */
  request<Kind extends RequestKind>(
    kind: Kind,
    body: Init<RequestBody<Kind>>,
    options: Partial<Patience> & Pick<SentRecords, "records"> = {},
  ): Promise<RpcResponse<Kind>> {
    return new Promise((resolve, reject) => {
      const timeoutMs = options.timeoutMs ?? this.#options.requestTimeoutMs;
      this.send(kind, body, { ...options, timeoutMs }, (outcome) => {
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      });
    });
  }

  /**
   * The same without a promise, for the paths where one costs too much. `onOutcome` is called exactly once, never in
   * this turn.
   */
  send<Kind extends RequestKind>(
    kind: Kind,
    body: Init<RequestBody<Kind>>,
    options: SentRecords & Patience,
    onOutcome: (outcome: RpcOutcome<Kind>) => void,
  ): void {
    if (this.#end !== undefined) {
      const closed = this.#closedError(kind, true);
      this.#env.timers.afterThisTurn(() => onOutcome(closed));
      return;
    }
    const correlationId = this.#nextCorrelationId;
    this.#nextCorrelationId = (correlationId % 0xffffffff) + 1;
    const sentAtMs = this.#env.clock.monotonicMs();
    const deadlineMs = sentAtMs + options.timeoutMs;
    const pieces = piecesOf(correlationId, kind, body, options);
    this.#askedBytes += this.#countSent(pieces);
    this.#pending.set(correlationId, {
      kind,
      sentAtMs,
      timeoutMs: options.timeoutMs,
      deadlineMs,
      whileArriving: options.whileArriving ?? false,
      receivedBytes: 0,
      askedBytes: this.#askedBytes,
      underWayBytes: this.underWayBytes,
      onOutcome: onOutcome as PendingRequest["onOutcome"],
    });
    this.#earliest.wakeAt(deadlineMs);
    this.#socket.send(pieces);
  }

  /** For requests that are not answered (acks=0). */
  sendWithoutResponse<Kind extends RequestKind>(
    kind: Kind,
    body: Init<RequestBody<Kind>>,
    records: readonly (readonly Uint8Array[])[],
    onSent: () => void,
  ): void {
    const pieces = encodeRequest(0, kind, body, records);
    this.#countSent(pieces);
    this.#socket.send(pieces, onSent);
  }

  /** Ends the connection at once; what is in flight fails with an unknown outcome. Idempotent. */
  close(): void {
    this.#socket.destroy();
  }

  #countSent(pieces: readonly Uint8Array[]): number {
    let bytes = 0;
    for (const { length } of pieces) bytes += length;
    this.#sentBytes += bytes;
    return bytes;
  }

  #onReceived(count: number): void {
    this.#receivedBytes += count;
    try {
      this.#reader.onReceived(count);
    } catch (error) {
      if (!(error instanceof FrameFault || error instanceof ApiError)) throw error;
      // A peer that sends no frames, or no messages in them, is no broker: nothing it sends can be understood any more.
      this.#nonsense = error instanceof FrameFault && isHttp(error.firstBytes) ? "it speaks HTTP" : error.message;
      this.#reader.stop();
      this.#socket.destroy();
    }
  }

  #onFrame(frame: Buffer): void {
    const response = decodeResponse(frame);
    const pending = this.#pending.get(response.correlationId);
    // Late: it timed out here before.
    if (pending === undefined) return;
    this.#pending.delete(response.correlationId);
    this.#onArrived(pending);
    if (response.error !== undefined) {
      pending.onOutcome(new ApiError(errorNameOf(response.error.code), response.error.message));
    } else if (response.kind !== pending.kind) {
      pending.onOutcome(
        new ApiError("UNKNOWN_SERVER_ERROR", `${this.address} answered ${pending.kind} with ${response.kind}`),
      );
    } else {
      pending.onOutcome({ body: response.body, records: response.records } as RpcResponse<RequestKind>);
    }
  }

  /** The peer has answered, so it has received all that was sent up to the end of this request. */
  #onArrived({ askedBytes, underWayBytes, sentAtMs }: PendingRequest): void {
    if (askedBytes <= this.#arrivedBytes) return;
    this.#arrivedBytes = askedBytes;
    if (underWayBytes < MEASURED_BYTES_MIN) return;
    this.#bytesPerMs = underWayBytes / Math.max(1, this.#env.clock.monotonicMs() - sentAtMs);
  }

  /** The deadline of some request has come; it may have been answered long ago. */
  #onDeadline(): void {
    const nowMs = this.#env.clock.monotonicMs();
    for (const [correlationId, pending] of this.#pending) {
      if (pending.deadlineMs <= nowMs && pending.whileArriving && this.#arrivesFor(pending)) {
        pending.deadlineMs = nowMs + ARRIVING_MS;
      }
      if (pending.deadlineMs > nowMs) {
        this.#earliest.wakeAt(pending.deadlineMs);
        continue;
      }
      this.#pending.delete(correlationId);
      pending.onOutcome(TransportError.timeout(pending.kind, this.address, pending.timeoutMs));
    }
  }

  /** Whether an answer is being received, and some of it since the request was last out of time. */
  #arrivesFor(pending: PendingRequest): boolean {
    const arrives = this.isReceiving && this.#receivedBytes > pending.receivedBytes;
    pending.receivedBytes = this.#receivedBytes;
    return arrives;
  }

  #onClosed(end: SocketEnd): void {
    this.#end = end;
    this.#reader.stop();
    this.#earliest.cancel();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const request of pending) request.onOutcome(this.#closedError(request.kind, false));
    this.#options.onClosed?.(end);
  }

  #closedError(kind: RequestKind, notSent: boolean): TransportError {
    if (this.#nonsense !== undefined) {
      const detail = `what answers at ${this.address} is no ottla broker (${this.#nonsense})`;
      return new TransportError("closed", notSent, this.#end, detail, { isNoBroker: true });
    }
    return new TransportError(
      "closed",
      notSent,
      this.#end,
      `the connection to ${this.address} ended (${this.#end ?? "open"}) before ${kind} was answered`,
    );
  }
}

const isHttp = (firstBytes: Uint8Array): boolean => Buffer.from(firstBytes).toString("latin1").startsWith("HTTP");

function piecesOf<Kind extends RequestKind>(
  correlationId: number,
  kind: Kind,
  body: Init<RequestBody<Kind>>,
  { records, inPlace }: SentRecords,
): readonly Uint8Array[] {
  if (inPlace === undefined) return encodeRequest(correlationId, kind, body, records);
  const whole = encodeRequestInFront(correlationId, kind, body, inPlace);
  if (whole !== undefined) return [whole];
  return encodeRequest(correlationId, kind, body, [[inPlace.buffer.subarray(inPlace.start, inPlace.end)]]);
}
