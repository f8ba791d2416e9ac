import { crc32 } from "node:zlib";
import type { Log } from "../../broker/log/log.js";
import type { FollowerProgress } from "../../broker/partition/followers.js";
import type { Partition, PartitionRole } from "../../broker/partition/partition.js";
import { decodeBroker, decodeControllerEpoch, paths } from "../../broker/zookeeper/znodes.js";
import type { PartitionStateZnode } from "../../broker/zookeeper/znodes.js";
import { BatchFault, readBatch } from "../../protocol/record-batch.js";
import type { RecordBatch } from "../../protocol/record-batch.js";
import { partitionKey } from "../../protocol/types.js";
import type { BrokerId, TopicId } from "../../protocol/types.js";
import type { SimBroker, SimCluster } from "./cluster.js";
import type { History, ReplicaImage } from "./history.js";
import { logDirectory, statePath } from "./known-paths.js";
import type { SimDisk } from "./sim-file-system.js";

/** What the last look at a replica showed. */
interface Seen {
  readonly role: PartitionRole;
  readonly highWatermark: number;
  readonly logEndOffset: number;
  readonly logStartOffset: number;
  /** By follower: the fetch that counts. As long as the role lasts. */
  readonly fetches: Map<BrokerId, FollowerProgress>;
}

/** What a replica is known to have had. It proves nothing any more once its disk may have lost some of it. */
interface HadReplica {
  readonly generation: number;
  /** Cuts that went below it, by one that counted, would be losses. */
  highWatermark: number;
  logStartOffset: number;
}

/** What somebody who looks along wants to know, and what they know better. */
export interface InvariantsOptions {
  /** A replica has another role. */
  readonly onRoleChanged?: (slot: SimBroker, partition: Partition) => void;
  /** How many replicas must have a record before it counts as replicated; undefined: not known. */
  readonly leastMinimum?: (partition: Partition) => number | undefined;
  /** Below this offset records were deleted on demand, and that was acknowledged. */
  readonly deletedBefore?: (partition: { readonly topicId: TopicId; readonly partition: number }) => number;
  /** Where records go by nothing but their age: at which one. */
  readonly retentionMs?: (partition: { readonly topicId: TopicId }) => number | undefined;
  /** Nobody writes to ZooKeeper by hand: states of partitions come from the controller in office only. */
  readonly noHands?: boolean;
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
  /** By producer: where its batches begin. */
  readonly producers: Map<number, number[]>;
  /** Where the first look began. */
  readonly firstOffset: number;
  endOffset: number;
}

/**
 * What must hold after every single event, looked up in the memory of all brokers and in ZooKeeper. It throws at the first
 * event after which something does not, which is as near to the cause as one can get. Nothing here waits or writes.
 *
 * - A leader epoch has one leader, for ever.
 * - While a role lasts the high watermark does not go back; it stands between log start and log end.
 * - What is below any replica's high watermark is the same in every replica, now and later.
 * - Who is in sync or eligible, and not in doubt, has all of that, and nothing that was deleted on demand, not even after a
 *   power cut: it may be elected in the next moment.
 * - While a partition's state says `fsync`, what the high watermark passes is on the disk of every in-sync replica.
 * - In ZooKeeper the leader is in sync, a new leader was in sync or eligible before, and no role is ahead of its epoch.
 * - The controller epoch grows, in ZooKeeper and for each broker.
 * - States of partitions are written by the session that raised the controller epoch last.
 * - Who is taken in is somebody whom the leader waits for by then, as the process that the leader saw, and lacks nothing at the
 *   beginning that is not too old.
 * - Who leads was given its seat under the registration that it has.
 * - Who registers as one that may have lost something has a disk that may have less than when it last had lost nothing.
 * - A leader counts no fetch of a process of a follower once a later one has fetched.
 * - A follower has no batch above the epoch that it follows, and where its log and the leader's part it cuts off nothing that
 *   is committed.
 */
export class Invariants {
  readonly #leaders = new Map<string, string>();
  readonly #seen = new WeakMap<Partition, Seen>();
  readonly #verifiedTo = new WeakMap<Log, number>();
  /** Where in its files the look at a log went on from: what comes next stands there. */
  readonly #places = new WeakMap<Log, Place>();
  readonly #committed = new Map<string, CommittedLog>();
  readonly #states = new Map<string, SeenState>();
  readonly #controllerEpochs = new WeakMap<SimBroker, { readonly process: unknown; readonly epoch: number }>();
  readonly #topics = new Set<string>();
  /** Log ends, by broker and partition, of replicas that live and of those that did. */
  readonly #ends = new Map<string, number>();
  /** By broker and partition. */
  readonly #had = new Map<string, HadReplica>();
  /** Partitions of which records were lost with permission: outsiders may have them until they are told. */
  readonly #lossy = new Set<string>();
  /** The greatest high watermark that any leader had, by partition. */
  readonly #highest = new Map<string, number>();
  /** By broker: under which registration it was looked at last, and the disk that it had when it had lost nothing. */
  readonly #registered = new Map<BrokerId, { readonly epoch: string; readonly wholeDisk: number | undefined }>();
  #controllerEpoch = { mzxid: -1n, value: 0 };
  #lastChangeZxid = -1n;
  /** Records may be lost: unclean elections are on, or every disk lost its power. */
  lossAllowed = false;
  /** Found in the middle of an event: said behind it. */
  #broken: string | undefined;

