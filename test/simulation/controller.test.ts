import { ZooKeeper } from "../../broker/zookeeper/zookeeper.js";
import { encodeTopic, paths } from "../../broker/zookeeper/znodes.js";
import { silentLogger } from "../../common/logger.js";
import { errorNameOf } from "../../protocol/error-codes.js";
import type { NewTopic } from "../../protocol/messages.js";
import { ControllerCluster } from "./controller-cluster.js";

describe("a controller", () => {
  it("is elected, one, and tells every broker", async () => {
    const cluster = new ControllerCluster(1);
    await cluster.startAll(3);
    expect(cluster.alive.filter(({ node }) => node.active !== undefined)).toHaveLength(1);
    cluster.assertClean();
  });

  it("creates a topic whose leaders everybody knows when the answer comes", async () => {
    const cluster = new ControllerCluster(2);
    await cluster.startAll(3);
    expect(await cluster.createTopic("letters", { partitions: 4 })).toMatchObject({
      partitions: 4,
      replicationFactor: 3,
    });
    for (const broker of cluster.alive) {
      expect([0, 1, 2, 3].map((partition) => broker.stateOf("letters", partition)?.isr.length)).toEqual([3, 3, 3, 3]);
    }
    cluster.assertClean();
  });
});

describe("topics created in one request", () => {
  it("have to fit in with one another", async () => {
    const cluster = new ControllerCluster(10);
    await cluster.startAll(3, { settings: { "partitions.max": "10" } });
    await cluster.createTopic("old.one");
    const wanted = (name: string, partitions: number): NewTopic => ({
      name,
      partitions,
      replicationFactor: 3,
      config: [],
      assignment: [],
    });
    const names = ["a.b", "a_b", "a.b", "old_one", "c"];
    const topics = [...names.map((name) => wanted(name, 4)), wanted("d", 2), wanted("e", 1)];
    const request = { topics, timeoutMs: 10_000, validateOnly: false };
    const results = (await cluster.simulation.complete(cluster.api.createTopics(request))).topics ?? [];
    expect(results.map(({ name, error }) => [name, error && errorNameOf(error.code ?? -1)])).toEqual([
      ["a.b", undefined],
      ["a_b", "INVALID_TOPIC"],
      ["a.b", "INVALID_REQUEST"],
      ["old_one", "INVALID_TOPIC"],
      ["c", undefined],
      ["d", "INVALID_PARTITIONS"],
      ["e", undefined],
    ]);
    cluster.assertClean();
  });
});

describe("a broker that is killed", () => {
  it("is replaced within 300 ms", async () => {
    const cluster = new ControllerCluster(3);
    await cluster.startAll(3);
    await cluster.createTopic("letters", { partitions: 6 });
    const { bystander } = cluster;
    cluster.crash(bystander.brokerId);
    expect(await cluster.led("letters")).toBeLessThan(300);
    cluster.assertClean();
  });

  it("is replaced within 400 ms when it was the controller", async () => {
    const cluster = new ControllerCluster(4);
    await cluster.startAll(3);
    await cluster.createTopic("letters", { partitions: 6 });
    cluster.crash(cluster.controller!.brokerId);
    expect(await cluster.led("letters")).toBeLessThan(400);
    await cluster.settled();
    cluster.assertClean();
  });
});

