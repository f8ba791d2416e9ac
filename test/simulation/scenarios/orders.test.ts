import { paths } from "../../../broker/zookeeper/znodes.js";
import { withCluster } from "../cluster.js";
import { ControllerCluster } from "../controller-cluster.js";

describe("a controller with many partitions", () => {
  it("tells a new broker of all of them, in parts of two hundred at most", async () => {
    const cluster = new ControllerCluster(81);
    await cluster.startAll(2);
    await cluster.createTopic("many", { partitions: 2500, replicationFactor: 1 });
    await cluster.createTopic("few", { partitions: 3, replicationFactor: 1 });
    const started = cluster.start(3);
    const { partitionsOrdered } = cluster.broker(3);
    await cluster.simulation.complete(started);
    await cluster.settled();
    expect(partitionsOrdered.reduce((sum, count) => sum + count, 0)).toBe(2503);
    // A broker takes an order within one turn: whoever else waits for it waits for that.
    expect(Math.max(...partitionsOrdered)).toBe(200);
    expect(cluster.broker(3).imagesReceived).toBe(1);
    cluster.assertClean();
  });

  it("has what a broker slept through forgotten there, once the last part has come, and nothing else", async () => {
    await withCluster({ seed: 82 }, async (cluster) => {
      const controller = cluster.controllerId ?? 0;
      const sleeper = controller === 3 ? 2 : 3;
      const replicas = (count: number) => Array.from({ length: count }, () => ({ brokerIds: [sleeper] }));
      await cluster.createTopic({ name: "gone", assignment: replicas(1) });
      // Each of these is named in parts in which the other is not.
      for (const name of ["apples", "zebras"]) await cluster.createTopic({ name, assignment: replicas(600) });
      // And this one is named in the last part alone.
      await cluster.createTopic({ name: "zoo", assignment: replicas(1) });
      // The order that says so waits in no buffer.
      cluster.simulation.network.partition(`broker-${controller}`, `broker-${sleeper}`);
      cluster.pause(sleeper);
      await cluster.deleteTopic("gone");
      // The next controller's first word to each broker is everything.
      cluster.crash(controller);
      await cluster.until(() => ![controller, undefined].includes(cluster.controllerId), "there is another controller");
      const known = cluster.broker(sleeper).broker?.metadata;
      expect(known?.topicNamed("gone")).toBeDefined();
      cluster.simulation.network.heal();
      cluster.resume(sleeper);
      await cluster.until(() => known?.topicNamed("gone") === undefined, "the deleted topic is forgotten");
      await cluster.run(2000);
      for (const [name, count] of Object.entries({ apples: 600, zebras: 600, zoo: 1 })) {
        expect(known?.topicNamed(name)?.partitions.size).toBe(count);
        expect(cluster.partition(sleeper, name)?.role.kind).toBe("leader");
      }
      expect(cluster.lines.filter((line) => /(apples|zebras|zoo)-\d+ .* set aside/.test(line))).toEqual([]);
    });
  });

  it("has no broker tell clients of a part of a new topic, by whose size they would place keys", async () => {
    await withCluster({ seed: 83 }, async (cluster) => {
      const controller = cluster.controllerId ?? 0;
      const other = controller === 3 ? 2 : 3;
      const assignment = Array.from({ length: 1500 }, () => ({ brokerIds: [controller] }));
      const known = () => cluster.broker(other).broker?.metadata.topicNamed("many");
      const created = cluster.admin.administer("createTopics", {
        topics: [{ name: "many", assignment }],
        timeoutMs: 10_000,
      });
      await cluster.until(() => known() !== undefined, "the other broker has heard of the topic");
      expect(known()?.partitions.size).toBe(1500);
      await cluster.complete(created);
    });
  });

  it("has no broker tell clients of a part of the partitions that a topic gets", async () => {
    await withCluster({ seed: 85 }, async (cluster) => {
      const controller = cluster.controllerId ?? 0;
      const other = controller === 3 ? 2 : 3;
      const assignment = Array.from({ length: 500 }, () => ({ brokerIds: [controller] }));
      const [former, added] = [assignment.slice(0, 2), assignment.slice(2)];
      const topics = [{ name: "many", assignment: former }];
      await cluster.complete(cluster.admin.administer("createTopics", { topics, timeoutMs: 10_000 }));
      const known = () => cluster.broker(other).broker?.metadata.topicNamed("many");
      await cluster.until(() => known()?.partitions.size === 2, "the other broker has heard of the topic");
      const body = { topic: "many", partitions: 500, assignment: added, timeoutMs: 10_000 };
      const grown = cluster.admin.administer("createPartitions", body);
      await cluster.until(() => (known()?.partitions.size ?? 0) > 2, "the other broker has heard of some more");
      expect([2, undefined]).toContain(known()?.growsFrom);
      expect(known()?.growsFrom === undefined).toBe(known()?.partitions.size === 500);
      await cluster.complete(grown);
      await cluster.until(() => known()?.growsFrom === undefined, "the other broker has heard of all");
      expect(known()?.partitions.size).toBe(500);
    });
  });

  it("has what was deleted while it could not reach a broker deleted there, not set aside", async () => {
    await withCluster({ seed: 84 }, async (cluster) => {
      const controller = cluster.controllerId ?? 0;
      const away = controller === 3 ? 2 : 3;
      const names = ["apples", "pears"];
      for (const name of names) await cluster.createTopic({ name, assignment: [{ brokerIds: [away] }] });
      for (const name of names) expect(cluster.partition(away, name)?.role.kind).toBe("leader");
      cluster.simulation.network.partition(`broker-${controller}`, `broker-${away}`);
      // The order that says so gets lost.
      await cluster.deleteTopic("apples");
      await cluster.run(10_000);
      // There is no connection for another.
      await cluster.deleteTopic("pears");
      expect(cluster.lines.filter((line) => /fenc/.test(line))).toEqual([]);
      cluster.simulation.network.heal();
      const known = cluster.broker(away).broker?.metadata;
      for (const name of names)
        await cluster.until(() => known?.topicNamed(name) === undefined, `${name} is forgotten`);
      await cluster.run(2000);
      expect(cluster.lines.filter((line) => /set aside/.test(line))).toEqual([]);
    });
  });
});

