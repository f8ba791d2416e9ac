import type { ProducerOptions } from "../../../client/index.js";
import type { BrokerId } from "../../../protocol/types.js";
import { SimRandom } from "../sim-random.js";
import type { Draft, ThemeName } from "./themes.js";
import { applyTheme, extraThemeNames, themeNames } from "./themes.js";

/** What may go wrong. Each is counted by the role of whom it hit. */
export const faultKinds = [
  // Processes.
  "crash",
  "restart",
  "totalCrash",
  "turnByTurn",
  "stop",
  "stoppedAhead",
  "stopThenPowerCut",
  "shortPause",
  "longPause",
  "stall",
  // Machines.
  "suspend",
  "powerCut",
  "pairPowerCut",
  "rackPowerCut",
  "totalPowerCut",
  "powerCutThenDeath",
  "clockJump",
  // Links.
  "partition",
  "oneWayPartition",
  "isolation",
  "reset",
  "slowLink",
  "controllerLink",
  "lateMessages",
  "deafFollower",
  // ZooKeeper.
  "zookeeperPartition",
  "zookeeperOneWay",
  "expiry",
  "lostReply",
  "zookeeperServer",
  "quorumLoss",
  // The controller, at a step of what it does.
  "controllerStep",
  "lateWrite",
  "lateProposal",
  "bounceInReload",
  // Disks.
  "diskFull",
  "diskSlow",
  "diskError",
  "rot",
  "diskLost",
  // Clients.
  "clientCrash",
  "clientPause",
  "clientIdle",
  // These came later, and are no part of general worlds.
  "heirPowerCut",
  "copiesPowerCut",
  "lonePowerCut",
  "snapshotRot",
  "rotBeforeCut",
] as const;
export type FaultKind = (typeof faultKinds)[number];

/** What an administrator does, by its weight where a world says nothing else. */
export const usualActs = {
  create: 2,
  delete: 1,
  recreate: 1,
  "more partitions": 1,
  durability: 2,
  "min.insync.replicas": 2,
  segments: 1,
  "elect leaders": 2,
  "delete records": 3,
} as const;
export type Act = keyof typeof usualActs;

/** A topic as it is created; an administrator may change all of it later. */
export interface TopicPlan {
  readonly name: string;
  readonly partitions: number;
  readonly replicationFactor: number;
  readonly config: Readonly<Record<string, string>>;
}

export interface MachinePlan {
  readonly rack: string;
  /** What its wall clock is ahead of the others', in milliseconds. */
  readonly clockAheadMs: number;
  readonly diskDelayMs: number;
  readonly readDelayMs: number;
  readonly syncDelayMs: number;
  /** A synchronous write blocks the process for so long. */
  readonly writeStallMs: number;
}

/** Everything that a seed decides before a run begins. What happens in it is drawn from the same seed. */
export interface World {
  readonly seed: number;
  readonly machines: ReadonlyMap<BrokerId, MachinePlan>;
  readonly zookeeperServers: 1 | 3;
  /** Settings of every broker. */
  readonly settings: Readonly<Record<string, string>>;
  readonly topics: readonly TopicPlan[];
  /** Ways between machines that are slower than others. */
  readonly slowLinks: readonly { readonly from: string; readonly to: string; readonly delayMs: number }[];
  /** Faults for so long, then calm, and again. */
  readonly rounds: number;
  readonly roundMs: number;
  /** From one fault to the next, on the average. */
  readonly faultIntervalMs: number;
  /** The weight of each kind of fault in this world; many are 0, so that others come together often. */
  readonly weights: Readonly<Record<FaultKind, number>>;
  /** From one act of administration to the next, on the average. */
  readonly administrationIntervalMs: number;
  /** From one burst of writes to the next, over all writers, on the average. */
  readonly writeIntervalMs: number;
  /** What it is all about, if it is about something. */
  readonly theme: ThemeName | undefined;
  /** The weight of each act of administration. */
  readonly acts: Readonly<Partial<Record<Act, number>>>;
  /** Which share of a partition's records is deleted on demand. */
  readonly deletedShares: readonly number[];
  /** How many batches are handed over at once. */
  readonly bursts: readonly number[];
  /** By how many bytes values are longer than need be. */
  readonly paddings: readonly number[];
  /** How long a machine or a process is away that was killed: from, to. */
  readonly downMs: readonly [number, number];
  /** How long a broker holds a question of a consumer back. Long: news must reach readers by itself, and idle questions cost time. */
  readonly fetchWaitMs: number;
  /** The share of topics, for each process of clients, that are read as followers read. */
  readonly sessionReaders: number;
  /** How long reads from a disk take that is slow for a while. */
  readonly slowReadsMs: readonly number[];
  /** The share of rot that is found by looking at once. */
  readonly findsRot: number;
  /** Of the client library's producers. */
  readonly producers: Pick<ProducerOptions, "batchBytes" | "bufferBytes"> & { readonly deliveryTimeoutMs: number };
}

