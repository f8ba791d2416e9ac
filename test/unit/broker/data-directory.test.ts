import { DataDirectory } from "../../../broker/data-directory.js";
import { Simulation } from "../../simulation/sim-env.js";

const PATH = "/srv/ottla/broker-1";
const LIMIT_MS = 10_000;

describe("a data directory", () => {
  it("is durable with all directories above it, though the process that began to make them was killed", async () => {
    for (let moment = 0; moment < 40; moment += 1) {
      const simulation = new Simulation({ seed: moment });
      const first = simulation.startProcess("host");
      DataDirectory.open(first.env, PATH, 1).catch(() => undefined);
      await simulation.run(moment / 10);
      first.crash();
      const { env } = simulation.startProcess("host");
      const directory = await simulation.complete(DataDirectory.open(env, PATH, 1), LIMIT_MS);
      await simulation.complete(directory.bindTo("a-cluster"), LIMIT_MS);
      const { disk } = simulation.host("host");
      expect([moment, disk.durableContentOf(`${PATH}/meta.properties`)]).not.toEqual([moment, undefined]);
    }
  });

  it.each(["not-permitted", "read-only"] as const)(
    "is used where somebody else made it in a directory that this user cannot sync (%s)",
    async (reason) => {
      const simulation = new Simulation({ seed: 1 });
      const { env } = simulation.startProcess("host");
      await simulation.complete(env.files.makeDirectory(PATH), LIMIT_MS);
      simulation.host("host").disk.fail("sync", (path) => path === "/srv/ottla", { reason });
      const directory = await simulation.complete(DataDirectory.open(env, PATH, 1), LIMIT_MS);
      expect(directory.clusterId).toBeUndefined();
    },
  );
});