describe("a deletion that a controller did not get to the end of", () => {
  it("is told to the brokers by its successor", async () => {
    await withCluster({ seed: 85 }, async (cluster) => {
      const controller = cluster.controllerId ?? 0;
      const away = controller === 3 ? 2 : 3;
      await cluster.createTopic({ name: "apples", assignment: [{ brokerIds: [away] }] });
      expect(cluster.partition(away, "apples")?.role.kind).toBe("leader");
      // What is in its way: the nodes of the topic stay.
      await cluster.writeNode(`${paths.topic("apples")}/stranger`, "", { create: true });
      cluster.simulation.network.partition(`broker-${controller}`, `broker-${away}`);
      await cluster.deleteTopic("apples");
      cluster.crash(controller);
      const known = cluster.broker(away).broker?.metadata;
      expect(known?.topicNamed("apples")).toBeDefined();
      cluster.simulation.network.heal();
      await cluster.until(() => known?.topicNamed("apples") === undefined, "the topic is forgotten");
      await cluster.run(2000);
      expect(cluster.lines.filter((line) => /set aside/.test(line))).toEqual([]);
    });
  });
});

describe("a connection that nobody uses", () => {
  it("is closed by a broker, unless it is between brokers", async () => {
    await withCluster({ seed: 83, settings: { "connections.max.idle.ms": "5000" } }, async (cluster) => {
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const connection = await cluster.complete(client.connection(1));
      const connected = (): string[] => cluster.lines.filter((line) => /Connected to broker \d/.test(line));
      const before = connected();
      expect(before.length).toBeGreaterThanOrEqual(3);
      await cluster.until(() => !connection.isOpen, "the client's is closed", 10_000);
      await cluster.run(60_000);
      expect(connected()).toEqual(before);
      await cluster.complete(client.refresh());
    });
  });
});
