import { OffsetSpec } from "../../../protocol/messages.js";
import { errorCodes } from "../../../protocol/error-codes.js";
import { readBatches } from "../../../protocol/record-batch.js";
import type { BrokerId, TopicId } from "../../../protocol/types.js";
import { partitionKey, toOffset } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import type { SimClient } from "../sim-client.js";
import { encodeBatch, produceOnce } from "../workload.js";
import type { Target } from "../workload.js";

const host = (id: BrokerId | undefined): string => `broker-${id ?? 0}`;

/** So little that a batch of `BIG` has no place in memory, nor anything beside it. Nobody is accused of being slow. */
const settings = { "log.tail.bytes": String(1024 * 1024), "replica.lag.time.max.ms": "30000" };
const BIG = Array.from({ length: 10_000 }, (_, index) => `${index} ${"n".repeat(45)}`);

/** The next read of this file by this broker takes so long. Returns whether it has begun. */
function slowNextRead(cluster: SimCluster, id: BrokerId, file: string, delayMs: number): () => boolean {
  const { scheduler } = cluster.simulation;
  const after = scheduler.after.bind(scheduler);
  let begun = false;
  scheduler.after = (usualMs, label, action) => {
    const text = String(label);
    const isIt = !begun && text.startsWith(host(id)) && text.includes(" read ") && text.includes(`/${file}/`);
    begun ||= isIt;
    return after(isIt ? delayMs : usualMs, label, action);
  };
  return () => begun;
}

/** Writes one batch at the leader alone. */
async function writeTo(
  cluster: SimCluster,
  client: SimClient,
  brokerId: BrokerId,
  target: Target,
  values: string[],
): Promise<number> {
  const batch = encodeBatch(values, cluster.nowMs);
  const to = { brokerId, leaderEpoch: undefined };
  const attempt = await cluster.complete(produceOnce(client, to, target, "leader", batch));
  if (attempt.kind !== "ok") throw new Error(`nothing was written: ${attempt.error}`);
  return attempt.baseOffset;
}

/** A topic with the leader of letters, of which every read goes to the disk once something is written with `fill`. */
async function createCold(
  cluster: SimCluster,
  partitions: number,
  replicas = cluster.assignmentOf("letters")?.[0] ?? [],
): Promise<TopicId> {
  const assignment = Array.from({ length: partitions }, () => ({ brokerIds: [...replicas] }));
  return cluster.createTopic({ name: "cold", assignment });
}

