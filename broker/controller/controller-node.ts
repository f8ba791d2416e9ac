import type { Env } from "../../common/env/env.js";
import { sleep } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { RequestBody, ResponseBody } from "../../protocol/message-codec.js";
import { codecs } from "../../protocol/messages.js";
import type { Init } from "../../protocol/messages.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { BrokerRegistration } from "../zookeeper/broker-registration.js";
import type { Controllership } from "../zookeeper/controller-election.js";
import { ControllerElection } from "../zookeeper/controller-election.js";
import { ZnodeFormatError, brokerEpochOf, decodeController, paths } from "../zookeeper/znodes.js";
import type { Watch, ZooKeeper, ZooKeeperNode } from "../zookeeper/zookeeper.js";
import { Controller } from "./controller.js";
import type { ControllerApi } from "./controller-api.js";
import type { ControllerRegistration } from "./controller-link.js";
import { ControllerLink } from "./controller-link.js";
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

/** The holder of /controller. */
interface SeenController {
  readonly brokerId: BrokerId;
  readonly czxid: bigint;
  readonly sessionId: string | undefined;
}

const RETRY_MS = 100;
/** Brokers that see a controller die at the same moment do not all try at once. */
const TAKEOVER_JITTER_MS = 20;

/**
 * Each broker's part in having a controller. It watches /controller, runs for the controllership when that is vacant, and otherwise
 * keeps a connection to the active controller. When that one's process dies it takes over without waiting for the
 * session to expire. Only a registered broker runs, and one that loses its registration gives the controllership up in the same turn.
 */
export class ControllerNode {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #parts: ControllerNodeParts;
  readonly #election: ControllerElection;
  readonly #stopped = new AbortController();
  #watch: Watch | undefined;
  /** Undefined before the first look, and while what stands there names no broker; null: vacant. */
  #seen: SeenController | null | undefined;
  #active: { readonly controller: Controller; readonly office: Controllership } | undefined;
  #link: { readonly link: ControllerLink; readonly czxid: bigint } | undefined;
  #campaign: Promise<void> | undefined;

  constructor(env: Env, logger: Logger, parts: ControllerNodeParts) {
    this.#env = env;
    this.#logger = logger;
    this.#parts = parts;
    this.#election = new ControllerElection(parts.zookeeper, env.clock, parts.identity.brokerId);
  }

