import type { Log } from "../../broker/log/log.js";
import type { Partition, PartitionRole } from "../../broker/partition/partition.js";
import { decodeControllerEpoch, paths } from "../../broker/zookeeper/znodes.js";
import type { PartitionStateZnode } from "../../broker/zookeeper/znodes.js";
import { BatchFault, readBatches } from "../../protocol/record-batch.js";
import { partitionKey } from "../../protocol/types.js";
import type { SimBroker, SimCluster } from "./cluster.js";
import type { History, ReplicaImage } from "./history.js";

/** What the last look at a replica showed. */
interface Seen {
  readonly role: PartitionRole;
  readonly highWatermark: number;
}

/** What a partition's znode said last. */
interface SeenState {
  readonly topicCzxid: bigint;
  readonly mzxid: bigint;
  readonly state: PartitionStateZnode;
}

/** What was committed, as the first replica that called it so had it: base offset to what stands there. */
interface CommittedLog {
  readonly batches: Map<number, string>;
  endOffset: number;
}

/**
 * What must hold after every single event, looked up in the memory of all brokers and in ZooKeeper. It throws at the first
 * event after which something does not, which is as near to the cause as one can get. Nothing here waits or writes.
 *
 * - A leader epoch has one leader, for ever.
 * - While a role lasts the high watermark does not go back; it stands between log start and log end.
 * - What is below any replica's high watermark is the same in every replica, now and later.
 * - In ZooKeeper the leader is in sync, a new leader was in sync or eligible before, and no role is ahead of its epoch.
 * - The controller epoch grows, in ZooKeeper and for each broker.
 */
export class Invariants {
  readonly #leaders = new Map<string, string>();
  readonly #seen = new WeakMap<Partition, Seen>();
  readonly #verifiedTo = new WeakMap<Log, number>();
  readonly #committed = new Map<string, CommittedLog>();
  readonly #states = new Map<string, SeenState>();
  readonly #controllerEpochs = new WeakMap<SimBroker, { readonly process: unknown; readonly epoch: number }>();
  readonly #topics = new Set<string>();
  #controllerEpoch = { mzxid: -1n, value: 0 };
  #lastZxid = -1n;
  /** Records may be lost: unclean elections are on, or every disk lost its power. */
  lossAllowed = false;

  constructor(
    private readonly cluster: SimCluster,
    private readonly history?: History,
  ) {}

  /** Looks at these topics too. */
  watchTopic(topic: string): void {
    this.#topics.add(topic);
    this.#lastZxid = -1n;
  }

  /** Checks after each event from now on. Returns the end of it. */
  attach(): () => void {
    return this.cluster.simulation.scheduler.afterEachEvent(() => this.check());
  }