describe("a read from disk that outlives its leadership", () => {
  /**
   * The first of three replicas leads, and what `begin` or the third one asks of it is read slowly. Meanwhile the second
   * one leads, without the last records, and the first follows it; the third hears nothing of that. Resolves when the
   * read has ended.
   */
  async function outlive(
    cluster: SimCluster,
    begin: (world: { letters: Letters; client: SimClient; first: BrokerId; third: BrokerId }) => Promise<void>,
  ): Promise<Letters> {
    const [first = 0, second = 0, third = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
    const { network } = cluster.simulation;
    const letters = await Letters.create(cluster, { assignment: [first, second, third] });
    const noise = await cluster.createTopic({ name: "noise", assignment: [{ brokerIds: [first] }] });
    await letters.write(10);
    const client = cluster.client();
    await cluster.complete(client.refresh());
    const write = async (brokerId: BrokerId, count: number): Promise<void> => {
      const { history, target } = letters;
      const partition = partitionKey(target.topicId, target.partition);
      for (const value of letters.values(count)) {
        const about = { producer: value, partition, values: [value], acks: "leader", idempotent: false } as const;
        const operation = history.invoke(about);
        history.ok(operation, { brokerId, baseOffset: await writeTo(cluster, client, brokerId, target, [value]) });
      }
    };
    network.partition(host(second), host(first));
    await write(first, 2);
    await cluster.until(() => cluster.log(third, "letters").logEndOffset === 12, "the third has what the second lacks");
    await cluster.run(100);
    network.partition(host(third), host(first));
    await write(first, 2);
    await writeTo(cluster, client, first, { topicId: noise, partition: 0 }, BIG);
    const isSlow = slowNextRead(cluster, first, "letters-0", 2800);
    network.heal(host(third), host(first));
    await begin({ letters, client, first, third });
    await cluster.until(isSlow, "the read is under way", 5000);
    const endsMs = cluster.nowMs + 2900;
    for (const id of [1, 2, 3, 4]) if (id !== first && id !== third) network.partition(host(id), host(third));
    cluster.zookeeper.expireSession(cluster.zookeeper.node(`/brokers/ids/${first}`)?.ephemeralOwner ?? "");
    await cluster.until(() => cluster.partition(second, "letters")?.role.kind === "leader", "the second leads", 1000);
    await write(second, 6);
    network.heal(host(second), host(first));
    await cluster.until(() => cluster.log(first, "letters").logEndOffset === 16, "the first follows", 1500);
    expect(cluster.nowMs).toBeLessThan(endsMs - 100);
    await cluster.run(endsMs - cluster.nowMs);
    return letters;
  }

  it("gives a follower no batches of the next epoch as if they were those of its own", async () => {
    await withCluster({ seed: 101, brokers: 4, settings }, async (cluster) => {
      const letters = await outlive(cluster, async () => {});
      // A follower that is given them does not take them, but that is its own last resort.
      expect(cluster.logged(/above .* epoch/)).toBe(false);
      cluster.simulation.network.heal();
      await letters.write(3);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("tells no consumer, and nobody who asks for a time", async () => {
    for (const kind of ["fetch", "listOffsets"] as const) {
      await withCluster({ seed: 102, brokers: 4, settings }, async (cluster) => {
        let error: number | undefined;
        await outlive(cluster, async ({ client, letters, first, third }) => {
          cluster.simulation.network.partition(host(third), host(first));
          const asked = {
            ...letters.target,
            leaderEpochPlusOne: (cluster.stateOf("letters", 0)?.leaderEpoch ?? 0) + 1,
          };
          const answer =
            kind === "fetch"
              ? client.request(
                  first,
                  kind,
                  { maxBytes: 1000, partitions: [{ ...asked, fetchOffset: 5, maxBytes: 1000 }] },
                  { timeoutMs: 5000 },
                )
              : client.request(
                  first,
                  kind,
                  { partitions: [{ ...asked, spec: OffsetSpec.TIMESTAMP, timestamp: 1 }] },
                  { timeoutMs: 5000 },
                );
          void answer.then(({ body }) => (error = body.partitions[0]?.error?.code ?? 0));
        });
        expect(error).toBe(errorCodes.NOT_LEADER_OR_FOLLOWER.code);
      });
    }
  });
});

describe("a fetch of several partitions of which one is read from a slow disk", () => {
  it("leaves what happens meanwhile to the next fetch of a consumer", async () => {
    await withCluster({ seed: 103, settings }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const leader = cluster.leaderOf("letters");
      const cold = { topicId: await createCold(cluster, 1), partition: 0 };
      const client = cluster.client();
      await cluster.complete(client.refresh());
      await writeTo(cluster, client, leader, cold, BIG);
      await letters.write(1);
      await cluster.run(1000);
      let sessionId = 0;
      const fetch = async (sessionEpoch: number, ...named: (Target & { fetchOffset: number })[]): Promise<string[]> => {
        const partitions = named.map((one) => ({ ...one, maxBytes: 1024 * 1024 }));
        const limits = { maxWaitMs: 1000, minBytes: 1, maxBytes: 8 * 1024 * 1024 };
        const request = { ...limits, sessionId, sessionEpoch, partitions };
        const { body, records } = await client.request(leader, "fetch", request);
        ({ sessionId } = body);
        return body.partitions
          .filter(({ recordBytes }) => recordBytes > 0)
          .map(({ topicId }, at) => {
            const [first] = readBatches(records[at] ?? Buffer.alloc(0));
            return `${topicId === cold.topicId ? "cold" : "letters"} from ${first?.baseOffset}`;
          });
      };
      const isRead = slowNextRead(cluster, leader, "cold-0", 500);
      const first = fetch(1, { ...cold, fetchOffset: 0 }, { ...letters.target, fetchOffset: 1 });
      await cluster.until(isRead, "it is read");
      await letters.write(1);
      expect(await cluster.complete(first)).toEqual(["cold from 0"]);
      const second = fetch(2, { ...cold, fetchOffset: BIG.length });
      expect(await cluster.complete(second)).toEqual(["letters from 1"]);
      // What is being read is not read for a newer fetch as well.
      const isReadAgain = slowNextRead(cluster, leader, "cold-0", 500);
      const third = fetch(3, { ...cold, fetchOffset: 0 });
      await cluster.until(isReadAgain, "it is read again");
      const fourth = fetch(4, { ...letters.target, fetchOffset: 0 });
      expect(await cluster.complete(fourth)).toEqual(["letters from 0"]);
      expect(await cluster.complete(third)).toEqual(["cold from 0"]);
    });
  });

  it("leaves what happens meanwhile to the next fetch of a follower", async () => {
    await withCluster({ seed: 104, settings }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      const cold = { topicId: await createCold(cluster, 1, [leader, follower]), partition: 0 };
      const client = cluster.client();
      await cluster.complete(client.refresh());
      await letters.write(1);
      cluster.crash(follower);
      await cluster.until(
        () => cluster.isrOf("cold").length === 1 && cluster.isrOf("letters").length === 2,
        "it is away",
      );
      await writeTo(cluster, client, leader, cold, BIG);
      await cluster.run(1000);
      const isSlow = slowNextRead(cluster, leader, "cold-0", 1500);
      cluster.start(follower);
      await cluster.until(isSlow, "what it lacks is read");
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it has all letters and is in sync");
      expect(cluster.log(follower, "cold").logEndOffset).toBe(0);
      await letters.write(1, 2000);
      await cluster.untilSettled("cold");
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("sends nothing twice, so that a follower takes all that it is given", async () => {
    await withCluster({ seed: 105, settings }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const leader = cluster.leaderOf("letters");
      const topicId = await createCold(cluster, 3);
      for (const id of [1, 2, 3]) {
        const { disk } = cluster.broker(id).host;
        // Every write is slow enough to be queued.
        Object.assign(disk, { syncWriteStallMs: 2, delayMeanMs: 20 });
      }
      const client = cluster.client();
      await cluster.complete(client.refresh());
      for (let round = 0; round < 8; round += 1) {
        for (const partition of [0, 1, 2]) {
          const batch = encodeBatch(BIG, cluster.nowMs);
          void produceOnce(
            client,
            { brokerId: leader, leaderEpoch: undefined },
            { topicId, partition },
            "leader",
            batch,
          );
        }
        await letters.send(1);
        await cluster.run(60);
      }
      const { log } = cluster.partition(leader, "cold", 0)!;
      await cluster.until(
        () => cluster.followersOf("cold").every((id) => cluster.log(id, "cold").logEndOffset === log.logEndOffset),
        "the followers have everything",
      );
      expect(cluster.lines.filter((line) => line.includes("were not taken"))).toEqual([]);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("an answer that a newer one has overtaken", () => {
  it("cuts nothing off that was fetched since", async () => {
    await withCluster({ seed: 106, settings }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      const topicId = await createCold(cluster, 2, [leader, follower]);
      const client = cluster.client();
      await cluster.complete(client.refresh());
      await letters.write(10);
      await cluster.run(1000);
      // It says that records are damaged; half a second later it says so again, and then may cut them off.
      const { disk } = cluster.broker(follower).host;
      const path = disk.paths().find((name) => /letters.*\.log$/.test(name)) ?? "";
      disk.flipBit(path, (readBatches(Buffer.from(disk.contentOf(path) ?? []))[3]?.end ?? 0) - 1);
      const log = cluster.log(follower, "letters");
      expect(await cluster.complete(log.verifyRange(toOffset(0)))).toMatchObject([{ from: 3 }]);
      await cluster.until(() => !cluster.isrOf("letters").includes(follower), "it left", 400);
      // One fetch is held up by the first partition, and the one that is told where to cut by the second.
      const isSlow = [0, 1].map((partition) =>
        slowNextRead(cluster, leader, `cold-${partition}`, [900, 2900][partition]!),
      );
      await writeTo(cluster, client, leader, { topicId, partition: 0 }, BIG);
      await cluster.until(() => isSlow[0]!(), "the first is read", 100);
      await writeTo(cluster, client, leader, { topicId, partition: 1 }, BIG);
      await cluster.until(() => isSlow[1]!(), "the second is read", 1000);
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is repaired and in sync", 1500);
      await letters.write(5);
      expect(log.logEndOffset).toBe(15);
      // The late answer arrives.
      await cluster.run(3500);
      expect(cluster.log(follower, "cold", 1).logEndOffset).toBe(BIG.length);
      expect(cluster.lines.filter((line) => line.includes("letters-0: truncates its log"))).toHaveLength(1);
      expect(log.logEndOffset).toBe(15);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a follower whose log is being cut for a former leader", () => {
  it("waits for that, and is given at once what its new leader has", async () => {
    await withCluster({ seed: 107, brokers: 4, settings }, async (cluster) => {
      const [first = 0, second = 0, third = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const { network } = cluster.simulation;
      const letters = await Letters.create(cluster, { assignment: [first, second, third] });
      await letters.write(10);
      const client = cluster.client();
      await cluster.complete(client.refresh());
      network.partition(host(first), host(second));
      const { history, target } = letters;
      const partition = partitionKey(target.topicId, target.partition);
      const write = async (brokerId: BrokerId, value: string): Promise<void> => {
        const about = { producer: value, partition, values: [value], acks: "leader", idempotent: false } as const;
        const operation = history.invoke(about);
        history.ok(operation, { brokerId, baseOffset: await writeTo(cluster, client, brokerId, target, [value]) });
      };
      for (const value of letters.values(2)) await write(first, value);
      await cluster.until(
        () => cluster.log(third, "letters").logEndOffset === 12,
        "the third has what the second lacks",
      );
      network.partition(host(third), host(second));
      cluster.zookeeper.expireSession(cluster.zookeeper.node(`/brokers/ids/${first}`)?.ephemeralOwner ?? "");
      await cluster.until(() => cluster.partition(second, "letters")?.role.kind === "leader", "the second leads");
      await write(second, "later");
      // The cut waits behind a sync.
      const log = cluster.log(first, "letters");
      cluster.broker(first).host.disk.syncDelayMeanMs = 2000;
      void log.flush().catch(() => undefined);
      network.heal(host(first), host(second));
      await cluster.until(() => cluster.logged("letters-0: truncates its log"), "it is to be cut");
      cluster.crash(second);
      await cluster.until(() => cluster.partition(third, "letters")?.role.kind === "leader", "the third leads");
      cluster.broker(first).host.disk.syncDelayMeanMs = 1;
      await write(third, "latest");
      await write(third, "last");
      await cluster.until(() => log.logEndOffset === 14, "the first has it");
      expect(cluster.lines.filter((line) => line.includes("were not taken"))).toEqual([]);
      network.heal();
      cluster.start(second);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a fetch that was held up on a connection that its replica has given up", () => {
  it.each([240, 242, 243, 244, 245])("does not put the replica out of sync when it arrives (seed %i)", async (seed) => {
    await withCluster({ seed }, async (cluster) => {
      const letters = await Letters.create(cluster, { config: { "min.insync.replicas": "1" } });
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      const { network } = cluster.simulation;
      network.setLink(host(follower), host(leader), { delayMeanMs: 30_000 });
      // It gets this record, and asks for the next one.
      await letters.send(1);
      await cluster.run(1000);
      network.setLink(host(follower), host(leader), { delayMeanMs: 0.2 });
      await letters.write(5);
      const end = (): number => cluster.log(follower, "letters").logEndOffset;
      await cluster.until(() => end() === 16 && cluster.isrOf("letters").includes(follower), "it has caught up");
      let hasLeft = false;
      cluster.simulation.scheduler.afterEachEvent(() => {
        if (!cluster.isrOf("letters").includes(follower)) hasLeft = true;
      });
      await cluster.run(90_000);
      expect(hasLeft).toBe(false);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a follower behind a slow link", () => {
  it("has at last an answer that takes longer than one is waited for", async () => {
    await withCluster({ seed: 106, settings }, async (cluster) => {
      const [leader = 0, follower = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const assignment = [{ brokerIds: [leader, follower] }];
      const topicId = await cluster.createTopic({ name: "big", assignment });
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const { network } = cluster.simulation;
      // Half a megabyte in seventeen seconds, in small packets.
      network.windowBytes = 16 * 1024;
      network.setLink(host(leader), host(follower), { bytesPerMs: 30 });
      await writeTo(cluster, client, leader, { topicId, partition: 0 }, BIG);
      const end = (): number => cluster.log(follower, "big").logEndOffset;
      await cluster.until(() => end() === BIG.length, "the follower has it", 25_000);
    });
  });
});
