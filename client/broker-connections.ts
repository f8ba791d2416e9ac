import type { Env } from "../common/env/env.js";
import { throwUncaught } from "../common/env/time.js";
import { ApiError } from "../protocol/error-codes.js";
import type { HandshakeRequest, Init } from "../protocol/messages.js";
import { MEASURED_BYTES_MIN, RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerId } from "../protocol/types.js";
import { brokerEpochNumber } from "../protocol/types.js";
import { ConnectionCheck, FRESH_CONNECT_MS_MAX } from "./connection-check.js";
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
  /** The epoch of its registration as it was last told, decimal digits; undefined: it is not among the live brokers. */
  epochOf(brokerId: BrokerId): string | undefined;
  /** Calls `listener` after each change; returns what ends that. */
  onChange(listener: () => void): () => void;
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
  /** Of the registration that the process at the other end of `connection` had; greater ones are of its successors. */
  epoch: bigint;
  /** It had none yet: the next one that is told of is its own, and no successor's. */
  awaitsEpoch: boolean;
  opening: Promise<RpcConnection> | undefined;
  /** No attempt before this time of the monotonic clock. */
  notBeforeMs: number;
  lastError: unknown;
  isFailing: boolean;
  /** Finds out whether `connection` still leads to the broker. */
  check: ConnectionCheck | undefined;
  /** No such question before this time of the monotonic clock. */
  checkNotBeforeMs: number;
  /** Of the way to the broker, as long as no connection has told better. */
  bytesPerMs: number;
}

/** A connection that was found alive is not looked at again for so long. */
const CHECK_AGAIN_MS = 500;
/** How fast bytes arrive at a broker where nothing is known of it. */
const BYTES_PER_MS = 64;
const BYTES_PER_MS_MIN = 8;

/**
 * The connections of one purpose, one for each broker: data, fetching and control each have their own set, so that four
 * megabytes of the one never stand in the way of the other. Connects when asked for a connection, at most one attempt at
 * a time for each broker, with a growing pause after a failure. Never retries by itself: its owner asks again.
 *
 * A machine that loses power ends no connection, and what was received there before is never answered. So a connection is
 * dropped when the directory tells of a newer registration of its broker. A process that lives and had to register anew
 * loses its connections too: whoever asked it asks again.
 */
export class BrokerConnections {
  readonly #slots = new Map<BrokerId, Slot>();
  readonly #stopListening: () => void;
  /** Aborted when the set is closed: ends the attempts that are under way. */
  readonly #ended = new AbortController();
  #closed = false;

  constructor(
    private readonly env: Env,
    private readonly directory: BrokerDirectory,
    private readonly settings: ConnectionSettings,
    /** A connection was opened. Never called from within a call to the set. */
    private readonly onOpened: () => void = () => undefined,
    private readonly allocate?: (bytes: number) => Buffer,
  ) {
    this.#stopListening = directory.onChange(() => this.#dropFormer());
  }

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

  /** Why the last attempt to connect has failed; undefined where there was none, or it has not. */
  failureOf(brokerId: BrokerId): unknown {
    const slot = this.#slots.get(brokerId);
    return slot?.isFailing === true ? slot.lastError : undefined;
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
    this.#keep(slot, connection);
    return () => this.#onEnded(brokerId, slot, connection);
  }

  /** Ends the connection to a broker; what is in flight on it fails soon after. The next attempt may come at once. */
  drop(brokerId: BrokerId): void {
    const slot = this.#slots.get(brokerId);
    if (slot !== undefined) this.#leave(slot)?.close();
  }

  /**
   * An answer of the broker is overdue. Finds out whether the connection still leads to it, and puts a fresh one in its
   * place if it does not: what is in flight on the old one fails soon after. May be called as often as one likes.
   */
  onSilence(brokerId: BrokerId): void {
    const slot = this.#slots.get(brokerId);
    const connection = slot?.connection;
    if (slot === undefined || connection === undefined || slot.check !== undefined) return;
    if (slot.checkNotBeforeMs > this.env.clock.monotonicMs()) return;
    slot.check = new ConnectionCheck(this.env, connection, {
      handshake: handshakeOf(this.settings, this.directory.clusterId),
      bytesPerMs: Math.max(slot.bytesPerMs, connection.bytesPerMs),
      open: () => this.#connect(brokerId, slot, Math.min(this.settings.connectTimeoutMs, FRESH_CONNECT_MS_MAX)),
      onAlive: () => {
        slot.check = undefined;
        slot.checkNotBeforeMs = this.env.clock.monotonicMs() + CHECK_AGAIN_MS;
      },
      onLost: (fresh) => {
        slot.bytesPerMs = nextBelief(slot, connection);
        this.drop(brokerId);
        if (fresh === undefined) this.directory.onTrouble(brokerId);
        else this.#onOpened(slot, fresh);
      },
    });
  }

