import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import type { Cluster } from "../../client/index.js";
import { printMachine, report } from "../support/figures.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { SteadyWriter } from "../support/steady-writer.js";

/*
 * What clients notice when the disk of a leader is full: a file fills it, and is removed again. The disk is a file system in
 * memory of its own, of broker 1 alone, which only root can mount. 1,000 records a second with acks=all throughout.
 */
const DISK_MIB = 64;
const TOPIC = "full-disk";

printMachine();
let disk = "";
const cluster = await MeasuredCluster.start({ port: 29692, prepare: mountDisk });
try {
  if (disk === "") report("full disk of a leader", "not run: mounting a file system needs root on Linux", undefined);
  else await measure();
} finally {
  await cluster.stop({ beforeRemoval: unmountDisk });
}

function mountDisk(directory: string): void {
  const place = path.join(directory, "broker-1");
  fs.mkdirSync(place);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MIB}m`, "tmpfs", place], { stdio: "ignore" });
    disk = place;
  } catch {
    fs.rmdirSync(place);
  }
}

function unmountDisk(): void {
  if (disk !== "") execFileSync("umount", [disk]);
}

async function measure(): Promise<void> {
  const client = await connect({ bootstrapBrokers: cluster.bootstrapBrokers, clientId: "full-disk" });
  await client.admin().createTopics([{ name: TOPIC, partitions: 1, assignment: [[1, 2, 3]] }]);
  const writer = new SteadyWriter(client, TOPIC, 1000);
  await delay(3000);
  writer.takeLongestMs();
  const ballast = path.join(disk, "ballast");
  fillWith(ballast);
  await until("leadership has moved", async () => (await partition(client)).leader !== 1, 60_000);
  await delay(2000);
  const { leader, isr } = await partition(client);
  report(
    "the disk of the leader is full",
    `longest wait ${writer.takeLongestMs().toFixed(0)} ms, leader 1 -> ${leader}, ISR ${isr.join()}`,
    !isr.includes(1),
  );
  fs.rmSync(ballast);
  const backMs = await until("broker 1 is in sync", async () => (await partition(client)).isr.includes(1), 30_000);
  report("  there is space: in sync again after", `${backMs.toFixed(0)} ms`, backMs <= 10_000);
  await writer.stop();
  const { acknowledged, sent, failures } = writer;
  report(
    "  records acknowledged of sent",
    `${acknowledged} of ${sent}${failures.length > 0 ? `: ${failures[0]}` : ""}`,
    acknowledged === sent,
  );
  await client.close();
}

/** Writes until nothing more fits. */
function fillWith(file: string): void {
  const ballast = fs.openSync(file, "w");
  try {
    for (const piece of [Buffer.alloc(1024 * 1024), Buffer.alloc(4096)]) {
      try {
        for (;;) fs.writeSync(ballast, piece);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      }
    }
  } finally {
    fs.closeSync(ballast);
  }
}

async function partition(client: Cluster): Promise<{ leader: number; isr: readonly number[] }> {
  const [topic] = await client.admin().describeTopics([TOPIC]);
  const [first] = topic?.partitions ?? [];
  if (first === undefined) throw new Error("the topic has no partition");
  return first;
}

async function until(what: string, condition: () => Promise<boolean>, deadlineMs: number): Promise<number> {
  const startedMs = performance.now();
  while (!(await condition())) {
    if (performance.now() - startedMs > deadlineMs) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await delay(50);
  }
  return performance.now() - startedMs;
}
