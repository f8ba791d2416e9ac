import { counted } from "../../common/counted.js";
import type { Env } from "../../common/env/env.js";
import type { Logger } from "../../common/logger.js";
import { ApiError, errorReport, topicIdRefusal } from "../../protocol/error-codes.js";
import type { ErrorReport } from "../../protocol/error-codes.js";
import type {
  AlterConfigsRequest,
  ConfigEntry,
  ControlledShutdownRequest,
  CreatePartitionsRequest,
  CreateTopicsRequest,
  DeleteTopicsRequest,
  ElectedLeader,
  ElectLeadersRequest,
  Init,
  NewTopic,
  TopicResult,
} from "../../protocol/messages.js";
import { ConfigResource } from "../../protocol/messages.js";
import type { BrokerId, TopicId } from "../../protocol/types.js";
import { brokerConfigRefusal, singleBrokerConfigRefusal, topicConfigRefusal } from "../config.js";
import type { ConfigZnode } from "../zookeeper/znodes.js";
import { NO_LEADER, defaultBrokerConfig, paths } from "../zookeeper/znodes.js";
import type { BrokerChannel } from "./broker-channel.js";
import type { ClusterState, Partition, Topic } from "./cluster-state.js";
import type { ControllerSettings } from "./controller-settings.js";
import { hindranceSentence, isRefusal, throwWorst } from "./controller-store.js";
import type { ControllerStore } from "./controller-store.js";
import type { PartitionChange, PartitionChanges } from "./partition-changes.js";
import { withLeader, withPreferredLeader, withSettings, withStopping } from "./partition-state-machine.js";
import type { TopicLimits } from "./topic-rules.js";
import {
  TopicNames,
  assignMorePartitions,
  assignNewTopic,
  checkMinimum,
  checkTopicName,
  newTopicWarning,
} from "./topic-rules.js";

export interface AdministrationParts {
  readonly state: ClusterState;
  readonly store: ControllerStore;
  readonly changes: PartitionChanges;
  readonly settings: ControllerSettings;
  readonly channels: ReadonlyMap<BrokerId, BrokerChannel>;
  /** Called when there is a reason to doubt that registered brokers live. */
  readonly onDoubt: () => void;
}

const UNREADABLE = "a node in ZooKeeper cannot be read, and the controller's log says which one has to be repaired";

/** A topic that passed all checks. */
interface PlannedTopic {
  readonly topic: Topic;
  readonly assignment: readonly (readonly BrokerId[])[];
  readonly warning: string;
}

/** What the topics of one request have to fit in with: those that exist, and those before them in the request. */
interface Taken {
  readonly planned: Set<string>;
  /** Of all topics, planned ones among them. */
  readonly names: TopicNames;
  partitionCount: number;
}

/**
 * What operators ask of the controller, each method as one event: it checks everything against the committed state,
 * writes, and applies. Refusals are ApiErrors or one report per topic or partition; anything else that is thrown comes
 * from the store and means that the outcome has to be read from ZooKeeper.
 */
export class Administration {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #parts: AdministrationParts;

  constructor(env: Env, logger: Logger, parts: AdministrationParts) {
    this.#env = env;
    this.#logger = logger;
    this.#parts = parts;
  }

  async createTopics(request: CreateTopicsRequest): Promise<Init<TopicResult>[]> {
    const { state } = this.#parts;
    const taken: Taken = {
      planned: new Set(),
      names: new TopicNames([...state.topics.keys(), ...state.unreadableTopics]),
      partitionCount: state.partitionCount,
    };
    const plans = request.topics.map((wanted): PlannedTopic | Init<TopicResult> => {
      try {
        return this.#planTopic(wanted, taken);
      } catch (error) {
        return { name: wanted.name, error: reportOf(error) };
      }
    });
    const isPlan = (plan: PlannedTopic | Init<TopicResult>): plan is PlannedTopic => "assignment" in plan;
    const failures: unknown[] = [];
    const results = await Promise.all(
      plans.map(async (plan): Promise<Init<TopicResult>> => {
        if (!isPlan(plan)) return plan;
        const { topic, assignment, warning } = plan;
        const size = { partitions: assignment.length, replicationFactor: assignment[0]?.length ?? 0, warning };
        if (request.validateOnly) return { name: topic.name, topicId: "", ...size };
        try {
          await this.#createTopic(plan);
        } catch (error) {
          failures.push(error);
          return { name: topic.name };
        }
        return { name: topic.name, topicId: topic.topicId, ...size };
      }),
    );
    throwWorst(failures);
    return results;
  }