  /** Begins to take part. */
  start(): void {
    const { registration, zookeeper } = this.#parts;
    registration.onLost(() => this.#leaveOffice("this broker is not registered any more"));
    registration.onRegistered(() => this.#react());
    this.#watch = zookeeper.watchData(paths.controller, (node) => this.#onSnapshot(node));
  }

  /** Set while this broker is the controller. */
  get active(): ControllerApi | undefined {
    return this.#active?.controller;
  }

  /** Who the controller is, as far as this broker knows. */
  get controllerId(): BrokerId | undefined {
    return this.#active === undefined ? this.#seen?.brokerId : this.#parts.identity.brokerId;
  }

  /**
   * Sends a request to the controller, wherever it is. Rejects with TransportError, with the controller's refusal, or with
   * NOT_CONTROLLER while none is known; callers retry.
   */
  async requestController<Kind extends "alterPartitions" | "controlledShutdown">(
    kind: Kind,
    body: Init<RequestBody<Kind>>,
    timeoutMs: number,
  ): Promise<ResponseBody<Kind>> {
    const controller = this.#active?.controller;
    if (controller !== undefined) return (await requestLocally(controller, kind, body)) as ResponseBody<Kind>;
    if (this.#link === undefined)
      throw new ApiError("NOT_CONTROLLER", "no controller is known at the moment; try again");
    return this.#link.link.request(kind, body, timeoutMs);
  }

  /**
   * A broker's control connection to this one ended, by that broker's FIN or RST. Evidence of its death if this is the
   * controller; of no meaning otherwise.
   */
  onControlConnectionEnded(brokerId: BrokerId, epoch: BrokerEpoch): void {
    this.#active?.controller.onControlConnectionEnded(brokerId, epoch);
  }

  /** Takes no more part, and gives the controllership up if it has it. */
  async stop(): Promise<void> {
    const office = this.#active?.office;
    this.abandon();
    await this.#campaign;
    if (office === undefined || this.#parts.zookeeper.state !== "connected") return;
    try {
      await this.#election.resign(office);
      this.#logger.info(`Left office as controller, epoch ${office.epoch}.`);
    } catch (error) {
      // Somebody else is controller already, or the end of the session vacates it.
      this.#logger.debug(`the controllership could not be given up: ${reasonOf(error)}`);
    }
  }

  /** Stops without a word to anybody, as a crash would. */
  abandon(): void {
    this.#stopped.abort(new Error("the broker stops"));
    this.#watch?.close();
    this.#closeLink();
    this.#active?.controller.abandon();
    this.#active = undefined;
  }

  #onSnapshot(node: ZooKeeperNode | undefined): void {
    try {
      this.#seen = node === undefined ? null : seenController(node);
    } catch (error) {
      if (!(error instanceof ZnodeFormatError)) throw error;
      this.#logger.error(`${error.message}: no broker can be elected controller until the node is deleted.`);
      this.#seen = undefined;
      this.#active?.controller.doubtOffice();
    }
    this.#react();
  }

  #react(): void {
    const seen = this.#seen;
    if (this.#stopped.signal.aborted || seen === undefined) return;
    const isOurs = seen !== null && seen.sessionId === this.#parts.zookeeper.sessionId;
    if (this.#active !== undefined) {
      if (!isOurs) this.#active.controller.doubtOffice();
      return;
    }
    if (seen === null || isOurs) {
      this.#closeLink();
      this.#run(async (registrationVersion) => won(await this.#election.tryElect(registrationVersion), undefined));
    } else {
      this.#linkTo(seen);
    }
  }

  /** Runs for the controllership, one attempt at a time, until somebody has it. `onFailed` follows a failed attempt. */
  #run(
    attempt: (registrationVersion: number) => Promise<WonOffice | undefined>,
    onFailed: () => void = () => undefined,
  ): void {
    if (this.#campaign !== undefined) return;
    this.#campaign = this.#tryOnce(attempt).then((outcome) => {
      this.#campaign = undefined;
      if (this.#stopped.signal.aborted || this.#active !== undefined) return;
      // What was seen meanwhile may ask for another attempt; after a failure it surely does.
      if (outcome === "failed" || this.#isVacant()) {
        this.#env.timers.after(RETRY_MS, () => {
          this.#react();
          if (outcome === "failed") onFailed();
        });
      } else {
        this.#react();
      }
    });
  }

