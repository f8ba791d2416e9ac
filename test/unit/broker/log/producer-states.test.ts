import { ProducerStates } from "../../../../broker/log/content/producer-states.js";
import { ApiError } from "../../../../protocol/error-codes.js";
import { readBatch, SEQUENCE_END } from "../../../../protocol/record-batch.js";
import { batch, stampedBatch } from "./log-fixtures.js";

const limits = { producerIdExpirationMs: 1_000, producersMax: 3 };

class Producers {
  states = new ProducerStates();
  next = 0;

  /** What a leader does with a batch: the offset it gets or has, or the refusal. */
  send(baseSequence: number, options: { id?: number; epoch?: number; records?: number; wallMs?: number } = {}): string {
    const { id = 1, epoch = 0, records = 1 } = options;
    const made = { producerId: id, producerEpoch: epoch, baseSequence, records };
    try {
      const earlier = this.states.check(readBatch(batch(made), 0));
      if (earlier !== undefined) return `at ${earlier.baseOffset}`;
    } catch (error) {
      if (error instanceof ApiError) return error.errorName;
      throw error;
    }
    return `new ${this.follow(baseSequence, options)}`;
  }

  /** What a follower does with a batch, and any replica with what its log holds. */
  follow(
    baseSequence: number,
    options: { id?: number; epoch?: number; records?: number; wallMs?: number } = {},
  ): number {
    const { id = 1, epoch = 0, records = 1, wallMs = 0 } = options;
    const made = { producerId: id, producerEpoch: epoch, baseSequence, records };
    const at = this.next;
    this.states.update(readBatch(stampedBatch(at, 0, made), 0), wallMs, limits);
    this.next += records;
    return at;
  }
}

describe("ProducerStates", () => {
  it("lets a producer it does not know begin with 0 only, then goes on with the next only", () => {
    const producers = new Producers();
    expect(producers.send(700, { records: 5 })).toBe("UNKNOWN_PRODUCER_ID");
    expect(producers.states.count).toBe(0);
    expect(producers.send(0, { records: 5 })).toBe("new 0");
    expect(producers.send(5)).toBe("new 5");
    expect(producers.send(7)).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
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
    producers.follow(SEQUENCE_END - 9);
    for (let sequence = SEQUENCE_END - 8; sequence < SEQUENCE_END - 1; sequence += 1) producers.send(sequence);
    expect(producers.send(SEQUENCE_END - 1, { records: 3 })).toBe("new 8");
    expect(producers.send(2)).toBe("new 11");
    expect(producers.send(SEQUENCE_END - 1, { records: 3 })).toBe("at 8");
    expect(producers.send(SEQUENCE_END - 9)).toBe("DUPLICATE_SEQUENCE_NUMBER");
    expect(producers.send(SEQUENCE_END - 10)).toBe("UNKNOWN_PRODUCER_ID");
    expect(producers.send(SEQUENCE_END - 10, { records: 2 })).toBe("UNKNOWN_PRODUCER_ID");
    expect(producers.send(4)).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
  });

  it("calls nothing a duplicate that it has not seen, whoever wrote what it has", () => {
    const producers = new Producers();
    // A follower begins where the log of its leader does.
    for (let sequence = 500; sequence < 510; sequence += 1) producers.follow(sequence);
    expect(producers.send(509)).toBe("at 9");
    expect(producers.send(500)).toBe("DUPLICATE_SEQUENCE_NUMBER");
    expect(producers.send(499)).toBe("UNKNOWN_PRODUCER_ID");
    // Something is missing: what came before it proves nothing about what is missing.
    for (let sequence = 520; sequence < 530; sequence += 1) producers.follow(sequence);
    expect(producers.send(520)).toBe("DUPLICATE_SEQUENCE_NUMBER");
    for (const sequence of [500, 509, 515, 519]) expect(producers.send(sequence)).toBe("UNKNOWN_PRODUCER_ID");
    expect(producers.send(530)).toMatch("new");
    // A newer epoch has seen nothing of the older one.
    for (let sequence = 0; sequence < 8; sequence += 1) producers.follow(sequence, { epoch: 1 });
    expect(producers.send(0, { epoch: 1 })).toBe("DUPLICATE_SEQUENCE_NUMBER");
    expect(producers.send(SEQUENCE_END - 1, { epoch: 1 })).toBe("UNKNOWN_PRODUCER_ID");
    expect(producers.send(530)).toBe("INVALID_PRODUCER_EPOCH");
  });

  it("forgets who was silent too long, and the most silent one when there are too many", () => {
    const producers = new Producers();
    for (const id of [1, 2, 3]) producers.send(0, { id });
    producers.send(1, { id: 1, wallMs: 10 });
    producers.send(0, { id: 4, wallMs: 10 });
    expect(producers.states.count).toBe(3);
    expect(producers.send(1, { id: 2, wallMs: 20 })).toBe("UNKNOWN_PRODUCER_ID");
    expect(producers.send(9, { id: 1, wallMs: 20 })).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
    // What is remembered is proof, however old it is; room is made when somebody writes.
    expect(producers.send(1, { id: 1, wallMs: 5_000 })).toBe("at 3");
    producers.send(0, { id: 5, wallMs: 1_011 });
    expect(producers.states.count).toBe(1);
    expect(producers.send(2, { id: 1, wallMs: 1_011 })).toBe("UNKNOWN_PRODUCER_ID");
  });

  it("comes back whole from its lines, and not at all from others", () => {
    const producers = new Producers();
    for (let sequence = 0; sequence < 14; sequence += 2) producers.send(sequence, { records: 2, wallMs: 5 });
    for (let sequence = 30; sequence < 40; sequence += 1) producers.follow(sequence, { id: 2 });
    const lines = producers.states.toLines();
    expect(ProducerStates.fromLines(lines)?.toLines()).toEqual(lines);
    producers.states = ProducerStates.fromLines(lines)!;
    expect(producers.send(12, { records: 2 })).toBe("at 12");
    expect(producers.send(30, { id: 2 })).toBe("DUPLICATE_SEQUENCE_NUMBER");
    expect(producers.send(29, { id: 2 })).toBe("UNKNOWN_PRODUCER_ID");
    expect(lines[1]).toBe("2 0 0 30 35,1,19,20 36,1,20,21 37,1,21,22 38,1,22,23 39,1,23,24");
    expect(ProducerStates.fromLines(["1 2"])).toBeUndefined();
    expect(ProducerStates.fromLines(["1 2 3 4,5,6,7"])).toBeUndefined();
    expect(ProducerStates.fromLines(["1 2 3 4,5,6"])).toBeUndefined();
  });
});
