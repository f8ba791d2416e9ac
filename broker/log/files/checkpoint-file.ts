import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { StorageFailure } from "../../../common/env/files.js";
import type { FileSystem } from "../../../common/env/files.js";

/*
 * Small text files that are replaced as a whole:
 *
 *   ottla-checkpoint 1
 *   2                      number of lines that follow
 *   <line>
 *   <line>
 *   crc32 1c291ca3         of all bytes above
 *
 * A reader gets the old content or the new one, whatever happens in between, and notices when the disk changed either.
 */
const HEADING = "ottla-checkpoint 1";

/** The content of a checkpoint file is not what was written. */
export class DamagedCheckpoint extends Error {
  override readonly name = "DamagedCheckpoint";
  constructor(readonly path: string) {
    super(`${path} is damaged: its content does not match its checksum`);
  }
}

/** The bytes of a checkpoint file with these lines, none of which may contain a line feed. */
export function encodeCheckpoint(lines: readonly string[]): string {
  const content = [HEADING, String(lines.length), ...lines].map((line) => `${line}\n`).join("");
  return `${content}crc32 ${crc32(content).toString(16).padStart(8, "0")}\n`;
}

/** The lines of a checkpoint file; undefined when its bytes are not whole and undamaged. */
export function decodeCheckpoint(bytes: Uint8Array): string[] | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
  const end = text.lastIndexOf("crc32 ");
  if (end < 0) return undefined;
  const lines = text.slice(0, end).split("\n").slice(0, -1);
  if (lines[0] !== HEADING || lines[1] !== String(lines.length - 2)) return undefined;
  const content = lines.slice(2);
  // Comparing whole texts leaves no byte of the file unchecked, the checksum's own line included.
  return encodeCheckpoint(content) === text ? content : undefined;
}

/**
 * Replaces the file: when this resolves the new content is durable, and at no moment is there neither. Calls for the same
 * path must not overlap.
 */
export async function writeCheckpoint(files: FileSystem, path: string, lines: readonly string[]): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await files.open(temporary, "create");
  try {
    await file.truncate(0);
    await file.write([Buffer.from(encodeCheckpoint(lines))], 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.rename(temporary, path);
  await files.syncDirectory(dirname(path));
}

/** The lines of the file; undefined when there is none. Throws DamagedCheckpoint. */
export async function readCheckpoint(files: FileSystem, path: string): Promise<string[] | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await files.readFile(path);
  } catch (error) {
    if (error instanceof StorageFailure && error.reason === "not-found") return undefined;
    throw error;
  }
  const lines = decodeCheckpoint(bytes);
  if (lines === undefined) throw new DamagedCheckpoint(path);
  return lines;
}
