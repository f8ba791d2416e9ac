import type { BrokerId } from "../../../protocol/types.js";
import type { SimBroker, SimCluster } from "../cluster.js";
import type { SimRandom } from "../sim-random.js";
import type { Administrator } from "./administrator.js";
import type { SwarmTopic } from "./topics.js";
import type { FaultKind } from "./world.js";

/** What a sequence of faults can do and see. */
export interface Stage {
  readonly cluster: SimCluster;
  readonly random: SimRandom;
  readonly administrator: Administrator;
  /** Whether there are to be faults now. */
  isActive(): boolean;
  /** Does it later, or when the faults end; what is returned does it at once. */
  later(delayMs: number, act: () => void): () => void;
  inject(kind: FaultKind, id: BrokerId): void;
  /** They are back after so long; by themselves as the world has it. */
  cutPower(ids: readonly BrokerId[], downMs?: number): void;
  /** Up to where the disk of a broker has what was committed. */
  committedOnDisk(id: BrokerId, topic: SwarmTopic, partition: number): number;
  restoreLink(from: string, to: string): void;
  controller(): SimBroker | undefined;
  topic(): SwarmTopic | undefined;
  /** Names of ZooKeeper's servers. */
  servers(): readonly string[];
  roleOf(id: BrokerId): string;
}

/** As it was when it was looked at, but for `state` and `replica`. */
export interface LedPartition {
  readonly topic: SwarmTopic;
  readonly partition: number;
  readonly leader: BrokerId;
  readonly isr: readonly BrokerId[];
  readonly followers: readonly BrokerId[];
  readonly state: () => ReturnType<SimCluster["stateOf"]>;
  readonly replica: (id: BrokerId) => ReturnType<SimCluster["partition"]>;
}

/** A partition that is led, and by whom, when others are in sync as well. */
export function ledPartition({ cluster, random, topic: drawTopic }: Stage): LedPartition | undefined {
  const topic = drawTopic();
  if (topic === undefined) return undefined;
  const partition = random.below(topic.partitions);
  const state = (): ReturnType<SimCluster["stateOf"]> => cluster.stateOf(topic.name, partition);
  const { leader = -1, isr = [] } = state() ?? {};
  const followers = isr.filter((id) => id !== leader);
  if (leader < 0 || followers.length === 0) return undefined;
  return {
    topic,
    partition,
    leader,
    isr,
    followers,
    state,
    replica: (id) => cluster.partition(id, topic.name, partition),
  };
}

/** So long after something has come true; not at all, if it does not within a while or the faults end. */
export function when(stage: Stage, condition: () => boolean, delayMs: number, act: () => void, triesLeft = 200): void {
  const isSo = condition();
  stage.later(isSo ? delayMs : 10, () => {
    if (!stage.isActive()) return;
    if (isSo) act();
    else if (triesLeft > 0) when(stage, condition, delayMs, act, triesLeft - 1);
  });
}
