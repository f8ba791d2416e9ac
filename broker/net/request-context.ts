import type { SocketEnd } from "../../common/env/network.js";
import type { BrokerIdentity, Init } from "../../protocol/messages.js";
import type { RequestKind } from "../../protocol/api-keys.js";
import type { RequestBody, ResponseBody } from "../../protocol/message-codec.js";

/** Who sent a request, and how it reached us. One object for each connection. */
export interface RequestContext {
  /** Unique among the connections of this broker's life; grows. */
  readonly connectionId: number;
  readonly listenerName: string;
  readonly isInterBroker: boolean;
  readonly remoteAddress: string;
  /** What the sender calls itself; empty before the handshake. */
  readonly clientId: string;
  /** The broker that proved to be the sender. Only on the inter-broker listener. */
  readonly broker: BrokerIdentity | undefined;
  /** The handler of the handshake has proven that this broker is the sender. */
  identify(broker: BrokerIdentity): void;
  /**
   * Calls `listener` once when the connection has ended, so that what waits for it can be dropped. Returns how to
   * forget it.
   */
  whenClosed(listener: (end: SocketEnd) => void): () => void;
  /** Ends the connection at once. */
  disconnect(): void;
}

/** What a handler answers. `undefined` in its place: the sender wants no answer. */
export interface Answer<Kind extends RequestKind> {
  readonly body: Init<ResponseBody<Kind>>;
  /** Each becomes one `records` field; its pieces are sent from where they lie. */
  readonly records?: readonly (readonly Uint8Array[])[];
  /** The pieces were sent, or never will be. */
  readonly onSent?: () => void;
}

/**
 * Answers one kind of request. It is called in the order in which requests of a connection arrive and takes its place in
 * every partition before it returns; what it returns may settle whenever, but not before the handler is done with `records`:
 * their memory is used again. Throws or rejects with ApiError to refuse the
 * request as a whole.
 */
export type Handler<Kind extends RequestKind> = (
  body: RequestBody<Kind>,
  context: RequestContext,
  records: readonly Buffer[],
) => Answer<Kind> | Promise<Answer<Kind> | undefined> | undefined;

export type Handlers = { readonly [Kind in RequestKind]: Handler<Kind> };
