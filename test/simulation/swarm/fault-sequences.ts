import type { BrokerId } from "../../../protocol/types.js";
import type { SimBroker, SimCluster } from "../cluster.js";
import type { SimRandom } from "../sim-random.js";
import type { LedPartition, Stage } from "./stage.js";
import { ledPartition, when } from "./stage.js";

/** Faults of several steps, each of which needs what the one before has brought about. */
export class FaultSequences {
  readonly #stage: Stage;
  readonly #cluster: SimCluster;
  readonly #random: SimRandom;
  /** Leaders are killed one after the other. */
  #isTurning = false;

  constructor(stage: Stage) {
    this.#stage = stage;
    this.#cluster = stage.cluster;
    this.#random = stage.random;
  }

  /** Killed and started at once, and perhaps killed once more in the middle of what that start repairs. */
  restart(id: BrokerId): void {
    this.#cluster.restart(id);
    if (!this.#random.chance(0.4)) return;
    this.#stage.later(this.#random.float() * 100, () => {
      if (this.#stage.isActive() && this.#cluster.broker(id).state === "starting") this.#cluster.restart(id);
    });
  }

  /** There is no space left; perhaps when the one that is to lead instead has lost its power a moment ago, unnoticed. */
  fillDisk({ id, host: { disk } }: SimBroker, say: (what: string) => void): void {
    const heir = this.#random.chance(0.5) ? this.#heirOf(id) : undefined;
    say(heir === undefined ? `broker-${id}` : `broker-${id}, which led, and broker-${heir} has lost its power`);
    if (heir !== undefined) this.#stage.cutPower([heir]);
    this.#stage.later(heir === undefined ? 0 : this.#random.float() * 400, () => disk.setCapacity(disk.usedBytes));
    this.#stage.later(500 + this.#random.float() * 2500, () => disk.setCapacity(Number.POSITIVE_INFINITY));
  }

