import { PassThrough } from "node:stream";
import { recordPrinter } from "../../../../tools/cli/record-format.js";
import type { PrintableRecord } from "../../../../tools/cli/record-format.js";
import { Stdout } from "../../../../tools/cli/stdout.js";

const record: PrintableRecord = {
  topic: "orders",
  partition: 3,
  offset: 17,
  timestamp: 1_700_000_000_123,
  key: Buffer.from("k"),
  value: Buffer.from('v"\xff', "latin1"),
  headers: [
    { key: "a", value: Buffer.from("1") },
    { key: "__proto__", value: Buffer.from("2") },
    { key: "a", value: null },
  ],
};

async function printed(
  format: string,
  of: PrintableRecord = record,
  encoding: "utf8" | "hex" = "utf8",
): Promise<Buffer> {
  const target = new PassThrough();
  const out = new Stdout(target);
  recordPrinter(format, encoding)(of, out);
  await out.flush();
  return (target.read() as Buffer | null) ?? Buffer.alloc(0);
}

describe("recordPrinter", () => {
  it("writes the bytes of a value and a newline", async () => {
    expect(await printed("value")).toEqual(Buffer.from('v"\xff\n', "latin1"));
    expect(await printed("value", { ...record, value: null })).toEqual(Buffer.from("\n"));
  });

  it("writes JSON; of a header that repeats, all values, and no name of one does harm", async () => {
    const text = (await printed("json")).toString();
    expect(text).toBe(
      '{"topic":"orders","partition":3,"offset":17,"timestamp":1700000000123,"key":"k","value":"v\\"\ufffd",' +
        '"headers":{"a":["1",null],"__proto__":"2"}}\n',
    );
    expect((await printed("json", { ...record, key: null, headers: [] }, "hex")).toString()).toContain(
      '"key":null,"value":"7622ff","headers":{}}',
    );
  });

  it("fills a template and adds nothing to it", async () => {
    const text = (await printed("%t-%p@%o %k=%v %T %d %h %K %S %%\\n", { ...record, value: null })).toString();
    expect(text).toBe("orders-3@17 k= 1700000000123 2023-11-14T22:13:20.123Z a=1,__proto__=2,a= 1 -1 %\n");
  });

  it("writes the number of a timestamp that is no date, as a producer may have sent it", async () => {
    for (const [timestamp, text] of [
      [8.64e15, "+275760-09-13T00:00:00.000Z"],
      [8.64e15 + 1, "8640000000000001"],
      [-(2 ** 60), "-1152921504606847000"],
    ] as const)
      expect((await printed("%d", { ...record, timestamp })).toString()).toBe(text);
  });

  it.each([
    ["%x", "%x is not a field"],
    ["%v%", "ends in a single %"],
    ["{value}", "prints nothing of a record"],
  ])("refuses the template %s", (template, reason) => expect(() => recordPrinter(template, "utf8")).toThrow(reason));
});
