import { errorCodes, errorNameOf } from "../protocol/error-codes.js";
import type { ErrorName } from "../protocol/error-codes.js";
import { ConfigResource } from "../protocol/messages.js";
import type {
  DeletedRecords,
  DescribedConfig,
  ErrorDetail,
  ListedOffset,
  TopicMetadata,
  TopicResult,
} from "../protocol/messages.js";
import { checkChanges, checkConfigTarget, checkLookups, checkNewTopics } from "./admin-arguments.js";
import {
  booleanOption,
  checkCount,
  checkNumber,
  checkOptions,
  checkPartitions,
  checkSignal,
  checkTopicName,
  checkTopicNames,
  INT32_MAX,
  numberOption,
  shown,
} from "./arguments.js";
import type { BrokerCaller, Call, CallResult } from "./broker-caller.js";
import { checkCluster } from "./broker-connections.js";
import { ClientError, InvalidArgumentError, OutcomeUnknownError, ProtocolError } from "./errors.js";
import type { KnownBroker, Metadata } from "./metadata.js";
import { lookUpOffsets } from "./offset-lookup.js";
import type { OffsetLookup } from "./offset-lookup.js";
import type { CallOptions, TopicPartition, TopicPartitionOffset } from "./options.js";
import type { Deadline } from "./retry.js";

/** A topic to be made. What is wrong, and a field that there is not, is refused with InvalidArgumentError. */
export interface NewTopic {
  /** 1 to 249 characters of A-Z a-z 0-9 . _ - */
  readonly name: string;
  /**
   * A whole number from 1 on.
   * @defaultValue num.partitions of the cluster
   */
  readonly partitions?: number;
  /**
   * A whole number from 1 on; brokers refuse more than there are of them.
   * @defaultValue default.replication.factor of the cluster
   */
  readonly replicationFactor?: number;
  /**
   * By Kafka's dotted names: `{ "retention.ms": "86400000" }`.
   * @defaultValue what the brokers have
   */
  readonly config?: Readonly<Record<string, string | number | boolean>>;
  /**
   * Replicas by hand, instead of the two numbers: for each partition the ids of brokers, preferred leader first.
   * @defaultValue chosen by the controller
   */
  readonly assignment?: readonly (readonly number[])[];
}

/** A topic that was made. */
export interface CreatedTopic {
  readonly name: string;
  readonly topicId: string;
  readonly partitions: number;
  readonly replicationFactor: number;
  /** What its maker should know of it, in a sentence: that it got fewer replicas than usual. Absent: nothing. */
  readonly warning?: string;
}

/** One partition as its leader and the controller describe it. */
export interface PartitionDescription {
  readonly partition: number;
  /** Broker id; -1: none. */
  readonly leader: number;
  readonly leaderEpoch: number;
  /** Broker ids, preferred leader first. */
  readonly replicas: readonly number[];
  /** In-sync replicas. */
  readonly isr: readonly number[];
  /** Replicas outside the ISR that still hold every committed record. */
  readonly elr: readonly number[];
  /** The oldest offset there is; null: there is no leader to ask. */
  readonly startOffset: number | null;
  /** One past the last offset that consumers can read; null: there is no leader to ask, or it does not know yet. */
  readonly highWatermark: number | null;
  /** One past the last offset, replicated or not; null: there is no leader to ask. */
  readonly endOffset: number | null;
}

/** A topic with its partitions. */
export interface TopicDescription {
  readonly name: string;
  readonly topicId: string;
  readonly partitions: readonly PartitionDescription[];
}

/** A topic in a list. */
export interface TopicListing {
  readonly name: string;
  readonly topicId: string;
  readonly partitions: number;
  readonly replicationFactor: number;
}

/** What settings belong to. An empty broker id stands for all brokers. */
export type ConfigTarget = { readonly topic: string } | { readonly broker: number | "" } | { readonly client: string };

/** A setting and where its value comes from. */
export interface ConfigDescription {
  readonly name: string;
  readonly value: string;
  /** `default`, `broker`, `cluster` or `topic`. */
  readonly source: string;
  readonly type: string;
  readonly unit: string;
  readonly documentation: string;
  readonly readOnly: boolean;
}

