import type { SimRandom } from "../sim-random.js";
import type { Act, FaultKind, TopicPlan, World } from "./world.js";

/** A world while it is drawn. */
export type Draft = { -readonly [Key in keyof World]: World[Key] };

/**
 * What some worlds are all about. A theme makes the situations of one mechanism frequent, those in which a mistake in it
 * would show, and leaves most other faults out; a general world meets them too, and seldom.
 */
export type ThemeName = keyof typeof themes | keyof typeof extraThemes;

const themes = {
  /** Many producers, several batches of each on their way, answers that are lost, leaders that move. */
  producers(draft: Draft, random: SimRandom): void {
    const forgets = random.chance(0.5);
    set(draft, {
      "producers.per.partition.max": forgets ? random.pick(["1", "1", "2", "3"]) : undefined,
      "producer.id.expiration.ms": forgets && random.chance(0.3) ? random.pick(["200", "700"]) : undefined,
      "replica.lag.time.max.ms": "1000",
    });
    keepAll(draft);
    few(draft, random, { most: 2, partitions: [1, 2] });
    configure(draft, { "segment.bytes": random.pick(["1024", "4096"]) });
    slowReplication(draft, random, [2, 8, 20]);
    only(draft, { reset: 4, crash: 2, restart: 3, partition: 1, isolation: 1, zookeeperPartition: 1, longPause: 1 });
    if (random.chance(0.5)) also(draft, { totalPowerCut: 2, rot: 2, clientIdle: 3 });
    act(draft, random.pick([250, 500]), { "elect leaders": 3, "min.insync.replicas": 1, segments: 1 });
    draft.writeIntervalMs = random.pick([40, 80]);
    draft.bursts = [1, 2, 5, 5];
    draft.faultIntervalMs = random.pick([200, 400]);
  },

  /** Little is in memory, disks are slow, and leaders move while they read. */
  coldReads(draft: Draft, random: SimRandom): void {
    set(draft, {
      "log.tail.bytes": random.pick(["0", "0", "2048"]),
      "replica.lag.time.max.ms": "3000",
      "replica.fetch.wait.max.ms": random.pick(["500", "2500"]),
      "replica.fetch.max.bytes": random.pick(["1024", "1048576"]),
    });
    keepAll(draft);
    few(draft, random, { most: 2, partitions: [2, 3], replicas: 3 });
    configure(draft, { durability: random.pick(["page-cache", "fsync"]) });
    machines(draft, { readDelayMs: random.pick([2, 10, 30]) });
    only(draft, { diskSlow: 3, deafFollower: 5, controllerLink: 1, restart: 1, rot: 3 });
    act(draft, random.pick([500, 1000]), { "elect leaders": 4, "delete records": 1, segments: 1 });
    draft.writeIntervalMs = random.pick([40, 80]);
    draft.fetchWaitMs = 12_000;
    draft.sessionReaders = 0.6;
    draft.findsRot = 1;
    draft.slowReadsMs = [100, 400, 1500];
    draft.faultIntervalMs = random.pick([300, 600]);
  },

  /** Bits rot where everything is in sync, and somebody reads it: a new consumer, a follower that lost its disk. */
  rot(draft: Draft, random: SimRandom): void {
    few(draft, random, { most: 2, partitions: [1, 2], replicas: 3 });
    keepAll(draft);
    configure(draft, { "segment.bytes": random.pick(["1024", "4096", "65536"]) });
    only(draft, { rot: 4, diskLost: 3, clientCrash: 4 });
    if (random.chance(0.4)) also(draft, { restart: 1 });
    act(draft, 3000, { "elect leaders": 1 });
    draft.faultIntervalMs = random.pick([700, 1200]);
    draft.downMs = [50, 400];
    draft.findsRot = 0.15;
  },

  /** Machines lose their power together, with much that is not synced, and are back at once. */
  power(draft: Draft, random: SimRandom): void {
    few(draft, random, { most: 3, partitions: [1, 2] });
    configure(draft, { "flush.ms": "60000", "segment.bytes": random.pick(["4096", "65536"]) });
    if (random.chance(0.7)) configure(draft, { durability: "page-cache" });
    if (random.chance(0.4)) set(draft, { "replica.lag.time.max.ms": "1000" });
    only(draft, { totalPowerCut: 3, pairPowerCut: 3, powerCut: 2, rackPowerCut: 1, powerCutThenDeath: 3 });
    if (random.chance(0.6)) also(draft, { expiry: 1, isolation: 3 });
    draft.downMs = random.pick([
      [30, 400],
      [100, 1500],
      [100, 2600],
    ]);
    draft.paddings = [0, 150, 700];
    draft.writeIntervalMs = random.pick([20, 50]);
    draft.faultIntervalMs = random.pick([700, 1500]);
    act(draft, 3000, { "elect leaders": 1, "min.insync.replicas": 1 });
  },

  /** The durability of topics changes, syncs are slow, and the power fails meanwhile. */
  durability(draft: Draft, random: SimRandom): void {
    few(draft, random, { most: 2, partitions: [1, 2] });
    configure(draft, { "flush.ms": "60000", "segment.bytes": "65536", durability: "page-cache" });
    machines(draft, { syncDelayMs: random.pick([10, 60, 200]) });
    only(draft, { powerCut: 4, pairPowerCut: 1, totalPowerCut: 1, isolation: 1 });
    if (random.chance(0.4)) also(draft, { longPause: 1 });
    act(draft, random.pick([300, 600]), { durability: 4 });
    draft.downMs = [30, 300];
    draft.writeIntervalMs = random.pick([30, 80]);
    draft.faultIntervalMs = random.pick([400, 800]);
  },

  /** Leaders come and go with hardly a record of their own, and processes are killed. */
  idleEpochs(draft: Draft, random: SimRandom): void {
    const replicas = random.pick([2, 2, 2, 3]);
    few(draft, random, { most: 2, partitions: [1, 2], replicas });
    configure(draft, {
      // Who leads alone is given no record, and the leader that was killed may lead again.
      "min.insync.replicas": random.chance(0.8) ? String(replicas) : "2",
      "flush.ms": random.pick(["100", "300", "600", "1000"]),
      durability: random.pick(["page-cache", "page-cache", "page-cache", "fsync"]),
    });
    only(draft, { turnByTurn: 6, expiry: 0.5 });
    act(draft, 4000, { "elect leaders": 1 });
    draft.writeIntervalMs = random.pick([15, 30, 60]);
    draft.faultIntervalMs = 300;
    draft.roundMs = 10_000;
  },

  /** Leaders stop with records of their own, which they cut off when they are back; snapshots of producers are all there is. */
  stops(draft: Draft, random: SimRandom): void {
    few(draft, random, { most: 2, partitions: [1, 2] });
    keepAll(draft);
    configure(draft, {
      "segment.bytes": random.pick(["16384", "65536"]),
      "flush.ms": random.pick(["20", "200"]),
      durability: random.pick(["page-cache", "fsync"]),
    });
    only(draft, { stoppedAhead: 6, stopThenPowerCut: 3, crash: 0.5, stop: 1 });
    act(draft, 4000, { "elect leaders": 1 });
    draft.downMs = [50, 400];
    draft.paddings = [0, 20];
    draft.bursts = [1, 2, 5];
    draft.writeIntervalMs = random.pick([20, 40, 80]);
    draft.faultIntervalMs = random.pick([800, 1500]);
  },

  /** Everything is deleted, again and again, while replicas are away. */
  deletions(draft: Draft, random: SimRandom): void {
    few(draft, random, { most: 2, partitions: [1, 2] });
    configure(draft, { "file.delete.delay.ms": random.pick(["0", "300"]), "segment.bytes": "1024" });
    only(draft, { crash: 3, restart: 4, totalCrash: 1, totalPowerCut: 1, expiry: 1, diskLost: 3 });
    act(draft, random.pick([150, 300]), { "delete records": 5, "elect leaders": 1 });
    draft.deletedShares = [0.5, 1, 1];
    draft.downMs = random.pick([
      [50, 400],
      [50, 2000],
    ]);
    draft.writeIntervalMs = random.pick([100, 300, 1000]);
    draft.faultIntervalMs = random.pick([300, 600]);
  },

  /** What was sent arrives when its sender is another process, or when somebody else is in office. */
  lateMessages(draft: Draft, random: SimRandom): void {
    set(draft, { "replica.lag.time.max.ms": "1000" });
    few(draft, random, { most: 2, partitions: [1, 2], replicas: 3 });
    only(draft, { lateMessages: 6, lateProposal: 5, lateWrite: 3, controllerLink: 1 });
    act(draft, random.pick([150, 400]), { "elect leaders": 3, "min.insync.replicas": 2, segments: 1 });
    draft.downMs = [10, 200];
    draft.writeIntervalMs = random.pick([40, 80]);
    draft.faultIntervalMs = random.pick([400, 800]);
  },

  /** The controller loses answers and reads everything again while machines lose their power and are back in no time. */
  reloads(draft: Draft, random: SimRandom): void {
    set(draft, { "replica.lag.time.max.ms": "1000" });
    few(draft, random, { most: 2, partitions: [1, 2], replicas: 3 });
    configure(draft, {
      durability: "page-cache",
      "flush.ms": "60000",
      "segment.bytes": "65536",
      "min.insync.replicas": random.pick(["2", "3"]),
    });
    only(draft, { bounceInReload: 6, lostReply: 1 });
    act(draft, 1000, { "elect leaders": 3, "min.insync.replicas": 1 });
    draft.downMs = [10, 150];
    draft.writeIntervalMs = random.pick([30, 60]);
    draft.faultIntervalMs = random.pick([700, 1200]);
  },

  /** Some replicas are far behind and catch up in small steps while the others fail. */
  stragglers(draft: Draft, random: SimRandom): void {
    set(draft, {
      "replica.fetch.max.bytes": "1024",
      "replica.lag.time.max.ms": "1000",
      "replica.high.watermark.checkpoint.interval.ms": random.pick(["1000", "5000"]),
    });
    few(draft, random, { most: 2, partitions: [1, 2], replicas: 3 });
    slowReplication(draft, random, [2, 5, 15]);
    only(draft, { crash: 4, totalCrash: 2, longPause: 1, isolation: 2, partition: 2, restart: 1 });
    act(draft, 1500, { "elect leaders": 2, "min.insync.replicas": 1 });
    draft.downMs = [50, 2500];
    draft.paddings = [0, 20];
    draft.writeIntervalMs = random.pick([40, 60]);
    draft.faultIntervalMs = random.pick([300, 600]);
  },
} as const satisfies Record<string, (draft: Draft, random: SimRandom) => void>;

