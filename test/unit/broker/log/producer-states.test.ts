import { ProducerStates } from "../../../../broker/log/producer-states.js";
import { ApiError } from "../../../../protocol/error-codes.js";
import { readBatch, SEQUENCE_END } from "../../../../protocol/record-batch.js";
import { batch, stampedBatch } from "./log-fixtures.js";

const limits = { producerIdExpirationMs: 1_000, producersMax: 3 };

class Producers {
  states = new ProducerStates();
  next = 0;

  /** What a leader does with a batch: the offset it gets or has, or the refusal. */
  send(baseSequence: number, options: { id?: number; epoch?: number; records?: number; wallMs?: number } = {}): string {
    const { id = 1, epoch = 0, records = 1, wallMs = 0 } = options;
    const made = { producerId: id, producerEpoch: epoch, baseSequence, records };
    try {
      const earlier = this.states.check(readBatch(batch(made), 0), wallMs, limits);
      if (earlier !== undefined) return `at ${earlier.baseOffset}`;
    } catch (error) {
      if (error instanceof ApiError) return error.errorName;
      throw error;
    }
    const at = this.next;
    this.states.update(readBatch(stampedBatch(at, 0, made), 0), wallMs, limits);
    this.next += records;
    return `new ${at}`;
  }
}

describe("ProducerStates", () => {
  it("takes any sequence from a producer it does not know, then only the next", () => {
    const producers = new Producers();
    expect(producers.send(700, { records: 5 })).toBe("new 0");
    expect(producers.send(705)).toBe("new 5");
    expect(producers.send(707)).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
  });

  it("knows the last five batches again, and says of older ones that they are duplicates", () => {
    const producers = new Producers();
    for (let sequence = 0; sequence < 14; sequence += 2) producers.send(sequence, { records: 2 });
    expect(producers.send(4, { records: 2 })).toBe("at 4");
    expect(producers.send(12, { records: 2 })).toBe("at 12");
    expect(producers.send(2, { records: 2 })).toBe("DUPLICATE_SEQUENCE_NUMBER");
    // Neither a batch that was sent, nor one that could be next.
    expect(producers.send(12, { records: 3 })).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
  });

  it("lets a newer epoch begin at 0 only, and refuses an older one", () => {
    const producers = new Producers();
    producers.send(0, { epoch: 4 });
    expect(producers.send(1, { epoch: 5 })).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
    expect(producers.send(0, { epoch: 5 })).toBe("new 1");
    expect(producers.send(1, { epoch: 4 })).toBe("INVALID_PRODUCER_EPOCH");
    expect(producers.send(1, { epoch: 5 })).toBe("new 2");
  });

  it("wraps sequences after 2^31 - 1", () => {
    const producers = new Producers();
    producers.send(SEQUENCE_END - 2);
    expect(producers.send(SEQUENCE_END - 1, { records: 3 })).toBe("new 1");
    expect(producers.send(2)).toBe("new 4");
    expect(producers.send(SEQUENCE_END - 1, { records: 3 })).toBe("at 1");
    expect(producers.send(SEQUENCE_END - 5)).toBe("DUPLICATE_SEQUENCE_NUMBER");
  });

  it("forgets who was silent too long, and the most silent one when there are too many", () => {
    const producers = new Producers();
    for (const id of [1, 2, 3]) producers.send(0, { id });
    producers.send(1, { id: 1, wallMs: 10 });
    producers.send(0, { id: 4, wallMs: 10 });
    expect(producers.states.count).toBe(3);
    expect(producers.send(9, { id: 2, wallMs: 20 })).toMatch("new");
    expect(producers.send(9, { id: 1, wallMs: 20 })).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
    expect(producers.send(9, { id: 1, wallMs: 1_011 })).toMatch("new");
  });

  it("comes back whole from its lines, and not at all from others", () => {
    const producers = new Producers();
    for (let sequence = 0; sequence < 14; sequence += 2) producers.send(sequence, { records: 2, wallMs: 5 });
    producers.send(3, { id: 2 });
    const lines = producers.states.toLines();
    expect(ProducerStates.fromLines(lines)?.toLines()).toEqual(lines);
    producers.states = ProducerStates.fromLines(lines)!;
    expect(producers.send(12, { records: 2 })).toBe("at 12");
    expect(ProducerStates.fromLines(["1 2"])).toBeUndefined();
    expect(ProducerStates.fromLines(["1 2 3 4,5,6"])).toBeUndefined();
  });
});