  constructor(
    private readonly cluster: SimCluster,
    private readonly history?: History,
    private readonly options: InvariantsOptions = {},
  ) {
    cluster.onLine((host, _level, sentence, fields) => this.#checkCut(host, sentence, fields["leaderEpoch"]));
  }

  /** The end of what any replica has called committed. */
  committedEnd(key: string): number {
    return this.#committed.get(key)?.endOffset ?? 0;
  }

  /** The greatest high watermark that any leader had so far. */
  highWatermarkOf(key: string): number | undefined {
    return this.#highest.get(key);
  }

  /** Up to where the broker's disk holds what was committed, whether or not the broker lives. */
  committedOnDisk(key: string, brokerId: number, topic: string, partition: number): number {
    const committed = this.#committed.get(key);
    if (committed === undefined) return 0;
    const slot = this.cluster.broker(brokerId);
    const topicId = key.slice(0, key.lastIndexOf(":"));
    // A directory that does not say whose it is cannot be served.
    const metadata = slot.host.disk.contentOf(`/data/logs/${topic}-${partition}/partition.metadata`);
    if (!Buffer.from(metadata ?? []).includes(topicId)) return 0;
    let end = 0;
    let next: number | undefined;
    for (const batch of batchesOnDisk(slot, topic, partition, 0, Infinity, { upToDamage: true })) {
      // A segment in front of it was lost: recovery ends the log there.
      if (batch.baseOffset !== (next ?? batch.baseOffset)) break;
      next = batch.endOffset;
      const line = committed.batches.get(batch.baseOffset);
      // What is not known of was below the log start when the first replica was looked at.
      if (line === undefined && batch.endOffset <= committed.firstOffset) end = batch.endOffset;
      else if (line === lineOf(batch)) end = batch.endOffset;
      else break;
    }
    return end;
  }

  /** Nobody has it any more, and nobody could have kept it. */
  permitLoss(key: string, fromOffset: number): void {
    const committed = this.#committed.get(key);
    if (committed !== undefined) {
      for (const baseOffset of committed.batches.keys())
        if (baseOffset >= fromOffset) committed.batches.delete(baseOffset);
      for (const [producerId, offsets] of committed.producers)
        committed.producers.set(
          producerId,
          offsets.filter((baseOffset) => baseOffset < fromOffset),
        );
      committed.endOffset = Math.min(committed.endOffset, fromOffset);
    }
    this.#lossy.add(key);
    this.#highest.set(key, Math.min(this.#highest.get(key) ?? 0, fromOffset));
    for (const [name, had] of this.#had)
      if (name.endsWith(` ${key}`)) had.highWatermark = Math.min(had.highWatermark, fromOffset);
  }

  /** Looks at these topics too. */
  watchTopic(topic: string): void {
    this.#topics.add(topic);
    this.#lastChangeZxid = -1n;
  }

  /** Checks after each event from now on. Returns the end of it. */
  attach(): () => void {
    return this.cluster.simulation.scheduler.afterEachEvent(() => this.check());
  }

  /** Looks where something may have changed: in ZooKeeper after a transaction, in brokers whose code has run. */
  check(): void {
    const { zookeeper, brokers, simulation } = this.cluster;
    if (this.#broken !== undefined) throw new Error(this.#broken);
    if (zookeeper.lastChangeZxid !== this.#lastChangeZxid) {
      this.#lastChangeZxid = zookeeper.lastChangeZxid;
      this.#checkControllerEpoch();
      for (const topic of this.#topics) this.#checkStates(topic);
    }
    const { touched } = simulation.scheduler;
    if (touched.length === 0) return;
    for (const slot of brokers.values()) {
      const { broker, process } = slot;
      if (broker === undefined || process === undefined || !touched.includes(process)) continue;
      this.#checkBrokersController(slot, broker.metadata.controllerEpoch);
      if (this.options.noHands === true) this.#checkLastStop(slot);
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
          logStartOffset: log.logStartOffset,
          batches: batchesOnDisk(slot, log.topic, log.partition, log.logStartOffset, log.logEndOffset),
        });
      }
    }
    return images;
  }

  /**
   * What stands beside the batches of a log is what the batches say: where each epoch ends, and what snapshots say of
   * producers, which the next start believes. To be called while nobody cuts a log.
   */
  checkDerived(): void {
    for (const slot of this.cluster.brokers.values()) {
      for (const { name, log } of slot.broker?.partitions?.all() ?? []) {
        if (log.damage.length > 0) continue;
        checkEpochs(slot, log, `${name} on broker ${slot.id}`);
        const snapshots = snapshotsOf(slot, log.topic, log.partition).filter(
          ({ offset }) => offset > log.logStartOffset && offset <= log.logEndOffset,
        );
        if (snapshots.length === 0) continue;
        // In front of the log start some files may be back after a power cut, and others not.
        const { logStartOffset } = log;
        const batches = readable(() => batchesOnDisk(slot, log.topic, log.partition, logStartOffset, Infinity)) ?? [];
        const committed = this.#committed.get(partitionKey(log.topicId, log.partition))?.producers;
        for (const { offset, producers } of snapshots) {
          for (const { producerId, sequence, baseOffset } of producers) {
            const last = batches.findLast((one) => one.producerId === producerId && one.baseOffset < offset);
            const isSo =
              last === undefined
                ? baseOffset < (batches[0]?.baseOffset ?? Infinity) || baseOffset < logStartOffset
                : last.baseOffset === baseOffset && last.baseSequence === sequence;
            if (!isSo)
              throw new Error(
                `${name} on broker ${slot.id}: the snapshot at ${offset} has sequence ${sequence} at ${baseOffset} as the last of producer ${producerId}; ` +
                  `in the log that is ${last === undefined ? "none" : `sequence ${last.baseSequence} at ${last.baseOffset}`}`,
              );
            // Also of what was deleted since: who knows a producer knows the last of it, or would call it new when it comes again.
            const later = committed?.get(producerId)?.find((at) => at > baseOffset && at < offset);
            if (later !== undefined)
              throw new Error(
                `${name} on broker ${slot.id}: the snapshot at ${offset} has sequence ${sequence} at ${baseOffset} as the last of producer ${producerId}; ` +
                  `committed was another one of it at ${later}`,
              );
          }
        }
      }
    }
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

  /** What it says of its last stop costs it all its seats, if it says that something may be lost. */
  #checkLastStop({ id, broker, host }: SimBroker): void {
    const known = this.#registered.get(id);
    const epoch = broker?.epoch;
    if (epoch === undefined || epoch === known?.epoch) return;
    const node = this.cluster.zookeeper.node(paths.broker(id));
    if (node?.czxid.toString() !== epoch) return;
    const { lastStop } = decodeBroker(paths.broker(id), node.data);
    const { generation, hasRotted } = host.disk;
    const isWhole = lastStop === "clean" || lastStop === "crash";
    if (!isWhole && !hasRotted && known?.wholeDisk === generation)
      throw new Error(`broker ${id} registers after "${lastStop}", and its disk has lost nothing`);
    // Until its own mark says so the next start tells of what was before.
    const mark = Buffer.from(host.disk.viewOf("/data/logs/last-run") ?? []).toString();
    const wholeDisk = isWhole && /^running \S+ (clean|crash)$/m.test(mark) ? generation : known?.wholeDisk;
    this.#registered.set(id, { epoch, wholeDisk });
  }

  #checkStates(topic: string): void {
    const topicNode = this.cluster.zookeeper.node(paths.topic(topic));
    if (topicNode === undefined) return;
    for (let partition = 0; ; partition += 1) {
      const path = statePath(topic, partition);
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
      const topicId = this.cluster.topicId(topic);
      const held = (id: number): number =>
        topicId === undefined ? 0 : this.committedOnDisk(partitionKey(topicId, partition), id, topic, partition);
      this.#checkState(`${topic}-${partition}`, state, before?.state, held);
      this.#checkWriter(`${topic}-${partition}`, node.mzxid);
      if (before !== undefined) this.#checkJoin({ topic, partition }, state, before.state);
      if (topicId !== undefined) this.checkSeats(topicId, topic, partition);
    }
  }