  /** Somebody who is in sync where this one leads. */
  #heirOf(id: BrokerId): BrokerId | undefined {
    for (let tries = 0; tries < 10; tries += 1) {
      const topic = this.#stage.topic();
      const state = topic && this.#cluster.stateOf(topic.name, this.#random.below(topic.partitions));
      const heirs = state?.leader === id ? state.isr.filter((one) => one !== id) : [];
      if (heirs.length > 0) return this.#random.pick(heirs);
    }
    return undefined;
  }

  /** What one sends another arrives late, and meanwhile one of them is another process, or somebody else is in office. */
  sendLate(slot: SimBroker, other: SimBroker): void {
    const { network } = this.#cluster.simulation;
    const [from, to] = [slot.host.name, other.host.name];
    const delayMeanMs = this.#random.pick([100, 400, 1200]);
    this.#cluster.note(`FAULT lateMessages: what ${from} sends ${to} now takes ${delayMeanMs} ms`);
    network.setLink(from, to, { delayMeanMs });
    // What the controller sends is what somebody wants changed.
    if (slot.id === this.#cluster.controllerId) this.#stage.administrator.actNow();
    const startMs = this.#random.pick([10, 30, 150]);
    const restoreMs = startMs + this.#random.pick([0, 0, 300, 1000]);
    this.#stage.later(restoreMs, () => this.#stage.restoreLink(from, to));
    // The receiver hears nothing of a change from the controller.
    const controller = this.#stage.controller();
    if (controller !== undefined && controller !== other && this.#random.chance(0.4)) {
      network.partition(controller.host.name, to, { oneWay: true });
      this.#stage.later(1000 + this.#random.float() * 1500, () => network.heal(controller.host.name, to));
    }
    this.#stage.later(startMs, () => {
      if (slot.process === undefined || !this.#stage.isActive()) return;
      const what = this.#random.pick(["restart", "restart", "powerCut", "expiry", "expiry", "shortPause"] as const);
      if (what === "restart") this.#cluster.restart(slot.id);
      else if (what === "powerCut") this.#stage.cutPower([slot.id]);
      else this.#stage.inject(what, this.#random.chance(0.6) ? other.id : slot.id);
    });
  }

  /** What a follower asks its leader arrives when its next process has asked, and perhaps the leader has not heard of that one. */
  fetchLate(say: (what: string) => void): string | undefined {
    const cast = this.#cast();
    if (cast === undefined) return undefined;
    const { network } = this.#cluster.simulation;
    const random = this.#random;
    const [leader, follower, controller] = [cast.leader, cast.follower, cast.controller].map(({ host }) => host.name);
    if (leader === undefined || follower === undefined || controller === undefined) return undefined;
    say(`${follower} asks ${leader} late`);
    network.setLink(follower, leader, { delayMeanMs: random.pick([600, 2000]) });
    const isDeaf = cast.leader !== cast.controller && random.chance(0.5);
    if (isDeaf) network.partition(controller, leader, { oneWay: true });
    this.#stage.later(random.pick([30, 60, 120]), () => {
      this.#stage.restoreLink(follower, leader);
      if (cast.follower.process === undefined || !this.#stage.isActive()) return;
      if (random.chance(0.6)) this.#cluster.restart(cast.follower.id);
      else this.#stage.cutPower([cast.follower.id]);
    });
    this.#stage.later(1500 + random.float() * 1000, () => isDeaf && network.heal(controller, leader));
    return "follower";
  }

  /** A partition of three replicas at least, and who plays which part in it. */
  #cast(): { readonly leader: SimBroker; readonly follower: SimBroker; readonly controller: SimBroker } | undefined {
    const topic = this.#stage.topic();
    const controller = this.#stage.controller();
    if (topic === undefined || controller === undefined) return undefined;
    const state = this.#cluster.stateOf(topic.name, this.#random.below(topic.partitions));
    const followers = (state?.isr ?? []).filter((id) => id !== state?.leader && id !== controller.id);
    if (state === undefined || state.leader < 0 || followers.length === 0) return undefined;
    const [leader, follower] = [state.leader, this.#random.pick(followers)].map((id) => this.#cluster.broker(id));
    return leader?.process === undefined || follower?.process === undefined
      ? undefined
      : { leader, follower, controller };
  }

  /**
   * A follower leaves and catches up, and the leader's proposal to take it in gets to the controller late: when the follower
   * is another process, or has left again.
   */
  proposeLate(say: (what: string) => void): string | undefined {
    const cast = this.#cast();
    if (cast === undefined || cast.leader === cast.controller) return undefined;
    const [leader, follower, controller] = [cast.leader, cast.follower, cast.controller].map(({ host }) => host.name);
    if (leader === undefined || follower === undefined || controller === undefined) return undefined;
    const { network } = this.#cluster.simulation;
    const random = this.#random;
    say(`${leader} takes ${follower} in again, and ${controller} hears of it late`);
    this.#cluster.restart(cast.follower.id);
    const lateMs = random.pick([300, 700, 1500, 4000]);
    const isCut = random.chance(0.5);
    // The first copy may be on its way for long while the next one gets through.
    if (isCut) network.partition(leader, controller, { oneWay: true });
    else network.setLink(leader, controller, { delayMeanMs: lateMs });
    this.#stage.later(random.pick([400, 800, 1600]), () => {
      if (!isCut) this.#stage.restoreLink(leader, controller);
      if (!this.#stage.isActive()) return;
      network.partition(leader, follower);
      this.#stage.later(500 + random.float() * 2000, () => network.heal(leader, follower));
      if (random.chance(0.7)) {
        if (random.chance(0.5)) this.#cluster.restart(cast.follower.id);
        else this.#stage.cutPower([cast.follower.id]);
      }
    });
    this.#stage.later(500 + random.float() * lateMs, () => isCut && network.heal(leader, controller));
    return "leader";
  }

  /**
   * A leader has more than its followers and is killed, one of them leads for a while, and the first one leads again. Who led
   * meanwhile has been killed, or lives on: then it has perhaps written down an epoch without a record, cuts that off as it
   * follows, and is killed when it has caught up.
   */
  leadTurnByTurn(say: (what: string) => void): string | undefined {
    const led = this.#ledPartition();
    if (this.#isTurning || led === undefined) return undefined;
    const { leader, followers } = led;
    const heir = this.#random.pick(followers);
    const cluster = this.#cluster;
    const { network } = cluster.simulation;
    const draw = (least: number, most: number): number => least + this.#random.float() * (most - least);
    const leads = (id: BrokerId): boolean => led.replica(id)?.role.kind === "leader";
    const end = (id: BrokerId): number => led.replica(id)?.log.logEndOffset ?? -1;
    const cut = (from: readonly BrokerId[], to: BrokerId): void => {
      for (const id of from) network.partition(`broker-${id}`, `broker-${to}`, { oneWay: true });
    };
    const heal = (from: readonly BrokerId[], to: BrokerId): void => {
      for (const id of from) network.heal(`broker-${id}`, `broker-${to}`);
    };
    const livesOn = this.#random.chance(0.6);
    say(`broker-${leader}, then broker-${heir}${livesOn ? ", which lives on" : ""}, then broker-${leader}`);
    this.#isTurning = true;
    const done = this.#stage.later(5000, () => {
      this.#isTurning = false;
      heal([leader], heir);
      for (const id of cluster.brokers.keys()) cluster.start(id);
    });
    const killWhenCaughtUp = (): void =>
      this.#when(
        () => end(heir) >= 0 && end(heir) === end(leader),
        draw(0, 150),
        () => {
          cluster.restart(heir);
          done();
        },
      );
    const endByCrash = (): void => {
      cluster.crash(heir);
      cluster.start(leader);
      this.#when(
        () => leads(leader),
        draw(0, 100),
        () => {
          cluster.start(heir);
          killWhenCaughtUp();
        },
      );
    };
    const endByExpiry = (): void => {
      // It does not follow the one that has less, and keeps what it has more.
      cut([leader], heir);
      cluster.start(leader);
      this.#when(
        () => cluster.upIds.includes(leader),
        draw(0, 100),
        () => {
          this.#stage.inject("expiry", heir);
          this.#when(
            () => leads(leader),
            0,
            () => {
              heal([leader], heir);
              killWhenCaughtUp();
            },
          );
        },
      );
    };
    cut(followers, leader);
    this.#stage.later(draw(50, 250), () => {
      heal(followers, leader);
      if (!this.#stage.isActive()) return;
      for (const id of livesOn ? led.isr : cluster.brokers.keys()) if (id !== heir) cluster.crash(id);
      this.#when(() => leads(heir), livesOn ? draw(50, 1000) : draw(50, 400), livesOn ? endByExpiry : endByCrash);
    });
    return "leader";
  }

  /**
   * A leader stops in good order with records that its followers have not got. It comes back and cuts them off; and when its
   * log has grown beyond where it had stopped its power fails.
   */
  stopAhead(say: (what: string) => void): string | undefined {
    const led = this.#ledPartition();
    if (led === undefined) return undefined;
    const { leader, followers } = led;
    const cluster = this.#cluster;
    const random = this.#random;
    const { network } = cluster.simulation;
    const slot = cluster.broker(leader);
    if (slot.state !== "up") return undefined;
    say(`${slot.host.name}, which is ahead of ${followers.map((id) => `broker-${id}`).join()}`);
    const end = (): number => led.replica(leader)?.log.logEndOffset ?? -1;
    const heal = (): void => {
      for (const id of followers) network.heal(slot.host.name, `broker-${id}`);
    };
    for (const id of followers) network.partition(slot.host.name, `broker-${id}`);
    this.#stage.later(5000, heal);
    this.#stage.later(50 + random.float() * 400, () => {
      if (slot.state !== "up" || !this.#stage.isActive()) return heal();
      const endBefore = end();
      void cluster.stop(leader).then(() => {
        heal();
        this.#stage.later(random.float() * 300, () => cluster.start(leader));
        if (random.chance(0.6))
          this.#when(
            () => end() > endBefore,
            random.float() * 200,
            () => this.#stage.cutPower([leader]),
          );
      });
    });
    return "leader";
  }

  /** A leader stops while a follower that was killed catches up, and that one loses its power as soon as it is in sync. */
  stopBesideOneThatJoins(say: (what: string) => void): string | undefined {
    const led = this.#ledPartition();
    if (led === undefined) return undefined;
    const { leader, followers } = led;
    const cluster = this.#cluster;
    const random = this.#random;
    const joining = random.pick(followers);
    if (cluster.broker(leader).state !== "up") return undefined;
    say(`broker-${leader}, and broker-${joining} comes back meanwhile`);
    for (const id of followers) cluster.crash(id);
    this.#stage.later(3000 + random.float() * 2000, () => {
      for (const id of followers) cluster.start(id);
    });
    const isIn = (): boolean => led.state()?.isr.includes(joining) === true;
    this.#when(
      () => !isIn(),
      random.float() * 100,
      () => {
        cluster.start(joining);
        this.#stage.later(random.float() * 100, () => {
          if (cluster.broker(leader).state !== "up") return;
          void cluster
            .stop(leader)
            .then(() => this.#stage.later(100 + random.float() * 1000, () => cluster.start(leader)));
          this.#when(isIn, random.pick([0, 5, 30, 90]), () => this.#stage.cutPower([joining]));
        });
      },
    );
    return "leader";
  }

  #ledPartition(): LedPartition | undefined {
    return ledPartition(this.#stage);
  }

  #when(condition: () => boolean, delayMs: number, act: () => void): void {
    when(this.#stage, condition, delayMs, act);
  }

  /**
   * A machine loses its power and is back, the controller does not hear of it, writes something, and hears nothing of that
   * either: it, or the next one, has to find out from what it reads.
   */
  bounceInReload(say: (what: string) => void): string | undefined {
    const controller = this.#stage.controller();
    const process = controller?.process;
    if (controller === undefined || process === undefined) return undefined;
    const cluster = this.#cluster;
    const { network } = cluster.simulation;
    const victim = this.#random.pick([...cluster.brokers.keys()].filter((one) => one !== controller.id));
    const role = this.#stage.roleOf(victim);
    say(`broker-${victim} loses its power while ${controller.host.name} hears nothing of ZooKeeper`);
    for (const server of this.#stage.servers()) network.partition(server, controller.host.name, { oneWay: true });
    this.#stage.cutPower([victim]);
    this.#stage.later(250 + this.#random.float() * 300, () => this.#stage.administrator.actNow());
    this.#stage.later(this.#random.pick([500, 700, 1400, 1700]), () => {
      if (controller.process === process) cluster.zookeeper.loseAnswers(process);
      for (const server of this.#stage.servers()) network.heal(server, controller.host.name);
    });
    return role;
  }

  /** A follower hears nobody but its leader, whose disk is slow; and the leader is replaced. */
  deafen(say: (what: string) => void): string | undefined {
    const cast = this.#cast();
    if (cast === undefined) return undefined;
    const { leader, follower } = cast;
    const { network } = this.#cluster.simulation;
    say(`${follower.host.name} hears ${leader.host.name} only, which reads slowly and is replaced`);
    this.#stage.inject("diskSlow", leader.id);
    const others = [...this.#cluster.brokers.values()].filter((one) => one !== leader && one !== follower);
    const one = this.#random.pick(others);
    // Somebody lacks what the leader has.
    network.partition(one.host.name, leader.host.name, { oneWay: true });
    this.#stage.later(100 + this.#random.float() * 300, () => {
      network.heal(one.host.name, leader.host.name);
      if (!this.#stage.isActive()) return;
      for (const other of others) network.partition(other.host.name, follower.host.name, { oneWay: true });
      this.#stage.inject("expiry", leader.id);
    });
    this.#stage.later(1000 + this.#random.float() * 2000, () => {
      for (const other of others) network.heal(other.host.name, follower.host.name);
    });
    return "leader";
  }

  /** Perhaps when somebody is eligible only, and perhaps somebody dies again as soon as it has said what it holds. */
  cutAllPower(say: (what: string) => void): void {
    const cluster = this.#cluster;
    const random = this.#random;
    const ids = [...cluster.brokers.keys()];
    const alone = random.chance(0.4) ? cluster.broker(random.pick(ids)).host.name : undefined;
    const dies = random.chance(0.5) ? random.pick(ids) : undefined;
    say(`everybody${alone === undefined ? "" : `, ${alone} when it was alone for long`}`);
    if (alone !== undefined) cluster.simulation.network.isolate(alone);
    this.#stage.later(alone === undefined ? 0 : random.pick([1100, 1600, 2600]), () => {
      if (alone !== undefined) cluster.simulation.network.heal(alone);
      if (!this.#stage.isActive()) return;
      this.#stage.cutPower(ids);
      if (dies !== undefined)
        this.#when(
          () => cluster.broker(dies).state !== "down",
          random.float() * 400,
          () => cluster.restart(dies),
        );
    });
  }
}
