/** All that the rest of the broker knows of logs, and that the tools know of their files. */
export { parsePartitionDirectoryName, parseSegmentFileName } from "./files/names.js";
export type { Log, LogAppend, LogRead } from "./log.js";
export { LogManager } from "./log-manager.js";
export type { LogSettings } from "./log-settings.js";
export { READ_BUFFER_BYTES } from "./segment/read.js";
