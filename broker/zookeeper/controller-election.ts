import type { Clock } from "../../common/env/time.js";
import type { BrokerId, ControllerEpoch } from "../../protocol/types.js";
import { decodeControllerEpoch, encodeController, encodeControllerEpoch, paths } from "./znodes.js";
import type { ZooKeeper } from "./zookeeper.js";
import { ZooKeeperError } from "./zookeeper.js";
import type { ZooKeeperOperation } from "../../common/env/zookeeper-connection.js";

/** A controllership that was won: what every write of this controller proves. */
export interface Controllership {
  readonly epoch: ControllerEpoch;
  /** Version of /controller_epoch; a successor changes it, so a `check` of it fences every older controller. */
  readonly epochVersion: number;
}

/** The controller that somebody saw die. */
export interface DeadController {
  readonly brokerId: BrokerId;
  /** czxid of its /controller; another one means that it was replaced already. */
  readonly czxid: bigint;
  /** Version of its registration, when that is to be deleted in the same step. */
  readonly registrationVersion: number | undefined;
}

/**
 * Who is controller. Every change of controller is one transaction that makes /controller and raises /controller_epoch at the
 * version read before: of two who try, one wins, and whoever was controller before cannot write any more. All methods pass
 * on ZooKeeperError for what ZooKeeper did not answer; after OutcomeUnknown, `tryElect` finds out what happened.
 */
export class ControllerElection {
  constructor(
    private readonly zookeeper: ZooKeeper,
    private readonly clock: Clock,
    private readonly brokerId: BrokerId,
  ) {}

  /** Runs for the controllership if it is vacant. Undefined: somebody else holds it, or was quicker. */
  async tryElect(ownRegistrationVersion: number): Promise<Controllership | undefined> {
    const epoch = await this.#readEpoch();
    const current = await this.zookeeper.getIfExists(paths.controller);
    // Held by our own session although we are not the active controller: the answer to an earlier attempt was lost, or resigning failed.
    // Starting again with a new epoch leaves no doubt about what that attempt might still do.
    const own = current !== undefined && current.stat.ephemeralOwner === this.zookeeper.sessionId;
    if (current !== undefined && !own) return undefined;
    return this.#run(epoch, [
      { kind: "check", path: paths.broker(this.brokerId), version: ownRegistrationVersion },
      ...(current === undefined
        ? []
        : [{ kind: "delete", path: paths.controller, version: current.stat.version } as const]),
    ]);
  }

  /**
   * Replaces a controller whose process died, without waiting for its session to expire. Undefined: it was replaced
   * already.
   */
  async tryTakeOver(dead: DeadController, ownRegistrationVersion: number): Promise<Controllership | undefined> {
    const epoch = await this.#readEpoch();
    const current = await this.zookeeper.getIfExists(paths.controller);
    if (current?.stat.czxid !== dead.czxid) return undefined;
    return this.#run(epoch, [
      { kind: "check", path: paths.broker(this.brokerId), version: ownRegistrationVersion },
      { kind: "delete", path: paths.controller, version: current.stat.version },
      ...(dead.registrationVersion === undefined
        ? []
        : [{ kind: "delete", path: paths.broker(dead.brokerId), version: dead.registrationVersion } as const]),
    ]);
  }

  /** Whether the controllership is still ours. */
  async holds(office: Controllership): Promise<boolean> {
    const [epoch, controller] = await this.zookeeper.getMany([paths.controllerEpoch, paths.controller]);
    return epoch?.stat.version === office.epochVersion && controller?.stat.ephemeralOwner === this.zookeeper.sessionId;
  }

  /** Gives the controllership up, if it is still ours. */
  async resign(office: Controllership): Promise<void> {
    await this.zookeeper.multi([
      { kind: "check", path: paths.controllerEpoch, version: office.epochVersion },
      { kind: "delete", path: paths.controller, version: -1 },
    ]);
  }

  async #run(epoch: Controllership, before: readonly ZooKeeperOperation[]): Promise<Controllership | undefined> {
    const next = epoch.epoch + 1;
    try {
      await this.zookeeper.multi([
        { kind: "check", path: paths.controllerEpoch, version: epoch.epochVersion },
        ...before,
        {
          kind: "create",
          path: paths.controller,
          data: encodeController({ brokerId: this.brokerId }, this.clock.wallMs()),
          ephemeral: true,
        },
        { kind: "set", path: paths.controllerEpoch, data: encodeControllerEpoch(next), version: epoch.epochVersion },
      ]);
    } catch (error) {
      if (error instanceof ZooKeeperError && lostRace.has(error.kind)) return undefined;
      throw error;
    }
    return { epoch: next, epochVersion: epoch.epochVersion + 1 };
  }

  /**
   * The epoch as it is, with its version; makes it on the first start of a cluster. Read before /controller: an epoch that
   * is older than the controller seen makes the attempt fail, a younger one would let it succeed against the newcomer.
   */
  async #readEpoch(): Promise<Controllership> {
    for (;;) {
      const node = await this.zookeeper.getIfExists(paths.controllerEpoch);
      if (node !== undefined) return { epoch: decodeControllerEpoch(node.data), epochVersion: node.stat.version };
      try {
        await this.zookeeper.create(paths.controllerEpoch, encodeControllerEpoch(0));
      } catch (error) {
        if (!(error instanceof ZooKeeperError && error.kind === "NodeExists")) throw error;
      }
    }
  }
}

/** What a transaction fails with when the world is not as it was read. */
const lostRace: ReadonlySet<string> = new Set(["NodeExists", "NoNode", "BadVersion"]);
