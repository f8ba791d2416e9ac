// npm start: from a bare checkout to a running cluster that has carried a record. Stays until Ctrl-C, then stops what it started.
//
//   npm start                              on the ports 9092 and following
//   npm start -- --port 19092              on other ports; 0 for free ones
//   npm start -- --data DIR                where it lies ($OTTLA_HOME, or ./.ottla)
//   npm start -- --brokers N               how many brokers (3)
//   npm start -- --zookeeper HOST:PORT,... with servers that run already ($OTTLA_ZOOKEEPER)
import { clearInterval, setInterval } from "node:timers";
import { parseArgs } from "node:util";
import { build, giveUp, helpIfAsked, install, requireNode, say } from "./prepare.mjs";

const TOPIC = "hello";
const START_MS_MAX = 60_000;
const EXIT_INTERRUPTED = 130;

// `npm start 2>&1 | tee log` and Ctrl-C: tee has gone before the cluster is stopped, and nobody is left to tell.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

helpIfAsked(import.meta.url);
requireNode();
const options = parseOptions();
try {
  await install();
  await build();
} catch (error) {
  giveUp(error);
}
const { onStopSignal } = await import("../dist/common/env/node-signals.js");
const { LocalCluster } = await import("../dist/tools/local-cluster/local-cluster.js");
const { dataPlace } = await import("../dist/tools/local-cluster/data-place.js");
const { describeError, reportError } = await import("../dist/tools/cli/run-command.js");
const { connect } = await import("../dist/client/index.js");

const interruption = new globalThis.AbortController();
onStopSignal(["SIGINT", "SIGTERM", "SIGHUP"], () => interruption.abort(new Error("interrupted")));

const local = new LocalCluster(dataPlace(options.data, process.env));
let serving;
try {
  say("starting ZooKeeper and brokers ...");
  serving = await local.start({ ...options, timeoutMs: START_MS_MAX, signal: interruption.signal, say });
  const place = await carryOneRecord(serving.bootstrap);
  if (serving.foundRunning.length > 0) say(`of an earlier run, still running: ${serving.foundRunning.join(", ")}`);
  console.log(welcome(serving, place));
} catch (error) {
  process.exitCode = interruption.signal.aborted ? EXIT_INTERRUPTED : report(error);
  // What did not start was taken down already; and what ran before goes on.
  if (serving !== undefined && serving.foundRunning.length === 0)
    await local.stop(() => undefined).catch(() => undefined);
  process.exit();
}
await new Promise((resolve) => {
  if (interruption.signal.aborted) resolve();
  // Something has to keep this process here while it waits: signals alone do not.
  const timer = setInterval(() => undefined, 60_000);
  interruption.signal.addEventListener("abort", () => {
    clearInterval(timer);
    resolve();
  });
});
try {
  // What ran before this start is not its own to stop: whoever started it may be watching it.
  if (!serving.ranBefore) await local.stop(say);
} catch (error) {
  process.exit(report(error));
}
process.exit(0);

/** There is no --debug here: what nobody expected is told whole. */
function report(error) {
  if (describeError(error).name === "UNEXPECTED") say(error.stack ?? String(error));
  return reportError(error, { json: false, debug: false });
}

function parseOptions() {
  refuseOptionsOfNpm();
  try {
    const { values } = parseArgs({
      options: {
        port: { type: "string" },
        data: { type: "string" },
        brokers: { type: "string" },
        zookeeper: { type: "string" },
      },
    });
    return {
      data: values.data,
      ...(values.zookeeper === undefined ? {} : { zookeeper: values.zookeeper }),
      ...(values.port === undefined ? {} : { port: number("--port", values.port, 0, 65_535) }),
      ...(values.brokers === undefined ? {} : { brokers: number("--brokers", values.brokers, 1, 100) }),
    };
  } catch (error) {
    say(
      `error: USAGE: ${error.message} - npm start takes --port N, --data DIR, --brokers N and --zookeeper HOST:PORT,...`,
    );
    process.exit(2);
  }
}

/** `npm start --port 0`: npm keeps what stands before a `--`, and gives this script at most the values. */
function refuseOptionsOfNpm() {
  if (process.env["npm_lifecycle_event"] !== "start") return;
  const values = process.argv.slice(2);
  const kept = ["port", "data", "brokers", "zookeeper"].flatMap((name) => {
    const value = process.env[`npm_config_${name}`];
    return value === undefined ? [] : [{ name, value }];
  });
  const [first] = kept;
  if (first === undefined) return;
  const word = { port: "N", data: "DIR", brokers: "N", zookeeper: "HOST:PORT" };
  const valueOf = ({ name, value }) =>
    value !== "true" ? value : kept.length === 1 && values.length === 1 ? values[0] : word[name];
  const typed = kept.map((one) => `--${one.name} ${quoted(valueOf(one))}`).join(" ");
  say(`error: USAGE: --${first.name} went to npm, not to ottla: no -- stands before it - type npm start -- ${typed}`);
  process.exit(2);
}

function number(name, text, min, max) {
  if (!/^\d{1,5}$/.test(text) || Number(text) < min || Number(text) > max)
    throw new Error(`${name} ${text} is not a whole number from ${min} to ${max}`);
  return Number(text);
}

/** Makes the topic if it is not there, writes a record and reads it back. */
async function carryOneRecord(bootstrapBrokers) {
  const cluster = await connect({ bootstrapBrokers, clientId: "npm-start", signal: interruption.signal });
  try {
    const admin = cluster.admin();
    const topics = await admin.listTopics();
    if (!topics.some(({ name }) => name === TOPIC)) await admin.createTopics([{ name: TOPIC }]);
    const { partition, offset } = await cluster
      .producer()
      .send(TOPIC, { value: `started at ${new Date().toISOString()}` });
    const consumer = cluster.consumer({
      topic: TOPIC,
      partitions: [partition],
      from: { offset },
      signal: interruption.signal,
    });
    for await (const record of consumer) return `${TOPIC}-${partition} at offset ${offset}: ${record.value}`;
  } finally {
    await cluster.close();
  }
}

/** As a shell takes it for one word. */
function quoted(text) {
  return /^[\w./:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function welcome({ cluster, bootstrap, zookeeper, ranBefore }, place) {
  const lead = bootstrap.startsWith("127.0.0.1:9092") ? "./ottla" : `OTTLA_BOOTSTRAP=${bootstrap} ./ottla`;
  return `
ottla serves: cluster ${cluster}
  brokers    ${bootstrap}
  zookeeper  ${zookeeper}
  data       ${local.data}
A first record went through: ${place}

In a second terminal:
  ${lead} consume ${TOPIC} --from earliest
  echo "my first record" | ${lead} produce ${TOPIC}
  ${lead} topic describe ${TOPIC}
  ./ottla status${local.data === dataPlace(undefined, {}) ? "" : ` --data ${quoted(local.data)}`}
  ./ottla --help

${ranBefore ? "It ran before, and goes on after Ctrl-C; ./ottla down stops it." : "Ctrl-C stops it; the data stays."}`;
}
