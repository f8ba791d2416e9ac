import { CliError } from "../../../../tools/cli/cli-error.js";
import { checkSettings } from "../../../../tools/local-cluster/start-checks.js";

/** Goal: what is wrong with `--set` of `ottla up` is told before anything is made, as a broker would tell it. */
describe("settings of a cluster that is to be started", () => {
  it.each([
    [{ "log.segment.byte": "5000" }, "log.segment.byte is not a setting of brokers", "did you mean log.segment.bytes?"],
    [{ "num.partitions": "abc" }, "num.partitions=abc", "give a whole number (count)"],
    [{ "num.partitions": "0x10" }, "num.partitions=0x10", "give a whole number (count)"],
    [{ "broker.id": "7" }, "broker.id is not for ottla up", "brokers are numbered from 1 on"],
  ])("%j", async (settings, message, hint) => {
    const refusal: unknown = await checkSettings(settings).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(CliError);
    expect(refusal).toMatchObject({ message: expect.stringContaining(message) as string, hint, exitCode: 2 });
  });
});
