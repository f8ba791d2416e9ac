import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { asTyped } from "../../../../tools/cli/typed-program.js";

/** Goal: what a sentence says to type can be typed as it stands. */
describe("commands in sentences", () => {
  it.each([
    [
      "start one with ottla up, or see ottla topic describe t",
      "start one with ./ottla up, or see ./ottla topic describe t",
    ],
    ["type: ottla elect-leaders orders", "type: ./ottla elect-leaders orders"],
    ["port 9092 is taken by an ottla broker (pid 7)", "port 9092 is taken by an ottla broker (pid 7)"],
    ["this port speaks ottla; ./ottla up is whole", "this port speaks ottla; ./ottla up is whole"],
  ])("%s", (sentence, typed) => {
    expect(asTyped(sentence, "./ottla")).toBe(typed);
    for (const program of [undefined, "", "ottla"]) expect(asTyped(sentence, program)).toBe(sentence);
  });

  it("are one word of the shell, wherever the program is", () => {
    expect(asTyped("ottla up", "/my dir/it's $1/ottla")).toBe("'/my dir/it'\\''s $1/ottla' up");
  });

  it("begin with what was typed: a path, or the name where the shell finds it", () => {
    const root = mkdtempSync(path.join(tmpdir(), "ottla-typed-"));
    try {
      mkdirSync(path.join(root, "scripts"));
      mkdirSync(path.join(root, "bin"));
      writeFileSync(path.join(root, "scripts/ottla.mjs"), "process.stdout.write(process.env.OTTLA_TYPED);");
      copyFileSync("ottla", path.join(root, "ottla"));
      chmodSync(path.join(root, "ottla"), 0o755);
      symlinkSync("../ottla", path.join(root, "bin/ottla"));
      const typed = (program: string, cwd: string): string =>
        execFileSync("sh", ["-c", program], {
          cwd,
          encoding: "utf8",
          env: { PATH: `${path.join(root, "bin")}:${path.dirname(process.execPath)}:/usr/bin:/bin` },
        });
      expect(typed("./ottla up", root)).toBe("./ottla");
      expect(typed("../ottla up", path.join(root, "bin"))).toBe("../ottla");
      expect(typed("ottla up", root)).toBe("ottla");
    } finally {
      rmSync(root, { recursive: true, force: true });
    }
  });
});
