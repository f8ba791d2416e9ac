import { paths } from "../../../broker/zookeeper/znodes.js";
import type { BrokerId } from "../../../protocol/types.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { BatchFault, readBatches } from "../../../protocol/record-batch.js";
import { partitionKey, toOffset } from "../../../protocol/types.js";
import type { SimBroker, SimCluster } from "../cluster.js";
import type { SimRandom } from "../sim-random.js";
import type { Administrator } from "./administrator.js";
import type { SwarmClients } from "./clients.js";
import type { FaultLog } from "./fault-log.js";
import { FaultSequences } from "./fault-sequences.js";
import type { Stage } from "./stage.js";
import { ledPartition } from "./stage.js";
import type { Survivors } from "./survivors.js";
import type { SwarmTopic, SwarmTopics } from "./topics.js";
import { UnnoticedPowerCuts } from "./unnoticed.js";
import type { FaultKind, World } from "./world.js";
import { SESSION_MS } from "./world.js";

export interface NemesisParts {
  readonly cluster: SimCluster;
  readonly world: World;
  readonly topics: SwarmTopics;
  readonly clients: SwarmClients;
  readonly administrator: Administrator;
  readonly survivors: Survivors;
  readonly log: FaultLog;
  readonly random: SimRandom;
}

/** Draws faults from the seed, injects each when its time comes, and ends it some time later. They overlap. */
export class Nemesis {
  readonly #parts: NemesisParts;
  readonly #random: SimRandom;
  readonly #cluster: SimCluster;
  /** The ends of faults that last. */
  readonly #ends = new Set<() => void>();
  /** Damage that nobody may have met yet, and how to look for it. */
  readonly #rotten: { readonly topic: SwarmTopic; readonly partition: number; readonly find: () => void }[] = [];
  /** Topics some of whose records have rotted, at some time. */
  readonly rotted = new Set<SwarmTopic>();
  readonly #stage: Stage;
  readonly #sequences: FaultSequences;
  readonly #unnoticed: UnnoticedPowerCuts;
  #active = false;

