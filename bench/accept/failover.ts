import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { printMachine, quantile, report } from "../support/figures.js";
import { MeasuredTopic } from "../support/measured-topic.js";

/*
 * How long one record waits when the broker that leads its partition dies: 1,000 records a second with acks=all, a broker
 * killed with SIGKILL every 15 seconds and started again 3 seconds later. By turns the leader and the controller are killed;
 * when they are one process, that is said.
 */
const kills = Number(process.env["KILLS"] ?? 20);
const intervalMs = Number(process.env["KILL_INTERVAL_MS"] ?? 15_000);

printMachine();
const cluster = await MeasuredCluster.start({ port: 29192 });
try {
  await measure();
} finally {
  await cluster.stop();
}

async function measure(): Promise<void> {
  const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "failover" });
  const admin = client.admin();
  const topic = await MeasuredTopic.create(client, "failover");
  const { writer } = topic;
  const waits: { role: string; ms: number }[] = [];
  await delay(5000);
  for (let kill = 0; kill < kills; kill += 1) {
    const { leader } = await topic.state();
    const { controllerId: controller } = await admin.describeCluster();
    const target = kill % 2 === 0 ? leader : controller;
    const role = leader === controller ? "leader and controller" : target === leader ? "leader" : "controller";
    const pid = (await cluster.brokerPids()).get(target);
    if (pid === undefined) throw new Error(`broker ${target} does not run`);
    writer.takeLongestMs();
    process.kill(pid, "SIGKILL");
    await delay(3000);
    const waitMs = writer.takeLongestMs();
    waits.push({ role, ms: waitMs });
    console.log(`kill ${kill + 1}: broker ${target} (${role}): longest wait ${waitMs.toFixed(0)} ms`);
    await cluster.ottla("restart", String(target));
    await delay(Math.max(0, intervalMs - 3000));
  }

  const all = waits.map(({ ms }) => ms);
  for (const role of ["leader", "controller", "leader and controller"]) {
    const some = waits.filter((wait) => wait.role === role).map(({ ms }) => ms);
    if (some.length > 0)
      report(
        `failover, ${role} (${some.length})`,
        `median ${quantile(some, 0.5).toFixed(0)} ms, worst ${Math.max(...some).toFixed(0)} ms`,
        undefined,
      );
  }
  report(
    `failover, all ${kills} kills`,
    `median ${quantile(all, 0.5).toFixed(0)} ms, worst ${Math.max(...all).toFixed(0)} ms`,
    quantile(all, 0.5) <= 300 && Math.max(...all) <= 1500,
  );
  await topic.finish();
  await client.close();
}
