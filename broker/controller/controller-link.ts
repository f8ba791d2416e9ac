import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { RequestBody, ResponseBody } from "../../protocol/message-codec.js";
import type { Init } from "../../protocol/messages.js";
import { RpcConnection } from "../../protocol/rpc-connection.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import { brokerEpochOf, decodeBroker, paths } from "../zookeeper/znodes.js";
import type { ZooKeeper } from "../zookeeper/zookeeper.js";
import { openControlConnection } from "./control-connection.js";
import type { ControlPeer } from "./control-connection.js";

export interface ControllerLinkParts {
  readonly zookeeper: ZooKeeper;
  readonly identity: { readonly brokerId: BrokerId; readonly incarnation: string; readonly clusterId: string };
  readonly interBrokerListener: string;
  /** The epoch of our own registration; undefined while there is none. */
  readonly ownEpoch: () => BrokerEpoch | undefined;
  readonly probeTimeoutMs: () => number;
  /** The connection ended and no fresh one could be made: the controller's process is dead, as far as can be seen. */
  readonly onDead: (registration: ControllerRegistration) => void;
}

/** The registration of the controller that the link led to. */
export interface ControllerRegistration {
  readonly epoch: BrokerEpoch;
  readonly version: number;
}

const CONNECT_TIMEOUT_MS = 2000;
const RETRY_MS = 50;

/**
 * A broker's connection to the active controller, kept for as long as that one is active: requests go over it, and its
 * end is evidence of the controller's death.
 */
export class ControllerLink {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #controllerId: BrokerId;
  readonly #parts: ControllerLinkParts;
  #connection: RpcConnection | undefined;
  #retry: Timer | undefined;
  #closed = false;

  constructor(env: Env, logger: Logger, controllerId: BrokerId, parts: ControllerLinkParts) {
    this.#env = env;
    this.#logger = logger;
    this.#controllerId = controllerId;
    this.#parts = parts;
  }

  start(): void {
    void this.#connect();
  }

  get isConnected(): boolean {
    return this.#connection !== undefined;
  }

  /** Rejects with TransportError, with the controller's refusal, or with NOT_CONTROLLER while there is no connection. */
  async request<Kind extends "alterPartitions" | "controlledShutdown">(
    kind: Kind,
    body: Init<RequestBody<Kind>>,
    timeoutMs: number,
  ): Promise<ResponseBody<Kind>> {
    if (this.#connection === undefined) {
      throw new ApiError("NOT_CONTROLLER", `controller ${this.#controllerId} is not connected yet; try again`);
    }
    return (await this.#connection.request(kind, body, { timeoutMs })).body;
  }

  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
    this.#connection?.close();
    this.#connection = undefined;
  }

  async #connect(): Promise<void> {
    const peer = await this.#readPeer();
    if (this.#closed) return;
    if (peer === undefined) {
      this.#connectLater();
      return;
    }
    const result = await this.#open(peer, CONNECT_TIMEOUT_MS);
    if (result === undefined) return;
    if (!(result instanceof RpcConnection)) this.#connectLater();
  }

  #connectLater(): void {
    this.#retry = this.#env.timers.after(RETRY_MS, () => void this.#connect());
  }

  /** The connection, or why there is none; undefined when the link was closed meanwhile. */
  async #open(
    peer: LinkedPeer,
    timeoutMs: number,
  ): Promise<Awaited<ReturnType<typeof openControlConnection>> | undefined> {
    const { identity, interBrokerListener, ownEpoch } = this.#parts;
    const brokerEpoch = ownEpoch();
    if (brokerEpoch === undefined) return { verdict: "silent", reason: "this broker is not registered" };
    const result = await openControlConnection(this.#env, {
      to: peer,
      from: { brokerId: identity.brokerId, incarnation: identity.incarnation, brokerEpoch },
      clusterId: identity.clusterId,
      listener: interBrokerListener,
      timeoutMs,
      onClosed: (end) => {
        if (this.#closed) return;
        this.#connection = undefined;
        void this.#onEnded(peer, end === "ended" || end === "reset");
      },
    });
    if (this.#closed) {
      if (result instanceof RpcConnection) result.close();
      return undefined;
    }
    if (result instanceof RpcConnection) {
      this.#connection = result;
      this.#logger.info(`Connected to controller ${this.#controllerId}.`);
    } else {
      this.#logger.debug(`Controller ${this.#controllerId} cannot be reached: ${result.reason}`);
    }
    return result;
  }

  async #onEnded(peer: LinkedPeer, isEvidence: boolean): Promise<void> {
    const result = await this.#open(peer, this.#parts.probeTimeoutMs());
    if (result === undefined || result instanceof RpcConnection) return;
    // Whether or not somebody takes over, this link goes on until another controller is active.
    this.#connectLater();
    if (!isEvidence || this.#parts.ownEpoch() === undefined) return;
    this.#logger.warn(
      `The connection to controller ${this.#controllerId} ended, and a fresh one fails (${result.reason}).`,
    );
    this.#parts.onDead({ epoch: peer.epoch, version: peer.version });
  }

  async #readPeer(): Promise<LinkedPeer | undefined> {
    const path = paths.broker(this.#controllerId);
    try {
      const node = await this.#parts.zookeeper.getIfExists(path);
      if (node === undefined) return undefined;
      const { incarnation, endpoints } = decodeBroker(path, node.data);
      const { stat } = node;
      return { id: this.#controllerId, incarnation, endpoints, epoch: brokerEpochOf(stat), version: stat.version };
    } catch (error) {
      this.#logger.debug(`The address of controller ${this.#controllerId} cannot be read: ${String(error)}`);
      return undefined;
    }
  }
}

interface LinkedPeer extends ControlPeer, ControllerRegistration {}
