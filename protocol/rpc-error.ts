import type { SocketEnd } from "../common/env/network.js";
import type { RequestKind } from "./api-keys.js";

/**
 * A request that got no answer. `notSent` proves that it had no effect; otherwise its outcome is unknown.
 * `connect`: no connection could be made. `closed`: it ended. `timeout`: no answer in time, the connection lives on.
 */
export class TransportError extends Error {
  override readonly name = "TransportError";
  /** What answers there speaks another protocol. */
  readonly isNoBroker: boolean;
  constructor(
    readonly kind: "connect" | "closed" | "timeout",
    readonly notSent: boolean,
    /** How the connection ended, if it did. */
    readonly end: SocketEnd | "refused" | undefined,
    detail: string,
    options?: ErrorOptions & { readonly isNoBroker?: boolean },
  ) {
    super(detail, options);
    this.isNoBroker = options?.isNoBroker ?? false;
  }

  static timeout(kind: RequestKind, address: string, timeoutMs: number): TransportError {
    return new TransportError(
      "timeout",
      false,
      undefined,
      `${address} did not answer ${kind} within ${Math.round(timeoutMs)} ms`,
    );
  }
}