/** What a world has that says nothing else. */
const usual = {
  theme: undefined,
  acts: usualActs,
  deletedShares: [0.3, 0.7, 1],
  bursts: [1, 1, 1, 2, 5],
  paddings: [0, 0, 20, 150],
  downMs: [200, 2700],
  fetchWaitMs: 3000,
  sessionReaders: 0.15,
  slowReadsMs: [20, 100, 400],
  findsRot: 0.5,
  producers: { deliveryTimeoutMs: 8000 },
} as const;

/** The share of worlds that are about something. */
const THEMED = 0.75;
/** Of the others, the share that is about something that came later: the worlds of all other seeds are what they were. */
const THEMED_OF_REST = 0.6;
/** Names a draw by which no seed of `regressions.ts` has another world. */
const EXTRA = "extra themes";

/** Brokers forget producers so soon that one may be forgotten between two attempts: what is sent again may stand twice. */
export function forgetsProducers({ settings }: World): boolean {
  return settings["producer.id.expiration.ms"] !== undefined || settings["producers.per.partition.max"] !== undefined;
}

const READ_DELAY_MAX_MS = 50;

/** ZooKeeper's session timeout in every world. */
export const SESSION_MS = 2000;

const baseWeights: Readonly<Record<FaultKind, number>> = {
  crash: 3,
  restart: 3,
  totalCrash: 1,
  turnByTurn: 0.5,
  stop: 2,
  stoppedAhead: 0.5,
  stopThenPowerCut: 0.5,
  shortPause: 1,
  longPause: 2,
  stall: 1,
  suspend: 1,
  powerCut: 2,
  pairPowerCut: 1,
  rackPowerCut: 1,
  totalPowerCut: 2,
  powerCutThenDeath: 2,
  clockJump: 1,
  partition: 2,
  oneWayPartition: 2,
  isolation: 2,
  reset: 2,
  slowLink: 1,
  controllerLink: 1,
  lateMessages: 1,
  deafFollower: 0.5,
  zookeeperPartition: 2,
  zookeeperOneWay: 1,
  expiry: 2,
  lostReply: 3,
  zookeeperServer: 1,
  quorumLoss: 1,
  controllerStep: 4,
  lateWrite: 1,
  lateProposal: 1,
  bounceInReload: 1,
  diskFull: 1,
  diskSlow: 2,
  diskError: 1,
  rot: 1,
  diskLost: 0.5,
  clientCrash: 1,
  clientPause: 1,
  clientIdle: 2,
  heirPowerCut: 0,
  copiesPowerCut: 0,
  lonePowerCut: 0,
  snapshotRot: 0,
  rotBeforeCut: 0,
};

/** The world of a seed. */
export function worldOf(seed: number): World {
  const random = new SimRandom(seed, "world");
  const brokers = random.pick([3, 3, 3, 4, 5]);
  const ids = Array.from({ length: brokers }, (_, index) => index + 1);
  const hasRacks = random.chance(0.4);
  // A machine of its own kind in every third world; the others are alike.
  const slowOnes = random.chance(0.35) ? random.pick(ids) : 0;
  const readDelayMs = random.pick([0.1, 0.1, 1, 5, 20]);
  const writeStallMs = random.pick([0, 0, 0, 1.5]);
  const machines = new Map(
    ids.map((id) => {
      const slowness = id === slowOnes ? 10 : 1;
      return [
        id,
        {
          rack: hasRacks ? `rack-${id % 2}` : "",
          clockAheadMs: random.chance(0.3) ? Math.round((random.float() - 0.5) * 240_000) : 0,
          diskDelayMs: 0.1 * slowness,
          // A start reads each small segment of many: with more it would take minutes.
          readDelayMs: Math.min(READ_DELAY_MAX_MS, readDelayMs * slowness),
          syncDelayMs: random.pick([0.5, 1, 4]) * slowness,
          writeStallMs,
        },
      ] as const;
    }),
  );
  const weights = Object.fromEntries(
    faultKinds.map((kind) => [kind, baseWeights[kind] > 0 && random.chance(0.55) ? baseWeights[kind] : 0]),
  ) as Record<FaultKind, number>;
  if (Object.values(weights).every((weight) => weight === 0)) weights.crash = 1;
  const hosts = ids.map((id) => `broker-${id}`);
  const draft: Draft = {
    ...usual,
    seed,
    machines,
    zookeeperServers: random.pick([1, 3] as const),
    settings: brokerSettings(random),
    topics: Array.from({ length: 1 + random.below(5) }, (_, index) => topicPlan(random, `topic-${index + 1}`, brokers)),
    slowLinks: random.chance(0.3)
      ? [{ from: random.pick(hosts), to: random.pick(hosts), delayMs: random.pick([2, 10, 40]) }]
      : [],
    rounds: 6,
    roundMs: random.pick([4000, 6000, 8000]),
    faultIntervalMs: random.pick([300, 500, 800, 1300]),
    weights,
    administrationIntervalMs: random.pick([600, 1500, 4000]),
    writeIntervalMs: random.pick([75, 120, 200]),
  };
  if (random.chance(THEMED)) applyTheme(draft, random.pick(themeNames), random);
  else {
    const extra = new SimRandom(seed, EXTRA);
    if (extra.chance(THEMED_OF_REST)) applyTheme(draft, extra.pick(extraThemeNames), extra);
  }
  return draft;
}