/** What clocks differ by where records are deleted by age. */
const AHEAD_MS = 7000;

/** Those that take the place of some of the worlds that are about nothing else. */
const extraThemes = {
  /** Machines lose their power unnoticed when somebody is to be elected, of few who have a copy. */
  unnoticed(draft: Draft, random: SimRandom): void {
    set(draft, { "replica.lag.time.max.ms": random.pick(["1500", "3000"]) });
    few(draft, random, { most: 3, partitions: [1, 2], replicas: random.pick([2, 2, 2, 3]) });
    keepAll(draft);
    configure(draft, {
      durability: "page-cache",
      "flush.ms": "60000",
      "segment.bytes": "65536",
      "min.insync.replicas": random.pick(["1", "1", "1", "2"]),
    });
    only(draft, { heirPowerCut: 5, copiesPowerCut: 4 });
    act(draft, 3000, { "elect leaders": 1 });
    draft.downMs = random.pick([
      [600, 2500],
      [1500, 3500],
    ]);
    draft.writeIntervalMs = random.pick([20, 40]);
    draft.faultIntervalMs = random.pick([1200, 2000]);
  },

  /** Producers have little memory, records are larger than a usual batch, and for long there is nobody to send them to. */
  fullBuffers(draft: Draft, random: SimRandom): void {
    const replicas = random.pick([2, 3]);
    few(draft, random, { most: 2, partitions: [1, 2], replicas });
    keepAll(draft);
    // Whoever is away stops all who write to what it has a copy of.
    configure(draft, { "min.insync.replicas": String(replicas), "segment.bytes": "65536" });
    only(draft, { crash: 3, stop: 1, totalCrash: 1, quorumLoss: 0.5, longPause: 1, clientPause: 1 });
    act(draft, 3000, { "elect leaders": 1, "min.insync.replicas": 1 });
    draft.producers = {
      batchBytes: 1024,
      bufferBytes: random.pick([2048, 4096, 8192]),
      deliveryTimeoutMs: random.pick([2500, 4000]),
    };
    draft.paddings = [20, 700, 1500, 3000];
    draft.bursts = [1, 2, 5];
    draft.downMs = [2000, 6000];
    draft.writeIntervalMs = random.pick([20, 40, 80]);
    draft.faultIntervalMs = random.pick([2000, 4000]);
    draft.roundMs = 9000;
    draft.rounds = 3;
  },

  /** Snapshots of producers cannot be read any more, and the batches behind the ones before were deleted. */
  rottenSnapshots(draft: Draft, random: SimRandom): void {
    few(draft, random, { most: 2, partitions: [1, 2], replicas: random.pick([2, 3]) });
    keepAll(draft);
    configure(draft, {
      "segment.bytes": random.pick(["1024", "2048"]),
      "flush.ms": random.pick(["20", "200"]),
      "file.delete.delay.ms": random.pick(["0", "300"]),
      "min.insync.replicas": random.pick(["1", "2"]),
    });
    // Who stops writes a snapshot where its log ends, in the middle of a segment, and that one stays.
    only(draft, { snapshotRot: 4, stop: 4, clientCrash: 2, clientIdle: 1 });
    act(draft, random.pick([150, 300]), { "delete records": 5, "elect leaders": 1 });
    draft.deletedShares = [0.7, 1, 1];
    draft.downMs = [50, 400];
    draft.writeIntervalMs = random.pick([40, 80, 150]);
    draft.faultIntervalMs = random.pick([300, 600]);
  },

  /** Bits rot right in front of where a replica cuts its log a moment later. */
  rottenEnds(draft: Draft, random: SimRandom): void {
    set(draft, { "replica.lag.time.max.ms": "3000" });
    few(draft, random, { most: 2, partitions: [1, 2], replicas: 3 });
    keepAll(draft);
    configure(draft, {
      "segment.bytes": random.pick(["4096", "65536"]),
      "min.insync.replicas": random.pick(["1", "2"]),
    });
    only(draft, { rotBeforeCut: 6, restart: 0.5 });
    act(draft, 3000, { "elect leaders": 1 });
    draft.downMs = [50, 600];
    draft.paddings = [0, 20];
    draft.writeIntervalMs = random.pick([15, 30]);
    draft.faultIntervalMs = random.pick([400, 800]);
  },

  /** Of two replicas one deletes earlier, by its clock, and is away when the other one loses what was not synced. */
  foreignStarts(draft: Draft, random: SimRandom): void {
    few(draft, random, { most: 3, partitions: [2, 3], replicas: 2 });
    keepAll(draft);
    configure(draft, {
      durability: "page-cache",
      "flush.ms": "60000",
      "segment.bytes": "65536",
      "min.insync.replicas": "1",
      "retention.ms": String(AHEAD_MS + 2000),
    });
    draft.machines = new Map(
      [...draft.machines].map(([id, machine]) => [id, { ...machine, clockAheadMs: random.pick([0, AHEAD_MS]) }]),
    );
    only(draft, { lonePowerCut: 1 });
    act(draft, 3000, { "elect leaders": 1 });
    draft.writeIntervalMs = random.pick([150, 300, 600]);
    draft.faultIntervalMs = random.pick([200, 400]);
    draft.roundMs = 9000;
  },
} as const satisfies Record<string, (draft: Draft, random: SimRandom) => void>;