  constructor(parts: NemesisParts) {
    const { cluster, random, administrator } = parts;
    this.#parts = parts;
    this.#random = random;
    this.#cluster = cluster;
    this.#stage = {
      cluster,
      random,
      administrator,
      isActive: () => this.#active,
      later: (delayMs, act) => this.#later(delayMs, act),
      inject: (kind, id) => void this.#inject(kind, id),
      cutPower: (ids, downMs) => this.#cutPower(ids, downMs),
      committedOnDisk: (id, topic, partition) => parts.survivors.committedOnDisk(id, topic, partition),
      restoreLink: (from, to) => this.#restoreLink(from, to),
      controller: () => this.#controller(),
      topic: () => this.#topic(),
      servers: () => this.#servers(),
      roleOf: (id) => this.#roleOf(id),
    };
    this.#sequences = new FaultSequences(this.#stage);
    this.#unnoticed = new UnnoticedPowerCuts(this.#stage);
  }

  /** A broker ended itself: its disk failed, or that is a fault of ours. */
  onFatal(id: BrokerId): void {
    this.#later(200 + this.#random.float() * 2000, () => this.#cluster.start(id));
  }

  /** Faults from now on. */
  begin(): void {
    this.#active = true;
    this.#next();
  }

  /** No more faults; everything is well again, and whoever is down starts. */
  heal(): void {
    this.#active = false;
    for (const end of [...this.#ends]) end();
    this.#cluster.simulation.network.heal();
    this.#parts.clients.resumeAll();
    for (const slot of this.#cluster.brokers.values()) {
      slot.host.resume();
      slot.process?.resume();
      this.#cluster.start(slot.id);
    }
  }

  /** Once everything is up: what is still rotten is found. */
  findRot(): void {
    for (const { find } of this.#rotten.splice(0)) find();
  }

  #next(): void {
    const { world } = this.#parts;
    this.#cluster.simulation.scheduler.after(this.#random.delayMs(world.faultIntervalMs), "next fault", () => {
      if (!this.#active) return;
      this.#injectOne();
      this.#next();
    });
  }

  #injectOne(): void {
    const kinds = Object.entries(this.#parts.world.weights) as [FaultKind, number][];
    let left = this.#random.float() * kinds.reduce((sum, [, weight]) => sum + weight, 0);
    const [kind] = kinds.find(([, weight]) => (left -= weight) < 0) ?? ["reset" as const];
    const id = this.#victim();
    if (id === undefined) return;
    const role = this.#inject(kind, id);
    if (role !== undefined) this.#parts.log.count(kind, role);
  }

  /** Leaders and controllers more often than chance would have it. */
  #victim(): BrokerId | undefined {
    const up = [...this.#cluster.brokers.values()].filter(({ process }) => process !== undefined).map(({ id }) => id);
    if (up.length === 0) return undefined;
    const topic = this.#topic();
    const leader = topic && this.#cluster.stateOf(topic.name, this.#random.below(topic.partitions))?.leader;
    const roles = [this.#cluster.controllerId, leader].filter(
      (id): id is BrokerId => id !== undefined && up.includes(id),
    );
    return roles.length > 0 && this.#random.chance(0.6) ? this.#random.pick(roles) : this.#random.pick(up);
  }

  #topic(): SwarmTopic | undefined {
    const { live } = this.#parts.topics;
    return live.length === 0 ? undefined : this.#random.pick(live);
  }

  /** What a broker is at this moment. */
  #roleOf(id: BrokerId): string {
    const controls = this.#cluster.controllerId === id ? "controller" : "";
    let follows = false;
    for (const { name, partitions } of this.#parts.topics.all) {
      for (let partition = 0; partition < partitions; partition += 1) {
        const state = this.#cluster.stateOf(name, partition);
        if (state?.leader === id) return controls === "" ? "leader" : "controller and leader";
        follows ||= state?.isr.includes(id) ?? false;
      }
    }
    return controls !== "" ? controls : follows ? "follower" : "other";
  }

  /** The role of whom it hit; undefined: it cannot be done now. */
  #inject(kind: FaultKind, id: BrokerId): string | undefined {
    const cluster = this.#cluster;
    const { network } = cluster.simulation;
    const slot = cluster.broker(id);
    const host = slot.host.name;
    const role = this.#roleOf(id);
    const between = (least: number, most: number): number => least + this.#random.float() * (most - least);
    const say = (what: string): void => cluster.note(`FAULT ${kind}: ${what}`);
    switch (kind) {
      case "crash":
        say(host);
        this.#countKill(id);
        cluster.crash(id);
        this.#later(this.#downMs() * 1.5, () => cluster.start(id));
        return role;
      case "totalCrash":
        say("everybody");
        for (const one of cluster.brokers.keys()) {
          cluster.crash(one);
          this.#later(this.#downMs(), () => cluster.start(one));
        }
        return "everybody";
      case "restart":
        say(host);
        this.#countKill(id);
        this.#sequences.restart(id);
        return role;
      case "turnByTurn":
        return this.#sequences.leadTurnByTurn(say);
      case "stop":
        if (slot.state !== "up") return undefined;
        say(host);
        void cluster.stop(id).then(() => this.#later(between(100, 2000), () => cluster.start(id)));
        return role;
      case "stoppedAhead":
        return this.#sequences.stopAhead(say);
      case "stopThenPowerCut":
        return this.#sequences.stopBesideOneThatJoins(say);
      case "shortPause":
      case "longPause": {
        const durationMs = (kind === "shortPause" ? between(0.1, 0.8) : between(1.2, 2.5)) * SESSION_MS;
        const { process } = slot;
        say(`${host} for ${durationMs.toFixed(0)} ms`);
        process?.pause();
        this.#later(durationMs, () => process?.resume());
        return role;
      }
      case "stall":
        say(host);
        slot.process?.stall(between(20, 900));
        return role;
      case "suspend": {
        const durationMs = between(0.3, 2.5) * SESSION_MS;
        say(`${host} for ${durationMs.toFixed(0)} ms`);
        slot.host.suspend();
        this.#later(durationMs, () => slot.host.resume());
        return role;
      }
      case "powerCut":
        say(host);
        this.#cutPower([id]);
        return role;
      case "pairPowerCut": {
        const other = this.#random.pick([...cluster.brokers.keys()].filter((one) => one !== id));
        say(`${host} and broker-${other}`);
        this.#cutPower([id, other]);
        return role;
      }
      case "rackPowerCut": {
        const { machines } = this.#parts.world;
        const rack = machines.get(id)?.rack;
        if (rack === undefined || rack === "") return undefined;
        const ids = [...cluster.brokers.keys()].filter((one) => machines.get(one)?.rack === rack);
        say(`${rack}: ${ids.join()}`);
        this.#cutPower(ids);
        return role;
      }
      case "totalPowerCut":
        this.#sequences.cutAllPower(say);
        return "everybody";
      case "powerCutThenDeath": {
        // The machine that went dark says nothing, so its session stands while the other one's death is noticed at once.
        const other = this.#random.pick([...cluster.brokers.keys()].filter((one) => one !== id));
        const how = this.#random.pick(["crash", "restart", "stop"] as const);
        say(`${host}, then broker-${other} by a ${how}`);
        this.#cutPower([id]);
        this.#later(this.#random.pick([5, 50, 500]) * (0.5 + this.#random.float()), () => {
          const { process } = cluster.broker(other);
          if (process === undefined || !this.#active) return;
          this.#inject(how, other);
        });
        return role;
      }
      case "heirPowerCut":
        return this.#unnoticed.ofHeir(say);
      case "copiesPowerCut":
        return this.#unnoticed.ofAllCopies(say);
      case "lonePowerCut":
        return this.#unnoticed.ofOneLeftAlone(say);
      case "clockJump": {
        const byMs = Math.round(between(-1, 1) * this.#random.pick([2000, 60_000, 600_000]));
        say(`${host} by ${byMs} ms`);
        slot.host.jumpWallClock(byMs);
        this.#later(between(500, 5000), () => slot.host.jumpWallClock(-byMs));
        return role;
      }
      case "partition":
      case "oneWayPartition": {
        const other = this.#random.pick([...cluster.brokers.values()].filter((one) => one !== slot)).host.name;
        const oneWay = kind === "oneWayPartition";
        say(`${host} ${oneWay ? "to" : "and"} ${other}`);
        network.partition(host, other, { oneWay });
        this.#later(between(200, 4000), () => network.heal(host, other));
        return role;
      }
      case "isolation":
        say(host);
        network.isolate(host);
        this.#later(between(300, 5000), () => network.heal(host));
        return role;
      case "reset":
        say(host);
        network.resetAll(host);
        return role;
      case "slowLink": {
        const other = this.#random.pick([...cluster.brokers.values()].filter((one) => one !== slot)).host.name;
        const delayMeanMs = this.#random.pick([5, 30, 100]);
        say(`${host} to ${other}: ${delayMeanMs} ms`);
        network.setLink(host, other, { delayMeanMs });
        this.#later(between(500, 4000), () => this.#restoreLink(host, other));
        return role;
      }
      case "controllerLink": {
        const controller = this.#controller();
        if (controller === undefined) return undefined;
        const other = this.#random.pick([...cluster.brokers.values()].filter((one) => one !== controller));
        const [from, to] = this.#random.chance(0.5) ? [controller, other] : [other, controller];
        const oneWay = this.#random.chance(0.5);
        say(`${from.host.name} ${oneWay ? "to" : "and"} ${to.host.name}`);
        network.partition(from.host.name, to.host.name, { oneWay });
        this.#later(between(200, 2500), () => network.heal(from.host.name, to.host.name));
        return this.#roleOf(other.id);
      }
      case "lateMessages": {
        if (this.#random.chance(0.4)) return this.#sequences.fetchLate(say);
        const other = this.#random.pick([...cluster.brokers.values()].filter((one) => one !== slot));
        this.#sequences.sendLate(slot, other);
        return role;
      }
      case "lateProposal":
        return this.#sequences.proposeLate(say);
      case "deafFollower":
        return this.#sequences.deafen(say);
      case "zookeeperPartition":
      case "zookeeperOneWay": {
        const servers = this.#servers();
        const towards = this.#random.chance(0.5);
        say(`${host} ${kind === "zookeeperPartition" ? "" : towards ? "is not heard" : "hears nothing"}`);
        for (const server of servers) {
          if (kind === "zookeeperPartition") network.partition(host, server);
          else if (towards) network.partition(host, server, { oneWay: true });
          else network.partition(server, host, { oneWay: true });
        }
        this.#later(between(300, 5000), () => {
          for (const server of servers) network.heal(host, server);
        });
        return role;
      }
      case "expiry": {
        const session = cluster.zookeeper.node(paths.broker(id))?.ephemeralOwner;
        if (session === undefined) return undefined;
        say(host);
        cluster.zookeeper.expireSession(session);
        return role;
      }
      case "lostReply": {
        const controller = this.#controller();
        if (controller?.process === undefined) return undefined;
        const { process } = controller;
        const role = this.#roleOf(controller.id);
        const disarm = cluster.zookeeper.trapWrite(process, 1 + this.#random.below(3), "done", () => {
          say(`a write of ${controller.host.name} is done and not answered`);
          this.#parts.log.count("a reply was lost", role);
          cluster.zookeeper.loseAnswers(process);
        });
        this.#later(6000, disarm);
        return role;
      }
      case "zookeeperServer":
        return this.#injectServerFault();
      case "quorumLoss":
        say("nobody answers");
        cluster.zookeeper.loseQuorum();
        this.#later(between(300, 4000), () => cluster.zookeeper.regainQuorum());
        return "everybody";
      case "controllerStep": {
        const controller = this.#controller();
        if (controller?.process === undefined) return undefined;
        const { process } = controller;
        const role = this.#roleOf(controller.id);
        const step = this.#random.pick(["arrived", "done"] as const);
        const disarm = cluster.zookeeper.trapWrite(process, 1 + this.#random.below(6), step, () => {
          if (process.dead || controller.process !== process) return;
          say(`${controller.host.name} dies ${step === "done" ? "behind" : "before"} a write`);
          this.#parts.log.count("controller killed at a step", step);
          this.#countKill(controller.id);
          cluster.crash(controller.id);
          this.#later(between(100, 3000), () => cluster.start(controller.id));
        });
        this.#later(6000, disarm);
        return role;
      }
      case "lateWrite": {
        const controller = this.#controller();
        if (controller?.process === undefined) return undefined;
        const { process } = controller;
        const role = this.#roleOf(controller.id);
        say(`what ${controller.host.name} writes now arrives when it is dead`);
        this.#parts.administrator.actNow();
        for (const server of this.#servers()) network.partition(controller.host.name, server, { oneWay: true });
        this.#later(between(30, 500), () => {
          if (controller.process !== process || !this.#active) return;
          this.#countKill(controller.id);
          cluster.crash(controller.id);
        });
        this.#later(between(600, 1800), () => {
          for (const server of this.#servers()) network.heal(controller.host.name, server);
          cluster.start(controller.id);
        });
        return role;
      }
      case "bounceInReload":
        return this.#sequences.bounceInReload(say);
      case "diskFull":
        this.#sequences.fillDisk(slot, say);
        return role;
      case "diskSlow": {
        const { disk } = slot.host;
        const slowness = this.#random.pick(this.#parts.world.slowReadsMs);
        say(`${host}: reads take ${slowness} ms`);
        disk.readDelayMeanMs = slowness;
        // Back to what the world has, and not to what was before: two of these on one disk may end in any order.
        const usualMs = this.#parts.world.machines.get(id)?.readDelayMs;
        this.#later(between(300, 3000), () => (disk.readDelayMeanMs = usualMs));
        return role;
      }
      case "diskError": {
        const operation = this.#random.pick(["sync", "write"] as const);
        say(`the next ${operation} of ${host} fails`);
        const end = slot.host.disk.fail(operation, (path) => path.endsWith(".log"), { times: 1 });
        this.#later(between(300, 3000), end);
        return role;
      }
      case "rot":
        return this.#injectRot(id, say) ? role : undefined;
      case "rotBeforeCut":
        return this.#rotBeforeCut(say);
      case "snapshotRot":
        return this.#rotSnapshots(id, say) ? role : undefined;
      case "diskLost":
        return this.#loseDisk(slot, say) ? role : undefined;
      case "clientCrash": {
        const name = this.#parts.clients.crash(this.#random);
        if (name !== undefined) say(name);
        return "client";
      }
      case "clientPause": {
        const paused = this.#parts.clients.pause(this.#random);
        if (paused === undefined) return undefined;
        say(paused.name);
        this.#later(between(200, 5000), paused.resume);
        return "client";
      }
      case "clientIdle": {
        const name = this.#parts.clients.idle(this.#random, between(500, 5000));
        if (name !== undefined) say(name);
        return "client";
      }
    }
  }

  /** As the world has it. */
  #restoreLink(from: string, to: string): void {
    const usual = this.#parts.world.slowLinks.find((link) => link.from === from && link.to === to);
    this.#cluster.simulation.network.setLink(from, to, usual === undefined ? {} : { delayMeanMs: usual.delayMs });
  }

  /** How long somebody is away who was killed. */
  #downMs(): number {
    const [least, most] = this.#parts.world.downMs;
    return least + this.#random.float() * (most - least);
  }

  #countKill(id: BrokerId): void {
    if (this.#cluster.controllerId === id && this.#parts.administrator.underWay > 0)
      this.#parts.log.count("controller killed in administration");
  }

  #controller(): SimBroker | undefined {
    const id = this.#cluster.controllerId;
    return id === undefined ? undefined : this.#cluster.broker(id);
  }

  /** Machines go dark together and come back one by one. What may be lost with them is found on their disks. */
  #cutPower(ids: readonly BrokerId[], downMs?: number): void {
    const { survivors } = this.#parts;
    for (const id of ids) this.#countKill(id);
    this.#cluster.powerCut(...ids);
    survivors.look(ids);
    for (const id of ids) this.#later(downMs ?? this.#downMs(), () => this.#cluster.start(id));
  }

  /** Never on the only copy of a record: what nobody has any more cannot be brought back. */
  #injectRot(id: BrokerId, say: (what: string) => void): boolean {
    const topic = this.#topic();
    if (topic === undefined) return false;
    const number = this.#random.below(topic.partitions);
    const partition = this.#cluster.partition(id, topic.name, number);
    const state = this.#cluster.stateOf(topic.name, number);
    const hasAll =
      state?.isr.length === topic.replicationFactor && state.isr.every((one) => this.#cluster.upIds.includes(one));
    if (!hasAll || partition === undefined || topic.replicationFactor < 2) return false;
    // A member may lag behind what is not committed yet.
    const { logEndOffset } = partition.log;
    const endOf = (one: BrokerId): number => this.#cluster.partition(one, topic.name, number)?.log.logEndOffset ?? 0;
    if (state.isr.some((one) => endOf(one) < logEndOffset)) return false;
    if (this.#rotten.some((one) => one.topic === topic && one.partition === number)) return false;
    const { disk } = this.#cluster.broker(id).host;
    const directory = `/data/logs/${topic.name}-${number}`;
    // What lies before the log start is read by nobody.
    const names = disk
      .namesIn(directory)
      .filter((name) => name.endsWith(".log") && Number.parseInt(name, 10) >= partition.log.logStartOffset);
    if (names.length === 0) return false;
    // Or the newest bytes rot, and the process dies before they count as durable.
    const { weights } = this.#parts.world;
    const isNewest = state.durability === "page-cache" && weights.restart > 0 && this.#random.chance(0.4);
    const name = isNewest ? names.at(-1) : this.#random.pick(names);
    const path = `${directory}/${name}`;
    // Behind the recovery point a power cut leaves holes too, and nobody can tell rot from them: only records that were synced
    // for good may rot where the topic's durability promises that a power cut costs nothing.
    const next = names[names.indexOf(name ?? "") + 1];
    if (
      state.durability !== "page-cache" &&
      (next === undefined || Number.parseInt(next, 10) > this.#recoveryPoint(id, topic, number))
    )
      return false;
    const size = disk.contentOf(path)?.length ?? 0;
    if (size === 0) return false;
    const position = isNewest ? size - 1 - this.#random.below(Math.min(size, NEWEST_BYTES)) : this.#random.below(size);
    // A last batch that seems longer than the file cannot be told from one whose writing was cut short.
    if (next === undefined && isInLastLength(disk.contentOf(path), position)) return false;
    say(`${path} of broker-${id} at ${position}`);
    const find = this.#flipBit(id, topic, number, path, position);
    if (isNewest) this.#inject("restart", id);
    else if (this.#random.chance(this.#parts.world.findsRot)) find();
    // Somebody fetches everything from there.
    const others = state.isr.filter((one) => one !== id);
    if (others.length > 1 && this.#parts.world.weights.diskLost > 0 && this.#random.chance(0.5))
      this.#later(20 + this.#random.float() * 200, () => {
        if (this.#active) this.#inject("diskLost", this.#random.pick(others));
      });
    return true;
  }

  /** Returns what looks for it. Readers may find it, or recovery, or the scrubber, which comes late. A look may not come to its end. */
  #flipBit(id: BrokerId, topic: SwarmTopic, partition: number, path: string, position: number): () => void {
    this.#cluster.broker(id).host.disk.flipBit(path, position, this.#random.below(8));
    const base = Number.parseInt(path.slice(path.lastIndexOf("/") + 1), 10);
    const find = (): void => {
      this.#cluster
        .partition(id, topic.name, partition)
        ?.log.verifyRange(toOffset(base))
        .catch((error: unknown) => {
          this.#cluster.note(`the damage is not looked for: ${String(error)}`);
        });
    };
    this.rotted.add(topic);
    this.#rotten.push({ topic, partition, find });
    return find;
  }

  /**
   * A follower is ahead of the one that leads next, and of what both have the newest rots in it when its leader is killed: it
   * cuts its log right behind that.
   */
  #rotBeforeCut(say: (what: string) => void): string | undefined {
    const cluster = this.#cluster;
    const { network } = cluster.simulation;
    const led = ledPartition(this.#stage);
    if (led === undefined || led.isr.length < 3) return undefined;
    const { topic, partition, leader, replica } = led;
    const isWhole = led.isr.length === topic.replicationFactor && led.isr.every((id) => cluster.upIds.includes(id));
    if (!isWhole || this.#rotten.some((one) => one.topic === topic && one.partition === partition)) return undefined;
    const order = cluster.assignmentOf(topic.name)?.[partition] ?? [];
    const [heir = 0, ...others] = order.filter((id) => id !== leader);
    const ahead = this.#random.pick(others);
    say(`${topic.name}-${partition} on broker-${ahead}, which is ahead of broker-${heir}, and broker-${leader} dies`);
    network.partition(`broker-${heir}`, `broker-${leader}`, { oneWay: true });
    this.#later(30 + this.#random.float() * 250, () => {
      network.heal(`broker-${heir}`, `broker-${leader}`);
      if (!this.#active || led.isr.some((id) => replica(id)?.role.kind !== (id === leader ? "leader" : "follower")))
        return;
      const end = replica(heir)?.log.logEndOffset ?? 0;
      const directory = `/data/logs/${topic.name}-${partition}`;
      const { disk } = cluster.broker(ahead).host;
      const name = disk.namesIn(directory).findLast((one) => one.endsWith(".log") && Number.parseInt(one, 10) < end);
      const path = `${directory}/${name}`;
      const batches = wholeBatches(disk.contentOf(path)).filter(({ endOffset }) => endOffset <= end);
      const rotten = batches.at(-1 - this.#random.below(3));
      // The last batch of a file cannot always be told from one whose writing was cut short.
      if (rotten === undefined || (replica(ahead)?.log.logEndOffset ?? 0) <= end) return;
      this.#flipBit(ahead, topic, partition, path, rotten.start + this.#random.below(rotten.end - rotten.start));
      this.#inject("crash", leader);
    });
    return "follower";
  }

  /** The newest snapshots of producers cannot be read when the process is killed: there are older ones, and the batches. */
  #rotSnapshots(id: BrokerId, say: (what: string) => void): boolean {
    const topic = this.#topic();
    if (topic === undefined) return false;
    const { disk } = this.#cluster.broker(id).host;
    const directory = `/data/logs/${topic.name}-${this.#random.below(topic.partitions)}`;
    const names = disk.namesIn(directory).filter((name) => name.endsWith(".snapshot"));
    const rotten = names.slice(-this.#random.pick([1, 2, 3]));
    if (rotten.length === 0) return false;
    say(`${directory} of broker-${id}: ${rotten.join()}`);
    this.rotted.add(topic);
    for (const name of rotten) {
      const path = `${directory}/${name}`;
      const size = disk.contentOf(path)?.length ?? 0;
      if (size > 0) disk.flipBit(path, this.#random.below(size), this.#random.below(8));
    }
    this.#inject("restart", id);
    return true;
  }

  /** Up to where the next start of a broker believes what is on its disk. */
  #recoveryPoint(id: BrokerId, { topicId }: SwarmTopic, partition: number): number {
    const content = this.#cluster.broker(id).host.disk.durableContentOf("/data/logs/recovery-point-offset-checkpoint");
    const key = `${partitionKey(topicId, partition)} `;
    const line = Buffer.from(content ?? [])
      .toString()
      .split("\n")
      .find((one) => one.startsWith(key));
    return line === undefined ? 0 : Number(line.slice(key.length));
  }

  /** A new, empty disk in a machine whose replicas are all in sync elsewhere as well. */
  #loseDisk(slot: SimBroker, say: (what: string) => void): boolean {
    if (!this.#isWhole()) return false;
    const alone = this.#parts.topics.all.some((topic) =>
      (this.#cluster.assignmentOf(topic.name) ?? []).some(
        (replicas) => replicas.length === 1 && replicas.includes(slot.id),
      ),
    );
    // Another copy may be damaged: then there must be a third.
    if (alone || this.#rotten.some(({ topic }) => topic.replicationFactor < 3)) return false;
    say(slot.host.name);
    this.#cluster.powerCut(slot.id);
    slot.host.disk.replace();
    this.#parts.survivors.look([slot.id]);
    this.#later(this.#downMs(), () => this.#cluster.start(slot.id));
    return true;
  }

  #isWhole(): boolean {
    const cluster = this.#cluster;
    return (
      cluster.upIds.length === cluster.brokers.size &&
      this.#parts.topics.all.every(({ name }) => cluster.topicId(name) === undefined || cluster.isSettled(name))
    );
  }

  #injectServerFault(): string {
    const { zookeeper } = this.#cluster;
    const server = this.#random.pick(this.#servers());
    const role = zookeeper.leader === server ? "leader of the ensemble" : "server of the ensemble";
    const how = this.#random.pick(["down", "frozen", "isolated"] as const);
    this.#cluster.note(`FAULT zookeeperServer: ${server} ${how}`);
    if (how === "down") zookeeper.takeDown(server);
    else if (how === "frozen") zookeeper.freeze(server);
    else zookeeper.isolate(server);
    this.#later(500 + this.#random.float() * 3500, () => {
      if (how === "down") zookeeper.bringUp(server);
      else if (how === "frozen") zookeeper.thaw(server);
      else zookeeper.heal(server);
    });
    return role;
  }

  #servers(): string[] {
    return Array.from({ length: this.#parts.world.zookeeperServers }, (_, index) => `zk${index + 1}`);
  }

  /** Returns what ends it at once. */
  #later(delayMs: number, end: () => void): () => void {
    const once = (): void => {
      if (this.#ends.delete(once)) end();
    };
    this.#ends.add(once);
    this.#cluster.simulation.scheduler.after(delayMs, "end of a fault", once);
    return once;
  }
}

/** Whether the position lies where the length of the last batch stands. */
function isInLastLength(content: Uint8Array | undefined, position: number): boolean {
  const last = readBatches(Buffer.from(content ?? [])).at(-1);
  return last !== undefined && position >= last.start && position < last.start + LENGTH_BYTES_MAX;
}

/** None, if one is damaged. */
function wholeBatches(content: Uint8Array | undefined): RecordBatch[] {
  try {
    return readBatches(Buffer.from(content ?? []));
  } catch (error) {
    if (error instanceof BatchFault) return [];
    throw error;
  }
}

/** A batch of a few small records is not shorter. */
const NEWEST_BYTES = 60;

/** A tag, and the length behind it. */
const LENGTH_BYTES_MAX = 5;
