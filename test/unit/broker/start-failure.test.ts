import { describeError } from "../../../tools/cli/run-command.js";
import { explained } from "../../../broker/start-failure.js";
import { StorageFailure } from "../../../common/env/files.js";
import type { StorageFailureReason } from "../../../common/env/files.js";

describe("a broker that cannot start because of its disk", () => {
  const reasons: Record<StorageFailureReason, string> = {
    full: "DISK_FULL",
    "read-only": "DISK_READ_ONLY",
    "not-permitted": "DATA_NOT_WRITABLE",
    "too-many-open-files": "TOO_MANY_OPEN_FILES",
    "not-found": "DISK_FAILED",
    exists: "DISK_FAILED",
    io: "DISK_FAILED",
  };

  it.each(Object.entries(reasons) as [StorageFailureReason, string][])(
    "says so when the reason is %s, with what and what to do",
    (reason, name) => {
      const told = describeError(explained(new StorageFailure(reason, "/data/logs/run", "write")));
      expect(told).toMatchObject({ name, exitCode: 1, hint: expect.stringMatching(/.{10}/) });
      expect(told.message).toContain("/data/logs/run");
    },
  );
});
