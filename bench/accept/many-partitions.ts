import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import type { Cluster } from "../../client/index.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { printMachine, quantile, report } from "../support/figures.js";

/*
 * Records with a key over 1,000 partitions beside the same over 6, by turns, each for some seconds on a new topic that has
 * been written to for some before. Then 300 short records for a broker that is stopped: how long do they hold back
 * another topic?
 */
const rounds = Number(process.env["ROUNDS"] ?? 3);
const seconds = Number(process.env["SECONDS"] ?? 10);
const warmUpSeconds = Number(process.env["WARM_UP_SECONDS"] ?? 5);
const KEYS = 100_000;

printMachine();
const cluster = await MeasuredCluster.start({ port: 29692 });
const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "many-partitions" });
try {
  const rates = new Map<number, number[]>([
    [6, []],
    [1000, []],
  ]);
  let largestMiB = 0;
  for (let round = 0; round < rounds; round += 1) {
    for (const [partitions, all] of rates) {
      const { rate, buffersMiB } = await keyed(`keyed-${partitions}-${round}`, partitions);
      all.push(rate);
      largestMiB = Math.max(largestMiB, buffersMiB);
    }
  }
  const [few, many] = [6, 1000].map((partitions) => quantile(rates.get(partitions) as number[], 0.5)) as [
    number,
    number,
  ];
  report("keyed records over 6 partitions", spread(6), undefined);
  report("keyed records over 1,000 partitions", spread(1000), undefined);
  report("  share of the rate over 6", (many / few).toFixed(2), many / few >= 0.4);
  report("  most memory in buffers of the process", `${largestMiB.toFixed(0)} MiB`, undefined);
  await stoppedLeader(client);

  function spread(partitions: number): string {
    const all = rates.get(partitions) as number[];
    const thousands = (rate: number): string => `${Math.round(rate / 1000)} k`;
    return `${thousands(quantile(all, 0.5))} rec/s (${thousands(Math.min(...all))} to ${thousands(Math.max(...all))})`;
  }
} finally {
  await client.close();
  await cluster.stop();
}

async function keyed(topic: string, partitions: number): Promise<{ rate: number; buffersMiB: number }> {
  const admin = client.admin();
  await admin.createTopics([{ name: topic, partitions, replicationFactor: 1 }]);
  const value = Buffer.alloc(100, 120);
  const producer = client.producer();
  await Promise.all(Array.from({ length: partitions }, (_, partition) => producer.send(topic, { value, partition })));
  let buffersMiB = 0;
  let next = 0;
  /** Records a second. */
  const writeFor = async (forSeconds: number): Promise<number> => {
    const first = next;
    const startedMs = performance.now();
    while (next % 64 !== 0 || performance.now() - startedMs < forSeconds * 1000) {
      // A prime step: neighbours are of different partitions.
      const room = producer.produce(topic, { key: `key-${(next * 7919) % KEYS}`, value });
      next += 1;
      if (room === undefined) continue;
      buffersMiB = Math.max(buffersMiB, process.memoryUsage().arrayBuffers / 2 ** 20);
      await room;
    }
    return (next - first) / ((performance.now() - startedMs) / 1000);
  };
  // What is in memory at the beginning is about as much as at the end.
  await writeFor(warmUpSeconds);
  const rate = await writeFor(seconds);
  await producer.flush();
  await producer.close();
  await admin.deleteTopics([topic]);
  return { rate, buffersMiB };
}

async function stoppedLeader(client: Cluster): Promise<void> {
  const pid = (await cluster.brokerPids()).get(3) as number;
  const admin = client.admin();
  await admin.createTopics([
    { name: "stopped", assignment: Array.from({ length: 300 }, () => [3]) },
    { name: "other", assignment: [[1]] },
  ]);
  const producer = client.producer({ lingerMs: 0 });
  await Promise.all(Array.from({ length: 300 }, (_, partition) => producer.send("stopped", { value: "x", partition })));
  const plain: number[] = [];
  const beside: number[] = [];
  const timed = async (): Promise<number> => {
    const startedMs = performance.now();
    await producer.send("other", { value: "y" });
    return performance.now() - startedMs;
  };
  for (let count = 0; count < 50; count += 1) plain.push(await timed());
  process.kill(pid, "SIGSTOP");
  try {
    for (let partition = 0; partition < 300; partition += 1) {
      void producer.produce("stopped", { value: "x", partition }, () => undefined);
    }
    for (let count = 0; count < 50; count += 1) {
      beside.push(await timed());
      await delay(10);
    }
  } finally {
    process.kill(pid, "SIGCONT");
  }
  const [usual, slowest] = [quantile(plain, 0.5), Math.max(...beside)];
  report("a record of another topic, usually", `${usual.toFixed(1)} ms`, undefined);
  report("  slowest of 50 behind 300 for a stopped broker", `${slowest.toFixed(1)} ms`, slowest - usual < 100);
  await producer.close();
}