/** The cluster as its brokers describe it. */
export interface ClusterDescription {
  readonly clusterId: string;
  /** Broker id; -1: none at the moment. */
  readonly controllerId: number;
  readonly controllerEpoch: number;
  readonly brokers: readonly KnownBroker[];
}

/** What an election came to. */
export interface ElectionResult extends TopicPartition {
  /** Broker id; -1: none. */
  readonly leader: number;
  /** Why nothing was changed; undefined when it was. */
  readonly error: ClientError | undefined;
}

/** An offset that was asked for. */
export interface OffsetDescription extends TopicPartitionOffset {
  /** Of the record there, when asked by timestamp and there is one. */
  readonly timestamp: number | null;
}

/** What the admin shares with the rest of its cluster object. */
export interface AdminContext {
  readonly metadata: Metadata;
  readonly caller: BrokerCaller;
  readonly deadlineMs: number;
  readonly unknownTopicTimeoutMs: number;
}

type ControllerKind = "createTopics" | "deleteTopics" | "createPartitions" | "alterConfigs" | "electLeaders";

/** How long one call of the application goes on, whatever it takes to answer it. */
interface Limits {
  readonly deadline: Deadline;
  readonly signal: AbortSignal | undefined;
}

/** How often a topic that is said not to exist is asked for again. */
const AGAIN_MS = 50;
/** A leader that does not answer in this time is left out of a description. */
const DESCRIBE_OFFSETS_MS = 3000;

/**
 * Administers the cluster. Made by `Cluster.admin`. Every method goes on through elections and restarts until it has an
 * answer or `deadlineMs` is over, and rejects with a ClientError: InvalidArgumentError for arguments that can mean
 * nothing, before anything is sent, ProtocolError with the reason of a refusal, DeadlineExceededError when nothing was
 * done, OutcomeUnknownError when something may have been.
 *
 * @example
 * const admin = cluster.admin();
 * await admin.createTopics([{ name: "orders", partitions: 6, replicationFactor: 3 }]);
 */
export class Admin {
  readonly #context: AdminContext;

  /** Use `Cluster.admin`. */
  constructor(context: AdminContext) {
    this.#context = context;
  }

