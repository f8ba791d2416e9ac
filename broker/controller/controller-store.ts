import type { Timers } from "../../common/env/time.js";
import type { ZooKeeperOperation } from "../../common/env/zookeeper-connection.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import type { TopicId } from "../../protocol/types.js";
import type { Controllership } from "../zookeeper/controller-election.js";
import type { ConfigZnode, PartitionStateZnode } from "../zookeeper/znodes.js";
import {
  ZnodeFormatError,
  basePaths,
  brokerEpochOf,
  decodeBroker,
  decodeConfig,
  decodeDeletion,
  decodePartitionState,
  decodeTopic,
  emptyZnode,
  encodeConfig,
  encodeDeletion,
  encodePartitionState,
  encodeTopic,
  parseBrokerId,
  paths,
} from "../zookeeper/znodes.js";
import type { ZooKeeper, ZooKeeperNode } from "../zookeeper/zookeeper.js";
import { ZooKeeperError } from "../zookeeper/zookeeper.js";
import type { Broker, Partition, Topic } from "./cluster-state.js";
import { contradictionIn } from "./partition-state-machine.js";

/** A successor is active: nothing may be written any more. */
export class ControllerFenced extends Error {
  override readonly name = "ControllerFenced";
  constructor(epoch: number) {
    super(`controller epoch ${epoch} is over: another controller was elected`);
  }
}

/** What stands in ZooKeeper is not, or may not be, what the controller believes: read everything again. */
export class StoreDiffers extends Error {
  override readonly name = "StoreDiffers";
}

const REFUSALS: ReadonlySet<string> = new Set(["NotEmpty", "BadArguments", "NoAuth", "TooLarge"]);

/** Whether ZooKeeper said no in a way that reading everything again and another try do not change. */
export function isRefusal(error: unknown): boolean {
  const cause = error instanceof StoreDiffers ? error.cause : error;
  return cause instanceof ZooKeeperError && REFUSALS.has(cause.kind);
}

/** Whether what was being written may have been written all the same. */
export function isInDoubt(error: unknown): boolean {
  const cause = error instanceof StoreDiffers ? error.cause : error;
  return cause instanceof ZooKeeperError && (cause.kind === "OutcomeUnknown" || cause.kind === "SessionExpired");
}

/** Throws the failure to act on, if there is one: being fenced outranks everything, and doubt outranks a refusal. */
export function throwWorst(failures: readonly unknown[]): void {
  if (failures.length === 0) return;
  throw (
    failures.find((failure) => failure instanceof ControllerFenced) ??
    failures.find((failure) => !isRefusal(failure)) ??
    failures[0]
  );
}

/** What to say when something of a topic was refused that has begun. */
export function hindranceSentence(topic: string, what: string, error: unknown): string {
  return (
    `Topic ${topic}: its ${what} cannot be brought to an end (${reasonOf(error)}). Remove what stands in its way; ` +
    `the next controller tries again.`
  );
}

/** A topic as it was read. */
export interface StoredTopic {
  readonly name: string;
  readonly topicId: TopicId;
  readonly version: number;
  readonly assignment: readonly (readonly number[])[];
  readonly config: ConfigZnode;
  /** By partition; one that has none yet was not created to the end. */
  readonly states: ReadonlyMap<number, StoredPartition>;
  /** Whether its settings and the states of all its partitions could be read. If not, nothing may be concluded from them. */
  readonly isReadable: boolean;
}

/** Nodes that are there and could not be read, with the transaction that wrote each. */
export type UnreadableNodes = Map<string, bigint>;

export interface StoredPartition extends PartitionStateZnode {
  readonly partitionEpoch: number;
  /**
   * The transaction that wrote it. Where the state does not name its members' processes, seats and leadership of brokers that
   * registered later are from before their restart.
   */
  readonly writtenZxid: bigint;
}

/** A partition on its way from one state to the next. */
export interface PartitionWrite {
  readonly topic: Topic;
  readonly to: Partition;
}

/** Operations in one transaction: few enough to stay far below ZooKeeper's limit of 1 MB, enough to make it quick. */
const OPERATIONS_MAX = 300;

