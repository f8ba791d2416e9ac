import { readFileSync } from "node:fs";
import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import { FakeCluster } from "../../support/fake-broker.js";

interface Documented {
  readonly name: string;
  readonly type: string;
  readonly doc: string;
}

/** The fields of an interface with their doc comments, read as text: comments do not outlive the compiler. */
function fieldsOf(name: string): Documented[] {
  const source = readFileSync("client/options.ts", "utf8");
  const [, body] = new RegExp(`interface ${name} \\{\\n(.*?)\\n\\}`, "s").exec(source) ?? [];
  const fields = body!.matchAll(/(?: {2}\/\*\*(.*?)\*\/\n)? {2}readonly (\w+)\??: ([^;]+);/gs);
  return [...fields].map(([, doc = "", field, type]) => ({
    name: field!,
    type: type!,
    doc: doc.replace(/\s*\n\s*\* ?/g, " "),
  }));
}

/** Goal: what the comment of an option says of its bounds is what holds. */
describe("the comment of each option", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  beforeAll(async () => {
    fake = await FakeCluster.start(1);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
  });

  afterAll(async () => {
    await cluster.close();
    await fake[Symbol.asyncDispose]();
  });

  const tried: Record<string, (option: object) => unknown> = {
    ConnectOptions: async (option) => (await connect({ bootstrapBrokers: fake.bootstrapBrokers, ...option })).close(),
    // Linger must be below the time for a delivery, and without idempotence more may be in flight.
    ProducerOptions: (option) =>
      cluster.producer({
        acks: "leader",
        ...("deliveryTimeoutMs" in option ? {} : { deliveryTimeoutMs: 60_001 }),
        ...option,
      }),
    ConsumerOptionsBase: (option) => cluster.consumer({ topic: "t", ...option }),
    CallOptions: (option) => cluster.admin().listTopics(option),
  };
  const rows = Object.keys(tried).flatMap((of) => fieldsOf(of).map((field) => ({ of, ...field })));

  it.each(rows)("$of $name: is there, with the default", ({ doc, name }) => {
    expect(doc).toMatch(/\w/);
    if (name !== "bootstrapBrokers") expect(doc).toContain("@defaultValue ");
  });

  it.each(rows.filter(({ type }) => type === "number"))("$of $name: says its bounds and its unit", async (row) => {
    const { of, name, doc } = row;
    const [, least, most] = /\bfrom (\d+) (?:to (\d+)|on)/.exec(doc) ?? [];
    expect(least).toBeDefined();
    expect(`${name}: ${doc}`).toMatch(/Ms: .*milliseconds|Bytes.*: .*[Bb]ytes|maxInFlight: +Batches/);
    const isRefused = async (value: number): Promise<boolean> => {
      const outcome: unknown = await Promise.resolve({ [name]: value })
        .then(tried[of])
        .catch((error: unknown) => error);
      return outcome instanceof Error && outcome.message.startsWith(`${name} is ${value};`);
    };
    const end = most === undefined ? Number.MAX_SAFE_INTEGER : Number(most);
    const values = [Number(least) - 1, Number(least), end, end + 1, Number(least) + 0.5];
    expect(await Promise.all(values.map(isRefused))).toEqual([true, false, false, true, true]);
  });
});