  /** Makes topics, and resolves when all are made. Rejects with the first refusal; the others may have been made then. */
  async createTopics(
    topics: readonly NewTopic[],
    options: CallOptions & {
      /**
       * Check everything, make nothing.
       * @defaultValue false
       */
      readonly validateOnly?: boolean;
    } = {},
  ): Promise<CreatedTopic[]> {
    checkCount("createTopics", arguments.length, 2);
    checkNewTopics(topics);
    const { deadline, signal } = this.#limits("createTopics", options, "validateOnly");
    const validateOnly = booleanOption("validateOnly", options.validateOnly, false);
    if (topics.length === 0) return [];
    const { body, afterUnknownOutcome } = await this.#callController({
      kind: "createTopics",
      body: () => ({
        topics: topics.map((topic) => ({
          name: topic.name,
          partitions: topic.assignment === undefined ? (topic.partitions ?? 0) : 0,
          replicationFactor: topic.assignment === undefined ? (topic.replicationFactor ?? 0) : 0,
          config: configEntries(topic.config ?? {}),
          assignment: (topic.assignment ?? []).map((brokerIds) => ({ brokerIds })),
        })),
        timeoutMs: toldMs(deadline),
        validateOnly,
      }),
      deadline,
      signal,
      isQuestion: validateOnly,
      retryFor: (answer) => retryName(answer.topics.map(({ error }) => error)),
    });
    // The attempt that was not answered may have made it.
    const mayBeMade = afterUnknownOutcome && !validateOnly;
    const isMade = ({ error }: TopicResult): boolean => mayBeMade && nameOf(error) === "TOPIC_ALREADY_EXISTS";
    for (const topic of body.topics) if (!isMade(topic)) throwOn(topic.error, { topic: topic.name });
    const made = body.topics.filter(isMade).map(({ name }) => name);
    const described = made.length === 0 ? [] : await this.#describeMade(made, { deadline, signal });
    return body.topics.map((topic) => {
      const found = described.find(({ name }) => name === topic.name);
      if (found === undefined) return toCreated(topic);
      const { name, topicId, partitions } = found;
      return {
        name,
        topicId,
        partitions: partitions.length,
        replicationFactor: partitions[0]?.replicas.length ?? 0,
      };
    });
  }

  /** They exist, although the broker that is asked may not have heard of all of them: then none is described. */
  async #describeMade(names: readonly string[], limits: Limits): Promise<readonly TopicMetadata[]> {
    try {
      return await this.#describe(names, limits);
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      return [];
    }
  }

  /**
   * Deletes topics with all their records. Names are resolved once, when the call begins: topics that are made under them
   * later are not touched, however often the request has to be repeated. Rejects with the first refusal.
   */
  async deleteTopics(names: readonly string[], options: CallOptions = {}): Promise<void> {
    checkCount("deleteTopics", arguments.length, 2);
    checkTopicNames(names);
    const limits = this.#limits("deleteTopics", options);
    if (names.length === 0) return;
    const topics = await this.#describe([...new Set(names)], limits);
    const { body, isRepeated } = await this.#callController({
      kind: "deleteTopics",
      body: () => ({ topicIds: topics.map(({ topicId }) => topicId), timeoutMs: toldMs(limits.deadline) }),
      ...limits,
      // A topic that the controller does not know is no reason to ask again: it knows them all.
      retryFor: (answer) =>
        retryName(
          answer.topics.map(({ error }) => error),
          "UNKNOWN_TOPIC_ID",
        ),
    });
    for (const { topicId, error } of body.topics) {
      // An earlier attempt has deleted it, whatever was answered to that.
      if (isRepeated && nameOf(error) === "UNKNOWN_TOPIC_ID") continue;
      throwOn(error, { topic: topics.find((one) => one.topicId === topicId)?.name ?? topicId });
    }
  }

  /**
   * Gives a topic more partitions: `partitions` is the total after the change, a whole number from 1 on. Keys may move to
   * other partitions. The name is resolved once, when the call begins: a topic that is made under it later is not touched,
   * and UNKNOWN_TOPIC_ID, or OutcomeUnknownError when an earlier attempt was not answered, tells of it.
   */
  async createPartitions(topic: string, partitions: number, options: CallOptions = {}): Promise<void> {
    checkCount("createPartitions", arguments.length, 3);
    checkTopicName(topic);
    checkNumber("partitions", partitions, { min: 1, max: INT32_MAX });
    const limits = this.#limits("createPartitions", options);
    const topicId = await this.#topicIdOf(topic, limits);
    const { body, afterUnknownOutcome } = await this.#callController({
      kind: "createPartitions",
      body: () => ({ topic, topicId, partitions, timeoutMs: toldMs(limits.deadline) }),
      ...limits,
      retryFor: (answer) => retryName([answer.topic?.error ?? null], "UNKNOWN_TOPIC_ID"),
    });
    const error = body.topic?.error ?? null;
    if (afterUnknownOutcome && error !== null) {
      throw new OutcomeUnknownError(
        `adding partitions was tried twice, and refused the second time (${error.message})`,
        {
          topic,
        },
      );
    }
    throwOn(error, { topic });
  }

  /** All topics, by name. */
  async listTopics(options: CallOptions = {}): Promise<TopicListing[]> {
    checkCount("listTopics", arguments.length, 1);
    const topics = await this.#describe(undefined, this.#limits("listTopics", options));
    return topics
      .map((topic) => ({
        name: topic.name,
        topicId: topic.topicId,
        partitions: topic.partitions.length,
        replicationFactor: topic.partitions[0]?.replicas.length ?? 0,
      }))
      .sort((left, right) => (left.name < right.name ? -1 : 1));
  }

  /**
   * Partitions, leaders, replicas and offsets of topics; of all when the list is left out. Rejects with ProtocolError
   * UNKNOWN_TOPIC_OR_PARTITION when one does not exist.
   */
  async describeTopics(names?: readonly string[], options: CallOptions = {}): Promise<TopicDescription[]> {
    checkCount("describeTopics", arguments.length, 2);
    if (names !== undefined) checkTopicNames(names);
    const limits = this.#limits("describeTopics", options);
    const topics = await this.#describe(names, limits);
    const lookups: OffsetLookup[] = topics.flatMap(({ name, partitions }) =>
      partitions
        .filter(({ leaderId }) => leaderId >= 0)
        .flatMap(({ partition }) =>
          (["earliest", "latest", "logEnd"] as const).map((query) => ({ topic: name, partition, query })),
        ),
    );
    const deadline = this.#context.caller.deadline(Math.min(DESCRIBE_OFFSETS_MS, limits.deadline.leftMs));
    const answers = await this.#lookUp(topics, lookups, { ...limits, deadline });
    const offsets = new Map<string, number>();
    answers.forEach((answer, index) => {
      const lookup = lookups[index];
      if (lookup !== undefined && !(answer instanceof ClientError)) offsets.set(lookupKey(lookup), answer.offset);
    });
    return topics.map(({ name, topicId, partitions }) => ({
      name,
      topicId,
      partitions: partitions.map((one) => {
        const offsetOf = (query: OffsetLookup["query"]): number | null =>
          offsets.get(lookupKey({ topic: name, partition: one.partition, query })) ?? null;
        return {
          partition: one.partition,
          leader: one.leaderId,
          leaderEpoch: one.leaderEpoch,
          replicas: one.replicas,
          isr: one.isr,
          elr: one.elr,
          startOffset: offsetOf("earliest"),
          highWatermark: offsetOf("latest"),
          endOffset: offsetOf("logEnd"),
        };
      }),
    }));
  }

  /** Settings with their values, where those come from, and what they mean. */
  async describeConfigs(target: ConfigTarget, options: CallOptions = {}): Promise<ConfigDescription[]> {
    checkCount("describeConfigs", arguments.length, 2);
    checkConfigTarget(target);
    const { caller, metadata } = this.#context;
    const limits = this.#limits("describeConfigs", options);
    // A broker that does not know the topic may not have heard of it yet; but that is asked for a while, not to the end.
    if ("topic" in target) await this.#describe([target.topic], limits);
    const brokerId = "broker" in target && target.broker !== "" ? target.broker : undefined;
    if (brokerId !== undefined) {
      // Each broker knows its own settings.
      await this.#query({ noTopics: true }, limits);
      if (metadata.brokers.every(({ id }) => id !== brokerId))
        throw new InvalidArgumentError(
          `there is no broker ${brokerId} now`,
          "see ottla cluster describe for those that run",
        );
    }
    const { body } = await caller.call({
      kind: "describeConfigs",
      body: () => resourceOf(target),
      target: brokerId === undefined ? caller.anyBroker : () => metadata.addressOf(brokerId) && brokerId,
      targetName: brokerId === undefined ? "any broker" : `broker ${brokerId}`,
      ...limits,
    });
    return body.config.map(toConfigDescription);
  }

  /**
   * Changes settings; null goes back to the default. Others stay as they are. A topic's name is resolved once, when the call
   * begins: a topic that is made under it later is not touched, and UNKNOWN_TOPIC_ID, or OutcomeUnknownError when an earlier
   * attempt was not answered, tells of it.
   */
  async alterConfigs(
    target: ConfigTarget,
    changes: Readonly<Record<string, string | number | boolean | null>>,
    options: CallOptions & {
      /**
       * Check everything, change nothing.
       * @defaultValue false
       */
      readonly validateOnly?: boolean;
    } = {},
  ): Promise<void> {
    checkCount("alterConfigs", arguments.length, 3);
    checkConfigTarget(target);
    checkChanges(changes);
    const limits = this.#limits("alterConfigs", options, "validateOnly");
    const validateOnly = booleanOption("validateOnly", options.validateOnly, false);
    const topicId = "topic" in target ? await this.#topicIdOf(target.topic, limits) : "";
    await this.#callController({
      kind: "alterConfigs",
      body: () => ({ ...resourceOf(target), topicId, config: configEntries(changes), validateOnly }),
      ...limits,
      isQuestion: validateOnly,
    });
  }

  /**
   * Makes the preferred replica of each partition its leader, where it is alive and in sync. With `unclean` any living
   * replica of a partition without leader, which loses the records that it does not have. "all", or no list, stands for
   * every partition of the cluster; then those that are led as asked already are left out of the result. With `unclean`
   * it has to be said.
   */
  async electLeaders(
    partitions?: readonly TopicPartition[] | "all",
    options: CallOptions & {
      /** @defaultValue false */
      readonly unclean?: boolean;
    } = {},
  ): Promise<ElectionResult[]> {
    checkCount("electLeaders", arguments.length, 2);
    const named = electionOf(partitions);
    const limits = this.#limits("electLeaders", options, "unclean");
    const unclean = booleanOption("unclean", options.unclean, false);
    if (unclean && partitions === undefined)
      throw new InvalidArgumentError("unclean leaders are asked for, and not where", 'list partitions, or say "all"');
    if (named?.length === 0) return [];
    const topics = await this.#describe(named && [...new Set(named.map(({ topic }) => topic))], limits);
    const names = new Map(topics.map(({ topicId, name }) => [topicId, name]));
    const ids = new Map(topics.map(({ topicId, name }) => [name, topicId]));
    const { body } = await this.#callController({
      kind: "electLeaders",
      body: () => ({
        partitions: (named ?? []).map(({ topic, partition }) => ({ topicId: ids.get(topic) ?? "", partition })),
        allPartitions: named === undefined,
        unclean,
      }),
      ...limits,
    });
    return body.partitions.map(({ topicId, partition, leaderId, error }) => {
      const topic = names.get(topicId) ?? topicId;
      return { topic, partition, leader: leaderId, error: errorOf(error, { topic, partition }) };
    });
  }

  /**
   * Deletes the records below an offset, of each partition; "all" stands for all that consumers can read. Resolves with
   * the new start offsets when no in-sync replica has the records any more: no other leader brings them back. Rejects with
   * OutcomeUnknownError when that did not come to pass in time; to try again does no harm.
   */
  async deleteRecords(
    targets: readonly (TopicPartition & { readonly before: number | "all" })[],
    options: CallOptions = {},
  ): Promise<TopicPartitionOffset[]> {
    checkCount("deleteRecords", arguments.length, 2);
    checkPartitions(targets);
    for (const { before } of targets) {
      if (before === "all" || (Number.isSafeInteger(before) && before >= 0)) continue;
      throw new InvalidArgumentError(`before is ${shown(before)}`, 'give an offset from 0 on, or "all"');
    }
    const limits = this.#limits("deleteRecords", options);
    const giveBack = this.#context.metadata.borrow(await this.#topicsOf(targets, limits));
    const answers = await this.#context.caller
      .callLeaders<"deleteRecords", (typeof targets)[number], DeletedRecords>({
        kind: "deleteRecords",
        items: targets,
        body: (items) => ({
          timeoutMs: this.#context.caller.patienceMs(limits.deadline),
          partitions: items.map(({ topicId, partition, before }) => ({
            topicId,
            partition,
            beforeOffset: before === "all" ? -1 : before,
          })),
        }),
        answers: (body) => body.partitions,
        hasEffect: true,
        ...limits,
      })
      .finally(giveBack);
    return answers.map((answer, index) => {
      if (answer instanceof ClientError) throw answer;
      const { topic, partition } = targets[index] as TopicPartition;
      return { topic, partition, offset: answer.logStartOffset };
    });
  }

  /** Brokers and controller. */
  async describeCluster(options: CallOptions = {}): Promise<ClusterDescription> {
    checkCount("describeCluster", arguments.length, 1);
    const { metadata } = this.#context;
    await this.#query({ noTopics: true }, this.#limits("describeCluster", options));
    return {
      clusterId: metadata.clusterId,
      controllerId: metadata.controllerId,
      controllerEpoch: metadata.controllerEpoch,
      brokers: metadata.brokers,
    };
  }

  /** Offsets of partitions: the oldest, the high watermark, the end of the log, or by time. */
  async listOffsets(lookups: readonly OffsetLookup[], options: CallOptions = {}): Promise<OffsetDescription[]> {
    checkCount("listOffsets", arguments.length, 2);
    checkLookups(lookups);
    const limits = this.#limits("listOffsets", options);
    const topics = await this.#topicsOf(lookups, limits);
    const answers = await this.#lookUp(topics, lookups, limits);
    return answers.map((answer, index) => {
      if (answer instanceof ClientError) throw answer;
      const { topic, partition } = lookups[index] as OffsetLookup;
      return { topic, partition, offset: answer.offset, timestamp: answer.timestamp };
    });
  }

  /** Throws InvalidArgumentError. `name` is the method's; `own` are its options besides those of every call. */
  #limits(name: string, options: CallOptions, ...own: string[]): Limits {
    checkOptions(name, options, ["deadlineMs", "signal", ...own]);
    const { deadlineMs, signal } = options;
    checkSignal(signal);
    const { caller, deadlineMs: defaultValue } = this.#context;
    return { deadline: caller.deadline(numberOption("deadlineMs", deadlineMs, { min: 1, defaultValue })), signal };
  }

  #callController<Kind extends ControllerKind>(
    call: Omit<Call<Kind>, "target" | "targetName">,
  ): Promise<CallResult<Kind>> {
    const { caller } = this.#context;
    return caller.call({ ...call, target: caller.controller, targetName: "the controller" });
  }

  async #lookUp(
    topics: readonly TopicMetadata[],
    lookups: readonly OffsetLookup[],
    { deadline, signal }: Limits,
  ): Promise<(ListedOffset | ClientError)[]> {
    if (lookups.length === 0) return [];
    const giveBack = this.#context.metadata.borrow(topics);
    try {
      return await lookUpOffsets(this.#context.caller, lookups, deadline, signal);
    } finally {
      giveBack();
    }
  }

  /** The topics of these partitions. Rejects when one of the partitions does not exist. */
  async #topicsOf(partitions: readonly TopicPartition[], limits: Limits): Promise<readonly TopicMetadata[]> {
    return this.#describe([...new Set(partitions.map(({ topic }) => topic))], limits, partitions);
  }

  /**
   * Topics by name; undefined: all. A topic or partition that is said not to exist is asked for again for a while, as brokers
   * learn of new ones at different times.
   */
  async #describe(
    names: readonly string[] | undefined,
    limits: Limits,
    partitions: readonly TopicPartition[] = [],
  ): Promise<readonly TopicMetadata[]> {
    // The cluster would take it for all of them.
    if (names?.length === 0) return [];
    const { caller, metadata, unknownTopicTimeoutMs } = this.#context;
    const patience = caller.deadline(Math.min(unknownTopicTimeoutMs, limits.deadline.leftMs));
    for (;;) {
      const topics = await this.#query(names === undefined ? {} : { topics: names }, limits);
      const refusal = refusalIn(topics, partitions);
      if (refusal === undefined) return topics;
      if (patience.isOver || refusal.code !== "UNKNOWN_TOPIC_OR_PARTITION") throw refusal;
      await metadata.nextAnswer(Math.min(AGAIN_MS, patience.leftMs));
    }
  }

  /**
   * What a change of the topic is repeated for. The controller knows all topics: it is asked about one of which a broker has
   * not heard, so that a name that is spelt wrongly is refused at once, and in its words.
   */
  async #topicIdOf(name: string, limits: Limits): Promise<string> {
    const [known] = await this.#query({ topics: [name] }, limits);
    if (known !== undefined && known.error === null) return known.topicId;
    await this.#callController({
      kind: "alterConfigs",
      body: () => ({ ...resourceOf({ topic: name }), config: [], validateOnly: true }),
      ...limits,
      isQuestion: true,
    });
    const [topic] = await this.#describe([name], limits);
    return (topic as TopicMetadata).topicId;
  }

  async #query(
    request: { topics?: readonly string[]; noTopics?: boolean },
    limits: Limits,
  ): Promise<readonly TopicMetadata[]> {
    const { caller, metadata } = this.#context;
    const askedMs = caller.nowMs;
    const { body } = await caller.call({
      kind: "metadata",
      body: () => request,
      target: caller.anyBroker,
      targetName: "any broker",
      check: ({ clusterId }, address) => checkCluster(clusterId, metadata.clusterId, address),
      ...limits,
    });
    metadata.apply(body, askedMs);
    return body.topics;
  }
}

