import { InvariantViolation } from "../../common/assert.js";
import type { BytePool } from "../../common/byte-pool.js";
import type { Clock } from "../../common/env/time.js";
import type { Socket, SocketEnd, SocketHandler } from "../../common/env/network.js";
import { apiKeys, UNTRUSTED_FRAME_BYTES_MAX } from "../../protocol/api-keys.js";
import { ApiError, errorReport } from "../../protocol/error-codes.js";
import type { FrameHead } from "../../protocol/frame-reader.js";
import { FrameFault, FrameReader, readCorrelationId } from "../../protocol/frame-reader.js";
import { decodeRequest, encodeErrorResponse } from "../../protocol/message-codec.js";
import type { DecodedRequest } from "../../protocol/message-codec.js";
import type { BrokerIdentity, HandshakeRequest } from "../../protocol/messages.js";
import type { MemoryBudget } from "./memory-budget.js";
import type { RequestContext } from "./request-context.js";
import type { ResponseBudget } from "./response-budget.js";
import type { EncodedAnswer, RequestRouter } from "./request-router.js";

/** Reading stops while so many bytes of responses are unsent, and goes on when all are sent. */
const PAUSE_UNSENT_BYTES = 1024 * 1024;

/** A frame that comes more slowly than this, beyond the time that any may take, is not waited for. */
const FRAME_BYTES_PER_MS_MIN = 64;

export interface ConnectionLimits {
  readonly handshakeTimeoutMs: number;
  readonly frameProgressTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly unreadBytesMax: number;
  readonly unreadMsMax: number;
}

/** What a connection needs of its server. */
export interface ConnectionParts {
  readonly clock: Clock;
  readonly router: RequestRouter;
  readonly budget: MemoryBudget;
  readonly responses: ResponseBudget;
  readonly frames: BytePool;
  readonly limits: ConnectionLimits;
  readonly onFatal: (error: Error) => void;
  /** Something the peer did that operators should hear of, in one sentence without its payload. */
  readonly onMisuse: (kind: string, sentence: string) => void;
  readonly onClosed: (connection: Connection) => void;
}

/**
 * One accepted connection: frames in, responses out as they are ready, back-pressure both ways. Requests are dispatched in
 * the order they arrive. States: `greeting` (only a handshake is accepted), `open`, `closed`.
 */
export class Connection implements RequestContext, SocketHandler {
  clientId = "";
  broker: BrokerIdentity | undefined;
  readonly remoteAddress: string;
  readonly #reader: FrameReader;
  readonly #closedListeners = new Set<(end: SocketEnd) => void>();
  #state: "greeting" | "shaking-hands" | "open" | "ending" | "closed" = "greeting";
  #answering = 0;
  #paused = false;
  readonly #openedMs: number;
  #lastByteMs: number;
  #lastRequestMs: number;
  /** When the frame that is being received began; undefined: none is. */
  #frameSinceMs: number | undefined;
  #unreadSinceMs: number | undefined;
  /** Taken of the responses' memory for those that wait to be sent; whoever made one with an `onSent` takes for it. */
  #unsentBytes = 0;
  /** When it was told to go. */
  #endedMs = 0;
  readonly #retryMemory = (): void => this.#onMemory();

