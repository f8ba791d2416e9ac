import { jest } from "@jest/globals";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { writeClusterState } from "../../../../tools/local-cluster/cluster-state.js";
import { LocalCluster } from "../../../../tools/local-cluster/local-cluster.js";
import { PortClaims } from "../../../../tools/local-cluster/port-claims.js";
import { conditionOf, identityOf } from "../../../../tools/local-cluster/process-identity.js";
import type { ProcessIdentity } from "../../../../tools/local-cluster/process-identity.js";

/** Goal: a machine on which no ZooKeeper is found any more loses none that runs. In a file of its own, for the mock. */
describe("a ZooKeeper server that is to be restarted", () => {
  it("goes on where nothing is found to start it again with", async () => {
    class ZooKeeperNotFound extends Error {}
    const findZooKeeper = jest.fn(() => Promise.reject(new ZooKeeperNotFound("ZooKeeper is needed and not here")));
    jest.unstable_mockModule("../../../../tools/local-zookeeper.js", () => ({ findZooKeeper, ZooKeeperNotFound }));
    const data = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    const server = spawn("sleep", ["60"], { stdio: "ignore" });
    const claims = new PortClaims(data);
    try {
      const identity = identityOf(server.pid as number) as ProcessIdentity;
      const [port, quorumPort, electionPort] = [
        await claims.claimAny(),
        await claims.claimAny(),
        await claims.claimAny(),
      ];
      const entry = { id: 1, port: port!, quorumPort: quorumPort!, electionPort: electionPort!, process: identity };
      writeClusterState(data, { version: 1, brokers: [], zookeepers: [entry], settings: {} });
      const cluster = new LocalCluster(data);
      const options = { timeoutMs: 5000, signal: new AbortController().signal, say: () => undefined };
      const restarting = cluster.restart(cluster.find({ kind: "zookeeper", id: 1 }), options);
      await expect(restarting).rejects.toMatchObject({
        errorName: "ZOOKEEPER_NOT_FOUND",
        message: expect.stringContaining("not here"),
      });
      expect(findZooKeeper).toHaveBeenCalledTimes(1);
      expect(conditionOf(identity)).toBe("running");
      expect(cluster.find({ kind: "zookeeper", id: 1 }).process).toEqual(identity);
    } finally {
      await claims.release();
      server.kill("SIGKILL");
      fs.rmSync(data, { recursive: true });
    }
  });
});
