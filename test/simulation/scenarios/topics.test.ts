import { paths } from "../../../broker/zookeeper/znodes.js";
import { errorNameOf } from "../../../protocol/error-codes.js";
import { ConfigResource } from "../../../protocol/messages.js";
import { withCluster } from "../cluster.js";
import { History } from "../history.js";
import { Letters } from "../letters.js";
import { IdempotentWriter, encodeBatch, produceOnce, readToEnd } from "../workload.js";

describe("a topic that is created again under its old name", () => {
  it("has nothing of the former one, though a replica slept through it all", async () => {
    await withCluster({ seed: 51, brokers: 4 }, async (cluster) => {
      const assignment = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const [first = 0] = assignment;
      const letters = await Letters.create(cluster, { assignment });
      await letters.write(30);
      // The new topic begins at epoch 0, the log of the sleeper is at a later one.
      cluster.crash(first);
      await cluster.until(() => ![first, -1].includes(cluster.leaderOf("letters")), "another broker leads");
      const sleeper = cluster.followersOf("letters").find((id) => id !== first) ?? 0;
      cluster.start(first);
      await cluster.untilUp();
      await letters.write(10);
      // The orders wait in no buffer of the sleeper: the next controller, which knows the new topic alone, tells it.
      const controller = cluster.controllerId ?? 0;
      cluster.simulation.network.partition(`broker-${controller}`, `broker-${sleeper}`);
      cluster.pause(sleeper);
      await cluster.complete(cluster.admin.administer("deleteTopics", { names: ["letters"], timeoutMs: 300 }));
      const topic = { name: "letters", assignment: [{ brokerIds: assignment }] };
      await cluster.complete(cluster.admin.administer("createTopics", { topics: [topic], timeoutMs: 300 }));
      const topicId = cluster.topicId("letters") ?? "";
      expect(topicId).not.toBe(letters.target.topicId);
      const target = { topicId, partition: 0 };
      const history = new History(() => cluster.nowMs);
      const writer = new IdempotentWriter(cluster.client(), history, "writer", target);
      void writer.write(["new 1"]);
      await cluster.run(100);
      cluster.crash(controller);
      await cluster.until(() => ![controller, undefined].includes(cluster.controllerId), "there is another controller");
      const known = cluster.broker(sleeper).broker?.metadata;
      expect(known?.topicNamed("letters")?.topicId).toBe(letters.target.topicId);
      cluster.simulation.network.heal();
      cluster.resume(sleeper);
      await cluster.untilSettled("letters");
      await cluster.complete(writer.write(["new 2"]));
      await cluster.until(() => writer.isIdle, "everything is written");
      await cluster.run(300);
      for (const id of assignment) {
        expect(cluster.log(id, "letters").logEndOffset).toBe(2);
        const read = await cluster.complete(readToEnd(cluster.client(id), `broker ${id}`, target));
        expect(read.records.map(({ value }) => value)).toEqual(["new 1", "new 2"]);
      }
    });
  });
});

describe("a log that no order named", () => {
  it("is not set aside when an order names it before its turn comes", async () => {
    await withCluster({ seed: 59 }, async (cluster) => {
      await cluster.createTopic({ name: "letters", assignment: [{ brokerIds: [1] }, { brokerIds: [1] }] });
      const table = cluster.broker(1).broker!.partitions!;
      const { topicId, state } = cluster.partition(1, "letters", 1)!;
      table.forgetTopic(topicId, "the test says so");
      const aside = table.setStraysAside();
      const named = { ...state!, partition: 1, leaderId: 1, minInsyncReplicas: 1 };
      table.applyTopic({
        topicId,
        name: "letters",
        config: [],
        partitionCount: 0,
        growsFrom: 0,
        durability: "",
        partitions: [named] as never,
      });
      await cluster.complete(aside);
      const setAside = cluster.lines.flatMap((line) => /(letters-\d) .* is set aside/.exec(line)?.[1] ?? []);
      expect(setAside).toEqual(["letters-0"]);
      expect(table.get(topicId, 1)?.role.kind).toBe("leader");
    });
  });
});