/**
 * What the simulator's speed is measured in: three brokers, one server of ZooKeeper, faults of every kind and
 * administration as often as in any world, and about 50 operations a second. Only what happens depends on the seed.
 */
export function measuredWorld(seed: number): World {
  const machine = { rack: "", clockAheadMs: 0, diskDelayMs: 0.1, readDelayMs: 0.1, syncDelayMs: 1, writeStallMs: 0 };
  const config = { "segment.bytes": "4096", "index.interval.bytes": "256", "min.insync.replicas": "2" };
  const topic = { partitions: 2, replicationFactor: 3, config };
  return {
    ...usual,
    seed,
    machines: new Map([1, 2, 3].map((id) => [id, machine])),
    zookeeperServers: 1,
    settings: {
      "zookeeper.session.timeout.ms": String(SESSION_MS),
      "replica.lag.time.max.ms": "1500",
      "replica.fetch.wait.max.ms": "500",
      "controlled.shutdown.max.ms": "3000",
      "unclean.recovery.wait.ms": "6000",
      "log.retention.check.interval.ms": "1000",
      "leader.imbalance.check.interval.ms": "5000",
    },
    topics: [
      { name: "topic-1", ...topic },
      { name: "topic-2", ...topic, config: { ...config, durability: "fsync" } },
    ],
    slowLinks: [],
    rounds: 6,
    roundMs: 6000,
    faultIntervalMs: 800,
    weights: baseWeights,
    administrationIntervalMs: 1500,
    writeIntervalMs: 180,
  };
}

function brokerSettings(random: SimRandom): Record<string, string> {
  const settings: Record<string, string> = {
    "zookeeper.session.timeout.ms": String(SESSION_MS),
    "replica.lag.time.max.ms": random.pick(["1000", "1500", "3000"]),
    "replica.fetch.wait.max.ms": random.pick(["100", "200", "500"]),
    "replica.fetch.max.bytes": random.pick(["1024", "4096", "1048576"]),
    "controlled.shutdown.max.ms": "3000",
    // Longer than a round of faults: who may hold most is back by then, also from a start on a slow disk.
    "unclean.recovery.wait.ms": "20000",
    "log.tail.bytes": random.pick(["0", "0", "2048", "16384", "67108864"]),
    "log.retention.check.interval.ms": random.pick(["300", "1000"]),
    "replica.high.watermark.checkpoint.interval.ms": random.pick(["200", "1000", "5000"]),
    "leader.imbalance.check.interval.ms": random.pick(["1000", "5000", "300000"]),
    "auto.leader.rebalance.enable": "true",
    "log.open.files.max": random.pick(["100", "4000"]),
  };
  if (random.chance(0.4)) settings["producer.id.expiration.ms"] = random.pick(["700", "1500", "3000"]);
  if (random.chance(0.25)) settings["producers.per.partition.max"] = random.pick(["1", "2", "4"]);
  return settings;
}

export function topicPlan(random: SimRandom, name: string, brokers: number): TopicPlan {
  const replicationFactor = Math.min(brokers, random.pick([1, 2, 3, 3, 3, 3]));
  const config: Record<string, string> = {
    durability: random.pick(["page-cache", "fsync"]),
    "segment.bytes": random.pick(["1024", "2048", "4096", "65536"]),
    "index.interval.bytes": random.pick(["64", "256", "4096"]),
    "flush.ms": random.pick(["20", "200", "1000", "60000"]),
    "file.delete.delay.ms": random.pick(["0", "300", "2000"]),
    "min.insync.replicas": String(random.pick(minimums(replicationFactor))),
  };
  if (random.chance(0.2)) config["segment.ms"] = random.pick(["500", "2000"]);
  const retention = random.float();
  if (retention < 0.12) config["retention.ms"] = random.pick(["2000", "5000"]);
  else if (retention < 0.24) config["retention.bytes"] = random.pick(["2048", "8192"]);
  return { name, partitions: random.pick([1, 1, 2, 3]), replicationFactor, config };
}

/** Values of min.insync.replicas worth trying, the usual one more often. */
export function minimums(replicationFactor: number): number[] {
  if (replicationFactor === 1) return [1];
  return replicationFactor === 2 ? [1, 2] : [1, 2, 2, 2, 3];
}
