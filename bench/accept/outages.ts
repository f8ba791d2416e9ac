import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import type { Admin } from "../../client/index.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { printMachine, report } from "../support/figures.js";
import { MeasuredTopic } from "../support/measured-topic.js";

/*
 * What clients notice while parts of the cluster are away: a paused leader, a broker killed and started again at once,
 * one of three ZooKeepers, and all of them for 30 seconds. 1,000 records a second with acks=all throughout,
 * session 6 s.
 */
const sessionMs = 6000;
const away = Number(process.env["AWAY_MS"] ?? 30_000);

printMachine();
const cluster = await MeasuredCluster.start({ port: 29292, zookeepers: 3 });
try {
  const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "outages" });
  const topic = await MeasuredTopic.create(client, "outages");
  await delay(3000);
  await pausedLeader(topic);
  await killedAndRestarted(topic);
  await oneZooKeeper(topic);
  await allZooKeepers(topic, client.admin());
  await topic.finish();
  await client.close();
} finally {
  await cluster.stop();
}

async function pausedLeader(topic: MeasuredTopic): Promise<void> {
  const { writer } = topic;
  const before = await topic.state();
  const pid = (await cluster.brokerPids()).get(before.leader) as number;
  writer.takeLongestMs();
  process.kill(pid, "SIGSTOP");
  await delay(sessionMs + 3000);
  const waitMs = writer.takeLongestMs();
  process.kill(pid, "SIGCONT");
  await delay(500);
  const after = await topic.state();
  report(
    "leader paused for longer than its session",
    `longest wait ${waitMs.toFixed(0)} ms`,
    waitMs <= sessionMs + 1000,
  );
  report(
    "  it does not lead when it wakes",
    `leader ${before.leader} -> ${after.leader}, epoch ${before.leaderEpoch} -> ${after.leaderEpoch}`,
    after.leader !== before.leader,
  );
  report("  in sync again after", `${(await topic.untilAllInSync()).toFixed(0)} ms`, undefined);
}

async function killedAndRestarted(topic: MeasuredTopic): Promise<void> {
  const { leader } = await topic.state();
  const status = (await cluster.status()).find(({ kind, id }) => kind === "broker" && id === leader);
  process.kill(status?.pid as number, "SIGKILL");
  const startedMs = performance.now();
  await cluster.ottla("restart", String(leader));
  const servingMs = performance.now() - startedMs;
  report("broker killed and started again: serving after", `${servingMs.toFixed(0)} ms`, servingMs <= 2000);
  await topic.untilAllInSync();
}

async function zookeeperPids(): Promise<{ pid: number; id: number }[]> {
  return (await cluster.status())
    .filter(({ kind, alive }) => kind === "zookeeper" && alive)
    .map(({ pid, id }) => ({ pid, id }));
}

async function oneZooKeeper(topic: MeasuredTopic): Promise<void> {
  const { writer } = topic;
  const before = await topic.state();
  const failuresBefore = writer.failures.length;
  writer.takeLongestMs();
  const [victim] = await zookeeperPids();
  process.kill(victim?.pid as number, "SIGKILL");
  await delay(sessionMs + 2000);
  const after = await topic.state();
  const waitMs = writer.takeLongestMs();
  const unharmed = after.leaderEpoch === before.leaderEpoch && writer.failures.length === failuresBefore;
  report(
    "one of three ZooKeepers killed",
    `leader epoch ${before.leaderEpoch} -> ${after.leaderEpoch}, longest wait ${waitMs.toFixed(0)} ms`,
    unharmed,
  );
  await cluster.ottla("restart", `zookeeper:${victim?.id}`);
}

async function allZooKeepers(topic: MeasuredTopic, admin: Admin): Promise<void> {
  const { writer } = topic;
  const before = await topic.state();
  const servers = await zookeeperPids();
  writer.takeLongestMs();
  const acknowledgedBefore = writer.acknowledged;
  for (const { pid } of servers) process.kill(pid, "SIGKILL");
  await delay(away / 2);
  const startedMs = performance.now();
  const refusal = await admin.createTopics([{ name: "while-away", partitions: 1, replicationFactor: 3 }]).then(
    () => "it was created",
    (error: Error) => error.message,
  );
  const refusedMs = performance.now() - startedMs;
  await delay(Math.max(0, away / 2 - refusedMs));
  const rate = (writer.acknowledged - acknowledgedBefore) / (away / 1000);
  const waitMs = writer.takeLongestMs();
  report(
    `all ZooKeepers away for ${away / 1000} s: acks=all goes on`,
    `${rate.toFixed(0)} rec/s, longest wait ${waitMs.toFixed(0)} ms`,
    rate > 900,
  );
  report(
    "  administration fails fast",
    `after ${refusedMs.toFixed(0)} ms: ${refusal.slice(0, 60)}`,
    refusedMs <= 6000 && refusal !== "it was created",
  );
  const returnedMs = performance.now();
  await cluster.startMissing();
  const runningMs = performance.now();
  for (;;) {
    const created = await admin
      .createTopics([{ name: `back-${Math.round(performance.now())}`, partitions: 1, replicationFactor: 3 }], {
        deadlineMs: 1000,
      })
      .then(
        () => true,
        () => false,
      );
    if (created || performance.now() - runningMs > 30_000) break;
    await delay(50);
  }
  await topic.untilAllInSync();
  const after = await topic.state();
  const backMs = performance.now() - runningMs;
  report(
    "  all is right again after they answer",
    `${backMs.toFixed(0)} ms (and ${(runningMs - returnedMs).toFixed(0)} ms for them to start), leader epoch ${before.leaderEpoch} -> ${after.leaderEpoch}`,
    backMs <= 5000,
  );
}
