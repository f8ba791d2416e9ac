import type { Writer } from "protobufjs";
import protobuf from "protobufjs/minimal.js";

/*
 * 64-bit fields are decoded to plain numbers: every such field of ours is an offset, a timestamp or a producer id, which
 * stay below 2^53, and a value above is seen by `parseOffset`, because rounding never takes it below 2^53 again. This must
 * run before the generated code is loaded, which is why messages.ts imports it first.
 */
(protobuf.util as { Long: unknown }).Long = undefined;
protobuf.configure();

export type { Writer };
export const createWriter = (): Writer => protobuf.Writer.create();
