import { paths } from "../../../broker/zookeeper/znodes.js";
import type { BrokerId, PartitionKey } from "../../../protocol/types.js";
import { partitionKey } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import type { History } from "../history.js";
import type { Invariants } from "../invariants.js";
import type { SwarmTopic, SwarmTopics } from "./topics.js";

/** Answers and deliveries may be on their way for so long. */
const ON_THE_WAY_MS = 1500;
/** What a controller writes may be on its way for so long; and what one wrote that is dead by then. */
const WRITE_MS = 10;
const LAST_WRITE_MS = 5000;

interface PowerCut {
  readonly ids: readonly BrokerId[];
  readonly atMs: number;
  /** The last change that was looked at. */
  lastZxid: bigint;
  /** The session of the controller, if it lost its power too: whatever it writes from then on was on its way. */
  readonly writer: string | undefined;
}

interface OpenLoss {
  readonly topic: SwarmTopic;
  readonly partition: number;
  readonly key: PartitionKey;
  fromOffset: number;
  readonly sinceMs: number;
  /** Leader epoch when the power was cut: the next one begins without what is lost. */
  epoch: number;
}

/**
 * Says which acknowledged records may be lost when machines lose their power, by looking at what is left on the disks: a
 * record is lost with permission only when no replica has it any more that was in sync or eligible. Whoever has it must be
 * waited for, elected and copied from. While the state of the partition says `fsync` nothing may be lost at all.
 *
 * A state that was on its way to ZooKeeper when its leader lost its power counts with what that one has left: the leader had
 * answered, and others have lost their seats to it (known gaps in docs/replication.md).
 */
export class Survivors {
  readonly #open = new Map<PartitionKey, OpenLoss>();
  readonly #lossy = new Set<PartitionKey>();
  /** Whose states may still be on their way. */
  #cuts: PowerCut[] = [];
  /** How often acknowledged records were lost with permission. */
  permitted = 0;

  constructor(
    private readonly cluster: SimCluster,
    private readonly topics: SwarmTopics,
    private readonly invariants: Invariants,
    private readonly history: History,
  ) {}

  /** Whether records of the partition were ever lost with permission. */
  hadLoss(key: PartitionKey): boolean {
    return this.#lossy.has(key);
  }

  /** Up to where the disk of a broker has what was committed. */
  committedOnDisk(id: BrokerId, { topicId, name }: SwarmTopic, partition: number): number {
    return this.invariants.committedOnDisk(partitionKey(topicId, partition), id, name, partition);
  }

  /** After a power cut or the loss of a disk, of these brokers. */
  look(ids: readonly BrokerId[]): void {
    const { cluster } = this;
    const { zookeeper, controllerId } = cluster;
    const office = zookeeper.node(paths.controllerEpoch);
    const isWriterGone = controllerId !== undefined && ids.includes(controllerId);
    const writer = isWriterGone && office !== undefined ? zookeeper.writerOf(office.mzxid) : undefined;
    this.#cuts.push({ ids, atMs: cluster.nowMs, lastZxid: zookeeper.lastChangeZxid, writer });
    for (const topic of this.topics.all) {
      for (let partition = 0; partition < topic.partitions; partition += 1) this.#lookAt(topic, partition);
    }
  }

  /** A leader without what is lost is in office, or there is none yet. To be called often. */
  settle(): void {
    this.#lookAtLateStates();
    if (this.#open.size === 0) return;
    for (const loss of [...this.#open.values()]) {
      const state = this.#state(loss.topic, loss.partition);
      if (state === undefined) this.#open.delete(loss.key);
      else if (state.leader >= 0 && state.leaderEpoch > loss.epoch) this.#close(loss);
    }
  }

  #lookAtLateStates(): void {
    const { nowMs } = this.cluster;
    this.#cuts = this.#cuts.filter(({ atMs, writer }) => {
      const sinceMs = nowMs - atMs;
      return sinceMs <= WRITE_MS || (sinceMs <= LAST_WRITE_MS && writer !== undefined);
    });
    for (const cut of this.#cuts) this.#lookBehind(cut);
  }

  #lookBehind(cut: PowerCut): void {
    const { zookeeper, nowMs } = this.cluster;
    const { lastZxid } = cut;
    if (zookeeper.lastChangeZxid === lastZxid) return;
    const isOver = nowMs - cut.atMs > WRITE_MS;
    cut.lastZxid = zookeeper.lastChangeZxid;
    for (const topic of this.topics.all) {
      for (let partition = 0; partition < topic.partitions; partition += 1) {
        const node = zookeeper.node(paths.partitionState(topic.name, partition));
        if (node === undefined || node.mzxid <= lastZxid) continue;
        if (isOver && zookeeper.writerOf(node.mzxid) !== cut.writer) continue;
        const leader = this.#state(topic, partition)?.leader;
        if (leader !== undefined && cut.ids.includes(leader)) this.#lookAt(topic, partition);
      }
    }
  }

  #lookAt(topic: SwarmTopic, partition: number): void {
    const key = partitionKey(topic.topicId, partition);
    // What a leader with damage has called committed is not compared batch by batch.
    const committedEnd = Math.max(this.invariants.committedEnd(key), this.invariants.highWatermarkOf(key) ?? 0);
    const state = this.#state(topic, partition);
    if (state === undefined || committedEnd === 0) return;
    const counted = [...state.isr, ...state.elr, ...state.unverified];
    const left = Math.max(0, ...counted.map((id) => this.invariants.committedOnDisk(key, id, topic.name, partition)));
    if (left >= committedEnd) return;
    // Every in-sync replica has said that it has synced what was there, and what came since is synced before it counts.
    if (state.durability === "fsync") return;
    this.cluster.note(`${topic.name}-${partition} may lose what is behind ${left}; committed was ${committedEnd}`);
    this.permitted += 1;
    this.#lossy.add(key);
    const before = this.#open.get(key);
    if (before !== undefined) {
      before.fromOffset = Math.min(before.fromOffset, left);
      before.epoch = state.leaderEpoch;
    } else
      this.#open.set(key, {
        topic,
        partition,
        key,
        fromOffset: left,
        sinceMs: this.cluster.nowMs,
        epoch: state.leaderEpoch,
      });
    this.invariants.permitLoss(key, left);
  }

  #close(loss: OpenLoss): void {
    this.#open.delete(loss.key);
    const { key, fromOffset, sinceMs } = loss;
    this.history.permitLoss({ partition: key, fromOffset, sinceMs, untilMs: this.cluster.nowMs + ON_THE_WAY_MS });
  }

  #state(topic: SwarmTopic, partition: number): ReturnType<SimCluster["stateOf"]> {
    return this.cluster.topicId(topic.name) === topic.topicId ? this.cluster.stateOf(topic.name, partition) : undefined;
  }
}