/**
 * The controller's hand in ZooKeeper: reads everything pipelined, and writes nothing without proving in the same
 * transaction that its epoch is still the newest (`check /controller_epoch`). Rejects with ControllerFenced when it is not,
 * with StoreDiffers when the outcome is unknown or a node is not as expected; both mean that what the controller holds in
 * memory cannot be relied on. Passes on ZooKeeperError NotConnected: that transaction was not sent, though others of
 * the same call may be committed.
 */
export class ControllerStore {
  /** Transactions that are committed. */
  writeCount = 0;

  constructor(
    private readonly zookeeper: ZooKeeper,
    private readonly logger: Logger,
    private readonly office: Controllership,
    private readonly timers: Timers,
  ) {}

  async ensureBasePaths(): Promise<void> {
    const nodes = await this.zookeeper.getMany(basePaths);
    for (const [index, path] of basePaths.entries()) {
      if (nodes[index] === undefined) await this.zookeeper.ensurePath(path);
    }
  }

  /** All registered brokers, each with the czxid that its registration has now. */
  async readBrokers(): Promise<Broker[]> {
    const ids = (await this.zookeeper.children(paths.brokerIds))
      .map(parseBrokerId)
      .filter((id): id is number => id !== undefined);
    const nodes = await this.zookeeper.getMany(ids.map(paths.broker));
    const brokers: Broker[] = [];
    for (const [index, id] of ids.entries()) {
      const node = nodes[index];
      // Gone between the two reads: the next snapshot of the children says so as well.
      if (node === undefined) continue;
      const broker = this.#decoded(() => decodeBroker(paths.broker(id), node.data));
      if (broker === undefined) continue;
      const { incarnation, lastStop, rack, endpoints } = broker;
      const { stat } = node;
      brokers.push({ id, epoch: brokerEpochOf(stat), version: stat.version, incarnation, lastStop, rack, endpoints });
    }
    return brokers;
  }