  constructor(
    readonly connectionId: number,
    readonly listenerName: string,
    readonly isInterBroker: boolean,
    private readonly socket: Socket,
    private readonly parts: ConnectionParts,
  ) {
    this.remoteAddress = socket.remoteAddress;
    this.#openedMs = this.#lastByteMs = this.#lastRequestMs = parts.clock.monotonicMs();
    this.#reader = new FrameReader({
      frameBytesMax: (head) => this.#frameBytesMax(head),
      allocate: (bytes) => (parts.budget.tryReserve(bytes) ? parts.frames.take(bytes) : undefined),
      onFrame: (frame) => this.#onFrame(frame),
    });
    socket.start(this);
  }

  whenClosed(listener: (end: SocketEnd) => void): () => void {
    if (this.#state === "closed") listener("closed-here");
    else this.#closedListeners.add(listener);
    return () => this.#closedListeners.delete(listener);
  }

  onClosed(end: SocketEnd): void {
    this.#state = "closed";
    this.#holdUnsent(0);
    this.#stopReading();
    for (const listener of this.#closedListeners) listener(end);
    this.#closedListeners.clear();
    this.parts.onClosed(this);
  }

  receiveBuffer(): Uint8Array {
    return this.#reader.receiveBuffer();
  }

  onReceived(count: number): void {
    this.#lastByteMs = this.parts.clock.monotonicMs();
    this.#guarded(() => this.#reader.onReceived(count));
    if (this.#reader.isInsideFrame) this.#frameSinceMs ??= this.#lastByteMs;
  }

  onDrained(): void {
    this.#unreadSinceMs = undefined;
    this.#holdUnsent(0);
    this.#setPaused(this.#reader.waitsForMemory);
  }

  disconnect(): void {
    this.socket.destroy();
  }

  /** What a client has left unread, and for how long; undefined: nothing, or it is going already, or it is a broker. */
  unread(nowMs: number): { readonly bytes: number; readonly forMs: number } | undefined {
    if (this.#unreadSinceMs === undefined || this.broker !== undefined) return undefined;
    if (this.#state === "closed" || this.#state === "ending") return undefined;
    return { bytes: this.socket.unsentBytes, forMs: nowMs - this.#unreadSinceMs };
  }

  /** All connections together leave too much unread. */
  endAsUnread(): void {
    this.#end(
      "unread",
      `left ${this.socket.unsentBytes} bytes of responses unread while memory for responses is short`,
    );
  }

  /** Called about once a second: what has gone on for too long ends here. */
  checkDeadlines(): void {
    const nowMs = this.parts.clock.monotonicMs();
    const { limits } = this.parts;
    const greeting = this.#state === "greeting" || this.#state === "shaking-hands";
    if (this.#state === "ending") {
      // It was told, and does not close its end: it would keep its place for ever.
      if (nowMs - this.#endedMs > limits.handshakeTimeoutMs) this.socket.destroy();
    } else if (greeting && nowMs - this.#openedMs > limits.handshakeTimeoutMs) {
      this.#end("slow-handshake", `did not shake hands within ${limits.handshakeTimeoutMs} ms`);
    } else if (this.#isFrameOverdue(nowMs)) {
      this.#end(
        "slow-frame",
        `sends a frame too slowly: for ${limits.frameProgressTimeoutMs} ms too little came of it`,
      );
    } else if (this.#unreadSinceMs !== undefined && nowMs - this.#unreadSinceMs > limits.unreadMsMax) {
      this.#end("unread", `left ${this.socket.unsentBytes} bytes of responses unread for ${limits.unreadMsMax} ms`);
    } else if (
      this.broker === undefined &&
      this.#answering === 0 &&
      nowMs - this.#lastRequestMs > limits.idleTimeoutMs
    ) {
      this.#stopReading();
      this.#state = "ending";
      this.#endedMs = nowMs;
      this.socket.end();
    }
  }

  /** Memory for the whole frame is held from its first bytes on, so they must come at some rate. */
  #isFrameOverdue(nowMs: number): boolean {
    const { frameProgressTimeoutMs } = this.parts.limits;
    if (this.#paused || !this.#reader.isInsideFrame) return false;
    const elapsedMs = nowMs - (this.#frameSinceMs ?? nowMs);
    return (
      nowMs - this.#lastByteMs > frameProgressTimeoutMs ||
      elapsedMs > frameProgressTimeoutMs + this.#reader.bytesInsideFrame / FRAME_BYTES_PER_MS_MIN
    );
  }

  #frameBytesMax(head: FrameHead): number {
    if (this.#state !== "open" || head.kind === undefined) return UNTRUSTED_FRAME_BYTES_MAX;
    const { audience, frameBytesMax } = apiKeys[head.kind];
    return audience === "brokers" && this.broker === undefined ? UNTRUSTED_FRAME_BYTES_MAX : frameBytesMax;
  }

  /** Runs a step of reading; a fault of the peer's ends the connection, a fault of ours the process. */
  #guarded(step: () => void): void {
    try {
      step();
    } catch (error) {
      if (error instanceof FrameFault)
        this.#onFault(
          error.firstBytes,
          error.correlationId,
          error.kind === "too-large" ? "FRAME_TOO_LARGE" : "INVALID_REQUEST",
          error.message,
        );
      else this.parts.onFatal(error instanceof Error ? error : new InvariantViolation(String(error)));
      return;
    }
    if (!this.#reader.waitsForMemory) return;
    this.#setPaused(true);
    this.parts.budget.whenReleased(this.#retryMemory);
  }

  #onMemory(): void {
    if (this.#state === "closed") return;
    this.#lastByteMs = this.parts.clock.monotonicMs();
    this.#guarded(() => this.#reader.retry());
    if (!this.#reader.waitsForMemory && this.socket.unsentBytes < PAUSE_UNSENT_BYTES) this.#setPaused(false);
  }

  #onFrame(frame: Buffer): void {
    this.#lastRequestMs = this.#lastByteMs;
    this.#frameSinceMs = undefined;
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      this.#answering -= 1;
      this.parts.budget.release(frame.length);
      // A handler answers when it needs nothing of the request any more, records included.
      this.parts.frames.give(frame);
    };
    this.#answering += 1;
    let request: DecodedRequest;
    try {
      request = decodeRequest(frame);
    } catch (error) {
      release();
      if (!(error instanceof ApiError)) throw error;
      const id = readCorrelationId(frame.subarray(0, 16));
      if (error.errorName === "INVALID_REQUEST") this.#onFault(withLength(frame), id, "INVALID_REQUEST", error.message);
      else this.#onUndecoded(id ?? 0, error);
      return;
    }
    if (this.#state !== "open" && !this.#mayGreet(request)) {
      release();
      return;
    }
    this.parts.router.route(request, this, (answer) => {
      release();
      if (request.kind === "handshake") this.#greeted(request.body as HandshakeRequest, answer);
      if (answer !== undefined) this.#send(answer);
      // Requests may stand behind it already, meant for another broker or another cluster.
      const isRefused = request.kind === "handshake" && answer?.isRefusal === true && this.#state === "open";
      if (isRefused || this.#state === "shaking-hands") this.#leave(true);
    });
  }

  /** A request that cannot be told what it asks for, though its frame can be read. */
  #onUndecoded(correlationId: number, error: ApiError): void {
    if (this.#state === "open") {
      this.#send({ pieces: encodeErrorResponse(correlationId, error.report) });
      return;
    }
    // The refused handshake, or something else in its place.
    const name = error.errorName === "TOO_MANY_ELEMENTS" ? "TOO_MANY_ELEMENTS" : "HANDSHAKE_REQUIRED";
    this.#refuseAndEnd(correlationId, name, error.message);
  }

  /** Before the handshake was answered nothing else is accepted, and only one handshake. */
  #mayGreet(request: DecodedRequest): boolean {
    if (this.#state === "greeting" && request.kind === "handshake") {
      this.#state = "shaking-hands";
      return true;
    }
    this.#refuseAndEnd(
      request.correlationId,
      "HANDSHAKE_REQUIRED",
      `${request.kind} came before the handshake was answered`,
    );
    return false;
  }

  #greeted(handshake: HandshakeRequest, answer: EncodedAnswer | undefined): void {
    if (this.#state !== "shaking-hands" || answer === undefined || answer.isRefusal === true) return;
    this.clientId = handshake.clientId.slice(0, 256);
    this.#state = "open";
  }

  identify(broker: BrokerIdentity): void {
    this.broker = broker;
  }

  #send(answer: EncodedAnswer): void {
    if (this.#state === "closed" || this.#state === "ending") {
      answer.onSent?.();
      return;
    }
    this.socket.send(answer.pieces, answer.onSent);
    const unsentBytes = this.socket.unsentBytes;
    if (unsentBytes === 0) return;
    this.#unreadSinceMs ??= this.parts.clock.monotonicMs();
    if (answer.onSent === undefined && this.broker === undefined) {
      let bytes = this.#unsentBytes;
      for (const piece of answer.pieces) bytes += piece.length;
      this.#holdUnsent(Math.min(bytes, unsentBytes));
    }
    if (unsentBytes > this.parts.limits.unreadBytesMax)
      this.#end("unread", `left ${unsentBytes} bytes of responses unread`);
    else if (unsentBytes > PAUSE_UNSENT_BYTES) this.#setPaused(true);
  }

  #holdUnsent(bytes: number): void {
    const more = bytes - this.#unsentBytes;
    this.#unsentBytes = bytes;
    if (more > 0) this.parts.responses.take(more);
    else this.parts.responses.release(-more);
  }

  #setPaused(paused: boolean): void {
    if (this.#paused === paused || this.#state === "closed") return;
    this.#paused = paused;
    if (paused) {
      this.#reader.pause();
      this.socket.pause();
      return;
    }
    this.#lastByteMs = this.parts.clock.monotonicMs();
    if (this.#frameSinceMs !== undefined) this.#frameSinceMs = this.#lastByteMs;
    this.socket.resume();
    // Answers to what was held back may fill the socket again, which pauses it again.
    this.#guarded(() => this.#reader.resume());
  }

  #onFault(
    firstBytes: Uint8Array,
    correlationId: number | undefined,
    name: "FRAME_TOO_LARGE" | "INVALID_REQUEST",
    detail: string,
  ): void {
    this.#stopReading();
    const stranger = strangerName(firstBytes);
    if (stranger === "HTTP") {
      this.socket.send([Buffer.from(httpAnswer, "latin1")]);
      this.#end("http", "speaks HTTP; this port speaks ottla", true);
    } else if (stranger !== undefined) {
      this.#end("stranger", `is a ${stranger} client; this port speaks ottla`, true);
    } else if (correlationId !== undefined) {
      this.#refuseAndEnd(correlationId, name, detail);
    } else {
      this.#end("malformed", `sent bytes that are no frame: ${detail}`, true);
    }
  }

  #refuseAndEnd(
    correlationId: number,
    name: "FRAME_TOO_LARGE" | "INVALID_REQUEST" | "HANDSHAKE_REQUIRED" | "TOO_MANY_ELEMENTS",
    detail: string,
  ): void {
    this.socket.send(encodeErrorResponse(correlationId, errorReport(name, detail)));
    this.#end("refused", `was refused: ${detail}`, true);
  }

  /** The memory of an unfinished frame is not used again: the socket may still receive into it. */
  #stopReading(): void {
    const unfinishedBytes = this.#reader.stop();
    this.parts.budget.forget(this.#retryMemory);
    if (unfinishedBytes > 0) this.parts.budget.release(unfinishedBytes);
  }

  #end(kind: string, sentence: string, gently = false): void {
    this.parts.onMisuse(kind, sentence);
    this.#leave(gently);
  }

  /** `gently`: what was sent arrives first. */
  #leave(gently: boolean): void {
    this.#stopReading();
    this.#state = "ending";
    this.#endedMs = this.parts.clock.monotonicMs();
    if (gently) this.socket.end();
    else this.socket.destroy();
  }
}

const httpAnswer =
  "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n" +
  "This port speaks the ottla protocol, not HTTP. Try: ottla cluster describe --bootstrap HOST:PORT\n";

const withLength = (frame: Buffer): Uint8Array => {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(frame.length);
  return Buffer.concat([length, frame.subarray(0, 12)]);
};

/** What a peer speaks that does not speak our protocol, by the first bytes it sent (its length prefix included). */
function strangerName(firstBytes: Uint8Array): "HTTP" | "Kafka" | "TLS" | undefined {
  const text = Buffer.from(firstBytes).toString("latin1");
  if (/^(GET|POST|PUT|HEAD|DELETE|OPTIONS|PATCH|CONNECT|TRACE|PRI) /.test(text)) return "HTTP";
  if (firstBytes[0] === 0x16 && firstBytes[1] === 0x03) return "TLS";
  // A Kafka request: length, api key 18 (ApiVersions) or 3 (Metadata), a small api version.
  const isKafka =
    firstBytes[4] === 0 &&
    (firstBytes[5] === 18 || firstBytes[5] === 3) &&
    firstBytes[6] === 0 &&
    (firstBytes[7] ?? 255) < 32;
  return isKafka ? "Kafka" : undefined;
}
