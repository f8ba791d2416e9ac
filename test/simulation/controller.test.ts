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
