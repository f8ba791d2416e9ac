import type { FetchHost } from "../../../client/fetch-loop.js";
import { FetchLoop } from "../../../client/fetch-loop.js";
import { PartitionReader } from "../../../client/partition-reader.js";
import { Backoff } from "../../../client/retry.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import type { FetchRequest } from "../../../protocol/messages.js";
import { ApiError, errorReport } from "../../../protocol/error-codes.js";
import { codecs } from "../../../protocol/messages.js";
import type { RpcConnection, RpcOutcome } from "../../../protocol/rpc-connection.js";
import { TransportError } from "../../../protocol/rpc-error.js";
import type { BrokerId, TopicId } from "../../../protocol/types.js";
import { batchOf } from "../../support/batches.js";
import { ManualTime } from "../../support/manual-time.js";

type OnOutcome = (outcome: RpcOutcome<"fetch">) => void;

const FETCH_WAIT_MS = 500;
const leader = 1 as BrokerId;
const topicId = "00000000-0000-4000-8000-000000000001" as TopicId;

/** A loop over one partition, whose questions are kept in a list until the test answers them. */
function startLoop() {
  const time = new ManualTime();
  const env = nodeEnv({ clock: time, timers: time });
  const questions: OnOutcome[] = [];
  const bodies: FetchRequest[] = [];
  const told: string[] = [];
  const connect = (): RpcConnection =>
    ({
      send: (_: string, body: FetchRequest, __: object, onOutcome: OnOutcome) => {
        bodies.push(body);
        questions.push(onOutcome);
      },
    }) as unknown as RpcConnection;
  const state = { connection: connect(), isReading: true };
  const host: FetchHost = {
    env,
    settings: {
      prefetchBytes: 1000,
      partitionBytes: 1000,
      fetchBytesMin: 1,
      fetchWaitMs: FETCH_WAIT_MS,
      requestTimeoutMs: 30_000,
    },
    get isReading() {
      return state.isReading;
    },
    connectionTo: () => state.connection,
    leaderEpochOf: () => 0,
    onFetched: (chunks) => told.push(`${chunks.length} chunks`),
    onDamaged: () => told.push("damage"),
    onPartitionError: (_reader, _brokerId, _answer, name) => told.push(name),
    onRefused: (_, { errorName }) => told.push(errorName),
    onTrouble: () => told.push("trouble"),
    wakeAt: () => undefined,
    frameOf: () => ({ retain: () => told.push("retained"), release: () => told.push("released") }),
  };
  const loop = new FetchLoop(host, leader);
  const reader = new PartitionReader("t", topicId, 0, new Backoff(env.random));
  reader.restartAt(0);
  reader.loop = loop;
  loop.readers.add(reader);
  return { loop, time, questions, bodies, told, state, connect };
}

describe("FetchLoop", () => {
  it("counts the silence of the connection that it asks on, and of none before", () => {
    const { loop, time, questions, state, connect, told } = startLoop();
    loop.wake();
    time.advance(5000);
    expect(loop.overdueMs(time.monotonicMs())).toBeGreaterThan(0);
    state.connection = connect();
    loop.wake();
    expect(questions).toHaveLength(2);
    expect(loop.overdueMs(time.monotonicMs())).toBeLessThan(0);
    // What the former one comes to concerns nobody.
    time.advance(100);
    questions[0]?.(new TransportError("closed", false, "reset", "the connection ended"));
    expect(told).toEqual([]);
    expect(questions).toHaveLength(2);
    time.advance(2000);
    expect(loop.overdueMs(time.monotonicMs())).toBe(2100 - FETCH_WAIT_MS - 500);
  });

  it("counts the silence from the last bytes of an answer that is being received", () => {
    const { loop, time, state } = startLoop();
    const connection = state.connection as unknown as { receivedBytes: number; isReceiving: boolean };
    loop.wake();
    Object.assign(connection, { receivedBytes: 100, isReceiving: true });
    time.advance(5000);
    expect(loop.arrives()).toBe(true);
    expect(loop.overdueMs(time.monotonicMs())).toBeLessThan(0);
    // Nothing more of it comes.
    time.advance(5000);
    expect(loop.arrives()).toBe(false);
    expect(loop.overdueMs(time.monotonicMs())).toBe(5000 - FETCH_WAIT_MS - 500);
  });

  it("takes nothing of an answer that comes when nobody reads, and asks for it again", () => {
    const { loop, time, questions, bodies, state, told } = startLoop();
    const place = { topicId, partition: 0 };
    const answered = (partition: object, records: Buffer[] = []): RpcOutcome<"fetch"> => ({
      body: codecs.FetchResponse.decode(
        codecs.FetchResponse.encode({ sessionId: 9, partitions: [{ ...place, ...partition }] }).finish(),
      ),
      records,
    });
    const batch = batchOf(["a"]);
    const late: [RpcOutcome<"fetch">, string[]][] = [
      [answered({ recordBytes: batch.length, highWatermark: 1 }, [batch]), ["released"]],
      [answered({ error: errorReport("CORRUPT_LOG") }), []],
      [answered({ error: errorReport("OFFSET_OUT_OF_RANGE") }), []],
      [new ApiError("UNSUPPORTED_VERSION"), []],
      [new TransportError("closed", false, "reset", "the connection ended"), []],
    ];
    for (const [outcome, expected] of late) {
      state.isReading = true;
      time.advance(1000);
      loop.wake();
      state.isReading = false;
      questions.at(-1)?.(outcome);
      expect(told.splice(0)).toEqual(expected);
      expect(questions).toHaveLength(late.findIndex(([one]) => one === outcome) + 1);
    }
    expect(bodies.map(({ partitions }) => partitions[0]?.fetchOffset)).toEqual([0, 0, 0, 0, 0]);
  });
});
