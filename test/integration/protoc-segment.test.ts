import { execFile } from "node:child_process";
import { createReadStream, existsSync } from "node:fs";
import { join } from "node:path";
import type { RpcConnection } from "../../protocol/rpc-connection.js";
import { acksCodes } from "../../protocol/types.js";
import { batchOf } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { InProcessCluster } from "../support/in-process-cluster.js";

/** What `protoc --decode` prints of a file, or a sentence on how to get protoc. */
function decodeWithProtoc(message: string, file: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const args = [`--decode=ottla.${message}`, "--proto_path=protocol/schema", "record-batch.proto"];
    const child = execFile("protoc", args, { timeout: 30_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else if (error.code === "ENOENT")
        reject(
          new Error(
            "protoc is needed and not here: install it (Debian and Ubuntu: apt-get install protobuf-compiler; macOS: brew install protobuf)",
          ),
        );
      else reject(new Error(`protoc cannot read ${file}: ${stderr}`));
    });
    if (child.stdin !== null) createReadStream(file).pipe(child.stdin.on("error", () => undefined));
  });
}

/** The values of a field, in the order in which protoc prints them. */
const valuesOf = (printed: string, field: string): string[] =>
  [...printed.matchAll(new RegExp(`^ *${field}: (.*)$`, "gm"))].map(([, value]) => value as string);

let cluster: InProcessCluster;
let connection: RpcConnection;

beforeAll(async () => {
  cluster = await InProcessCluster.start({ brokers: 1 });
  connection = await cluster.connect(1);
}, 60_000);

afterAll(async () => {
  connection.close();
  await cluster.stop();
}, 30_000);

it("writes segments that protoc prints, while the broker appends to them", async () => {
  const topicId = await cluster.createTopic({ name: "orders", partitions: 1, replicationFactor: 1 });
  for (const values of [["paid", "shipped"], ["returned"]]) {
    const { body } = await connection.request(
      "produce",
      { acks: acksCodes.all, timeoutMs: 5000, partitions: [{ topicId, partition: 0 }] },
      { records: [[batchOf(values, {}, 1_700_000_000_000)]] },
    );
    expect(body.partitions[0]?.error).toBeNull();
  }
  const segment = join(cluster.directory, "broker-1/logs/orders-0/00000000000000000000.log");
  await eventually("the segment is there", () => existsSync(segment));

  const printed = await decodeWithProtoc("RecordBatches", segment);

  expect(valuesOf(printed, "base_offset")).toEqual(["0", "2"]);
  expect(valuesOf(printed, "leader_epoch")).toEqual(["0", "0"]);
  expect(valuesOf(printed, "last_offset_delta")).toEqual(["1", "0"]);
  expect(valuesOf(printed, "base_timestamp")).toEqual(["1700000000000", "1700000000000"]);
  expect(valuesOf(printed, "producer_id")).toEqual(["-1", "-1"]);
  expect(valuesOf(printed, "record_count")).toEqual(["2", "1"]);
  expect(valuesOf(printed, "records").map((text) => /paid|shipped|returned/.test(text))).toEqual([true, true]);
}, 60_000);