  /** `held`: up to where a broker's disk has what was committed. */
  #checkState(
    name: string,
    state: PartitionStateZnode,
    before: PartitionStateZnode | undefined,
    held: (id: number) => number,
  ): void {
    if (state.leader >= 0 && !state.isr.includes(state.leader))
      throw new Error(`${name}: leader ${state.leader} is not among the in-sync replicas ${state.isr.join(",")}`);
    if (state.isr.length === 0) throw new Error(`${name}: no replica is in sync`);
    if (before === undefined) return;
    if (state.leaderEpoch < before.leaderEpoch)
      throw new Error(`${name}: the leader epoch went from ${before.leaderEpoch} to ${state.leaderEpoch}`);
    const isNewLeader = state.leader >= 0 && state.leader !== before.leader;
    if (isNewLeader && state.leaderEpoch === before.leaderEpoch)
      throw new Error(`${name}: leader ${state.leader} got the epoch ${state.leaderEpoch} of leader ${before.leader}`);
    const seats = [...before.isr, ...before.elr];
    if (!isNewLeader || this.lossAllowed || [...seats, ...before.unverified].includes(state.leader)) return;
    // When all members have lost their disks, somebody from outside may have kept most.
    const isLeft = seats.every((id) => before.unverified.includes(id) && held(id) <= held(state.leader));
    if (!isLeft) {
      throw new Error(
        `${name}: ${state.leader} was elected, in sync were ${before.isr.join(",")}, eligible ${before.elr.join(",")}`,
      );
    }
  }

  /** The transaction that wrote the state is one of the session that is in office. */
  #checkWriter(name: string, mzxid: bigint): void {
    if (this.options.noHands !== true) return;
    const { zookeeper } = this.cluster;
    const office = zookeeper.node(paths.controllerEpoch);
    // A topic may be looked at for the first time when the controller that made it is not in office any more.
    if (office === undefined || mzxid < office.mzxid) return;
    const inOffice = zookeeper.writerOf(office.mzxid);
    const writer = zookeeper.writerOf(mzxid);
    if (writer !== inOffice)
      throw new Error(`${name}: its state was written by session ${writer}, in office is ${inOffice}`);
  }

  /** Where it begins later than its leader, what the leader has in front of that is too old to be kept, by some clock. */
  #checkBeginning(joining: Partition | undefined, leader: BrokerId, name: string): void {
    if (joining === undefined) return;
    const retentionMs = this.options.retentionMs?.(joining);
    const own = this.cluster.partition(leader, joining.topic, joining.partition)?.log;
    if (retentionMs === undefined || own === undefined) return;
    const { logStartOffset } = joining.log;
    if (logStartOffset <= own.logStartOffset) return;
    const slots = [...this.cluster.brokers.values()];
    const wallMs = this.cluster.nowMs + Math.max(...slots.map(({ host }) => host.wallOriginMs));
    const from = own.logStartOffset;
    const kept = readable(() =>
      batchesOnDisk(this.cluster.broker(leader), own.topic, own.partition, from, logStartOffset),
    );
    const young = kept?.find(({ maxTimestamp }) => wallMs - maxTimestamp < retentionMs);
    if (young !== undefined)
      throw new Error(
        `${name}, its log begins at ${logStartOffset}, and leader ${leader} has records at ${young.baseOffset} that are to be kept`,
      );
  }

  /** Whoever is taken in while the leader stays is one whom it waits for, and the process that it has seen (KIP-497, KIP-903). */
  #checkJoin(
    { topic, partition }: { readonly topic: string; readonly partition: number },
    state: PartitionStateZnode,
    before: PartitionStateZnode,
  ): void {
    if (state.leader < 0 || state.leader !== before.leader || state.leaderEpoch !== before.leaderEpoch) return;
    const role = this.cluster.partition(state.leader, topic, partition)?.role;
    if (role?.kind !== "leader" || role.epoch !== state.leaderEpoch) return;
    const waitedFor = role.isr.state.kind === "pending" ? role.isr.state.proposed : role.isr.state.isr;
    for (const id of state.isr) {
      if (before.isr.includes(id)) continue;
      const name = `${topic}-${partition}: broker ${id} was taken in`;
      if (!waitedFor.has(id)) throw new Error(`${name}, and leader ${state.leader} does not wait for it`);
      this.#checkBeginning(this.cluster.partition(id, topic, partition), state.leader, name);
      const seen = role.followers.get(id)?.brokerEpoch;
      const seat = state.brokerEpochs?.get(id);
      if (seen !== undefined && seat !== undefined && BigInt(seat) > BigInt(seen))
        throw new Error(`${name} as process ${seat}, and leader ${state.leader} has heard of process ${seen} only`);
    }
  }

  /**
   * A follower is about to cut its log where it and the leader's part: what is committed is the leader's as well. Of the leader
   * that ZooKeeper has, that is: a replica that still follows one before has not been in sync since, and what that one lacked
   * may have been committed later.
   */
  #checkCut(host: string, sentence: string, leaderEpoch: unknown): void {
    if (!sentence.includes(": truncates its log from ")) return;
    const found = / ?(\S+)-(\d+): truncates its log from \d+ to (\d+), where it and the log of leader/.exec(sentence);
    const slot = [...this.cluster.brokers.values()].find((one) => one.host.name === host);
    if (found === null || slot === undefined || this.lossAllowed) return;
    const [, topic = "", partition = "", target = ""] = found;
    const replica = this.cluster.partition(slot.id, topic, Number(partition));
    if (replica === undefined || replica.log.damage.length > 0) return;
    if (this.cluster.stateOf(topic, replica.partition)?.leaderEpoch !== leaderEpoch) return;
    const key = partitionKey(replica.topicId, replica.partition);
    const held = this.committedOnDisk(key, slot.id, topic, replica.partition);
    if (held > Number(target))
      this.#broken ??= `${topic}-${partition} on broker ${slot.id}: it cuts its log to ${target}, and has what was committed up to ${held}`;
  }

  /** A late fetch of a process that was replaced moves nothing. */
  #checkFetches(slot: SimBroker, partition: Partition, known: Map<BrokerId, FollowerProgress>): void {
    const { role } = partition;
    if (role.kind !== "leader") return;
    for (const id of role.followers.ids) {
      const now = role.followers.get(id);
      const before = known.get(id);
      if (now === undefined || now === before) continue;
      if (before !== undefined && BigInt(now.brokerEpoch) < BigInt(before.brokerEpoch))
        throw new Error(
          `${partition.name} on broker ${slot.id}: it counts a fetch of process ${now.brokerEpoch} of broker ${id}; process ${before.brokerEpoch} has fetched`,
        );
      known.set(id, now);
    }
  }

  #checkReplica(slot: SimBroker, partition: Partition): void {
    const { role, log } = partition;
    const { highWatermark, logEndOffset, logStartOffset } = log;
    const before = this.#seen.get(partition);
    const fetches = before?.role === role ? before.fetches : new Map<BrokerId, FollowerProgress>();
    this.#checkFetches(slot, partition, fetches);
    if (
      before?.role === role &&
      before.highWatermark === highWatermark &&
      before.logEndOffset === logEndOffset &&
      before.logStartOffset === logStartOffset
    )
      return;
    this.#seen.set(partition, { role, highWatermark, logEndOffset, logStartOffset, fetches });
    this.#ends.set(`${slot.id} ${partitionKey(partition.topicId, partition.partition)}`, logEndOffset);
    const name = `${partition.name} on broker ${slot.id}`;
    if (before !== undefined && before.role !== role) this.options.onRoleChanged?.(slot, partition);
    if (before !== undefined && highWatermark < before.highWatermark)
      this.#verifiedTo.set(log, Math.min(this.#verifiedTo.get(log) ?? 0, highWatermark));
    if (highWatermark > logEndOffset)
      throw new Error(`${name}: high watermark ${highWatermark} is above the log end ${logEndOffset}`);
    if (highWatermark < logStartOffset)
      throw new Error(`${name}: high watermark ${highWatermark} is below the log start ${logStartOffset}`);
    this.#checkSteps(slot, partition, name, before);
    if (role.kind === "follower" && (log.lastEpoch ?? 0) > role.epoch)
      throw new Error(`${name}: it follows epoch ${role.epoch}, and its log has epoch ${log.lastEpoch}`);
    if (role.kind === "leader") {
      if (before?.role !== role) this.#checkLeader(slot, partition, role.epoch);
      const key = partitionKey(partition.topicId, partition.partition);
      const isHigher = highWatermark > (this.#highest.get(key) ?? 0);
      if (isHigher) this.#highest.set(key, highWatermark);
      if (this.#isNewestLeader(partition, role.epoch)) {
        this.#checkLogStart(partition, name);
        // A new leader begins with what others had counted.
        if (isHigher && before?.role === role) {
          this.#checkCopies(slot, partition, name);
          this.#checkSynced(partition, name);
        }
      }
    }
    if (this.lossAllowed) return;
    const { topicId, topic, partition: number } = partition;
    const endBefore = this.committedEnd(partitionKey(topicId, number));
    this.#checkCommitted(slot, partition, name);
    const isGrown = this.committedEnd(partitionKey(topicId, number)) > endBefore;
    const isShorter = before === undefined || logEndOffset < before.logEndOffset;
    if (isGrown || isShorter) this.checkSeats(topicId, topic, number);
  }

  /** What one replica may not go back on, over all its roles and restarts. */
  #checkSteps(slot: SimBroker, partition: Partition, name: string, before: Seen | undefined): void {
    const { highWatermark, logEndOffset, logStartOffset } = partition.log;
    const key = `${slot.id} ${partitionKey(partition.topicId, partition.partition)}`;
    const { generation } = slot.host.disk;
    const known = this.#had.get(key);
    const had = known?.generation === generation ? known : { generation, highWatermark: 0, logStartOffset: 0 };
    this.#had.set(key, had);
    const counts = this.#counts(slot, partition);
    // One that does not count may cut its log, to repair it or to follow another.
    if (!counts || this.lossAllowed || partition.log.damage.length > 0) {
      had.highWatermark = Math.min(had.highWatermark, logEndOffset);
      had.logStartOffset = Math.min(had.logStartOffset, logStartOffset);
    } else {
      if (logEndOffset < had.highWatermark)
        throw new Error(
          `${name}: its log was cut to ${logEndOffset}, and its high watermark had been ${had.highWatermark}`,
        );
      if (logStartOffset < Math.max(had.logStartOffset, before?.logStartOffset ?? 0))
        throw new Error(`${name}: the log start went from ${had.logStartOffset} back to ${logStartOffset}`);
      if (before !== undefined && highWatermark < before.highWatermark)
        throw new Error(`${name}: the high watermark went from ${before.highWatermark} back to ${highWatermark}`);
    }
    had.highWatermark = Math.max(had.highWatermark, highWatermark);
    // One that is not durable yet was not answered to anybody, and may be taken back by a crash.
    had.logStartOffset = Math.max(had.logStartOffset, partition.log.durableLogStart);
  }

  /** Whether this is the leader that ZooKeeper has. */
  #isNewestLeader(partition: Partition, epoch: number): boolean {
    const state = this.#states.get(statePath(partition.topic, partition.partition))?.state;
    return state?.leaderEpoch === epoch && this.cluster.topicId(partition.topic) === partition.topicId;
  }

  #checkLogStart(partition: Partition, name: string): void {
    const { logStartOffset } = partition.log;
    const deletedBefore = this.options.deletedBefore?.(partition) ?? 0;
    if (logStartOffset < deletedBefore)
      throw new Error(`${name}: it leads from ${logStartOffset} on, and what is below ${deletedBefore} was deleted`);
  }

  /** The high watermark has moved: so many replicas have what it moved over. */
  #checkCopies(slot: SimBroker, partition: Partition, name: string): void {
    const minimum = this.options.leastMinimum?.(partition);
    if (minimum === undefined) return;
    const { highWatermark } = partition.log;
    const copies = [...this.cluster.brokers.values()].filter(
      (other) =>
        other === slot ||
        this.#copyEnd(other, partition) >= highWatermark ||
        this.#toldBeforeBounce(slot, other, partition) >= highWatermark,
    ).length;
    if (copies < minimum)
      throw new Error(
        `${name}: high watermark ${highWatermark} with ${copies} copies, min.insync.replicas is ${minimum}`,
      );
  }

  /**
   * What a replica had told the leader as the process before its present one. Only as long as the leader has not been told
   * of another registration: until then nothing tells it from a replica that loses its power in the next moment.
   */
  #toldBeforeBounce({ broker: leader }: SimBroker, other: SimBroker, { role }: Partition): number {
    const told = role.kind === "leader" ? role.followers.get(other.id) : undefined;
    if (told === undefined || told.brokerEpoch === other.broker?.epoch) return 0;
    return leader?.metadata.broker(other.id)?.epoch === told.brokerEpoch ? told.logEndOffset : 0;
  }

  /**
   * Everybody who may be elected has what was committed, and would not bring back what was deleted. Replicas of processes
   * that the controller has given orders to are looked at: by then it has judged how their runs before had ended.
   */
  checkSeats(topicId: TopicId, topic: string, partition: number): void {
    if (this.lossAllowed || this.cluster.topicId(topic) !== topicId) return;
    const state = this.#states.get(statePath(topic, partition))?.state;
    if (state === undefined) return;
    const key = partitionKey(topicId, partition);
    const committedEnd = this.committedEnd(key);
    const deletedBefore = this.options.deletedBefore?.({ topicId, partition }) ?? 0;
    for (const id of [...state.isr, ...state.elr]) {
      const slot = this.cluster.broker(id);
      const log = slot.broker?.partitions?.get(topicId, partition)?.log;
      if (state.unverified.includes(id)) continue;
      if (log === undefined) {
        this.#checkDead(slot, key, committedEnd, `${topic}-${partition}: broker ${id} is dead and has a seat`);
        continue;
      }
      const name = `${topic}-${partition}: broker ${id} is ${state.isr.includes(id) ? "in sync" : "eligible"}`;
      if (log.logEndOffset < committedEnd)
        throw new Error(
          `${name}, its log ends at ${log.logEndOffset}, and what is below ${committedEnd} was committed`,
        );
      if (deletedBefore === 0) continue;
      const logStart = Math.min(log.logStartOffset, durableLogStart(slot, key));
      if (logStart < deletedBefore)
        throw new Error(`${name}, its log may begin at ${logStart}, and what is below ${deletedBefore} was deleted`);
    }
  }

  /** One that was killed has what it had; of one that lost its power it is known when it is back. */
  #checkDead(slot: SimBroker, key: string, committedEnd: number, name: string): void {
    if (slot.process !== undefined || slot.lostPower) return;
    const end = this.#ends.get(`${slot.id} ${key}`);
    if (end !== undefined && end < committedEnd)
      throw new Error(`${name}, its log ended at ${end}, and what is below ${committedEnd} was committed`);
  }

  /** Where records are synced before they are acknowledged: the disks of all in-sync replicas have the last one of them. */
  #checkSynced({ topicId, topic, partition, log: { highWatermark } }: Partition, name: string): void {
    const state = this.#states.get(statePath(topic, partition))?.state;
    if (state?.durability !== "fsync") return;
    for (const id of state.isr) {
      const slot = this.cluster.broker(id);
      const log = slot.broker?.partitions?.get(topicId, partition)?.log;
      if (log === undefined || log.damage.length > 0 || state.unverified.includes(id)) continue;
      const place = this.#places.get(log);
      if (log.logEndOffset >= highWatermark && !isSynced(slot, topic, partition, highWatermark - 1, place))
        throw new Error(`${name}: high watermark ${highWatermark}, and broker ${id} has not synced what is below it`);
    }
  }

  /** Up to where another broker has the partition: what it holds now, or had when it was there last. */
  #copyEnd(slot: SimBroker, { topicId, partition }: Partition): number {
    const replica = slot.broker?.partitions?.get(topicId, partition);
    if (replica === undefined) return this.#ends.get(`${slot.id} ${partitionKey(topicId, partition)}`) ?? 0;
    return replica.log.logEndOffset;
  }

  /** In sync, or eligible, and not in doubt. Any other may cut its log to repair it, or has said that it has lost something. */
  #counts({ id }: SimBroker, partition: Partition): boolean {
    const state = this.cluster.stateOf(partition.topic, partition.partition);
    if (state === undefined) return true;
    return (state.isr.includes(id) || state.elr.includes(id)) && !state.unverified.includes(id);
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
    const seat = state?.brokerEpochs?.get(slot.id);
    const registered = this.cluster.zookeeper.node(paths.broker(slot.id))?.czxid;
    const own = slot.broker?.epoch;
    const isRegistered = own !== undefined && registered?.toString() === own;
    if (isSame && isRegistered && state?.leaderEpoch === epoch && seat !== undefined && seat !== own)
      throw new Error(
        `${partition.name} at epoch ${epoch} is led by process ${own}, its leadership was given to process ${seat}`,
      );
  }

  #checkCommitted(slot: SimBroker, partition: Partition, name: string): void {
    const { log } = partition;
    const from = Math.max(this.#verifiedTo.get(log) ?? 0, log.logStartOffset);
    const end = log.highWatermark;
    // Damaged records are fetched again; then the rest is looked at as well.
    if (from >= end || log.damage.length > 0) return;
    const key = partitionKey(partition.topicId, partition.partition);
    const counts = this.#counts(slot, partition);
    if (!counts && this.#lossy.has(key)) return;
    const committed = this.#committed.get(key) ?? {
      batches: new Map<number, string>(),
      producers: new Map<number, number[]>(),
      firstOffset: from,
      endOffset: from,
    };
    this.#committed.set(key, committed);
    const place = this.#places.get(log);
    const reached: Place = { segment: "", position: 0, offset: 0 };
    const batches = readable(() => batchesOnDisk(slot, log.topic, log.partition, from, end, { place, reached }));
    if (batches === undefined) return;
    this.#places.set(log, reached);
    for (const batch of batches) {
      const line = lineOf(batch);
      const known = committed.batches.get(batch.baseOffset);
      if (known === undefined && batch.baseOffset >= committed.endOffset) {
        if (!counts) return;
        committed.batches.set(batch.baseOffset, line);
        const offsets = committed.producers.get(batch.producerId) ?? [];
        committed.producers.set(batch.producerId, offsets);
        offsets.push(batch.baseOffset);
        committed.endOffset = batch.endOffset;
      } else if (known === undefined && batch.endOffset <= committed.firstOffset) {
        // From before the first look.
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
  readonly producerId: number;
  readonly baseSequence: number;
  readonly maxTimestamp: number;
}

const lineOf = (batch: BatchFacts): string =>
  `offsets ${batch.baseOffset} to ${batch.endOffset - 1}, epoch ${batch.leaderEpoch}, crc ${batch.crc}`;

/** What `read` gives; undefined when it meets damage that nobody has read yet. */
function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof BatchFault) return undefined;
    throw error;
  }
}

