import type { BrokerConfig } from "../config.js";

/** The settings that the controller uses, as they are now: those that can be changed at run time are read at each use. */
export interface ControllerSettings {
  /** Of a topic that is created without a number. */
  readonly numPartitions: number;
  /** Of a topic that is created without a number; 0: three, or as many as there are brokers. */
  readonly defaultReplicationFactor: number;
  /** Of topics that set none, as this broker was started with; 0: two of three or more replicas, else one. */
  readonly minInsyncReplicas: number;
  /** Of topics that do not say. */
  readonly uncleanLeaderElection: boolean;
  /** Of topics that do not say, as this broker was started with. */
  readonly durability: string;
  /** In the whole cluster. */
  readonly partitionsMax: number;
  readonly autoLeaderRebalance: boolean;
  readonly leaderImbalanceCheckIntervalMs: number;
  readonly leaderImbalancePercent: number;
  readonly fastFencing: boolean;
  readonly fencingProbeTimeoutMs: number;
  readonly fencingGatherMs: number;
  readonly fencingsPerBrokerPerMinute: number;
  /** How long to wait for all in-sync replicas before one is elected that may have lost records. */
  readonly uncleanRecoveryWaitMs: number;
}

/** Reads a broker's configuration anew at each use. */
export function controllerSettings(config: BrokerConfig): ControllerSettings {
  return {
    get numPartitions() {
      return config.get("num.partitions");
    },
    get defaultReplicationFactor() {
      return config.get("default.replication.factor");
    },
    get minInsyncReplicas() {
      return config.startedWith("min.insync.replicas");
    },
    get uncleanLeaderElection() {
      return config.get("unclean.leader.election.enable");
    },
    get durability() {
      return config.startedWith("log.durability");
    },
    get partitionsMax() {
      return config.get("partitions.max");
    },
    get autoLeaderRebalance() {
      return config.get("auto.leader.rebalance.enable");
    },
    get leaderImbalanceCheckIntervalMs() {
      return config.get("leader.imbalance.check.interval.ms");
    },
    get leaderImbalancePercent() {
      return config.get("leader.imbalance.per.broker.percentage");
    },
    get fastFencing() {
      return config.get("fast.fencing.enable");
    },
    get fencingProbeTimeoutMs() {
      return config.get("fast.fencing.probe.timeout.ms");
    },
    get fencingGatherMs() {
      return config.get("fast.fencing.gather.ms");
    },
    get fencingsPerBrokerPerMinute() {
      return config.get("fast.fencing.per.broker.per.minute");
    },
    get uncleanRecoveryWaitMs() {
      return config.get("unclean.recovery.wait.ms");
    },
  };
}
