import { jest } from "@jest/globals";
import {
  decodeCheckpoint,
  encodeCheckpoint,
  readCheckpoint,
  writeCheckpoint,
} from "../../../../broker/log/files/checkpoint-file.js";
import { Simulation } from "../../../simulation/sim-env.js";

jest.setTimeout(60_000);

describe("a checkpoint file", () => {
  it("is refused with any byte changed, cut or added", () => {
    const bytes = Buffer.from(encodeCheckpoint(["a 1", "b 22", ""]));
    expect(decodeCheckpoint(bytes)).toEqual(["a 1", "b 22", ""]);
    for (let at = 0; at < bytes.length; at += 1) {
      expect(decodeCheckpoint(bytes.subarray(0, at))).toBeUndefined();
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1;
      expect(decodeCheckpoint(changed)).toBeUndefined();
    }
    expect(decodeCheckpoint(Buffer.concat([bytes, Buffer.from("\n")]))).toBeUndefined();
  });

  it("has the old content or the new one after a power cut at any time", async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 150; seed += 1) {
      const simulation = new Simulation({ seed });
      const host = simulation.host("host");
      let { files } = simulation.startProcess("host").env;
      await simulation.complete(writeCheckpoint(files, "/file", ["old"]));
      let done = false;
      void writeCheckpoint(files, "/file", ["new"]).then(() => (done = true));
      await simulation.run((seed % 50) / 10);
      host.powerCut();
      host.powerOn();
      files = simulation.startProcess("host").env.files;
      const [content] = (await simulation.complete(readCheckpoint(files, "/file")))!;
      if (done) expect(content).toBe("new");
      seen.add(content!);
    }
    expect([...seen].sort()).toEqual(["new", "old"]);
  });
});