/** Where a replica's log begins at the earliest after a power cut. */
function durableLogStart({ host: { disk } }: SimBroker, key: string): number {
  const content = disk.durableContentOf("/data/logs/log-start-offset-checkpoint");
  const line = Buffer.from(content ?? [])
    .toString()
    .split("\n")
    .find((one) => one.startsWith(`${key} `));
  return line === undefined ? 0 : Number(line.slice(key.length + 1));
}

/** The first whole batch behind a position where there is none, if all that is missing is below the offset. */
function nextBefore(bytes: Buffer, position: number, offset: number): RecordBatch | undefined {
  for (let at = position + 1; at < bytes.length; at += 1) {
    const batch = readable(() => readBatch(bytes, at));
    if (batch?.stampMatches === true && batch.crcMatches) return batch.baseOffset <= offset ? batch : undefined;
  }
  return undefined;
}

/** Whether the batch that holds the offset is on the disk as it is in the page cache; true where there is none. */
function isSynced(
  { host: { disk } }: SimBroker,
  topic: string,
  partition: number,
  offset: number,
  place: Place | undefined,
): boolean {
  const directory = logDirectory(topic, partition);
  const segment = segmentsIn(disk, directory).findLast(({ baseOffset }) => baseOffset <= offset);
  if (segment === undefined) return true;
  const bytes = bytesOf(disk.viewOf(segment.path));
  const start = place !== undefined && place.segment === segment.name && place.offset <= offset ? place : undefined;
  const first = batchAt(bytes, start);
  for (let position = first?.start ?? 0; position < bytes.length;) {
    const batch = position === first?.start ? first : readable(() => readBatch(bytes, position));
    if (batch === undefined) return true;
    position = batch.end;
    if (batch.endOffset <= offset) continue;
    const durable = disk.durableViewOf(segment.path)?.subarray(batch.start, batch.end);
    return durable !== undefined && batch.bytes.equals(durable);
  }
  return true;
}

