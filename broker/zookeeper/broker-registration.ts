import type { Env } from "../../common/env/env.js";
import { sleep } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { BrokerZnode, LastStop } from "./znodes.js";
import { ZnodeFormatError, brokerEpochOf, decodeBroker, encodeBroker, paths } from "./znodes.js";
import type { ZooKeeper, ZooKeeperNode } from "./zookeeper.js";
import { ZooKeeperError } from "./zookeeper.js";

/** Who registers: everything but the place where it runs, which Env knows. */
export interface RegistrationInfo extends Omit<BrokerZnode, "hostname" | "lastStop"> {
  readonly brokerId: BrokerId;
  /** Asked at each registration: a process that goes on has not lost its power once more. */
  readonly lastStop: () => LastStop;
}

/** Another process is registered under our id, and stays. */
export class BrokerIdTaken extends Error {
  override readonly name = "BrokerIdTaken";
  constructor(
    readonly brokerId: BrokerId,
    owner: string,
    waitedMs: number,
  ) {
    super(
      `broker id ${brokerId} is registered by another process (${owner}) and still was after ${Math.round(waitedMs / 1000)} s; ` +
        "give each broker its own id, or stop the other one",
    );
  }
}

/** How often a registration that stands in our way is looked at. */
const POLL_MS = 100;
/** Between attempts while ZooKeeper does not answer. */
const RETRY_MS = 200;
/** How often the log says what is waited for. */
const SAY_MS = 2000;

/**
 * This broker's ephemeral znode: it says that the broker is alive, and its czxid is the broker epoch. Once started it keeps
 * the broker registered: when the node is gone (the controller fenced it, or the session expired) listeners are told in the
 * same turn, because every role ends with the registration, and it registers anew, which makes a new epoch.
 *
 * Losing contact with ZooKeeper is not losing the registration: only the server says when a session is over.
 */
export class BrokerRegistration {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #zookeeper: ZooKeeper;
  readonly #info: RegistrationInfo;
  readonly #path: string;
  readonly #onLost: (() => void)[] = [];
  readonly #onRegistered: ((epoch: BrokerEpoch) => void)[] = [];
  readonly #stopped = new AbortController();
  readonly #wait: WaitForOwner;
  #registered: { readonly epoch: BrokerEpoch; readonly version: number } | undefined;
  #loop: Promise<void> | undefined;
  #stopListening: (() => void) | undefined;

  constructor(env: Env, logger: Logger, zookeeper: ZooKeeper, info: RegistrationInfo) {
    this.#env = env;
    this.#logger = logger;
    this.#zookeeper = zookeeper;
    this.#info = info;
    this.#path = paths.broker(info.brokerId);
    this.#wait = new WaitForOwner(env, logger, info.brokerId);
  }

  /** czxid of the registration; undefined while there is none. */
  get epoch(): BrokerEpoch | undefined {
    return this.#registered?.epoch;
  }

  /** Version of the registration's znode; undefined while there is none. */
  get version(): number | undefined {
    return this.#registered?.version;
  }

  /** Called in the turn in which the loss is noticed: the broker drops every role at once. */
  onLost(listener: () => void): void {
    this.#onLost.push(listener);
  }

  /** Called at each registration with its epoch. */
  onRegistered(listener: (epoch: BrokerEpoch) => void): void {
    this.#onRegistered.push(listener);
  }

