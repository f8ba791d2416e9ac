import type { Env } from "../../common/env/env.js";
import type { Logger } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { RequestBody, ResponseBody } from "../../protocol/message-codec.js";
import type { Init } from "../../protocol/messages.js";
import type { BrokerId } from "../../protocol/types.js";
import type { BrokerRegistration } from "../zookeeper/broker-registration.js";
import type { ZooKeeper } from "../zookeeper/zookeeper.js";
import type { ControllerApi } from "./controller-api.js";
import type { ControllerSettings } from "./controller-settings.js";

/** Who takes part in elections. */
export interface NodeIdentity {
  readonly brokerId: BrokerId;
  readonly incarnation: string;
  readonly clusterId: string;
}

export interface ControllerNodeParts {
  readonly zookeeper: ZooKeeper;
  readonly registration: BrokerRegistration;
  readonly identity: NodeIdentity;
  readonly settings: ControllerSettings;
  /** The listener on which brokers talk to brokers. */
  readonly interBrokerListener: string;
}

/** Each broker's part in having a controller: it runs for office, and knows who holds it. */
export class ControllerNode {
  constructor(
    readonly env: Env,
    readonly logger: Logger,
    readonly parts: ControllerNodeParts,
  ) {}

  start(): void {
    this.parts.zookeeper.leaseValid();
  }

  /** Set while this broker is the controller. */
  get active(): ControllerApi | undefined {
    return undefined;
  }

  /** Who the controller is, as far as this broker knows. */
  get controllerId(): BrokerId | undefined {
    return undefined;
  }

  /** Sends a request to the controller, wherever it is. Rejects with ApiError or TransportError; callers retry. */
  requestController<Kind extends "alterPartitions" | "controlledShutdown">(
    kind: Kind,
    body: Init<RequestBody<Kind>>,
    timeoutMs: number,
  ): Promise<ResponseBody<Kind>> {
    return Promise.reject(new ApiError("NOT_CONTROLLER", `${kind} ${timeoutMs} ${String(body)}`));
  }

  /** Takes no more part, and leaves office if in it. */
  async stop(): Promise<void> {
    this.abandon();
  }

  /** Stops without a word to anybody, as a crash would. */
  abandon(): void {
    this.parts.settings.numPartitions.toString();
  }
}
