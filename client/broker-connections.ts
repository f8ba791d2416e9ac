import type { Env } from "../common/env/env.js";
import { throwUncaught } from "../common/env/time.js";
import { ApiError } from "../protocol/error-codes.js";
import { RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerId } from "../protocol/types.js";
import { Backoff } from "./retry.js";

/** Where a broker listens. */
export interface BrokerAddress {
  readonly host: string;
  readonly port: number;
}

/** What connections need to know of the cluster. Asked anew for each attempt, because brokers move. */
export interface BrokerDirectory {
  /** Empty as long as it is not known. */
  readonly clusterId: string;
  addressOf(brokerId: BrokerId): BrokerAddress | undefined;
  /** A broker could not be reached, or its connection ended: what is known of the cluster may be outdated. */
  onTrouble(brokerId: BrokerId): void;
}

/** What a client says of itself, and how long it waits. */
export interface ConnectionSettings {
  readonly clientId: string;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
}

const CLIENT_SOFTWARE = "ottla-node";
const CLIENT_VERSION = "0.1.0";

interface Slot {
  readonly backoff: Backoff;
  connection: RpcConnection | undefined;
  opening: Promise<RpcConnection> | undefined;
  /** No attempt before this time of the monotonic clock. */
  notBeforeMs: number;
  lastError: unknown;
  isFailing: boolean;
}

/**
 * The connections of one purpose, one for each broker: data, fetching and control each have their own set, so that four
 * megabytes of the one never stand in the way of the other. Connects when asked for a connection, at most one attempt at
 * a time for each broker, with a growing pause after a failure. Never retries by itself: its owner asks again.
 */
export class BrokerConnections {
  readonly #slots = new Map<BrokerId, Slot>();
  #closed = false;

  constructor(
    private readonly env: Env,
    private readonly directory: BrokerDirectory,
    private readonly settings: ConnectionSettings,
    /** A connection was opened. Never called from within a call to the set. */
    private readonly onOpened: () => void = () => undefined,
    private readonly allocate?: (bytes: number) => Buffer,
  ) {}

