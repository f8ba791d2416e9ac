import { OffsetSpec } from "../../../protocol/messages.js";
import { errorCodes } from "../../../protocol/error-codes.js";
import type { BrokerId } from "../../../protocol/types.js";
import { partitionKey } from "../../../protocol/types.js";
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
    const isIt = !begun && label.startsWith(host(id)) && label.includes(" read ") && label.includes(`/${file}/`);
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