  /** All topics whose assignment can be read; of the others only the names are known. */
  async readTopics(
    unreadable: UnreadableNodes,
  ): Promise<{ readonly topics: readonly StoredTopic[]; readonly unreadable: readonly string[] }> {
    const names = await this.zookeeper.children(paths.topics);
    const [topicNodes, configNodes] = await Promise.all([
      this.zookeeper.getMany(names.map(paths.topic)),
      this.zookeeper.getMany(names.map(paths.topicConfig)),
    ]);
    const topics: {
      readonly name: string;
      readonly version: number;
      readonly config: ConfigZnode | undefined;
      topicId: TopicId;
      assignment: readonly (readonly number[])[];
    }[] = [];
    const namesOnly: string[] = [];
    for (const [index, name] of names.entries()) {
      const node = topicNodes[index];
      const configNode = configNodes[index];
      if (node === undefined) continue;
      const topic = this.#readable(unreadable, paths.topic(name), node, decodeTopic);
      if (topic === undefined) {
        namesOnly.push(name);
        continue;
      }
      const config =
        configNode === undefined
          ? new Map<string, string>()
          : this.#readable(unreadable, paths.topicConfig(name), configNode, decodeConfig);
      topics.push({ name, version: node.stat.version, config, ...topic });
    }
    const statePaths = topics.flatMap(({ name, assignment }) =>
      assignment.map((_, partition) => paths.partitionState(name, partition)),
    );
    const stateNodes = await this.zookeeper.getMany(statePaths);
    let next = 0;
    const stored = topics.map((topic): StoredTopic => {
      const states = new Map<number, StoredPartition>();
      let isReadable = topic.config !== undefined;
      for (let partition = 0; partition < topic.assignment.length; partition++, next++) {
        const node = stateNodes[next];
        if (node === undefined) continue;
        const replicas = topic.assignment[partition] ?? [];
        const state = this.#readable(unreadable, paths.partitionState(topic.name, partition), node, (path, data) =>
          consistentState(path, data, replicas),
        );
        if (state === undefined) isReadable = false;
        else states.set(partition, { ...state, partitionEpoch: node.stat.version, writtenZxid: node.stat.mzxid });
      }
      return { ...topic, config: topic.config ?? new Map(), states, isReadable };
    });
    return { topics: stored, unreadable: namesOnly };
  }

  /** The settings of brokers that were changed at run time, by broker id or `<default>`. */
  async readBrokerConfigs(unreadable: UnreadableNodes): Promise<Map<string, ConfigZnode>> {
    const names = await this.zookeeper.children(paths.brokerConfigs);
    const nodes = await this.zookeeper.getMany(names.map(paths.brokerConfig));
    const configs = new Map<string, ConfigZnode>();
    for (const [index, name] of names.entries()) {
      const node = nodes[index];
      const config = node && this.#readable(unreadable, paths.brokerConfig(name), node, decodeConfig);
      if (config !== undefined) configs.set(name, config);
    }
    return configs;
  }

  /** Whether somebody has written or removed one of these nodes since. */
  async hasChanged(nodes: ReadonlyMap<string, bigint>): Promise<boolean> {
    const expected = [...nodes];
    const found = await this.zookeeper.getMany(expected.map(([path]) => path));
    return expected.some(([, mzxid], index) => found[index]?.stat.mzxid !== mzxid);
  }

  /** Ids of topics whose deletion has begun, by name. */
  async readDeletions(): Promise<Map<string, TopicId>> {
    const names = await this.zookeeper.children(paths.deletions);
    const nodes = await this.zookeeper.getMany(names.map(paths.deletion));
    const deletions = new Map<string, TopicId>();
    for (const [index, name] of names.entries()) {
      const node = nodes[index];
      const topicId = node && this.#decoded(() => decodeDeletion(paths.deletion(name), node.data));
      if (topicId !== undefined) deletions.set(name, topicId);
    }
    return deletions;
  }

  /**
   * Writes partition states in transactions of some hundred, all under way at once. `onCommitted` is called for each
   * transaction as soon as it is committed, in the order of `writes`. Rejects once all have ended, if one failed.
   */
  async writeStates(
    writes: readonly PartitionWrite[],
    onCommitted: (chunk: readonly PartitionWrite[]) => void,
  ): Promise<void> {
    const chunks = chunked(writes, OPERATIONS_MAX);
    await this.#all(
      chunks.map((chunk) => async () => {
        await this.transaction(
          chunk.map(({ topic, to }) => ({
            kind: "set",
            path: paths.partitionState(topic.name, to.partition),
            data: this.#stateData(to),
            version: to.partitionEpoch - 1,
          })),
        );
        onCommitted(chunk);
      }),
    );
  }

  /**
   * Creates a topic. The first transaction makes the topic's node with its assignment and its settings: from then on the
   * topic exists, and a successor that finds partitions without state makes them. So a topic is never half there.
   */
  async createTopic(
    topic: Topic,
    assignment: readonly (readonly number[])[],
    partitions: readonly Partition[],
    onCommitted: (chunk: readonly PartitionWrite[]) => void,
  ): Promise<void> {
    const { name, topicId, config } = topic;
    await this.#createPartitions(
      [
        // A settings node of a former topic of that name would have been removed with it; one made by hand is replaced.
        await this.#put(paths.topicConfig(name), encodeConfig(config)),
        { kind: "create", path: paths.topic(name), data: encodeTopic({ topicId, assignment }), ephemeral: false },
        { kind: "create", path: paths.partitions(name), data: emptyZnode, ephemeral: false },
      ],
      topic,
      partitions,
      onCommitted,
    );
  }

  /** Gives a topic a longer assignment, and states to the partitions that are new in it. */
  async growTopic(
    topic: Topic,
    assignment: readonly (readonly number[])[],
    partitions: readonly Partition[],
    onCommitted: (chunk: readonly PartitionWrite[]) => void,
  ): Promise<void> {
    const data = encodeTopic({ topicId: topic.topicId, assignment });
    const { version } = topic;
    await this.#createPartitions(
      [{ kind: "set", path: paths.topic(topic.name), data, version }],
      topic,
      partitions,
      onCommitted,
    );
    topic.version = version + 1;
  }

  /** Makes what a predecessor did not get to: states of partitions that the assignment has. */
  async finishCreation(
    topic: Topic,
    partitions: readonly Partition[],
    onCommitted: (chunk: readonly PartitionWrite[]) => void,
  ): Promise<void> {
    const numbers = await this.zookeeper.childrenMany([paths.partitions(topic.name)]);
    const made = new Set(numbers[0]);
    const first: ZooKeeperOperation[] =
      numbers[0] === undefined
        ? [{ kind: "create", path: paths.partitions(topic.name), data: emptyZnode, ephemeral: false }]
        : [];
    await this.#createPartitions(first, topic, partitions, onCommitted, made);
  }

  async #createPartitions(
    first: readonly ZooKeeperOperation[],
    topic: Topic,
    partitions: readonly Partition[],
    onCommitted: (chunk: readonly PartitionWrite[]) => void,
    made: ReadonlySet<string> = new Set(),
  ): Promise<void> {
    const chunks = chunked(partitions, OPERATIONS_MAX / 2);
    await this.#all(
      chunks.map((chunk, index) => async () => {
        await this.transaction([
          ...(index === 0 ? first : []),
          ...chunk.flatMap((partition): ZooKeeperOperation[] => [
            ...(made.has(String(partition.partition))
              ? []
              : [
                  {
                    kind: "create",
                    path: paths.partition(topic.name, partition.partition),
                    data: emptyZnode,
                    ephemeral: false,
                  } as const,
                ]),
            {
              kind: "create",
              path: paths.partitionState(topic.name, partition.partition),
              data: this.#stateData(partition),
              ephemeral: false,
            },
          ]),
        ]);
        onCommitted(chunk.map((to) => ({ topic, to })));
      }),
    );
  }

  async writeTopicConfig(topic: string, config: ConfigZnode): Promise<void> {
    await this.transaction([await this.#put(paths.topicConfig(topic), encodeConfig(config))]);
  }

  /** `name` is a broker id or `<default>`. */
  async writeBrokerConfig(name: string, config: ConfigZnode): Promise<void> {
    await this.transaction([await this.#put(paths.brokerConfig(name), encodeConfig(config))]);
  }

  /**
   * Says that a topic is to be deleted. From here on it is gone for everybody, and a successor goes on with
   * `removeTopic`.
   */
  async markDeleted({ name, topicId }: Topic): Promise<void> {
    // One that is there was made by hand: a deletion of ours is finished before the topic can be there again.
    await this.transaction([await this.#put(paths.deletion(name), encodeDeletion(topicId))]);
  }

  /**
   * Removes a marked topic's nodes, in steps of some hundred; whatever is gone already is passed over. The mark goes
   * last, in one transaction with the topic's own node, so that no other topic of that name can come between.
   */
  async removeTopic(name: string): Promise<void> {
    const [numbers = []] = await this.zookeeper.childrenMany([paths.partitions(name)]);
    const states = await this.zookeeper.getMany(numbers.map((number) => `${paths.partitions(name)}/${number}/state`));
    const partitions = numbers.flatMap((number, index): ZooKeeperOperation[] => {
      const path = `${paths.partitions(name)}/${number}`;
      return [
        ...(states[index] === undefined ? [] : [{ kind: "delete", path: `${path}/state`, version: -1 } as const]),
        { kind: "delete", path, version: -1 },
      ];
    });
    // A partition's two operations may fall into two transactions: the state then goes in the earlier one.
    await this.#all(chunked(partitions, OPERATIONS_MAX).map((chunk) => () => this.transaction(chunk)));
    const rest = [paths.partitions(name), paths.topicConfig(name), paths.topic(name), paths.deletion(name)];
    const nodes = await this.zookeeper.getMany(rest);
    await this.transaction(
      rest.filter((_, index) => nodes[index] !== undefined).map((path) => ({ kind: "delete", path, version: -1 })),
    );
  }

  /** Deletes the registrations of brokers that were found dead. One that is gone already is no obstacle. */
  async fence(brokers: readonly Broker[]): Promise<void> {
    const nodes = await this.zookeeper.getMany(brokers.map(({ id }) => paths.broker(id)));
    const registered = brokers.filter((broker, index) => {
      const node = nodes[index];
      return node !== undefined && brokerEpochOf(node.stat) === broker.epoch;
    });
    if (registered.length === 0) return;
    await this.transaction(registered.map(({ id, version }) => ({ kind: "delete", path: paths.broker(id), version })));
  }

  /** The operation that gives a node this content, whether or not it is there. */
  async #put(path: string, data: Uint8Array): Promise<ZooKeeperOperation> {
    const stat = await this.zookeeper.exists(path);
    return stat === undefined
      ? { kind: "create", path, data, ephemeral: false }
      : { kind: "set", path, data, version: stat.version };
  }

  /** Everything is written through here. */
  async transaction(operations: readonly ZooKeeperOperation[]): Promise<void> {
    if (operations.length === 0) return;
    try {
      await this.zookeeper.multi([
        { kind: "check", path: paths.controllerEpoch, version: this.office.epochVersion },
        ...operations,
      ]);
      this.writeCount += 1;
    } catch (error) {
      if (!(error instanceof ZooKeeperError)) throw error;
      const refused = error.kind === "BadVersion" || error.kind === "NoNode" || error.kind === "NodeExists";
      if (refused && error.failedIndex === 0) throw new ControllerFenced(this.office.epoch);
      if (error.kind === "NotConnected" || error.kind === "TooLarge") throw error;
      throw new StoreDiffers(error.message, { cause: error });
    }
  }

  /**
   * Begins one after the other, each in a turn of its own, because making a transaction of some hundred operations takes
   * milliseconds in which nobody else is served. Waits for all, then fails with the worst failure.
   */
  async #all(work: readonly (() => Promise<void>)[]): Promise<void> {
    const failures: unknown[] = [];
    const begun: Promise<unknown>[] = [];
    for (const [index, begin] of work.entries()) {
      if (index > 0) await new Promise<void>((resolve) => this.timers.soon(resolve));
      begun.push(begin().catch((error: unknown) => failures.push(error)));
    }
    await Promise.all(begun);
    throwWorst(failures);
  }

  #stateData(partition: Partition): Uint8Array {
    const { leader, leaderEpoch, isr, elr, unverified, lost, brokerEpochs, durability } = partition;
    return encodePartitionState({
      controllerEpoch: this.office.epoch,
      leader,
      leaderEpoch,
      isr,
      elr,
      unverified,
      lost,
      brokerEpochs,
      durability,
    });
  }

  /** What a node of a topic or of settings holds; one that holds something else than ours is noted and said. */
  #readable<T>(
    unreadable: UnreadableNodes,
    path: string,
    node: ZooKeeperNode,
    decode: (path: string, data: Uint8Array) => T,
  ): T | undefined {
    try {
      return decode(path, node.data);
    } catch (error) {
      if (!(error instanceof ZnodeFormatError)) throw error;
      unreadable.set(path, node.stat.mzxid);
      this.logger.error(
        `${error.message}: it cannot be read. Brokers keep what they know of it, and nothing about it is decided until ` +
          `the node is repaired.`,
      );
      return undefined;
    }
  }

  /** A node that holds something else than ours is left alone, and said. */
  #decoded<T>(decode: () => T): T | undefined {
    try {
      return decode();
    } catch (error) {
      if (!(error instanceof ZnodeFormatError)) throw error;
      this.logger.error(`${error.message}; it is ignored. Restore it, or delete it.`);
      return undefined;
    }
  }
}

/** One that contradicts itself was written by hand, and a decision that began with it could only be wrong. */
function consistentState(path: string, data: Uint8Array, replicas: readonly number[]): PartitionStateZnode {
  const state = decodePartitionState(path, data);
  const contradiction = contradictionIn({ ...state, replicas });
  if (contradiction !== undefined) throw new ZnodeFormatError(path, contradiction);
  return state;
}

function chunked<T>(items: readonly T[], size: number): T[][] {
  const chunks: T[][] = [];
  for (let start = 0; start < items.length; start += size) chunks.push(items.slice(start, start + size));
  return chunks;
}