describe("min.insync.replicas above the number of replicas", () => {
  it("is refused, for a new topic and for one that is there, because nothing could be written with acks=all", async () => {
    await withCluster({ seed: 52 }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1, 2] });
      const config = [{ name: "min.insync.replicas", value: "3" }];
      const alter = (validateOnly: boolean): Promise<unknown> =>
        cluster.complete(
          cluster.admin.administer("alterConfigs", {
            resource: ConfigResource.TOPIC,
            name: "letters",
            config,
            validateOnly,
          }),
        );
      const refusal = "min.insync.replicas=3 can never be met, each partition has 2 replicas; give it at most 2";
      await expect(alter(false)).rejects.toThrow(refusal);
      await expect(alter(true)).rejects.toThrow(refusal);
      const created = cluster.createTopic({
        name: "more",
        partitions: 1,
        replicationFactor: 1,
        config: { "min.insync.replicas": "2" },
      });
      await expect(created).rejects.toThrow("each partition has 1 replica; give it at most 1");
      await letters.write(1);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a partition", () => {
  it("never plays a role with other settings than its topic's", async () => {
    await withCluster({ seed: 52 }, async (cluster) => {
      let roles = 0;
      cluster.simulation.scheduler.afterEachEvent(() => {
        for (const { broker } of cluster.brokers.values()) {
          for (const partition of broker?.partitions?.all() ?? []) {
            if (partition.role.kind === "none") continue;
            roles += 1;
            expect(partition.minInsyncReplicas).toBe(3);
            expect(partition.log.settings.durability).toBe("fsync");
          }
        }
      });
      const config = { "min.insync.replicas": "3", durability: "fsync" };
      const letters = await Letters.create(cluster, { config });
      await letters.write(5);
      cluster.restart(2);
      await cluster.untilUp();
      await letters.write(5);
      expect(roles).toBeGreaterThan(0);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a broker", () => {
  it("that has just started and was told nothing yet does not say that a topic does not exist", async () => {
    await withCluster({ seed: 53 }, async (cluster) => {
      await Letters.create(cluster);
      const [ignorant = 0] = [1, 2, 3].filter((id) => id !== cluster.controllerId);
      cluster.crash(ignorant);
      for (const id of [1, 2, 3])
        if (id !== ignorant) cluster.simulation.network.partition(`broker-${id}`, `broker-${ignorant}`);
      cluster.start(ignorant);
      await cluster.run(1000);
      const client = cluster.client(ignorant);
      let told: unknown;
      client.refresh().then(
        (metadata) => (told = metadata),
        () => undefined,
      );
      await cluster.run(1000);
      expect(told).toBeUndefined();
      cluster.simulation.network.heal();
      await cluster.until(() => told !== undefined, "it tells about the cluster");
      expect(told).toMatchObject({ topics: [{ name: "letters" }] });
    });
  });

  it("does not serve another cluster than the one its records belong to", async () => {
    await withCluster({ seed: 54, brokers: 3, startBrokers: false }, async (cluster) => {
      const stranger = cluster.simulation.startProcess("broker-3");
      const text = "version=1\nbroker.id=3\ncluster.id=another-cluster\n";
      const { files } = stranger.env;
      await cluster.complete(files.makeDirectory("/data").then(() => files.writeFile("/data/meta.properties", text)));
      stranger.crash();
      for (const id of [1, 2, 3]) cluster.start(id);
      await cluster.untilUp([1, 2]);
      await cluster.run(2000);
      expect(cluster.broker(3).state).not.toBe("up");
      expect(cluster.logged("belongs to cluster another-cluster, but ZooKeeper holds cluster")).toBe(true);
    });
  });
});

describe("a node in ZooKeeper that cannot be read", () => {
  const unreadable = "{ not json";
  const nodes = {
    "a topic's": paths.topic("letters"),
    "a topic's settings": paths.topicConfig("letters"),
    "a partition's": paths.partitionState("letters", 0),
  };

  it.each(Object.entries(nodes))("costs no record, when it is %s", async (_, path) => {
    const settings = { "log.retention.ms": "60000", "log.retention.check.interval.ms": "1000" };
    await withCluster({ seed: 55, settings }, async (cluster) => {
      const letters = await Letters.create(cluster, { config: { "retention.ms": "-1" } });
      await letters.write(5);
      const before = cluster.zookeeper.node(path)?.data;
      await cluster.writeNode(path, unreadable);
      // A new controller, and brokers that know nothing but what it tells them.
      for (const id of [1, 2, 3]) cluster.restart(id);
      await cluster.untilUp();
      await cluster.run(90_000);
      // Nobody says that the topic does not exist.
      const client = cluster.client(1);
      await cluster.complete(client.refresh());
      const { body } = await cluster.complete(client.request(1, "metadata", { topics: ["letters"] }));
      const errors = body.topics.map(({ error }) => error && errorNameOf(error.code));
      expect(errors).not.toContain("UNKNOWN_TOPIC_OR_PARTITION");
      // Repaired, it is noticed without a restart.
      await cluster.writeNode(path, before ?? "");
      await cluster.untilSettled("letters");
      await letters.write(1);
      const read = await cluster.complete(readToEnd(cluster.client(), "all", letters.target));
      expect(read.records).toHaveLength(6);
      expect(await letters.verdict()).toEqual([]);
      expect(cluster.logged(new RegExp(`error: .*${path}.* cannot be read`))).toBe(true);
    });
  });

  it.each([
    ["a member that has no replica", { isr: [9] }],
    ["a member twice", { isr: [2, 2] }],
    ["no member", { leader: 9, isr: [] }],
    ["a leader that is no member", { leader: 9 }],
    ["a member that is eligible beside it", { elr: [1] }],
  ])("is a partition's that contradicts itself, too: %s", async (_, change) => {
    await withCluster({ seed: 59 }, async (cluster) => {
      const topicId = await cluster.createTopic({ name: "letters", assignment: [{ brokerIds: [1, 2, 3] }] });
      const target = { topicId, partition: 0 };
      const writer = new IdempotentWriter(cluster.client(), new History(() => cluster.nowMs), "writer", target);
      await cluster.complete(writer.write(["a letter"]));
      await cluster.until(() => writer.isIdle, "it is written");
      const path = paths.partitionState("letters", 0);
      const before = cluster.zookeeper.node(path)?.data ?? "";
      const state = { controller_epoch: 1, leader: -1, leader_epoch: 0, isr: [1], ...change };
      await cluster.writeNode(path, JSON.stringify(state));
      for (const id of [1, 2, 3]) cluster.restart(id);
      await cluster.untilUp();
      await cluster.run(10_000);
      expect(cluster.logged(new RegExp(`error: .*${path}.* cannot be read`))).toBe(true);
      await cluster.writeNode(path, before);
      await cluster.untilSettled("letters");
      const read = await cluster.complete(readToEnd(cluster.client(), "all", target));
      expect(read.records).toHaveLength(1);
    });
  });

  it("costs no record either, when it holds the settings of all brokers", async () => {
    const settings = { "log.retention.ms": "60000", "log.retention.check.interval.ms": "1000" };
    await withCluster({ seed: 58, settings }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const config = [{ name: "log.retention.ms", value: "-1" }];
      await cluster.complete(
        cluster.admin.administer("alterConfigs", { resource: ConfigResource.BROKER, name: "", config }),
      );
      await letters.write(5);
      const path = paths.brokerConfig("<default>");
      await cluster.writeNode(path, unreadable);
      for (const id of [1, 2, 3]) cluster.restart(id);
      await cluster.untilUp();
      await cluster.run(90_000);
      const read = await cluster.complete(readToEnd(cluster.client(), "all", letters.target));
      expect(read.records).toHaveLength(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("ends no role, and the topic keeps its settings", async () => {
    await withCluster({ seed: 56, brokers: 4 }, async (cluster) => {
      const { controllerId = 0 } = cluster;
      const assignment = [1, 2, 3, 4].filter((id) => id !== controllerId);
      const letters = await Letters.create(cluster, { assignment, config: { durability: "fsync" } });
      await letters.write(5);
      await cluster.writeNode(paths.topicConfig("letters"), unreadable);
      cluster.crash(controllerId);
      await cluster.until(() => ![controllerId, undefined].includes(cluster.controllerId), "another controller");
      await cluster.run(3000);
      await letters.write(5);
      for (const id of assignment) expect(cluster.log(id, "letters").settings.durability).toBe("fsync");
      const topic = { name: "letters", assignment: [{ brokerIds: assignment }] };
      const again = cluster.admin.administer("createTopics", { topics: [topic], timeoutMs: 5000 });
      const { topics } = await cluster.complete(again);
      expect(topics.map(({ error }) => error && errorNameOf(error.code))).toEqual(["TOPIC_ALREADY_EXISTS"]);
    });
  });
});

describe("whoever administers", () => {
  const setMinimum = (value: string | null, name: string) => ({
    resource: ConfigResource.BROKER,
    name,
    config: [{ name: "log.retention.ms", value }],
  });

  it("is refused settings for a broker that is not there, unless it has some", async () => {
    await withCluster({ seed: 61 }, async (cluster) => {
      const alter = (value: string | null, name: string) =>
        cluster.complete(cluster.admin.administer("alterConfigs", setMinimum(value, name)));
      await expect(alter("1000", "9")).rejects.toMatchObject({
        errorName: "INVALID_REQUEST",
        message: expect.stringMatching(/broker 9 is not registered.*1, 2, 3/) as string,
      });
      const [other = 0, another = 0] = [1, 2, 3].filter((id) => id !== cluster.controllerId);
      await alter("1000", String(other));
      for (const id of [other, another]) cluster.crash(id);
      await cluster.until(
        () => [other, another].every((id) => cluster.zookeeper.node(`/brokers/ids/${id}`) === undefined),
        "they are gone",
      );
      await cluster.run(1000);
      await expect(alter("1000", String(another))).rejects.toMatchObject({ errorName: "INVALID_REQUEST" });
      // What it will find when it returns can be changed, and taken back.
      await alter("2000", String(other));
      await alter(null, String(other));
    });
  });

  it("is told the min.insync.replicas in force, and where it comes from", async () => {
    await withCluster({ seed: 62 }, async (cluster) => {
      await cluster.createTopic({ name: "letters", assignment: [{ brokerIds: [1, 2, 3] }] });
      await cluster.createTopic({ name: "cards", assignment: [{ brokerIds: [1, 2] }] });
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const minimum = async (name: string): Promise<string> => {
        const { body } = await cluster.complete(client.request(2, "describeConfigs", { name }));
        const found = body.config.find((one) => one.name === "min.insync.replicas");
        return `${found?.value} ${found?.source}`;
      };
      const set = (resource: ConfigResource, name: string, value: string | null) =>
        cluster.complete(
          cluster.admin.administer("alterConfigs", {
            resource,
            name,
            config: [{ name: "min.insync.replicas", value }],
          }),
        );
      expect([await minimum("letters"), await minimum("cards")]).toEqual(["2 default", "1 default"]);
      await set(ConfigResource.BROKER, "", "1");
      await cluster.run(1000);
      expect([await minimum("letters"), await minimum("cards")]).toEqual(["1 cluster", "1 cluster"]);
      await set(ConfigResource.TOPIC, "letters", "3");
      await cluster.run(1000);
      expect(await minimum("letters")).toBe("3 topic");
    });
  });

  it("is told when a topic gets fewer replicas than it would with all brokers there", async () => {
    await withCluster({ seed: 63 }, async (cluster) => {
      const create = async (name: string, replicationFactor = 0) => {
        const request = { topics: [{ name, replicationFactor }], timeoutMs: 5000 };
        const { topics } = await cluster.complete(cluster.admin.administer("createTopics", request));
        return { replicas: topics[0]?.replicationFactor, warning: topics[0]?.warning };
      };
      expect(await create("three")).toEqual({ replicas: 3, warning: "" });
      const away = [1, 2, 3].find((id) => id !== cluster.controllerId) ?? 0;
      cluster.crash(away);
      await cluster.until(() => cluster.zookeeper.node(`/brokers/ids/${away}`) === undefined, "it is gone");
      await cluster.run(1000);
      const two = await create("two");
      expect(two.replicas).toBe(2);
      expect(two.warning).toMatch(/2 replicas instead of 3.*2 brokers are registered/);
      expect(await create("asked-for", 2)).toEqual({ replicas: 2, warning: "" });
    });
  });
});

describe("a ZooKeeper that was restored from a backup", () => {
  it("makes no leader of a replica whose log is newer, and nothing stops", async () => {
    await withCluster({ seed: 57 }, async (cluster) => {
      const topicId = await cluster.createTopic({ name: "letters", assignment: [{ brokerIds: [1, 2, 3] }] });
      const target = { topicId, partition: 0 };
      const history = new History(() => cluster.nowMs);
      const writer = new IdempotentWriter(cluster.client(), history, "writer", target);
      const path = paths.partitionState("letters", 0);
      const backup = cluster.zookeeper.node(path)?.data ?? "";
      for (let round = 0; round < 6; round += 1) {
        cluster.restart(cluster.leaderOf("letters"));
        await cluster.untilUp();
        await cluster.untilSettled("letters");
        await cluster.complete(writer.write([`letter ${round}`]));
        await cluster.until(() => writer.isIdle, "it is written");
      }
      await cluster.run(1000);
      const newest = cluster.log(1, "letters").lastEpoch ?? 0;
      for (const id of [1, 2, 3]) cluster.crash(id);
      await cluster.writeNode(path, backup);
      for (const id of [1, 2, 3]) cluster.start(id);
      await cluster.untilUp();
      await cluster.run(3000);
      const { leader = 0, leaderEpoch = 0 } = cluster.stateOf("letters", 0) ?? {};
      expect(leaderEpoch).toBeLessThan(newest);
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const batch = encodeBatch(["too early"], 0);
      const to = { brokerId: leader, leaderEpoch: undefined };
      const attempt = await cluster.complete(produceOnce(client, to, target, "all", batch));
      expect(attempt).toMatchObject({ error: "NOT_LEADER_OR_FOLLOWER" });
      await cluster.run(3000);
      expect(cluster.upIds).toEqual([1, 2, 3]);
      for (const id of [1, 2, 3]) {
        expect(cluster.partition(id, "letters")?.role.kind).toBe("none");
        expect(cluster.log(id, "letters").logEndOffset).toBe(6);
        const said = new RegExp(`broker-${id} error: letters-0: ZooKeeper holds leader epoch`);
        expect(cluster.lines.filter((line) => said.test(line))).toHaveLength(1);
      }
    });
  });
});