  /** Adds it to what is taken, unless it throws. */
  #planTopic(wanted: NewTopic, taken: Taken): PlannedTopic {
    const { state } = this.#parts;
    if (state.topics.has(wanted.name)) {
      throw new ApiError("TOPIC_ALREADY_EXISTS", `topic ${wanted.name} exists`);
    }
    if (state.unreadableTopics.has(wanted.name)) {
      throw new ApiError("TOPIC_ALREADY_EXISTS", `topic ${wanted.name} exists; ${UNREADABLE}`);
    }
    if (taken.planned.has(wanted.name)) {
      throw new ApiError("INVALID_REQUEST", `topic ${wanted.name} is named twice in one request`);
    }
    checkTopicName(wanted.name, taken.names);
    const refusal = topicConfigRefusal(wanted.config);
    if (refusal !== undefined) throw new ApiError("INVALID_CONFIG", `topic ${wanted.name}: ${refusal}`);
    const limits = this.#limits(taken.partitionCount);
    const assignment = assignNewTopic(wanted, limits);
    checkMinimum(wanted.name, wanted.config, assignment[0]?.length ?? 0);
    taken.planned.add(wanted.name);
    taken.names.add(wanted.name);
    taken.partitionCount += assignment.length;
    const config = withEntries(new Map(), wanted.config);
    const topicId = this.#env.random.uuid();
    const warning = newTopicWarning(wanted, assignment[0]?.length ?? 0, limits);
    const partitionCount = assignment.length;
    const topic = {
      name: wanted.name,
      topicId,
      version: 0,
      config,
      partitionCount,
      growsFrom: 0,
      partitions: new Map(),
    };
    return { topic, assignment, warning };
  }

  async #createTopic({ topic, assignment }: PlannedTopic): Promise<void> {
    const { state, store, changes } = this.#parts;
    const partitions = assignment.map((replicas, number) => changes.born(topic, number, replicas));
    await store.createTopic(topic, assignment, partitions, (chunk) => {
      if (!state.topics.has(topic.name)) state.addTopic(topic);
      changes.apply(chunk);
    });
    this.#logger.info(
      `Topic ${topic.name} created with ${counted(partitions.length, "partition")} of ${counted(assignment[0]?.length ?? 0, "replica")}, id ${topic.topicId}.`,
    );
  }

  /** Why the controller has no topic of that name. */
  #missing(name: string): ApiError {
    if (this.#parts.state.unreadableTopics.has(name))
      return new ApiError("ZOOKEEPER_UNAVAILABLE", `topic ${name} cannot be worked on: ${UNREADABLE}`);
    return new ApiError("UNKNOWN_TOPIC_OR_PARTITION", `there is no topic ${JSON.stringify(name)}`);
  }

  /** The topic of that name, and with that id if there is one in the request. Throws ApiError. */
  #named(name: string, topicId: TopicId): Topic {
    const topic = this.#parts.state.topics.get(name);
    if (topic !== undefined && (topicId === "" || topic.topicId === topicId)) return topic;
    if (topicId === "" || this.#parts.state.unreadableTopics.has(name)) throw this.#missing(name);
    const past = `topic ${JSON.stringify(name)} with id ${topicId.slice(0, 64)} was deleted`;
    throw new ApiError(
      "UNKNOWN_TOPIC_ID",
      topic === undefined
        ? `${past}; make it again first`
        : `${past}, and made again with id ${topic.topicId}; repeat it with that id if that topic is meant`,
    );
  }

  #limits(partitionCount: number): TopicLimits {
    const { state, settings } = this.#parts;
    return {
      brokers: [...state.brokers.values()].filter((broker) => !state.isStopping(broker)),
      partitionCount,
      partitionsMax: settings.partitionsMax,
      numPartitions: settings.numPartitions,
      defaultReplicationFactor: settings.defaultReplicationFactor,
      randomBelow: (bound) => this.#env.random.below(bound),
    };
  }

  async createPartitions(request: CreatePartitionsRequest): Promise<Init<TopicResult>> {
    const { state, store, changes } = this.#parts;
    let topic: Topic;
    try {
      topic = this.#named(request.topic, request.topicId);
    } catch (error) {
      return { name: request.topic, topicId: request.topicId, error: reportOf(error) };
    }
    const before = [...topic.partitions.values()].sort((left, right) => left.partition - right.partition);
    const replicationFactor = replicationFactorOf(topic);
    let added: readonly (readonly BrokerId[])[];
    try {
      added = assignMorePartitions(
        topic.name,
        { partitions: before.length, replicationFactor },
        request.partitions,
        request.assignment.map(({ brokerIds }) => brokerIds),
        this.#limits(state.partitionCount),
      );
    } catch (error) {
      return { name: topic.name, topicId: topic.topicId, error: reportOf(error) };
    }
    const partitions = added.map((replicas, index) => changes.born(topic, before.length + index, replicas));
    const assignment = [...before.map(({ replicas }) => replicas), ...added];
    await store.growTopic(topic, assignment, partitions, (chunk) => {
      topic.partitionCount = assignment.length;
      topic.growsFrom = before.length;
      changes.apply(chunk);
    });
    this.#logger.info(`Topic ${topic.name} grew from ${before.length} to ${counted(assignment.length, "partition")}.`);
    return { name: topic.name, topicId: topic.topicId, partitions: assignment.length, replicationFactor };
  }

  async deleteTopics(request: DeleteTopicsRequest): Promise<Init<TopicResult>[]> {
    const { state } = this.#parts;
    const wanted: { readonly result: Init<TopicResult>; readonly topic: Topic | undefined }[] = [
      ...request.names.map((name) => {
        const topic = state.topics.get(name);
        const error = topic === undefined ? this.#missing(name).report : null;
        return { topic, result: { name, topicId: topic?.topicId ?? "", error } };
      }),
      ...request.topicIds.map((topicId) => {
        const topic = state.topicsById.get(topicId);
        const error = topic === undefined ? unknownTopicId(topicId) : null;
        return { topic, result: { name: topic?.name ?? "", topicId, error } };
      }),
    ];
    const topics = new Set(wanted.flatMap(({ topic }) => topic ?? []));
    const failures: unknown[] = [];
    await Promise.all(
      [...topics].map((topic) => this.#deleteTopic(topic).catch((error: unknown) => failures.push(error))),
    );
    throwWorst(failures);
    return wanted.map(({ result }) => result);
  }

  /** In steps that a successor goes on with: the mark, the orders, the nodes. It waits for no replica. */
  async #deleteTopic(topic: Topic): Promise<void> {
    const { state, store, channels } = this.#parts;
    await store.markDeleted(topic);
    state.removeTopic(topic);
    for (const channel of channels.values()) channel.topicDeleted(topic.topicId);
    try {
      await store.removeTopic(topic.name);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // For everybody the topic is gone; only its name is not free yet.
      this.#logger.error(hindranceSentence(topic.name, "deletion", error));
      return;
    }
    this.#logger.info(`Topic ${topic.name} deleted, id ${topic.topicId}.`);
  }

  async alterConfigs(request: AlterConfigsRequest): Promise<void> {
    switch (request.resource) {
      case ConfigResource.TOPIC:
        return this.#alterTopicConfig(request);
      case ConfigResource.BROKER:
        return this.#alterBrokerConfig(request);
      case ConfigResource.CLIENT:
        throw new ApiError(
          "INVALID_CONFIG",
          "clients have no settings in this version; alter those of a topic or broker",
        );
      default:
        throw new ApiError("INVALID_REQUEST", "the settings of a topic or of a broker can be altered");
    }
  }

  async #alterTopicConfig(request: AlterConfigsRequest): Promise<void> {
    const { store, changes, channels } = this.#parts;
    const topic = this.#named(request.name, request.topicId);
    const refusal = topicConfigRefusal(request.config);
    if (refusal !== undefined) throw new ApiError("INVALID_CONFIG", `topic ${topic.name}: ${refusal}`);
    // Of one that is being made nothing is known yet.
    if (topic.partitions.size > 0) checkMinimum(topic.name, request.config, replicationFactorOf(topic));
    if (request.validateOnly) return;
    const config = withEntries(topic.config, request.config);
    const rulesOf = changes.rules(topic, { config });
    await changes.commit(this.#withOtherSettings([topic], () => rulesOf));
    await store.writeTopicConfig(topic.name, config);
    topic.config = config;
    for (const channel of channels.values()) channel.partitionsChanged(topic.topicId, topic.partitions.keys());
    this.#logger.info(`Settings of topic ${topic.name} are now ${text(config)}.`);
    // An unclean election may have become allowed.
    await changes.commit(changes.collect("settings changed", withLeader));
  }

  async #alterBrokerConfig(request: AlterConfigsRequest): Promise<void> {
    const { state, store, changes, channels } = this.#parts;
    const name = request.name === "" ? defaultBrokerConfig : request.name;
    if (name !== defaultBrokerConfig && !/^\d{1,9}$/.test(name)) {
      throw new ApiError(
        "INVALID_REQUEST",
        `broker ${JSON.stringify(name)}: give a broker's id, or nothing for all brokers`,
      );
    }
    const isShared = name === defaultBrokerConfig;
    // Else a typo would be answered like a change.
    if (!isShared && !state.brokers.has(Number(name)) && !state.brokerConfigs.has(name)) {
      const registered = [...state.brokers.keys()].sort((left, right) => left - right).join(", ");
      throw new ApiError(
        "INVALID_REQUEST",
        `broker ${name} is not registered, and has no settings yet (registered: ${registered}); start it first, or set them for all brokers`,
      );
    }
    const refusal =
      brokerConfigRefusal(request.config) ?? (isShared ? undefined : singleBrokerConfigRefusal(request.config));
    if (refusal !== undefined) throw new ApiError("INVALID_CONFIG", refusal);
    if (!state.brokerConfigs.has(name) && state.unreadable.has(paths.brokerConfig(name)))
      throw new ApiError("INVALID_CONFIG", `settings that are there would be lost: ${UNREADABLE}`);
    if (request.validateOnly) return;
    const config = withEntries(state.brokerConfigs.get(name) ?? new Map(), request.config);
    const durabilities = new Map([...state.topics.values()].map((topic) => [topic, changes.durability(topic)]));
    if (isShared) {
      const rulesOf = (topic: Topic): ReturnType<PartitionChanges["rules"]> => changes.rules(topic, { shared: config });
      await changes.commit(this.#withOtherSettings([...state.topics.values()], rulesOf));
    }
    await store.writeBrokerConfig(name, config);
    state.brokerConfigs.set(name, config);
    const redurable = [...durabilities].flatMap(([topic, before]) =>
      changes.durability(topic) === before ? [] : topic,
    );
    for (const channel of channels.values()) {
      channel.clusterChanged();
      for (const { topicId, partitions } of redurable) channel.partitionsChanged(topicId, partitions.keys());
    }
    const whose = isShared ? "all brokers" : `broker ${name}`;
    this.#logger.info(`Settings of ${whose} changed at run time are now ${text(config)}.`);
    await changes.commit(changes.collect("settings changed", withLeader));
  }

  /**
   * Leaders hear of another min.insync.replicas with a new partition epoch, together with who is eligible by it. A proposal
   * that builds on the former state is refused. The weaker durability is in the state before a leader hears of it. Where a
   * smaller minimum costs the eligible their place, the leader is asked first whether it is there, and the rest of the
   * change follows its answer (`Controller.#electMissing`).
   */
  #withOtherSettings(
    topics: readonly Topic[],
    rulesOf: (topic: Topic) => ReturnType<PartitionChanges["rules"]>,
  ): PartitionChange[] {
    const all = topics.flatMap((topic) => {
      const rulesFor = rulesOf(topic);
      return [...topic.partitions.values()].map((from) => ({ topic, from, rules: rulesFor(from) }));
    });
    if (all.some(({ from, rules }) => from.elr.length > 0 && from.isr.length >= rules.minInsyncReplicas))
      this.#parts.onDoubt();
    return all.flatMap(({ topic, from, rules }) => {
      const { minInsyncReplicas, durability } = rules;
      const move = withSettings(from, rules);
      const isMinimum = minInsyncReplicas !== from.minInsyncReplicas;
      const why = isMinimum ? `min.insync.replicas is ${minInsyncReplicas} now` : `durability is ${durability} now`;
      return move === undefined ? [] : [{ topic, from, to: move.to, renewed: true, why }];
    });
  }

  async electLeaders(request: ElectLeadersRequest): Promise<Init<ElectedLeader>[]> {
    const { state, changes } = this.#parts;
    const why = request.unclean ? "unclean election asked for" : "preferred leader asked for";
    const isAll = request.allPartitions;
    if (isAll && request.partitions.length > 0) {
      throw new ApiError(
        "INVALID_REQUEST",
        "both some partitions and all of them are asked for; leave out one of them",
      );
    }
    const named = isAll
      ? [...state.topics.values()].flatMap(({ topicId, partitions }) =>
          [...partitions.keys()].map((partition) => ({ topicId, partition })),
        )
      : request.partitions;
    const results: Init<ElectedLeader>[] = [];
    const wanted = new Map<Partition, PartitionChange>();
    const answers: { readonly topicId: TopicId; readonly partition: number }[] = [];
    for (const { topicId, partition } of named) {
      const topic = state.topicsById.get(topicId);
      const from = topic?.partitions.get(partition);
      if (topic === undefined || from === undefined) {
        results.push({ topicId, partition, leaderId: NO_LEADER, error: unknownTopicId(topicId) });
        continue;
      }
      const choice = this.#elected(topic, from, request.unclean);
      if (!(choice instanceof ApiError)) {
        wanted.set(from, { topic, from, ...choice, why });
        answers.push({ topicId, partition });
        continue;
      }
      // Of all partitions, those that are led as asked are not worth a word.
      if (isAll && choice.errorName === "ELECTION_NOT_NEEDED") continue;
      results.push({ topicId, partition, leaderId: from.leader, error: choice.report });
    }
    await changes.commit([...wanted.values()]);
    for (const { topicId, partition } of answers) {
      const leaderId = state.topicsById.get(topicId)?.partitions.get(partition)?.leader ?? NO_LEADER;
      results.push({ topicId, partition, leaderId });
    }
    return results;
  }

  #elected(topic: Topic, from: Partition, unclean: boolean): Pick<PartitionChange, "to" | "ground"> | ApiError {
    const name = `${topic.name}-${from.partition}`;
    const rules = this.#parts.changes.rules(topic)(from);
    if (!unclean) {
      const [preferred] = from.replicas;
      if (from.leader === preferred)
        return new ApiError("ELECTION_NOT_NEEDED", `${name}: broker ${preferred} leads already`);
      const move = withPreferredLeader(from, rules);
      return (
        move ?? new ApiError("PREFERRED_LEADER_NOT_AVAILABLE", `${name}: broker ${preferred} is not alive and in sync`)
      );
    }
    if (from.leader !== NO_LEADER) return new ApiError("ELECTION_NOT_NEEDED", `${name}: broker ${from.leader} leads`);
    const certain = withLeader(from, { ...rules, uncleanAllowed: false });
    const next = [...from.isr, ...from.elr].find((id) => !from.unverified.includes(id) && rules.isAwaited(id));
    if (certain === undefined && next !== undefined) {
      return new ApiError(
        "ELIGIBLE_LEADERS_NOT_AVAILABLE",
        `${name}: broker ${next} lost nothing and has just been asked whether it is there; it leads when it answers`,
      );
    }
    // The operator has decided: nobody is waited for longer, and nobody who lost its power is spared.
    const move =
      certain ??
      withLeader({ ...from, unverified: [] }, { ...rules, uncleanAllowed: true, isAlive: rules.isElectable });
    return move ?? new ApiError("ELIGIBLE_LEADERS_NOT_AVAILABLE", `${name}: none of ${from.replicas.join()} is alive`);
  }

  /** Gives leadership back to preferred replicas on brokers that miss more than the allowed share of it. */
  async rebalanceLeaders(): Promise<void> {
    const { state, settings, changes } = this.#parts;
    const preferring = new Map<BrokerId, { all: number; missed: number }>();
    for (const topic of state.topics.values()) {
      for (const { replicas, leader } of topic.partitions.values()) {
        const [preferred = NO_LEADER] = replicas;
        const count = preferring.get(preferred) ?? { all: 0, missed: 0 };
        preferring.set(preferred, { all: count.all + 1, missed: count.missed + (leader === preferred ? 0 : 1) });
      }
    }
    const imbalanced = new Set(
      [...preferring]
        .filter(([, { all, missed }]) => missed * 100 > all * settings.leaderImbalancePercent)
        .map(([id]) => id),
    );
    await changes.commit(
      changes.collect("preferred leader", (partition, rules) =>
        imbalanced.has(partition.replicas[0] ?? NO_LEADER) ? withPreferredLeader(partition, rules) : undefined,
      ),
    );
  }

  /**
   * Moves a stopping broker's leaderships away, and takes it out of the ISR elsewhere. Whoever that relies on answers first,
   * so what is not done yet follows by itself (`Controller.#electMissing`). Returns how many another living replica could take
   * over, but not now.
   */
  async controlledShutdown({ brokerId, brokerEpoch }: ControlledShutdownRequest): Promise<number> {
    const { state, changes, onDoubt } = this.#parts;
    if (!state.isCurrent(brokerId, brokerEpoch)) {
      throw new ApiError("STALE_BROKER_EPOCH", `broker ${brokerId} is not registered with epoch ${brokerEpoch}`);
    }
    if (state.stopping.get(brokerId) !== brokerEpoch) {
      state.stopping.set(brokerId, brokerEpoch);
      // It holds all that was committed and gives its seat up of its own accord, so whoever stays has to be there.
      onDoubt();
    }
    await changes.commit(
      changes.collect(`broker ${brokerId} is stopping`, (partition, rules) => withStopping(partition, brokerId, rules)),
    );
    let remaining = 0;
    for (const topic of state.topics.values()) {
      for (const { leader, replicas } of topic.partitions.values()) {
        if (leader !== brokerId) continue;
        // A replica without living peers, or whose peers stop as well, has nobody to wait for.
        const hasPeer = replicas.some((id) => {
          const peer = id === brokerId ? undefined : state.brokers.get(id);
          return peer !== undefined && !state.isStopping(peer);
        });
        if (hasPeer) remaining += 1;
      }
    }
    this.#logger.info(`Broker ${brokerId} is stopping; ${remaining} leaderships wait for a replica to catch up.`);
    return remaining;
  }
}

function unknownTopicId(topicId: TopicId): ErrorReport {
  const unknown = `there is no topic with id ${topicId}, or no such partition of it`;
  return topicIdRefusal(topicId) ?? errorReport("UNKNOWN_TOPIC_ID", unknown);
}

function reportOf(error: unknown): ApiError["report"] {
  if (error instanceof ApiError) return error.report;
  throw error;
}

/** The settings after a change; one without a value goes back to its default. */
function withEntries(config: ConfigZnode, entries: readonly ConfigEntry[]): ConfigZnode {
  const next = new Map(config);
  for (const { name, value } of entries) {
    if (value === null) next.delete(name);
    else next.set(name, value);
  }
  return next;
}

function text(config: ConfigZnode): string {
  return config.size === 0 ? "the defaults" : [...config].map(([name, value]) => `${name}=${value}`).join(", ");
}

/** All partitions of a topic have as many replicas. */
function replicationFactorOf({ partitions }: Topic): number {
  const [any] = partitions.values();
  return any?.replicas.length ?? 0;
}
