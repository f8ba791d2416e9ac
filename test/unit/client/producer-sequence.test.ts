import type { ProducerBatch } from "../../../client/producer-batch.js";
import type { ProducerIdentity } from "../../../client/producer-sequence.js";
import { ProducerSequence } from "../../../client/producer-sequence.js";

describe("ProducerSequence", () => {
  it("takes another identity before sequences begin again, when nothing is in flight under the old one", () => {
    const discarded: ProducerIdentity[] = [];
    let given = 0;
    const sequence = new ProducerSequence(
      {
        identity: () => ({ producerId: (given += 1), producerEpoch: 0 }),
        identityFailure: undefined,
        discardIdentity: (identity) => void discarded.push(identity),
      },
      true,
    );
    const seen: string[] = [];
    /** A batch of so many records, as far as its numbers go. */
    const batchOf = (recordCount: number): ProducerBatch =>
      ({
        recordCount,
        identify: ({ producerId, baseSequence }: { producerId: number; baseSequence: number }) =>
          void seen.push(`${producerId}:${baseSequence}`),
      }) as unknown as ProducerBatch;
    for (const recordCount of [5, 2 ** 30 - 6, 2 ** 29]) {
      expect(sequence.begin(true)).toBe(true);
      sequence.identify(batchOf(recordCount));
    }
    expect(sequence.begin(true)).toBe(false);
    expect(discarded).toEqual([]);
    expect(sequence.begin(false)).toBe(true);
    sequence.identify(batchOf(1));
    expect(seen).toEqual(["1:0", "1:5", `1:${2 ** 30 - 1}`, "2:0"]);
    expect(discarded).toEqual([{ producerId: 1, producerEpoch: 0 }]);
  });
});
