import { InvariantViolation } from "../../common/assert.js";
import type { Logger } from "../../common/logger.js";
import { apiKeys } from "../../protocol/api-keys.js";
import type { RequestKind } from "../../protocol/api-keys.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { DecodedRequest } from "../../protocol/message-codec.js";
import { encodeErrorResponse, encodeResponse } from "../../protocol/message-codec.js";
import type { Answer, Handler, Handlers, RequestContext } from "./request-context.js";

/** The bytes of a response, and what to call once they were sent. */
export interface EncodedAnswer {
  readonly pieces: readonly Uint8Array[];
  readonly onSent?: () => void;
  /** The request was refused as a whole. */
  readonly isRefusal?: boolean;
}

/**
 * Finds the handler of a request, and is the one place where an error becomes a code on the wire. A broken invariant is
 * not an answer: it goes to `onFatal`, and the process stops.
 */
export class RequestRouter {
  /** By kind, the last unexpected failure: it is not told again until such a request has been answered. */
  readonly #faults = new Map<RequestKind, string>();

  constructor(
    private readonly logger: Logger,
    private readonly handlers: Handlers,
    private readonly onFatal: (error: Error) => void,
  ) {}

  /** Calls `respond` once, in this turn or later; with undefined when the sender wants no answer. */
  route(request: DecodedRequest, context: RequestContext, respond: (answer: EncodedAnswer | undefined) => void): void {
    const { kind, correlationId } = request;
    const answered = (answer: Answer<RequestKind> | undefined): void => {
      if (this.#faults.size > 0) this.#faults.delete(kind);
      if (answer === undefined) respond(undefined);
      else
        respond({
          pieces: encodeResponse(correlationId, kind, answer.body, answer.records),
          ...(answer.onSent && { onSent: answer.onSent }),
        });
    };
    const refused = (error: unknown): void =>
      respond({ pieces: encodeErrorResponse(correlationId, this.#report(error, kind)), isRefusal: true });
    try {
      this.#assertAllowed(kind, context);
      const handler = this.handlers[kind] as Handler<RequestKind>;
      const result = handler(request.body as never, context, request.records);
      if (result instanceof Promise) result.then(answered).catch(refused);
      else answered(result);
    } catch (error) {
      refused(error);
    }
  }

  #assertAllowed(kind: RequestKind, context: RequestContext): void {
    if (apiKeys[kind].audience !== "brokers") return;
    if (!context.isInterBroker) {
      throw new ApiError(
        "CLUSTER_AUTHORIZATION_FAILED",
        `${kind} is accepted on the inter-broker listener only, not on ${context.listenerName}`,
      );
    }
    if (context.broker === undefined) {
      throw new ApiError(
        "CLUSTER_AUTHORIZATION_FAILED",
        `${kind} is accepted from brokers only; the handshake named none`,
      );
    }
  }

  #report(error: unknown, kind: RequestKind): { code: number; message: string } {
    if (error instanceof ApiError) return error.report;
    if (error instanceof InvariantViolation) this.onFatal(error);
    // What went wrong inside is for the log; the peer learns only that it did, and may ask again and again.
    const what = String(error);
    if (this.#faults.get(kind) === what) return new ApiError("UNKNOWN_SERVER_ERROR").report;
    this.#faults.set(kind, what);
    this.logger.error(`${kind} failed in an unexpected way`, {
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    return new ApiError("UNKNOWN_SERVER_ERROR").report;
  }
}
