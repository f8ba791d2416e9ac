// npm test: everything, on a bare machine: dependencies, build, ZooKeeper, the checks of form, then all tests.
//
//   npm test                                    everything
//   npm test -- PATTERN...                      the tests of these files, without the checks of form
//   npm test -- --selectProjects simulation     unit, simulation, contract or integration
//   npm test -- PATTERN -t NAME                 and whatever else jest takes (npx jest --help)
import { spawn } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { check } from "./check.mjs";
import { helpIfAsked, prepare, root, run, say } from "./prepare.mjs";

const results = join(root, "dist/test-results.json");
const args = process.argv.slice(2);

helpIfAsked(import.meta.url);
await prepare();
await findPrograms();
const isChecked = args.length > 0 || (await check());
const code = await jest(args);
console.log(summary());
if (!isChecked) console.log("npm run check failed: see above");
process.exit(isChecked ? code : 1);

/**
 * ZooKeeper is needed by most tests, protoc and Python's protobuf by those that prove that others can read our files and
 * speak our protocol.
 */
async function findPrograms() {
  const { findZooKeeper } = await import("../dist/tools/local-zookeeper.js");
  try {
    await findZooKeeper(say);
  } catch (error) {
    say(`error: ZOOKEEPER_NOT_FOUND: ${error.message}`);
    process.exit(1);
  }
  const missing = [];
  if ((await run("protoc", ["--version"])).code !== 0) missing.push("protobuf-compiler");
  const hasProtobuf = async (python) => (await run(python, ["-c", "import google.protobuf"])).code === 0;
  // The second is Debian's, where another one stands before it in the path.
  if (!(await hasProtobuf("python3")) && !(await hasProtobuf("/usr/bin/python3"))) missing.push("python3-protobuf");
  if (missing.length === 0) return;
  const isRoot = process.getuid?.() === 0;
  const lead = isRoot ? [] : ["sudo", "-n"];
  const apt = async (...aptArgs) => {
    const [command, ...rest] = [...lead, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", ...aptArgs];
    return (await run(command, rest)).code === 0;
  };
  const installed = () => apt("install", "-y", "--no-install-recommends", ...missing);
  say(`installing ${missing.join(", ")} ...`);
  // Most often the package lists are missing or too old.
  if (!(await installed()) && !((await apt("update")) && (await installed())))
    say(
      `${missing.join(" and ")} could not be installed: the tests that read and write with protobuf of others will fail`,
    );
}

function jest(jestArgs) {
  rmSync(results, { force: true });
  const program = join(root, "node_modules/jest/bin/jest.js");
  const options = ["--maxWorkers=2", "--json", `--outputFile=${results}`];
  const child = spawn(
    process.execPath,
    ["--experimental-vm-modules", "--no-warnings", program, ...options, ...jestArgs],
    {
      cwd: root,
      stdio: "inherit",
    },
  );
  return new Promise((resolve) => child.on("close", (exitCode) => resolve(exitCode ?? 1)));
}

function summary() {
  try {
    const { numPassedTests, numFailedTests, numPendingTests, numRuntimeErrorTestSuites } = JSON.parse(
      readFileSync(results, "utf8"),
    );
    const broken = numRuntimeErrorTestSuites > 0 ? `, ${numRuntimeErrorTestSuites} files could not run` : "";
    return `${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped${broken}`;
  } catch {
    return "the tests did not run to their end";
  }
}
