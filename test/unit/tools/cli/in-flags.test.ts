import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import {
  DeadlineExceededError,
  InvalidArgumentError,
  OffsetOutOfRangeError,
  ProtocolError,
  UnreadableBatchError,
} from "../../../../client/errors.js";
import { inFlags, told } from "../../../../tools/cli/in-flags.js";
import { describeError } from "../../../../tools/cli/run-command.js";

const client = fileURLToPath(new URL("../../../../client", import.meta.url));

/** Options of the client that a command sets, or that stand in what the client says to one. */
const optionNames = [
  ...["batchBytes", "bootstrapBrokers", "bufferBytes", "connectTimeoutMs", "deadlineMs", "deliveryTimeoutMs"],
  ...["lingerMs", "maxInFlight", "onOutOfRange", "onUnreadable", "partitionBytes", "requestTimeoutMs"],
];

describe("errors of the client, told to who types commands", () => {
  it.each([
    [
      new DeadlineExceededError(
        "3 records were not sent within deliveryTimeoutMs 120000 (no leader)",
        "check that the brokers run, or raise deliveryTimeoutMs",
      ),
      "3 records were not sent within 2m (no leader)",
      "check that the brokers run, or raise --timeout",
    ],
    [
      new DeadlineExceededError(
        "memory was full for deliveryTimeoutMs 1500",
        "raise bufferBytes, or send less at a time",
      ),
      "memory was full for 1500ms",
      "send less at a time, see --rate",
    ],
    [
      new InvalidArgumentError("lingerMs is 7200000", "give a whole number from 0 to 60000"),
      "--linger is 2h",
      "give a whole number from 0 to 60000",
    ],
    [
      new OffsetOutOfRangeError(9, 0, 5, { topic: "t", partition: 0 }),
      "t-0: offset 9 is not in the log, which holds 0 to 5",
      "give --from earliest, --from latest, or an offset in it",
    ],
    [
      new UnreadableBatchError(3, 4, { topic: "t", partition: 0 }),
      "t-0: the record at offset 3 is not what the head of its batch says",
      "begin behind with --from 4, or leave out what is unreadable with --on-unreadable skip",
    ],
    [
      new ProtocolError("INVALID_REQUIRED_ACKS", undefined),
      expect.any(String),
      "give --acks all, or add --no-idempotent",
    ],
    [
      new ProtocolError("INVALID_TOPIC", "topic a.b: a_b exists, which metrics do not tell apart; choose another name"),
      "topic a.b: a_b exists, which metrics do not tell apart",
      "choose another name",
    ],
  ])("speak of flags, and say each thing once: case %#", (error, message, hint) => {
    expect(describeError(error)).toMatchObject({ message, hint });
  });

  it("leaves no option of the client in any sentence of the client", () => {
    const sentences = fs
      .readdirSync(client)
      .flatMap((name) => fs.readFileSync(path.join(client, name), "utf8").split("\n"))
      .filter((line) => !/^\s*(\*|\/\/|\/\*)/.test(line))
      .flatMap((line) => line.match(/(["'`])(?:(?!\1).)* (?:(?!\1).)*\1/g) ?? [])
      .filter((text) => optionNames.some((name) => text.includes(name)));
    expect(sentences.length).toBeGreaterThan(3);
    for (const sentence of sentences) {
      // What the code puts in at run time is a number.
      const said = inFlags(sentence.replace(/\$\{[^}]*\}/g, "5000"));
      for (const name of optionNames) expect(said).not.toContain(name);
    }
  });

  it.each([
    ["topic t: t_ exists; choose another name", "topic t: t_ exists", "choose another name"],
    ["topic t: min.insync.replicas=9 can never be met; give it at most 3", expect.any(String), "give it at most 3"],
    ['topic "t": a name has 1 to 249 characters', 'topic "t": a name has 1 to 249 characters', "see the rules"],
    ["topic t exists", "topic t exists", "see the rules"],
    [
      'there is no topic "t"; create it with: ottla topic create NAME',
      'there is no topic "t"',
      "create it with: ottla topic create t",
    ],
    ["topic t2 exists", "t: topic t2 exists", "see the rules"],
    ["topic t: retention.ms=x: give a whole number (ms)", "topic t: retention.ms=x", "give a whole number (ms)"],
    ["t: 9 is above the high watermark", "t: 9 is above the high watermark", "see the rules"],
    ["1 records were not sent", "t: 1 record was not sent", "see the rules"],
    ["11 records were sent, 1 replicas are in sync", "t: 11 records were sent, 1 replica is in sync", "see the rules"],
    ["offset 1 records, 1 batches", "t: offset 1 record, 1 batch", "see the rules"],
    ["it is gone; nobody knows why", "t: it is gone; nobody knows why", "see the rules"],
  ])("say each thing once: %s", (detail, message, hint) => {
    expect(told({ code: "X", what: `t: ${detail}`, hint: "see the rules" })).toEqual({ message, hint });
  });
});