/** An epoch that has batches ends where the first batch of a later one begins. */
function checkEpochs(slot: SimBroker, log: Log, name: string): void {
  const batches = readable(() => batchesOnDisk(slot, log.topic, log.partition, log.logStartOffset, log.logEndOffset));
  let later: BatchFacts | undefined;
  for (const batch of (batches ?? []).reverse()) {
    if (later?.leaderEpoch === batch.leaderEpoch) {
      later = batch;
      continue;
    }
    const end = later?.baseOffset ?? log.logEndOffset;
    const said = log.endOffsetForEpoch(batch.leaderEpoch);
    if (said?.epoch !== batch.leaderEpoch || said.endOffset !== end)
      throw new Error(
        `${name}: epoch ${batch.leaderEpoch} ends at ${end}, it says ${said === undefined ? "nothing" : `epoch ${said.epoch} ends at ${said.endOffset}`}`,
      );
    later = batch;
  }
}

interface SnapshotFacts {
  readonly offset: number;
  /** The last batch of each producer. */
  readonly producers: readonly {
    readonly producerId: number;
    readonly sequence: number;
    readonly baseOffset: number;
  }[];
}

/** The snapshots of producers in a replica's directory, as far as they are whole. */
function snapshotsOf({ host: { disk } }: SimBroker, topic: string, partition: number): SnapshotFacts[] {
  const directory = logDirectory(topic, partition);
  return disk
    .namesIn(directory)
    .filter((name) => /^\d+\.snapshot$/.test(name))
    .flatMap((name) => {
      const text = Buffer.from(disk.contentOf(`${directory}/${name}`) ?? []).toString();
      const end = text.lastIndexOf("crc32 ");
      const sum = crc32(text.slice(0, Math.max(0, end)))
        .toString(16)
        .padStart(8, "0");
      if (end < 0 || text.slice(end) !== `crc32 ${sum}\n`) return [];
      const producers = text
        .slice(0, end)
        .split("\n")
        .slice(2, -1)
        .map((line) => {
          const words = line.split(" ");
          const [sequence, , baseOffset] = (words.at(-1) ?? "").split(",").map(Number);
          return { producerId: Number(words[0]), sequence: sequence ?? -1, baseOffset: baseOffset ?? -1 };
        });
      return [{ offset: Number.parseInt(name, 10), producers }];
    });
}