/** What is left of the time, as brokers are told: in 32 bits. */
const toldMs = (deadline: Deadline): number => Math.min(INT32_MAX, Math.ceil(deadline.leftMs));

/** Why not all of the topics and partitions are known. */
function refusalIn(topics: readonly TopicMetadata[], partitions: readonly TopicPartition[]): ProtocolError | undefined {
  const refused = topics.find(({ error }) => error !== null);
  if (refused !== undefined) return errorOf(refused.error, { topic: refused.name });
  const known = new Set(topics.flatMap(({ name, partitions: all }) => all.map((one) => `${name}:${one.partition}`)));
  const missing = partitions.find(({ topic, partition }) => !known.has(`${topic}:${partition}`));
  if (missing === undefined) return undefined;
  const { topic, partition } = missing;
  return new ProtocolError("UNKNOWN_TOPIC_OR_PARTITION", "the topic has no such partition", { topic, partition });
}

const lookupKey = ({ topic, partition, query }: OffsetLookup): string => `${topic}:${partition}:${String(query)}`;

const configEntries = (
  config: Readonly<Record<string, string | number | boolean | null>>,
): { name: string; value: string | null }[] =>
  Object.entries(config).map(([name, value]) => ({ name, value: value === null ? null : String(value) }));

/** The partitions to elect leaders of; undefined: every one. */
function electionOf(partitions: readonly TopicPartition[] | "all" | undefined): readonly TopicPartition[] | undefined {
  if (partitions === undefined || partitions === "all") return undefined;
  checkPartitions(partitions, '{ topic, partition }, or "all"');
  return partitions;
}

