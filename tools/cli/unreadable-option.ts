import { Option } from "commander";

/** Of every command that reads records: what the client's advice about a batch that cannot be read names. */
export const unreadableOption = (): Option =>
  new Option(
    "--on-unreadable <error|skip>",
    "a batch that is whole, and whose records cannot be read: end with an error (the default), or leave it out",
  ).choices(["error", "skip"]);
