import { connect } from "../../client/index.js";
import type { Cluster } from "../../client/index.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { printMachine, quantile, report } from "../support/figures.js";
import { MeasuredTopic } from "../support/measured-topic.js";

/*
 * Whether deleted records stay deleted, and how long the answer takes: records are deleted, and the leader is killed with
 * SIGKILL as soon as that is acknowledged. By turns on a topic with 1,000 records a second and on one without any. When
 * another broker leads, and again when the killed one is back, the topic is read from offset 0 on.
 */
const rounds = Number(process.env["ROUNDS"] ?? 20);
const QUIET = "records-delete-quiet";
const BUSY = "records-delete-busy";
const RECORDS_A_ROUND = 100;
const NOTHING = "nothing";

printMachine();
const cluster = await MeasuredCluster.start({ port: 29292 });
try {
  await measure();
} finally {
  await cluster.stop();
}

async function measure(): Promise<void> {
  const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "records-delete" });
  const admin = client.admin();
  await admin.createTopics([{ name: QUIET, partitions: 1, replicationFactor: 3 }]);
  const busy = await MeasuredTopic.create(client, BUSY);
  const tookMs = new Map<string, number[]>([
    [QUIET, []],
    [BUSY, []],
  ]);
  const killedAfterMs: number[] = [];
  const returned: string[] = [];
  for (let round = 0; round < 2 * rounds; round += 1) {
    const topic = round % 2 === 0 ? QUIET : BUSY;
    if (topic === QUIET) await produce(client);
    const [before] = await admin.listOffsets([{ topic, partition: 0, query: "latest" }]);
    const pids = await cluster.brokerPids();
    const leader = await leaderOf(client, topic);
    const pid = pids.get(leader);
    if (before === undefined || pid === undefined) throw new Error(`broker ${leader} does not run`);
    const startedMs = performance.now();
    await admin.deleteRecords([{ topic, partition: 0, before: before.offset }]);
    const answeredMs = performance.now();
    process.kill(pid, "SIGKILL");
    killedAfterMs.push(performance.now() - answeredMs);
    tookMs.get(topic)?.push(answeredMs - startedMs);
    while ((await leaderOf(client, topic)) === leader)
      if (performance.now() - answeredMs > 20_000) throw new Error(`broker ${leader} is not replaced after 20 s`);
    const afterKill = await whatIsRead(client, topic, before.offset);
    await cluster.ottla("restart", String(leader));
    await busy.untilAllInSync();
    await untilInSync(client, QUIET);
    const afterReturn = await whatIsRead(client, topic, before.offset);
    for (const read of [afterKill, afterReturn])
      if (read !== NOTHING) returned.push(`${topic}: ${read}, deleted below ${before.offset}`);
    console.log(
      `round ${round + 1}: ${topic}: deleted below ${before.offset} in ${(answeredMs - startedMs).toFixed(1)} ms, broker ${leader} killed; ` +
        `of that, the next leader gives ${afterKill}, and ${afterReturn} is read when all are back`,
    );
  }
  for (const [topic, some] of tookMs)
    report(
      `${topic}: answer`,
      `median ${quantile(some, 0.5).toFixed(1)} ms, worst ${Math.max(...some).toFixed(1)} ms`,
      undefined,
    );
  report(
    "leader killed after the answer",
    `at most ${Math.max(...killedAfterMs).toFixed(1)} ms`,
    Math.max(...killedAfterMs) < 100,
  );
  report(
    `deleted records that came back, ${2 * rounds} kills`,
    returned.length === 0 ? "none" : returned.join("; "),
    returned.length === 0,
  );
  await busy.finish();
  await client.close();
}

async function produce(client: Cluster): Promise<void> {
  const producer = client.producer();
  const sent = Array.from({ length: RECORDS_A_ROUND }, (_, index) =>
    producer.send(QUIET, { value: `record ${index}` }),
  );
  await Promise.all(sent);
  await producer.close();
}

/** What a reader gets of the records below this offset. */
async function whatIsRead(client: Cluster, topic: string, deletedBelow: number): Promise<string> {
  const [start] = await client.admin().listOffsets([{ topic, partition: 0, query: "earliest" }]);
  if (start === undefined || start.offset < deletedBelow) return `a log that begins at ${start?.offset}`;
  const consumer = client.consumer({ topics: [topic], from: { offset: 0 }, onOutOfRange: "earliest" });
  try {
    for await (const record of consumer.records({ untilEnd: true }))
      return record.offset < deletedBelow ? `records from ${record.offset} on` : NOTHING;
    return NOTHING;
  } finally {
    await consumer.close();
  }
}

async function leaderOf(client: Cluster, topic: string): Promise<number> {
  const [described] = await client.admin().describeTopics([topic]);
  return described?.partitions[0]?.leader ?? -1;
}

async function untilInSync(client: Cluster, topic: string): Promise<void> {
  const deadlineMs = performance.now() + 20_000;
  for (;;) {
    const [described] = await client.admin().describeTopics([topic]);
    if (described?.partitions[0]?.isr.length === 3) return;
    if (performance.now() > deadlineMs) throw new Error(`not all replicas of ${topic} are in sync after 20 s`);
  }
}
