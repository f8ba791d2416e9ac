import { connect } from "../../../client/index.js";
import { readBatches } from "../../../protocol/record-batch.js";
import { RecordCursor } from "../../../protocol/record-cursor.js";
import { FakeCluster } from "../../support/fake-broker.js";

describe("Producer", () => {
  it("keeps the order of its records when an administrator's call is what makes their topic known", async () => {
    await using fake = await FakeCluster.start(1);
    await using cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
    for (const topic of ["t", "u"]) fake.createTopic(topic);
    const producer = cluster.producer();
    const admin = cluster.admin();
    const listed = admin.listOffsets(["t", "u"].map((topic) => ({ topic, partition: 0, query: "latest" })));
    // The administrator's answer makes this topic known, and what is handed over then is of the other one.
    await producer.produce("u", { value: "of another topic" });
    void producer.produce("t", { value: "first" });
    for (let turns = 0; turns < 20; turns += 1) await Promise.resolve();
    void producer.produce("t", { value: "second" });
    await listed;
    await producer.flush();
    const values: string[] = [];
    for (const batch of fake.partition("t").batches.flatMap((bytes) => readBatches(bytes))) {
      const cursor = new RecordCursor(batch);
      while (cursor.next()) values.push(batch.buffer.toString("utf8", cursor.valueStart, cursor.valueEnd));
    }
    expect(values).toEqual(["first", "second"]);
  });
});