describe("a node that somebody else made in the place of ours", () => {
  const nonsense = Buffer.from("x");

  /** Somebody with a shell. */
  async function operatorOf({ simulation, zookeeper }: ControllerCluster): Promise<ZooKeeper> {
    const { env } = simulation.startProcess("operator");
    const servers = zookeeper.connectString;
    const operator = new ZooKeeper(env, silentLogger, { servers, sessionTimeoutMs: 6000 });
    await simulation.complete(operator.whenConnected(5000));
    return operator;
  }

  it("keeps the office vacant until it is deleted, and stops no broker", async () => {
    const cluster = new ControllerCluster(5);
    const operator = await operatorOf(cluster);
    await cluster.simulation.complete(operator.create(paths.controller, nonsense));
    await cluster.simulation.complete(Promise.all([1, 2, 3].map((id) => cluster.start(id))));
    await cluster.simulation.run(2000);
    expect(cluster.controller).toBeUndefined();
    expect(cluster.log.some((line) => line.includes("error") && line.includes(paths.controller))).toBe(true);
    await cluster.simulation.complete(operator.remove(paths.controller, -1));
    await cluster.settled();
    cluster.assertClean();
  });

  it("ends the controller in office, which makes room for the next", async () => {
    const cluster = new ControllerCluster(6);
    await cluster.startAll(3);
    const operator = await operatorOf(cluster);
    await cluster.simulation.complete(
      operator.multi([
        { kind: "delete", path: paths.controller, version: -1 },
        { kind: "create", path: paths.controller, data: nonsense, ephemeral: false },
      ]),
    );
    await cluster.simulation.run(2000);
    await cluster.settled();
    expect(cluster.controller?.controllerEpoch).toBe(2);
    cluster.assertClean();
  });

  it("keeps a broker out only for as long as it is there", async () => {
    const cluster = new ControllerCluster(7);
    await cluster.startAll(3);
    const { brokerId } = cluster.bystander;
    const path = paths.broker(brokerId);
    const operator = await operatorOf(cluster);
    await cluster.simulation.complete(
      operator.multi([
        { kind: "delete", path, version: -1 },
        { kind: "create", path, data: nonsense, ephemeral: false },
      ]),
    );
    await cluster.simulation.run(2000);
    expect(cluster.broker(brokerId).epoch).toBeUndefined();
    await cluster.simulation.complete(operator.remove(path, -1));
    await cluster.settled();
    cluster.assertClean();
  });

  it("in a topic's delays the topic's deletion, and nothing else", async () => {
    const cluster = new ControllerCluster(8);
    await cluster.startAll(3);
    await cluster.createTopic("letters");
    const operator = await operatorOf(cluster);
    const stranger = `${paths.topic("letters")}/stranger`;
    await cluster.simulation.complete(operator.create(stranger, nonsense));
    const deletion = { names: ["letters"], topicIds: [], timeoutMs: 5000 };
    const { topics } = await cluster.simulation.complete(cluster.api.deleteTopics(deletion));
    expect(topics).toMatchObject([{ name: "letters", error: null }]);
    const said = (): number => cluster.log.filter((line) => /error Topic letters: .*NotEmpty/.test(line)).length;
    expect(said()).toBe(1);
    expect((await cluster.createTopic("diaries", { partitions: 2 })).error ?? null).toBeNull();
    // A successor tries once more.
    cluster.crash(cluster.controller!.brokerId);
    await cluster.led("diaries");
    await cluster.simulation.run(2000);
    expect(said()).toBe(2);
    await cluster.simulation.complete(operator.remove(stranger, -1));
    await cluster.bounce(cluster.controller!.brokerId);
    await cluster.settled();
    await cluster.simulation.run(1000);
    expect(cluster.zookeeper.paths().filter((path) => path.includes("/letters"))).toEqual([]);
    cluster.assertClean();
  });

  it("in the place of a partition delays that partition, and nothing else", async () => {
    const cluster = new ControllerCluster(9);
    await cluster.startAll(3);
    const topicId = "5a2c7c1e-6f0e-4f53-9a35-0c9a1d3c8c11";
    const operator = await operatorOf(cluster);
    // Whoever makes a topic by hand makes its assignment; the controller does the rest, if nothing is in its way.
    await cluster.simulation.complete(
      operator.multi([
        {
          kind: "create",
          path: paths.topic("letters"),
          data: encodeTopic({ topicId, assignment: [[1, 2, 3]] }),
          ephemeral: false,
        },
        { kind: "create", path: paths.partitions("letters"), data: nonsense, ephemeral: false },
        { kind: "create", path: paths.partition("letters", 0), data: nonsense, ephemeral: true },
      ]),
    );
    cluster.crash(cluster.controller!.brokerId);
    await cluster.simulation.runUntil(() => cluster.controller !== undefined, 1000, "a new controller");
    await cluster.simulation.run(2000);
    expect(cluster.log.filter((line) => /error Topic letters: .*BadArguments/.test(line))).toHaveLength(1);
    expect((await cluster.createTopic("diaries", { replicationFactor: 2 })).error ?? null).toBeNull();
    cluster.assertClean();
  });
});
