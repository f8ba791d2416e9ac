import { JsonValues } from "../../../../tools/cli/json-values.js";
import type { JsonRecord } from "../../../../tools/cli/json-values.js";

/** All records of an input that arrives in chunks of so many bytes. */
async function recordsOf(
  input: string,
  options: { keyField?: string; chunkBytes?: number } = {},
): Promise<JsonRecord[]> {
  const values = new JsonValues(options.keyField, 1000);
  const records: JsonRecord[] = [];
  const bytes = Buffer.from(input);
  const chunkBytes = options.chunkBytes ?? bytes.length;
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    await values.push(bytes.subarray(at, at + chunkBytes), (record) => void records.push(record));
  }
  await values.end((record) => void records.push(record));
  expect(values.records).toBe(records.length);
  return records;
}

const texts = async (input: string, chunkBytes?: number): Promise<string[]> =>
  (await recordsOf(input, chunkBytes === undefined ? {} : { chunkBytes })).map(({ text }) => text);

describe("JsonValues", () => {
  it.each([1, 2, 3, 1000])(
    "makes a record of each element of one array, compactly, in chunks of %d bytes",
    async (chunk) => {
      const input = '  [ {"a": 1, "b": [true, false, null, {}] },\n "text ä \\u00e9\\n", -1.50, [ ], "" ]\n';
      expect(await texts(input, chunk)).toEqual([
        '{"a":1,"b":[true,false,null,{}]}',
        '"text ä é\\n"',
        "-1.5",
        "[]",
        '""',
      ]);
    },
  );

  it("makes a record of each value of a stream of values", async () => {
    expect(await texts('{"a":1}\n{"a":2} "x"\n3 4\n')).toEqual(['{"a":1}', '{"a":2}', '"x"', "3", "4"]);
  });

  it("writes what JSON.stringify would, but keeps the digits of large whole numbers and the order of keys", async () => {
    const values = [{ n: 0.1, e: 1e21, deep: [[{ x: [1, "\u2028"] }]] }, "\ud83d\ude00"];
    expect(await texts(JSON.stringify(values))).toEqual(values.map((value) => JSON.stringify(value)));
    expect(await texts('{"2":12345678901234567890,"1":1.0}')).toEqual(['{"2":12345678901234567890,"1":1}']);
  });

  it("takes the key from a field at the top of the record only", async () => {
    const records = await recordsOf('[{"id":"a","in":{"id":"no"}},{"id":7},{"id":{"x":[1]}},{"id":null}]', {
      keyField: "id",
    });
    expect(records.map(({ key }) => key)).toEqual(["a", "7", '{"x":[1]}', null]);
  });

  it.each([
    ['{"inner":{"name":"no"}}', /add the field/],
    ['{"nmae":1}', "did you mean nmae?"],
    ["5", /add the field/],
    ["[[1]]", /add the field/],
  ])("refuses a record without the key field, and hands out those before it: %s", async (input, hint) => {
    const values = new JsonValues("name", 1000);
    const seen: string[] = [];
    const pushing = values
      .push(Buffer.from(`{"name":1} ${input}`), ({ text }) => void seen.push(text))
      .then(() => values.end(() => undefined));
    await expect(pushing).rejects.toMatchObject({
      errorName: "NO_KEY_FIELD",
      message: "record 2 has no field name (--key-field)",
      hint: typeof hint === "string" ? hint : expect.stringMatching(hint),
    });
    expect(seen).toEqual(['{"name":1}']);
  });

  it("hands out what came before a fault, and names the record after which it is", async () => {
    const values = new JsonValues(undefined, 1000);
    const seen: string[] = [];
    const pushing = values.push(Buffer.from('{"a":1} {"b":2} {c}'), ({ text }) => void seen.push(text));
    await expect(pushing).rejects.toMatchObject({
      errorName: "INVALID_JSON",
      message: expect.stringContaining("after record 2"),
    });
    expect(seen).toEqual(['{"a":1}', '{"b":2}']);
  });

  it.each(['[{"a":1},', '{"a":', '["x"'])("refuses an input that ends inside a value: %s", async (input) => {
    await expect(recordsOf(input)).rejects.toMatchObject({ errorName: "INVALID_JSON" });
  });

  it("refuses a record above the limit before it has gathered all of it", async () => {
    await expect(recordsOf(`["a", "${"x".repeat(1001)}"]`)).rejects.toMatchObject({
      errorName: "MESSAGE_TOO_LARGE",
      message: expect.stringContaining("record 2"),
    });
  });

  it("waits where its receiver does", async () => {
    const values = new JsonValues(undefined, 1000);
    let open = 0;
    await values.push(Buffer.from("1 2 3 "), async () => {
      open += 1;
      expect(open).toBe(1);
      await Promise.resolve();
      open -= 1;
    });
    await values.end(() => undefined);
  });

  it("has no records in an empty array or input", async () => {
    expect(await texts("[]")).toEqual([]);
    expect(await texts("")).toEqual([]);
  });
});
