import fs from "node:fs";
import path from "node:path";
import { InProcessCluster } from "../support/in-process-cluster.js";
import { batchOf } from "../support/batches.js";

let cluster: InProcessCluster;

beforeAll(async () => {
  cluster = await InProcessCluster.start({ brokers: 1, settings: { "zookeeper.session.timeout.ms": "1500" } });
}, 60_000);

afterAll(async () => {
  await cluster.stop();
}, 30_000);

/** Whatever a mistake came to, broker 1 must serve as before. */
afterEach(async () => {
  const connection = await cluster.connect(1);
  const { body } = await connection.request("metadata", {});
  connection.close();
  expect(body.controllerId).toBe(1);
  expect(cluster.fatal).toEqual([]);
});

const startFails = async (brokerId: number, directory: string, zookeeper?: string): Promise<Error> => {
  const broker = cluster.newBroker(brokerId, directory, zookeeper);
  return broker.start().then(
    () => {
      throw new Error("it started");
    },
    (error: Error) => error,
  );
};

describe("a broker that may not start", () => {
  it("is told who holds its id, and the holder goes on", async () => {
    const error = await startFails(1, path.join(cluster.directory, "twin"));
    expect(error.name).toBe("BrokerIdTaken");
    expect(error.message).toMatch(/broker id 1 is registered by another process .*give each broker its own id/);
  }, 30_000);

  it("is told that another one runs on its directory", async () => {
    const error = await startFails(1, path.join(cluster.directory, "broker-1"));
    expect(error.message).toMatch(/another broker is running on .*broker-1/);
  }, 15_000);

  it("is told that the directory is another broker's", async () => {
    const directory = path.join(cluster.directory, "of-broker-7");
    fs.mkdirSync(directory);
    fs.writeFileSync(path.join(directory, "meta.properties"), "version=1\nbroker.id=7\ncluster.id=x\n");
    const error = await startFails(2, directory);
    expect(error.message).toMatch(/belongs to broker 7, not to broker 2/);
  });

  it("is told that the directory belongs to another cluster, and nothing in it is touched", async () => {
    const directory = path.join(cluster.directory, "of-another-cluster");
    const log = path.join(directory, "logs", "orders-0");
    fs.mkdirSync(log, { recursive: true });
    fs.writeFileSync(path.join(log, "00000000000000000000.log"), "");
    fs.writeFileSync(
      path.join(directory, "meta.properties"),
      "version=1\nbroker.id=2\ncluster.id=00000000-0000-4000-8000-000000000000\n",
    );
    const error = await startFails(2, directory);
    expect(error.message).toMatch(/belongs to cluster 00000000-.*, but ZooKeeper holds cluster/);
    expect(fs.existsSync(log)).toBe(true);
  });

  it("is told in one sentence that ZooKeeper does not answer, and where it was looked for", async () => {
    const error = await startFails(2, path.join(cluster.directory, "no-zookeeper"), "127.0.0.1:1");
    expect(error.name).toBe("ZooKeeperError");
    expect(error.message).toMatch(/127\.0\.0\.1:1/);
  }, 30_000);
});

describe("a log that is not this broker's", () => {
  it("is set aside, not deleted and not served", async () => {
    const topicId = await cluster.createTopic({ name: "strayed", partitions: 1, replicationFactor: 1 });
    const connection = await cluster.connect(1);
    await connection.request(
      "produce",
      { acks: -1, timeoutMs: 5000, partitions: [{ topicId, partition: 0 }] },
      { records: [[batchOf(["kept"])]] },
    );
    connection.close();
    const directory = path.join(cluster.directory, "broker-1", "logs");
    await cluster.brokers.get(1)?.stop();
    fs.cpSync(path.join(directory, "strayed-0"), path.join(directory, "unknown-3"), { recursive: true });
    const metadata = path.join(directory, "unknown-3", "partition.metadata");
    fs.writeFileSync(
      metadata,
      fs.readFileSync(metadata, "utf8").replace(topicId, "11111111-1111-4111-8111-111111111111"),
    );
    await cluster.startBroker(1);
    expect(cluster.brokers.get(1)?.partitions?.get(topicId, 0)?.log.logEndOffset).toBe(1);
    expect(fs.readdirSync(directory).filter((name) => name.startsWith("unknown-3"))).toEqual([
      expect.stringMatching(/^unknown-3~stray/),
    ]);
  }, 30_000);
});