  #isVacant(): boolean {
    return this.#seen === null || this.#seen?.sessionId === this.#parts.zookeeper.sessionId;
  }

  async #tryOnce(
    attempt: (registrationVersion: number) => Promise<WonOffice | undefined>,
  ): Promise<"decided" | "failed"> {
    const { registration } = this.#parts;
    const { epoch, version } = registration;
    if (epoch === undefined || version === undefined) return "decided";
    let outcome: WonOffice | undefined;
    try {
      outcome = await attempt(version);
    } catch (error) {
      this.#logger.info(`Running for controller failed: ${reasonOf(error)}.`);
      return "failed";
    }
    if (outcome === undefined) return "decided";
    const { office } = outcome;
    if (this.#stopped.signal.aborted || registration.epoch !== epoch) {
      // Won, and not wanted any more.
      await this.#election.resign(office).catch(() => undefined);
      return "failed";
    }
    this.#takeOffice(outcome);
    return "decided";
  }

  #takeOffice({ office, fencedPredecessor }: WonOffice): void {
    this.#logger.info(`This broker is the controller now, epoch ${office.epoch}.`);
    this.#closeLink();
    const controller = new Controller(this.#env, this.#logger.child({ controllerEpoch: office.epoch }), {
      ...this.#parts,
      election: this.#election,
      office,
      fencedPredecessor,
      onResigned: () => this.#onResigned(office),
    });
    this.#active = { controller, office };
    controller.start();
  }

  #onResigned(office: Controllership): void {
    if (this.#active?.office !== office) return;
    this.#active = undefined;
    this.#vacate(office);
  }

  #leaveOffice(why: string): void {
    const active = this.#active;
    this.#closeLink();
    if (active === undefined) return;
    this.#logger.warn(`Leaving office as controller, epoch ${active.office.epoch}: ${why}.`);
    this.#active = undefined;
    active.controller.abandon();
    this.#vacate(active.office);
  }

  /** Deletes /controller if it is still ours, so that nobody waits for our session to end. */
  #vacate(office: Controllership): void {
    this.#election.resign(office).then(
      () => this.#react(),
      (error: unknown) => {
        this.#logger.debug(`the controllership was not given up: ${reasonOf(error)}`);
        this.#react();
      },
    );
  }

  #linkTo(seen: SeenController): void {
    if (this.#link?.czxid === seen.czxid || this.#parts.registration.epoch === undefined) return;
    this.#closeLink();
    const { zookeeper, identity, interBrokerListener, registration, settings } = this.#parts;
    const link = new ControllerLink(this.#env, this.#logger, seen.brokerId, {
      zookeeper,
      identity,
      interBrokerListener,
      ownEpoch: () => registration.epoch,
      probeTimeoutMs: () => settings.fencingProbeTimeoutMs,
      onDead: (dead) => {
        if (settings.fastFencing && this.#link?.link === link) this.#takeOverSoon(seen, dead);
      },
    });
    this.#link = { link, czxid: seen.czxid };
    link.start();
  }

  #closeLink(): void {
    this.#link?.link.close();
    this.#link = undefined;
  }

  #takeOverSoon(seen: SeenController, dead: ControllerRegistration): void {
    const delayMs = this.#env.random.float() * TAKEOVER_JITTER_MS;
    sleep(this.#env.timers, delayMs, this.#stopped.signal).then(
      () => this.#takeOver(seen, dead),
      () => undefined,
    );
  }

  /** Tries until it is done, or not wanted any more: the link tells of the controller's death only once. */
  #takeOver(seen: SeenController, dead: ControllerRegistration): void {
    const isInOffice = this.#seen?.czxid === seen.czxid && this.#active === undefined;
    if (!isInOffice || this.#link?.link.isConnected || this.#stopped.signal.aborted) return;
    if (this.#campaign !== undefined) {
      this.#env.timers.after(RETRY_MS, () => this.#takeOver(seen, dead));
      return;
    }
    this.#logger.warn(`Controller ${seen.brokerId} is dead: taking over.`);
    const { zookeeper } = this.#parts;
    const attempt = async (registrationVersion: number): Promise<WonOffice | undefined> => {
      const [ids, registered] = await zookeeper.getMany([paths.brokerIds, paths.broker(seen.brokerId)]);
      // The dead process goes with its controllership, unless it is half of the cluster: then its session decides about it.
      const isMinority = (ids?.stat.childCount ?? 0) > 2;
      const isSame = registered !== undefined && brokerEpochOf(registered.stat) === dead.epoch;
      const isFenced = isMinority && isSame;
      const { brokerId, czxid } = seen;
      const office = await this.#election.tryTakeOver(
        { brokerId, czxid, registrationVersion: isFenced ? dead.version : undefined },
        registrationVersion,
      );
      return won(office, isFenced ? brokerId : undefined);
    };
    this.#run(attempt, () => this.#takeOver(seen, dead));
  }
}

function seenController({ data, stat }: ZooKeeperNode): SeenController {
  return { brokerId: decodeController(data).brokerId, czxid: stat.czxid, sessionId: stat.ephemeralOwner };
}

interface WonOffice {
  readonly office: Controllership;
  readonly fencedPredecessor: BrokerId | undefined;
}

function won(office: Controllership | undefined, fencedPredecessor: BrokerId | undefined): WonOffice | undefined {
  return office && { office, fencedPredecessor };
}

/** The same bytes as over the wire, so that absent fields have their defaults whoever asks. */
async function requestLocally(
  controller: ControllerApi,
  kind: "alterPartitions" | "controlledShutdown",
  body: Init<RequestBody<"alterPartitions">> | Init<RequestBody<"controlledShutdown">>,
): Promise<ResponseBody<"alterPartitions"> | ResponseBody<"controlledShutdown">> {
  if (kind === "alterPartitions") {
    const request = codecs.AlterPartitionsRequest.decode(
      codecs.AlterPartitionsRequest.encode(body as Init<RequestBody<"alterPartitions">>).finish(),
    );
    const response = await controller.alterPartitions(request);
    return codecs.AlterPartitionsResponse.decode(codecs.AlterPartitionsResponse.encode(response).finish());
  }
  const request = codecs.ControlledShutdownRequest.decode(
    codecs.ControlledShutdownRequest.encode(body as Init<RequestBody<"controlledShutdown">>).finish(),
  );
  const response = await controller.controlledShutdown(request);
  return codecs.ControlledShutdownResponse.decode(codecs.ControlledShutdownResponse.encode(response).finish());
}