export const themeNames = Object.keys(themes) as ThemeName[];
export const extraThemeNames = Object.keys(extraThemes) as ThemeName[];

/** The same world, about this. */
export function applyTheme(draft: Draft, name: ThemeName, random: SimRandom): void {
  draft.theme = name;
  draft.rounds = 4;
  draft.roundMs = random.pick([3000, 5000]);
  ({ ...themes, ...extraThemes })[name](draft, random);
}

// ---------------------------------------------------------------------------------------------------------------------

function set(draft: Draft, settings: Readonly<Record<string, string | undefined>>): void {
  const all = { ...draft.settings, ...settings };
  draft.settings = Object.fromEntries(
    Object.entries(all).filter(([, value]) => value !== undefined),
  ) as World["settings"];
}

/** Fewer topics and partitions, so that more happens to each. */
function few(
  draft: Draft,
  random: SimRandom,
  {
    most,
    partitions,
    replicas,
  }: { readonly most: number; readonly partitions: readonly number[]; readonly replicas?: number },
): void {
  draft.topics = draft.topics.slice(0, most).map((topic) => ({
    ...topic,
    partitions: random.pick(partitions),
    replicationFactor: replicas ?? Math.max(2, topic.replicationFactor),
  }));
}

function configure(draft: Draft, config: Readonly<Record<string, string>>): void {
  draft.topics = draft.topics.map((topic): TopicPlan => ({ ...topic, config: { ...topic.config, ...config } }));
}

