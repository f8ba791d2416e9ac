import { withCluster } from "../cluster.js";
import type { SimCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import type { SimClient } from "../sim-client.js";

const SESSIONS_MAX = 10;

describe("a leader whose fetch sessions are all taken", () => {
  /** Begins so many at one broker, over one connection, and asks for nothing. Returns their ids. */
  async function takeSessions(cluster: SimCluster, client: SimClient, id: number, count: number): Promise<number[]> {
    await cluster.complete(client.refresh());
    const ids: number[] = [];
    for (let taken = 0; taken < count; taken += 1) {
      const { body } = await cluster.complete(client.request(id, "fetch", { sessionEpoch: 1, maxBytes: 1000 }));
      ids.push(body.sessionId);
    }
    return ids;
  }

  it("has one for each follower all the same", async () => {
    await withCluster({ seed: 91, settings: { "fetch.sessions.max": String(SESSIONS_MAX) } }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await cluster.createTopic({ name: "others", assignment: [{ brokerIds: [1, 2, 3] }, { brokerIds: [1, 3, 2] }] });
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      cluster.crash(follower);
      await cluster.until(() => cluster.isrOf("letters").length === 2, "it is gone");
      for (const count of [6, 6]) await takeSessions(cluster, cluster.client(), leader, count);
      cluster.start(follower);
      await cluster.untilUp();
      for (const topic of ["letters", "others"]) await cluster.untilSettled(topic);
      await cluster.run(1000);
      await letters.write(10, 1000);
      expect(cluster.isrOf("letters")).toContain(follower);
      await cluster.run(1000);
      // One without a session is told of everything with each answer, and so asks again at once, without end.
      const { eventCount } = cluster.simulation.scheduler;
      await cluster.run(5000);
      expect(cluster.simulation.scheduler.eventCount - eventCount).toBeLessThan(1400);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("keeps eight for a connection, and forgets the oldest", async () => {
    await withCluster({ seed: 92, settings: { "fetch.sessions.max": String(SESSIONS_MAX) } }, async (cluster) => {
      const client = cluster.client();
      const [first = 0, ...others] = await takeSessions(cluster, client, 1, 9);
      expect(new Set([first, ...others]).size).toBe(9);
      const again = (sessionId: number) => client.request(1, "fetch", { sessionId, sessionEpoch: 2, maxBytes: 1000 });
      await expect(cluster.complete(again(first))).rejects.toMatchObject({ errorName: "FETCH_SESSION_ID_NOT_FOUND" });
      for (const id of others) expect((await cluster.complete(again(id))).body.sessionId).toBe(id);
    });
  });
});