interface SegmentName {
  readonly name: string;
  readonly path: string;
  readonly baseOffset: number;
}

/** By the names in a directory, which are another list whenever one of them changes. */
const knownSegments = new WeakMap<
  readonly string[],
  { readonly directory: string; readonly segments: readonly SegmentName[] }
>();

/** The segments in a log's directory, by base offset. */
function segmentsIn(disk: SimDisk, directory: string): readonly SegmentName[] {
  const names = disk.namesIn(directory);
  const known = knownSegments.get(names);
  // It may bear another name by now.
  if (known?.directory === directory) return known.segments;
  const segments = names
    .filter((name) => name.endsWith(".log"))
    .map((name) => ({ name, path: `${directory}/${name}`, baseOffset: Number.parseInt(name, 10) }));
  knownSegments.set(names, { directory, segments });
  return segments;
}

/** A place in the files of a log, and the base offset of the batch that begins there, or will. */
interface Place {
  segment: string;
  position: number;
  offset: number;
}

/** The batch to go on from. The log may have become another one since: then there is none, and the whole segment is read. */
function batchAt(bytes: Buffer, place: Place | undefined): RecordBatch | undefined {
  if (place === undefined || place.position >= bytes.length) return undefined;
  const batch = readable(() => readBatch(bytes, place.position));
  return batch?.baseOffset === place.offset ? batch : undefined;
}

