import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import type { Cluster } from "../../client/index.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { printMachine, report } from "../support/figures.js";

/* 1,000 partitions of 3 replicas: how long until all are led, and until all are led again when the controller dies. */
const partitions = Number(process.env["PARTITIONS"] ?? 1000);

printMachine();
const cluster = await MeasuredCluster.start({ port: 29392 });
try {
  const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "scale" });
  const admin = client.admin();
  /** Resolves once every broker that lives says that every partition has a living leader. */
  const allLed = async (living: readonly number[], epochAbove: number): Promise<void> => {
    for (const bootstrap of cluster.bootstrapBrokers.filter((_, index) => living.includes(index + 1))) {
      for (;;) {
        const one = await connect({ bootstrapBrokers: [bootstrap], clientId: "look" });
        const description = await one.admin().describeCluster();
        const led = await countLed(one, living);
        await one.close();
        if (description.controllerEpoch > epochAbove && led === partitions) break;
        await delay(20);
      }
    }
  };
  const startedMs = performance.now();
  await admin.createTopics([{ name: "many", partitions, replicationFactor: 3 }]);
  await allLed([1, 2, 3], 0);
  const createdMs = performance.now() - startedMs;
  report(`${partitions} partitions x 3 created and led after`, `${createdMs.toFixed(0)} ms`, createdMs <= 5000);

  const { controllerId, controllerEpoch } = await admin.describeCluster();
  const pid = (await cluster.brokerPids()).get(controllerId) as number;
  const living = [1, 2, 3].filter((id) => id !== controllerId);
  await delay(1000);
  const killedMs = performance.now();
  process.kill(pid, "SIGKILL");
  await allLed(living, controllerEpoch);
  const failoverMs = performance.now() - killedMs;
  report("controller killed: all led again after", `${failoverMs.toFixed(0)} ms`, failoverMs <= 2000);
  await client.close();
} finally {
  await cluster.stop();
}

async function countLed(client: Cluster, living: readonly number[]): Promise<number> {
  const [many] = await client.admin().describeTopics(["many"]);
  return many?.partitions.filter(({ leader }) => living.includes(leader)).length ?? 0;
}
