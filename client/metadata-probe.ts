import type { Env } from "../common/env/env.js";
import { ApiError } from "../protocol/error-codes.js";
import type { Init, MetadataRequest, MetadataResponse } from "../protocol/messages.js";
import type { RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerAddress, ConnectionSettings } from "./broker-connections.js";
import { openConnection } from "./broker-connections.js";

/** How long an answer is waited for at first. */
const PATIENCE_MS = 1000;

export interface ProbeHost {
  readonly clusterId: string;
  /** Takes a connection that has been answered on, or closes it; returns what must be called when it ends. */
  adopt(connection: RpcConnection): (() => void) | undefined;
}

/**
 * Asks one broker for metadata over a connection of its own, while one that was made before stays silent: there the
 * process may be gone. One attempt at a time; each that was not answered makes the next ones wait twice as long, so that a
 * slow broker has its time and one that went away again does not cost much.
 */
export class MetadataProbe {
  #patienceMs = PATIENCE_MS;
  #isAsking = false;
  #isEnded = false;
  #connection: RpcConnection | undefined;
  readonly #ended = new AbortController();

  constructor(
    private readonly env: Env,
    private readonly settings: ConnectionSettings,
    private readonly host: ProbeHost,
    private readonly address: BrokerAddress | undefined,
  ) {}

  /** Resolves with the answer; with undefined when there is none, or another attempt is under way. */
  async ask(request: Init<MetadataRequest>): Promise<MetadataResponse | undefined> {
    const { address, env, host, settings } = this;
    if (this.#isAsking || this.#isEnded || address === undefined) return undefined;
    this.#isAsking = true;
    let onEnded = (): void => undefined;
    try {
      const connection = await openConnection(
        env,
        address,
        host.clusterId,
        { ...settings, signal: this.#ended.signal },
        () => onEnded(),
      );
      this.#connection = connection;
      if (this.#isEnded) return undefined;
      const timeoutMs = Math.min(settings.requestTimeoutMs, this.#patienceMs);
      // Behind a slow link a long answer takes its time: one that arrives is waited for.
      const { body } = await connection.request("metadata", request, { timeoutMs, whileArriving: true });
      this.#connection = undefined;
      onEnded = host.adopt(connection) ?? onEnded;
      return body;
    } catch (error) {
      if (!(error instanceof TransportError || error instanceof ApiError)) throw error;
      if (error instanceof TransportError && error.kind === "timeout") this.#patienceMs *= 2;
      return undefined;
    } finally {
      this.#isAsking = false;
      this.#connection?.close();
      this.#connection = undefined;
    }
  }

  /** Asks nothing more, and waits for nothing. */
  end(): void {
    this.#isEnded = true;
    this.#ended.abort();
    this.#connection?.close();
  }
}