  /** Looks where something may have changed: in ZooKeeper after a transaction, in brokers whose code has run. */
  check(): void {
    const { zookeeper, brokers, simulation } = this.cluster;
    if (zookeeper.lastZxid !== this.#lastZxid) {
      this.#lastZxid = zookeeper.lastZxid;
      this.#checkControllerEpoch();
      for (const topic of this.#topics) this.#checkStates(topic);
    }
    const { touched } = simulation.scheduler;
    if (touched.size === 0) return;
    for (const slot of brokers.values()) {
      const { broker, process } = slot;
      if (broker === undefined || process === undefined || !touched.has(process)) continue;
      this.#checkBrokersController(slot, broker.metadata.controllerEpoch);
      for (const partition of broker.partitions?.all() ?? []) this.#checkReplica(slot, partition);
    }
  }

  /** The replicas of everything watched, batch by batch, as their logs are now. */
  replicaImages(): ReplicaImage[] {
    const images: ReplicaImage[] = [];
    for (const slot of this.cluster.brokers.values()) {
      for (const partition of slot.broker?.partitions?.all() ?? []) {
        const { log } = partition;
        images.push({
          brokerId: slot.id,
          partition: partitionKey(partition.topicId, partition.partition),
          highWatermark: log.highWatermark,
          batches: batchesOnDisk(slot, log).filter(({ endOffset }) => endOffset > log.logStartOffset),
        });
      }
    }
    return images;
  }

  #checkControllerEpoch(): void {
    const node = this.cluster.zookeeper.node(paths.controllerEpoch);
    if (node === undefined || node.mzxid === this.#controllerEpoch.mzxid) return;
    const value = decodeControllerEpoch(node.data);
    if (value <= this.#controllerEpoch.value && this.#controllerEpoch.mzxid >= 0n)
      throw new Error(`the controller epoch in ZooKeeper went from ${this.#controllerEpoch.value} to ${value}`);
    this.#controllerEpoch = { mzxid: node.mzxid, value };
    this.history?.controllerEpochs.push(value);
  }

  #checkBrokersController(slot: SimBroker, epoch: number): void {
    const before = this.#controllerEpochs.get(slot);
    if (before?.process === slot.process && before?.epoch === epoch) return;
    if (before?.process === slot.process && before !== undefined && epoch < before.epoch)
      throw new Error(`broker ${slot.id} went from controller epoch ${before.epoch} back to ${epoch}`);
    this.#controllerEpochs.set(slot, { process: slot.process, epoch });
  }

  #checkStates(topic: string): void {
    const topicNode = this.cluster.zookeeper.node(paths.topic(topic));
    if (topicNode === undefined) return;
    for (let partition = 0; ; partition += 1) {
      const path = paths.partitionState(topic, partition);
      const node = this.cluster.zookeeper.node(path);
      if (node === undefined) return;
      const seen = this.#states.get(path);
      if (seen?.mzxid === node.mzxid) continue;
      // Of a topic that was created again nothing earlier counts.
      const before = seen?.topicCzxid === topicNode.czxid ? seen : undefined;
      const state = this.cluster.stateOf(topic, partition);
      // A test has made it unreadable.
      if (state === undefined) continue;
      this.#states.set(path, { topicCzxid: topicNode.czxid, mzxid: node.mzxid, state });
      this.#checkState(`${topic}-${partition}`, state, before?.state);
    }
  }

