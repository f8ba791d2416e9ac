import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import type { Cluster } from "../../client/index.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { printMachine, report } from "../support/figures.js";
import { SteadyWriter } from "../support/steady-writer.js";

/*
 * What clients notice while parts of the cluster are away: a paused leader, a broker killed and started again at once, one of
 * three ZooKeepers, and all of them for 30 seconds. 1,000 records a second with acks=all throughout, session 6 s.
 */
const sessionMs = 6000;
const away = Number(process.env["AWAY_MS"] ?? 30_000);

printMachine();
const cluster = await MeasuredCluster.start({ port: 29292, zookeepers: 3 });
try {
  const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "outages" });
  await client.admin().createTopics([{ name: "outages", partitions: 1, replicationFactor: 3 }]);
  const writer = new SteadyWriter(client, "outages", 1000);
  await delay(3000);
  await pausedLeader(client, writer);
  await killedAndRestarted(client);
  await oneZooKeeper(client, writer);
  await allZooKeepers(client, writer);
  await writer.stop();
  const { acknowledged, sent, failures } = writer;
  report(
    "records acknowledged of sent, all outages",
    `${acknowledged} of ${sent}${failures.length > 0 ? `: ${failures[0]}` : ""}`,
    acknowledged === sent,
  );
  await client.close();
} finally {
  await cluster.stop();
}

async function leaderState(client: Cluster): Promise<{ leader: number; leaderEpoch: number; isr: readonly number[] }> {
  const [topic] = await client.admin().describeTopics(["outages"]);
  const [partition] = topic?.partitions ?? [];
  if (partition === undefined) throw new Error("the topic has no partition");
  return { leader: partition.leader, leaderEpoch: partition.leaderEpoch, isr: partition.isr };
}

async function fullIsr(client: Cluster, deadlineMs: number): Promise<number> {
  const startedMs = performance.now();
  while ((await leaderState(client)).isr.length < 3) {
    if (performance.now() - startedMs > deadlineMs)
      throw new Error(`the in-sync replicas are not complete within ${deadlineMs} ms`);
    await delay(50);
  }
  return performance.now() - startedMs;
}

async function pausedLeader(client: Cluster, writer: SteadyWriter): Promise<void> {
  const before = await leaderState(client);
  const pid = (await cluster.brokerPids()).get(before.leader) as number;
  writer.takeLongestMs();
  process.kill(pid, "SIGSTOP");
  await delay(sessionMs + 3000);
  const waitMs = writer.takeLongestMs();
  process.kill(pid, "SIGCONT");
  await delay(500);
  const after = await leaderState(client);
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
  report("  in sync again after", `${(await fullIsr(client, 20_000)).toFixed(0)} ms`, undefined);
}

async function killedAndRestarted(client: Cluster): Promise<void> {
  const { leader } = await leaderState(client);
  const status = (await cluster.status()).find(({ kind, id }) => kind === "broker" && id === leader);
  process.kill(status?.pid as number, "SIGKILL");
  const startedMs = performance.now();
  await cluster.ottla("restart", String(leader));
  const servingMs = performance.now() - startedMs;
  report("broker killed and started again: serving after", `${servingMs.toFixed(0)} ms`, servingMs <= 2000);
  await fullIsr(client, 20_000);
}

async function zookeeperPids(): Promise<{ pid: number; id: number }[]> {
  return (await cluster.status())
    .filter(({ kind, alive }) => kind === "zookeeper" && alive)
    .map(({ pid, id }) => ({ pid, id }));
}

async function oneZooKeeper(client: Cluster, writer: SteadyWriter): Promise<void> {
  const before = await leaderState(client);
  const failuresBefore = writer.failures.length;
  writer.takeLongestMs();
  const [victim] = await zookeeperPids();
  process.kill(victim?.pid as number, "SIGKILL");
  await delay(sessionMs + 2000);
  const after = await leaderState(client);
  const waitMs = writer.takeLongestMs();
  const unharmed = after.leaderEpoch === before.leaderEpoch && writer.failures.length === failuresBefore;
  report(
    "one of three ZooKeepers killed",
    `leader epoch ${before.leaderEpoch} -> ${after.leaderEpoch}, longest wait ${waitMs.toFixed(0)} ms`,
    unharmed,
  );
  await cluster.ottla("restart", `zookeeper:${victim?.id}`);
}

async function allZooKeepers(client: Cluster, writer: SteadyWriter): Promise<void> {
  const before = await leaderState(client);
  const servers = await zookeeperPids();
  writer.takeLongestMs();
  const acknowledgedBefore = writer.acknowledged;
  for (const { pid } of servers) process.kill(pid, "SIGKILL");
  await delay(away / 2);
  const startedMs = performance.now();
  const refusal = await client
    .admin()
    .createTopics([{ name: "while-away", partitions: 1, replicationFactor: 3 }])
    .then(
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
    const created = await client
      .admin()
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
  await fullIsr(client, 20_000);
  const after = await leaderState(client);
  const backMs = performance.now() - runningMs;
  report(
    "  all is right again after they answer",
    `${backMs.toFixed(0)} ms (and ${(runningMs - returnedMs).toFixed(0)} ms for them to start), leader epoch ${before.leaderEpoch} -> ${after.leaderEpoch}`,
    backMs <= 5000,
  );
}
