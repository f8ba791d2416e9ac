/** How keys and values, which are bytes, are written as text. */
export type TextEncoding = "utf8" | "base64" | "hex";

export const textEncodings: readonly TextEncoding[] = ["utf8", "base64", "hex"];

/** Text of some bytes. Bytes that are not UTF-8 become replacement characters: ask for base64 or hex to keep them. */
export function textOf(bytes: Uint8Array, encoding: TextEncoding): string {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return buffer.toString(encoding);
}