  #checkState(name: string, state: PartitionStateZnode, before: PartitionStateZnode | undefined): void {
    if (state.leader >= 0 && !state.isr.includes(state.leader))
      throw new Error(`${name}: leader ${state.leader} is not among the in-sync replicas ${state.isr.join(",")}`);
    if (state.isr.length === 0) throw new Error(`${name}: no replica is in sync`);
    if (before === undefined) return;
    if (state.leaderEpoch < before.leaderEpoch)
      throw new Error(`${name}: the leader epoch went from ${before.leaderEpoch} to ${state.leaderEpoch}`);
    const isNewLeader = state.leader >= 0 && state.leader !== before.leader;
    if (isNewLeader && state.leaderEpoch === before.leaderEpoch)
      throw new Error(`${name}: leader ${state.leader} got the epoch ${state.leaderEpoch} of leader ${before.leader}`);
    if (isNewLeader && !this.lossAllowed && ![...before.isr, ...before.elr].includes(state.leader)) {
      throw new Error(
        `${name}: ${state.leader} was elected, in sync were ${before.isr.join(",")}, eligible ${before.elr.join(",")}`,
      );
    }
  }

  #checkReplica(slot: SimBroker, partition: Partition): void {
    const { role, log } = partition;
    const name = `${partition.name} on broker ${slot.id}`;
    const highWatermark = log.highWatermark;
    const before = this.#seen.get(partition);
    if (before?.role === role && before.highWatermark === highWatermark) return;
    const goesBack = before !== undefined && highWatermark < before.highWatermark;
    if (goesBack) this.#verifiedTo.set(log, Math.min(this.#verifiedTo.get(log) ?? 0, highWatermark));
    if (goesBack && before.role === role && this.#counts(slot, partition))
      throw new Error(`${name}: the high watermark went from ${before.highWatermark} back to ${highWatermark}`);
    if (highWatermark > log.logEndOffset)
      throw new Error(`${name}: high watermark ${highWatermark} is above the log end ${log.logEndOffset}`);
    if (highWatermark < log.logStartOffset)
      throw new Error(`${name}: high watermark ${highWatermark} is below the log start ${log.logStartOffset}`);
    this.#seen.set(partition, { role, highWatermark });
    if (role.kind === "leader" && before?.role !== role) this.#checkLeader(slot, partition, role.epoch);
    if (!this.lossAllowed) this.#checkCommitted(slot, partition, name);
  }

  /** In sync, or eligible. One that is neither may cut its log to repair it. */
  #counts(slot: SimBroker, partition: Partition): boolean {
    const state = this.cluster.stateOf(partition.topic, partition.partition);
    return state === undefined || state.isr.includes(slot.id) || state.elr.includes(slot.id);
  }

  #checkLeader(slot: SimBroker, partition: Partition, epoch: number): void {
    const term = `${partitionKey(partition.topicId, partition.partition)}@${epoch}`;
    const process = slot.process?.name ?? "";
    const before = this.#leaders.get(term);
    if (before !== undefined && before !== process)
      throw new Error(`${partition.name} at epoch ${epoch} is led by ${before} and by ${process}`);
    this.#leaders.set(term, process);
    const state = this.cluster.stateOf(partition.topic, partition.partition);
    const isSame = this.cluster.topicId(partition.topic) === partition.topicId;
    if (isSame && state !== undefined && state.leaderEpoch < epoch)
      throw new Error(`${partition.name} is led at epoch ${epoch}, ZooKeeper is at ${state.leaderEpoch}`);
  }

  #checkCommitted(slot: SimBroker, partition: Partition, name: string): void {
    const { log } = partition;
    const from = this.#verifiedTo.get(log) ?? log.logStartOffset;
    const end = log.highWatermark;
    // Damaged records are fetched again; then the rest is looked at as well.
    if (from >= end || log.damage.length > 0) return;
    const key = partitionKey(partition.topicId, partition.partition);
    const committed = this.#committed.get(key) ?? { batches: new Map<number, string>(), endOffset: 0 };
    this.#committed.set(key, committed);
    const batches = batchesIn(slot, log, from, end);
    if (batches === undefined) return;
    for (const batch of batches) {
      const line = `offsets ${batch.baseOffset} to ${batch.endOffset - 1}, epoch ${batch.leaderEpoch}, crc ${batch.crc}`;
      const known = committed.batches.get(batch.baseOffset);
      if (known === undefined && batch.baseOffset >= committed.endOffset) {
        committed.batches.set(batch.baseOffset, line);
        committed.endOffset = batch.endOffset;
      } else if (known !== line) {
        throw new Error(`${name}: below the high watermark ${end} it has ${line}; committed was ${known ?? "nothing"}`);
      }
    }
    this.#verifiedTo.set(log, end);
  }
}

interface BatchFacts {
  readonly baseOffset: number;
  readonly endOffset: number;
  readonly leaderEpoch: number;
  readonly crc: number;
}

/** From memory when it is there, else what the disk shows; undefined when that has damage which nobody has read yet. */
function batchesIn(slot: SimBroker, log: Log, from: number, end: number): BatchFacts[] | undefined {
  const read = log.read(log.logStartOffset > from ? log.logStartOffset : (from as Log["logStartOffset"]), {
    maxBytes: 16 * 1024 * 1024,
    end: end as Log["logStartOffset"],
  });
  const within = ({ baseOffset, endOffset }: BatchFacts): boolean => endOffset > from && baseOffset < end;
  if (read instanceof Promise) {
    read.then(
      (late) => late.release(),
      () => undefined,
    );
    try {
      return batchesOnDisk(slot, log).filter(within);
    } catch (error) {
      if (error instanceof BatchFault) return undefined;
      throw error;
    }
  }
  const batches = factsOf(Buffer.concat(read.pieces));
  read.release();
  return batches.filter(within);
}

function batchesOnDisk(slot: SimBroker, log: Log): BatchFacts[] {
  const directory = `/data/logs/${log.topic}-${log.partition}`;
  const { disk } = slot.host;
  return disk
    .paths()
    .filter((path) => path.startsWith(`${directory}/`) && path.endsWith(".log"))
    .flatMap((path) => factsOf(Buffer.from(disk.contentOf(path) ?? [])))
    .filter(({ baseOffset }) => baseOffset < log.logEndOffset);
}

function factsOf(bytes: Buffer): BatchFacts[] {
  return readBatches(bytes).map(({ baseOffset, endOffset, leaderEpoch, crc }) => ({
    baseOffset,
    endOffset,
    leaderEpoch,
    crc,
  }));
}