  /** Ends all. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#ended.abort();
    this.#stopListening();
    for (const slot of this.#slots.values()) this.#leave(slot)?.close();
  }

  #slot(brokerId: BrokerId): Slot {
    let slot = this.#slots.get(brokerId);
    if (slot === undefined) {
      slot = {
        backoff: new Backoff(this.env.random),
        connection: undefined,
        epoch: 0n,
        awaitsEpoch: false,
        opening: undefined,
        notBeforeMs: 0,
        lastError: undefined,
        isFailing: false,
        check: undefined,
        checkNotBeforeMs: 0,
        bytesPerMs: BYTES_PER_MS,
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
        // Closed since the attempt has succeeded, before this was told.
        if (this.#closed) {
          connection.close();
          throw new TransportError("connect", true, undefined, "the client is closed");
        }
        // One was adopted meanwhile.
        if (slot.connection !== undefined) connection.close();
        return this.#onOpened(slot, slot.connection ?? connection);
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

  #onOpened(slot: Slot, connection: RpcConnection): RpcConnection {
    if (slot.connection === undefined) this.#keep(slot, connection);
    slot.isFailing = false;
    slot.backoff.reset();
    this.#tellOpened();
    return connection;
  }

  /** The slot holds no connection any more; returns the one that it held. */
  #leave(slot: Slot): RpcConnection | undefined {
    const { connection } = slot;
    slot.connection = undefined;
    slot.check?.end();
    slot.check = undefined;
    return connection;
  }

  #keep(slot: Slot, connection: RpcConnection): RpcConnection {
    const { brokerId, brokerEpoch } = connection.peer;
    slot.connection = connection;
    slot.checkNotBeforeMs = 0;
    slot.epoch = brokerEpochNumber(brokerEpoch) || this.#toldEpoch(brokerId);
    slot.awaitsEpoch = brokerEpochNumber(brokerEpoch) === 0n;
    return connection;
  }

  #toldEpoch(brokerId: BrokerId): bigint {
    return brokerEpochNumber(this.directory.epochOf(brokerId));
  }

  /** Drops the connections to processes that others have replaced. */
  #dropFormer(): void {
    for (const [brokerId, slot] of this.#slots) {
      const told = slot.connection === undefined ? 0n : this.#toldEpoch(brokerId);
      if (told <= slot.epoch) continue;
      if (!slot.awaitsEpoch) this.drop(brokerId);
      slot.epoch = told;
      slot.awaitsEpoch = false;
    }
  }

  /** A fault of the owner is not one of the connection, and must not pass in silence. */
  #tellOpened(): void {
    try {
      this.onOpened();
    } catch (error) {
      throwUncaught(this.env.timers, error);
    }
  }

  async #connect(
    brokerId: BrokerId,
    slot: Slot,
    connectTimeoutMs = this.settings.connectTimeoutMs,
  ): Promise<RpcConnection> {
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
      { ...this.settings, connectTimeoutMs, signal: this.#ended.signal },
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
    this.#leave(slot);
    slot.isFailing = true;
    if (!this.#closed) this.directory.onTrouble(brokerId);
  }
}

/** Perhaps a connection that was given up was only slower than was believed: then the next one has more time. */
function nextBelief({ bytesPerMs }: Slot, { bytesPerMs: measured, underWayBytes }: RpcConnection): number {
  if (measured > bytesPerMs) return BYTES_PER_MS;
  return underWayBytes < MEASURED_BYTES_MIN ? bytesPerMs : Math.max(BYTES_PER_MS_MIN, bytesPerMs / 2);
}

const handshakeOf = ({ clientId }: ConnectionSettings, clusterId: string): Init<HandshakeRequest> => ({
  clientId,
  clientSoftware: CLIENT_SOFTWARE,
  clientVersion: CLIENT_VERSION,
  clusterId,
});

/** Throws ApiError when what answers says that it belongs to another cluster than the one that was connected to, if any was. */
export function checkCluster(answered: string, clusterId: string, address: string): void {
  if (clusterId === "" || answered === "" || answered === clusterId) return;
  throw new ApiError("INCONSISTENT_CLUSTER_ID", `${address} belongs to the cluster ${answered}, not to ${clusterId}`);
}

/** A connection to whatever broker listens there. Rejects with TransportError or ApiError. */
export async function openConnection(
  env: Env,
  address: BrokerAddress,
  clusterId: string,
  settings: ConnectionSettings & { readonly signal?: AbortSignal },
  onClosed: () => void,
  allocate?: (bytes: number) => Buffer,
): Promise<RpcConnection> {
  const connection = await RpcConnection.open(env, {
    host: address.host,
    port: address.port,
    handshake: handshakeOf(settings, clusterId),
    connectTimeoutMs: settings.connectTimeoutMs,
    requestTimeoutMs: settings.requestTimeoutMs,
    signal: settings.signal,
    ...(allocate && { allocate }),
    onClosed,
  });
  try {
    checkCluster(connection.peer.clusterId, clusterId, connection.address);
  } catch (error) {
    connection.close();
    throw error;
  }
  return connection;
}