  /** The open connection to a broker; undefined when there is none, and then one is being made, and `onOpened` will tell. */
  tryGet(brokerId: BrokerId): RpcConnection | undefined {
    const slot = this.#slot(brokerId);
    if (slot.connection !== undefined) return slot.connection;
    // The owner hears of the outcome by `onOpened`, or from the directory.
    if (slot.opening === undefined && !this.#mustWait(slot)) this.#open(brokerId, slot).catch(() => undefined);
    return undefined;
  }

  /** Whether there is an open connection; asks for none. */
  isOpen(brokerId: BrokerId): boolean {
    return this.#slots.get(brokerId)?.connection !== undefined;
  }

  /** Whether the last attempt to connect, or the last connection, has failed and none has succeeded since. */
  isFailing(brokerId: BrokerId): boolean {
    return this.#slots.get(brokerId)?.isFailing ?? false;
  }

  /** Resolves with an open connection. Rejects with TransportError or ApiError, at once while pausing after a failure. */
  async open(brokerId: BrokerId): Promise<RpcConnection> {
    const slot = this.#slot(brokerId);
    if (slot.connection !== undefined) return slot.connection;
    if (slot.opening !== undefined) return slot.opening;
    if (this.#mustWait(slot)) throw slot.lastError;
    return this.#open(brokerId, slot);
  }

  /**
   * Takes over a connection that was opened by address, and returns what must be called when it ends. Undefined: it is not
   * wanted and was closed, because there is one to that broker already or all are closed.
   */
  adopt(connection: RpcConnection): (() => void) | undefined {
    const { brokerId } = connection.peer;
    const slot = this.#slot(brokerId);
    if (this.#closed || slot.connection !== undefined || !connection.isOpen) {
      connection.close();
      return undefined;
    }
    slot.connection = connection;
    return () => this.#onEnded(brokerId, slot, connection);
  }

  /** Ends the connection to a broker; what is in flight on it fails soon after. The next attempt may come at once. */
  drop(brokerId: BrokerId): void {
    const slot = this.#slots.get(brokerId);
    const connection = slot?.connection;
    if (slot === undefined || connection === undefined) return;
    slot.connection = undefined;
    connection.close();
  }

  /** Ends all. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const slot of this.#slots.values()) slot.connection?.close();
  }

  #slot(brokerId: BrokerId): Slot {
    let slot = this.#slots.get(brokerId);
    if (slot === undefined) {
      slot = {
        backoff: new Backoff(this.env.random),
        connection: undefined,
        opening: undefined,
        notBeforeMs: 0,
        lastError: undefined,
        isFailing: false,
      };
      this.#slots.set(brokerId, slot);
    }
    return slot;
  }

  #mustWait(slot: Slot): boolean {
    return slot.notBeforeMs > this.env.clock.monotonicMs();
  }

  #open(brokerId: BrokerId, slot: Slot): Promise<RpcConnection> {
    const opening = this.#connect(brokerId, slot).then(
      (connection) => {
        slot.opening = undefined;
        // One was adopted meanwhile.
        if (slot.connection !== undefined) connection.close();
        const kept = (slot.connection ??= connection);
        slot.isFailing = false;
        slot.backoff.reset();
        this.#tellOpened();
        return kept;
      },
      (error: unknown) => {
        slot.opening = undefined;
        slot.lastError = error;
        slot.isFailing = true;
        slot.notBeforeMs = this.env.clock.monotonicMs() + slot.backoff.next();
        if (!this.#closed) this.directory.onTrouble(brokerId);
        throw error;
      },
    );
    slot.opening = opening;
    return opening;
  }

  /** A fault of the owner is not one of the connection, and must not pass in silence. */
  #tellOpened(): void {
    try {
      this.onOpened();
    } catch (error) {
      throwUncaught(this.env.timers, error);
    }
  }

  async #connect(brokerId: BrokerId, slot: Slot): Promise<RpcConnection> {
    if (this.#closed) throw new TransportError("connect", true, undefined, "the client is closed");
    const address = this.directory.addressOf(brokerId);
    if (address === undefined) {
      throw new TransportError("connect", true, undefined, `broker ${brokerId} is not among the live brokers`);
    }
    let ended = false;
    let opened: RpcConnection | undefined = undefined;
    const connection = await openConnection(
      this.env,
      address,
      this.directory.clusterId,
      this.settings,
      () => {
        ended = true;
        if (opened !== undefined) this.#onEnded(brokerId, slot, opened);
      },
      this.allocate,
    );
    opened = connection;
    if (connection.peer.brokerId !== brokerId) {
      connection.close();
      throw new ApiError(
        "WRONG_BROKER",
        `${connection.address} is broker ${connection.peer.brokerId}, not broker ${brokerId}`,
      );
    }
    if (this.#closed || ended) {
      connection.close();
      throw new TransportError("connect", true, undefined, `the connection to ${connection.address} ended at once`);
    }
    return connection;
  }

  #onEnded(brokerId: BrokerId, slot: Slot, connection: RpcConnection): void {
    if (slot.connection !== connection) return;
    slot.connection = undefined;
    slot.isFailing = true;
    if (!this.#closed) this.directory.onTrouble(brokerId);
  }
}

/** A connection to whatever broker listens there. Rejects with TransportError or ApiError. */
export function openConnection(
  env: Env,
  address: BrokerAddress,
  clusterId: string,
  settings: ConnectionSettings,
  onClosed: () => void,
  allocate?: (bytes: number) => Buffer,
): Promise<RpcConnection> {
  return RpcConnection.open(env, {
    host: address.host,
    port: address.port,
    handshake: {
      clientId: settings.clientId,
      clientSoftware: CLIENT_SOFTWARE,
      clientVersion: CLIENT_VERSION,
      clusterId,
    },
    connectTimeoutMs: settings.connectTimeoutMs,
    requestTimeoutMs: settings.requestTimeoutMs,
    ...(allocate && { allocate }),
    onClosed,
  });
}