const NO_BYTES = Buffer.alloc(0);

function bytesOf(view: Uint8Array | undefined): Buffer {
  if (view === undefined) return NO_BYTES;
  return Buffer.isBuffer(view) ? view : Buffer.from(view.buffer, view.byteOffset, view.byteLength);
}

/**
 * The batches in the files of a replica that reach into a range of offsets. Throws BatchFault at damage, or ends there. What
 * is damaged in front of the range is passed over, because the log may begin behind it.
 * `place`: where an earlier look ended. `reached`: is told where this one does.
 */
function batchesOnDisk(
  slot: SimBroker,
  topic: string,
  partition: number,
  from: number,
  end: number,
  { upToDamage = false, place, reached }: { upToDamage?: boolean; place?: Place | undefined; reached?: Place } = {},
): BatchFacts[] {
  const directory = logDirectory(topic, partition);
  const { disk } = slot.host;
  const segments = segmentsIn(disk, directory);
  const found: BatchFacts[] = [];
  for (let index = 0; index < segments.length; index += 1) {
    const { name, path, baseOffset: segmentStart } = segments[index] as SegmentName;
    const next = segments[index + 1];
    if (segmentStart >= end) continue;
    // An empty one may be left of a log that began there and went on elsewhere.
    if (next !== undefined && next.baseOffset <= from && disk.viewOf(next.path)?.length !== 0) continue;
    const bytes = bytesOf(disk.viewOf(path));
    const start = place !== undefined && place.segment === name && place.offset === from ? place : undefined;
    const first = batchAt(bytes, start);
    for (let position = first?.start ?? 0; position < bytes.length;) {
      const form = position === first?.start ? first : readable(() => readBatch(bytes, position));
      if (form === undefined && upToDamage) return found;
      const batch = form ?? nextBefore(bytes, position, from) ?? readBatch(bytes, position);
      const { baseOffset, endOffset, leaderEpoch, crc, producerId, baseSequence, maxTimestamp } = batch;
      // What lies before was looked at when it was written.
      if (endOffset > from && (!batch.stampMatches || !batch.crcMatches)) {
        if (upToDamage) return found;
        batch.verify();
      }
      position = batch.end;
      // What was written last may be beyond what counts.
      if (baseOffset >= end) return found;
      if (endOffset > from)
        found.push({ baseOffset, endOffset, leaderEpoch, crc, producerId, baseSequence, maxTimestamp });
      if (reached !== undefined) {
        reached.segment = name;
        reached.position = position;
        reached.offset = endOffset;
      }
    }
  }
  return found;
}