/** Nothing is deleted by itself. */
function keepAll(draft: Draft): void {
  draft.topics = draft.topics.map((topic) => {
    const config = { ...topic.config };
    delete config["retention.ms"];
    delete config["retention.bytes"];
    return { ...topic, config };
  });
}

function machines(draft: Draft, plan: Partial<{ readDelayMs: number; syncDelayMs: number }>): void {
  draft.machines = new Map([...draft.machines].map(([id, machine]) => [id, { ...machine, ...plan }]));
}

/** Records and acknowledgements take their time between brokers, on each way its own. */
function slowReplication(draft: Draft, random: SimRandom, delays: readonly number[]): void {
  const hosts = [...draft.machines.keys()].map((id) => `broker-${id}`);
  draft.slowLinks = hosts.flatMap((from) =>
    hosts.flatMap((to) => (from === to || random.chance(0.3) ? [] : [{ from, to, delayMs: random.pick(delays) }])),
  );
}

function only(draft: Draft, weights: Partial<Record<FaultKind, number>>): void {
  const none = Object.fromEntries(Object.keys(draft.weights).map((kind) => [kind, 0])) as World["weights"];
  draft.weights = { ...none, ...weights };
}

function also(draft: Draft, weights: Partial<Record<FaultKind, number>>): void {
  draft.weights = { ...draft.weights, ...weights };
}

function act(draft: Draft, intervalMs: number, acts: Partial<Record<Act, number>>): void {
  draft.administrationIntervalMs = intervalMs;
  draft.acts = acts;
}