function resourceOf(target: ConfigTarget): { resource: ConfigResource; name: string } {
  if ("topic" in target) return { resource: ConfigResource.TOPIC, name: target.topic };
  if ("broker" in target) return { resource: ConfigResource.BROKER, name: String(target.broker) };
  return { resource: ConfigResource.CLIENT, name: target.client };
}

const toCreated = ({ name, topicId, partitions, replicationFactor, warning }: TopicResult): CreatedTopic => ({
  name,
  topicId,
  partitions,
  replicationFactor,
  ...(warning === "" ? {} : { warning }),
});

const toConfigDescription = (config: DescribedConfig): ConfigDescription => ({
  name: config.name,
  value: config.value,
  source: config.source,
  type: config.type,
  unit: config.unit,
  documentation: config.documentation,
  readOnly: config.readOnly,
});

const nameOf = (error: ErrorDetail | null): string | undefined =>
  error === null ? undefined : errorNameOf(error.code);

const errorOf = (
  error: ErrorDetail | null,
  place: { readonly topic?: string; readonly partition?: number },
): ProtocolError | undefined =>
  error === null ? undefined : new ProtocolError(errorNameOf(error.code), error.message, place);

function throwOn(error: ErrorDetail | null, place: { readonly topic?: string; readonly partition?: number }): void {
  const made = errorOf(error, place);
  if (made !== undefined) throw made;
}

/** The first error for whose sake a request is sent again. */
function retryName(errors: readonly (ErrorDetail | null)[], except?: ErrorName): ErrorName | undefined {
  for (const error of errors) {
    const name = error === null ? undefined : errorNameOf(error.code);
    if (name !== undefined && name !== except && errorCodes[name].retriable) return name;
  }
  return undefined;
}
