import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { connect } from "../../client/index.js";
import { printMachine, report } from "../support/figures.js";
import { MeasuredCluster } from "../support/measured-cluster.js";
import { MeasuredTopic } from "../support/measured-topic.js";

/*
 * What clients notice when the disk of a leader is full: a file fills it, and is removed again. The disk is a file system in
 * memory of its own, of broker 1 alone, which only root can mount. 1,000 records a second with acks=all throughout.
 */
const DISK_MIB = 64;

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
  const topic = await MeasuredTopic.create(client, "full-disk", [1, 2, 3]);
  const { writer } = topic;
  await delay(3000);
  writer.takeLongestMs();
  const ballast = path.join(disk, "ballast");
  fillWith(ballast);
  await topic.until("leadership has moved", (state) => state.leader !== 1, 60_000);
  await delay(2000);
  const { leader, isr } = await topic.state();
  report(
    "the disk of the leader is full",
    `longest wait ${writer.takeLongestMs().toFixed(0)} ms, leader 1 -> ${leader}, ISR ${isr.join()}`,
    !isr.includes(1),
  );
  fs.rmSync(ballast);
  const backMs = await topic.untilAllInSync();
  report("  there is space: in sync again after", `${backMs.toFixed(0)} ms`, backMs <= 10_000);
  await topic.finish();
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
