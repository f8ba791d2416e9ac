/** How keys and values, which are bytes, are written as text. */
export type TextEncoding = "utf8" | "base64" | "hex";

export const textEncodings: readonly TextEncoding[] = ["utf8", "base64", "hex"];

/** The bytes that a text stands for; undefined when it is not written in the encoding. */
export function bytesOf(text: string, encoding: TextEncoding): Buffer | undefined {
  switch (encoding) {
    case "utf8":
      return Buffer.from(text);
    case "hex":
      return /^(?:[0-9a-fA-F]{2})*$/.test(text) ? Buffer.from(text, "hex") : undefined;
    case "base64": {
      const digits = /^([A-Za-z0-9+/_-]*)={0,2}$/.exec(text)?.[1];
      // One digit of six bits is less than a byte.
      return digits === undefined || digits.length % 4 === 1 ? undefined : Buffer.from(digits, "base64");
    }
  }
}

/** Text of some bytes. Bytes that are not UTF-8 become replacement characters: ask for base64 or hex to keep them. */
export function textOf(bytes: Uint8Array, encoding: TextEncoding): string {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return buffer.toString(encoding);
}
