import { createWinstonLogger } from "../../../broker/winston-logger.js";

/** What a logger writes to stderr, line by line. */
function written(work: () => void): string[] {
  const lines: string[] = [];
  // winston's console writes through Node's own `console`, past the one that jest replaces.
  const target = (console as unknown as { _stderr?: NodeJS.WriteStream })._stderr ?? process.stderr;
  const write = target.write;
  target.write = ((text: string) => lines.push(text) > 0) as typeof target.write;
  try {
    work();
  } finally {
    target.write = write;
  }
  return lines;
}

describe("createWinstonLogger", () => {
  it("writes one line an event for people, with the fields of all its ancestors", () => {
    const lines = written(() => {
      const logger = createWinstonLogger({ format: "human", level: "info" }).child({ broker: 1 });
      logger.info("the leader of t-0 moved", { to: 2, why: "it was fenced", isr: [1, 2], none: undefined });
      logger.debug("is not wanted");
    });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(
      /^\d{4}-\d\d-\d\dT[\d:.]+Z INFO {2}the leader of t-0 moved broker=1 to=2 why="it was fenced" isr=1,2\n$/,
    );
  });

  it("keeps an event on its line, whatever it holds", () => {
    const lines = written(() => {
      createWinstonLogger({ format: "human", level: "info" }).warn("one\ntwo\u2028\x1b[31m", { name: "a\nb" });
    });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/ WARN {2}one\\ntwo\\u2028\\u001b\[31m name="a\\nb"\n$/);
  });

  it("writes JSON with time, level, message and fields", () => {
    const lines = written(() => {
      createWinstonLogger({ format: "json", level: "info" }).error("broken", { message2: "x", code: 5 });
    });
    expect(JSON.parse(lines[0] ?? "")).toEqual({
      time: expect.stringMatching(/Z$/),
      level: "error",
      message: "broken",
      message2: "x",
      code: 5,
    });
  });
});