  /**
   * Resolves once registered. Goes on trying while ZooKeeper is away. Rejects with BrokerIdTaken when somebody else
   * holds the id for twice the session timeout: what a former process of this broker left behind is gone by then.
   */
  async start(): Promise<void> {
    this.#stopListening = this.#zookeeper.onSessionEvent((event) => {
      if (event === "expired") this.#lose("the ZooKeeper session expired");
      // An ensemble with a new leader gives every session its whole timeout again.
      if (event === "suspended") this.#wait.begin();
    });
    await this.#register();
  }

  /** Takes the registration back, if ZooKeeper can be reached. Idempotent. */
  async stop(): Promise<void> {
    if (this.#stopped.signal.aborted) return;
    this.abandon();
    const registered = this.#registered;
    this.#registered = undefined;
    await this.#loop?.catch(() => undefined);
    if (registered === undefined || this.#zookeeper.state !== "connected") return;
    try {
      await this.#zookeeper.remove(this.#path, registered.version);
    } catch (error) {
      // The end of the session takes it away as well.
      this.#logger.debug(`The registration could not be taken back: ${reasonOf(error)}`);
    }
  }

  /** Stops without a word to ZooKeeper, as a crash would. */
  abandon(): void {
    this.#stopped.abort(new Error("the registration is stopped"));
    this.#stopListening?.();
    this.#zookeeper.guardOwnNode(undefined, () => undefined);
  }

  #lose(why: string): void {
    if (this.#registered === undefined) return;
    this.#registered = undefined;
    this.#zookeeper.guardOwnNode(undefined, () => undefined);
    this.#logger.warn(`The registration of this broker is gone (${why}): every role ends, then it registers anew.`);
    for (const listener of this.#onLost) listener();
    this.#loop = this.#register().catch((error: unknown) => {
      if (!this.#stopped.signal.aborted) this.#logger.error(`This broker cannot register: ${reasonOf(error)}`);
    });
  }

  async #register(): Promise<void> {
    while (!this.#stopped.signal.aborted && this.#registered === undefined) {
      const outcome = await this.#tryRegister();
      if (outcome === "registered") return;
      if (outcome instanceof BrokerIdTaken) {
        // At the start this is a mistake of the operator; later somebody took the id of a running broker, and both go
        // on asking.
        if (this.#loop === undefined) throw outcome;
        this.#logger.error(outcome.message);
        this.#wait.begin();
      }
      await sleep(this.#env.timers, outcome === "unanswered" ? RETRY_MS : POLL_MS, this.#stopped.signal).catch(
        () => undefined,
      );
    }
  }

  async #tryRegister(): Promise<"registered" | "unanswered" | "occupied" | BrokerIdTaken> {
    const zookeeper = this.#zookeeper;
    try {
      await zookeeper.whenConnected(zookeeper.negotiatedTimeoutMs);
      const generation = zookeeper.generation;
      const znode = { ...this.#info, lastStop: this.#info.lastStop(), hostname: this.#env.process.hostname };
      const data = encodeBroker(znode, this.#env.clock.wallMs());
      try {
        await zookeeper.create(this.#path, data, { ephemeral: true });
      } catch (error) {
        if (!(error instanceof ZooKeeperError)) throw error;
        if (error.kind === "NoNode") {
          await zookeeper.ensurePath(paths.brokerIds);
          return "occupied";
        }
        if (error.kind !== "NodeExists") throw error;
      }
      const node = await zookeeper.getIfExists(this.#path);
      if (node === undefined) return "occupied";
      // A create whose answer was lost shows as our own session here.
      if (node.stat.ephemeralOwner !== zookeeper.sessionId) {
        const owner = `on ${hostOf(this.#path, node)}, session ${node.stat.ephemeralOwner ?? "none"}`;
        return this.#wait.occupiedBy(owner, 2 * zookeeper.negotiatedTimeoutMs) ?? "occupied";
      }
      if (generation !== zookeeper.generation || this.#stopped.signal.aborted) return "occupied";
      this.#onNode(brokerEpochOf(node.stat), node.stat);
      return "registered";
    } catch (error) {
      if (!(error instanceof ZooKeeperError)) throw error;
      this.#logger.debug(`Registration was not possible: ${error.message}`);
      return "unanswered";
    }
  }

  #onNode(epoch: BrokerEpoch, stat: { readonly czxid: bigint; readonly version: number }): void {
    this.#registered = { epoch, version: stat.version };
    this.#wait.begin();
    this.#logger.info(`Registered as broker ${this.#info.brokerId} with epoch ${epoch}.`);
    this.#zookeeper.guardOwnNode({ path: this.#path, czxid: stat.czxid, version: stat.version }, () => {
      if (this.#registered?.epoch === epoch)
        this.#lose("its znode was deleted: the controller took this broker for dead");
    });
    for (const listener of this.#onRegistered) listener(epoch);
  }
}

/** Where the holder of a registration runs, as far as what stands there says so: anybody may have written it. */
function hostOf(path: string, { data }: ZooKeeperNode): string {
  try {
    return decodeBroker(path, data).hostname || "an unknown host";
  } catch (error) {
    if (!(error instanceof ZnodeFormatError)) throw error;
    return "an unknown host";
  }
}

/** How long somebody else has held our id, and what to say about it. */
class WaitForOwner {
  #sinceMs: number | undefined;
  #saidMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly env: Env,
    private readonly logger: Logger,
    private readonly brokerId: BrokerId,
  ) {}

  begin(): void {
    this.#sinceMs = undefined;
  }

  /** BrokerIdTaken once it has lasted for `limitMs`. */
  occupiedBy(owner: string, limitMs: number): BrokerIdTaken | undefined {
    const nowMs = this.env.clock.monotonicMs();
    this.#sinceMs ??= nowMs;
    const waitedMs = nowMs - this.#sinceMs;
    if (waitedMs >= limitMs) return new BrokerIdTaken(this.brokerId, owner, waitedMs);
    if (nowMs - this.#saidMs >= SAY_MS) {
      this.#saidMs = nowMs;
      this.logger.info(
        `Broker id ${this.brokerId} is still registered (${owner}); waiting up to ${Math.ceil((limitMs - waitedMs) / 1000)} s for it to go.`,
      );
    }
    return undefined;
  }
}
