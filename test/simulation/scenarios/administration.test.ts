import { connect, ClientError } from "../../../client/index.js";
import type { Admin } from "../../../client/index.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";

const withAdmin = (seed: number, body: (cluster: SimCluster, admin: Admin) => Promise<void>): Promise<void> =>
  withCluster({ seed }, async (cluster) => {
    const bootstrapBrokers = [...cluster.brokers.values()].map(({ address }) => address);
    const library = await cluster.complete(connect({ env: cluster.client().env, bootstrapBrokers }));
    await body(cluster, library.admin());
    await cluster.complete(library.close());
  });

/** The code of what a call failed with; "done" when it did not. */
const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "done",
    (error: unknown) => {
      if (error instanceof ClientError) return error.code;
      throw error;
    },
  );

/** Moments at which ZooKeeper goes away while a request is worked on, in milliseconds after it was sent. */
const moments = [0, 0.5, 1, 1.5, 2, 3, 5] as const;

describe("a change that is asked for while ZooKeeper goes away", () => {
  it.each(moments)("is done when it is back soon (%d ms)", async (delayMs) => {
    await withAdmin(301, async (cluster, admin) => {
      const codes = Promise.all([codeOf(admin.createTopics([{ name: "t", partitions: 2 }]))]);
      await cluster.run(delayMs);
      cluster.zookeeper.loseQuorum();
      await cluster.run(3000);
      cluster.zookeeper.regainQuorum();
      expect(await cluster.complete(codes)).toEqual(["done"]);
      expect(cluster.topicId("t")).toBeDefined();
      const former = cluster.topicId("t");
      const deleting = codeOf(admin.deleteTopics(["t"]));
      await cluster.run(delayMs);
      cluster.zookeeper.loseQuorum();
      await cluster.run(3000);
      cluster.zookeeper.regainQuorum();
      expect(await cluster.complete(deleting)).toBe("done");
      await cluster.until(() => cluster.topicId("t") !== former, "it is deleted");
    });
  });

  it.each(moments)("is not said to have failed when it may have been done (%d ms)", async (delayMs) => {
    await withAdmin(302, async (cluster, admin) => {
      const creating = codeOf(admin.createTopics([{ name: "t" }], { deadlineMs: 20_000 }));
      await cluster.run(delayMs);
      cluster.zookeeper.loseQuorum();
      await cluster.run(25_000);
      cluster.zookeeper.regainQuorum();
      const code = await cluster.complete(creating);
      await cluster.run(10_000);
      expect(["done", "OUTCOME_UNKNOWN", "ZOOKEEPER_UNAVAILABLE"]).toContain(code);
      if (code === "ZOOKEEPER_UNAVAILABLE") expect(cluster.topicId("t")).toBeUndefined();
    });
  });

  it("is done by the next controller when only the present one has lost ZooKeeper", async () => {
    await withAdmin(303, async (cluster, admin) => {
      cluster.simulation.network.partition(`broker-${cluster.controllerId}`, "zk1");
      await cluster.complete(admin.createTopics([{ name: "t", partitions: 2 }]));
      expect(cluster.topicId("t")).toBeDefined();
    });
  });
});

describe("settings of a topic that there is not", () => {
  it("are refused at once", async () => {
    await withAdmin(304, async (cluster, admin) => {
      const altering = codeOf(admin.alterConfigs({ topic: "nosuch" }, { "retention.ms": 1 }));
      expect(await cluster.complete(altering, 1000)).toBe("UNKNOWN_TOPIC_OR_PARTITION");
    });
  });
});
