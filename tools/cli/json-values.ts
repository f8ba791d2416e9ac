import { createRequire } from "node:module";
import type Parser from "stream-json/Parser.js";
import { CliError } from "./cli-error.js";
import { didYouMean } from "./suggestion.js";

/** One record of `--format json`. */
export interface JsonRecord {
  /** The value as compact JSON. */
  readonly text: string;
  /** Of `--key-field`: the field's text, or its JSON if it is no text; null when it is null. */
  readonly key: string | null;
}

type OnRecord = (record: JsonRecord) => void | Promise<void>;

/** What stream-json hands out, with strings, keys and numbers packed. */
interface Token {
  readonly name: string;
  readonly value?: string;
}

/** Loaded in the way that its types and its code agree on. */
const parserClass = createRequire(import.meta.url)("stream-json/Parser.js") as typeof Parser;

/**
 * Cuts JSON into records: each value of a stream of values is one, and so is each element of an array at the top. Of an
 * input of any size only one record is held at a time. Texts are written compactly; whole numbers beyond 2^53 keep
 * their digits, because a detour through a double would change them.
 */
export class JsonValues {
  readonly #parser: Parser;
  /** Whole ones that were not handed out yet: at most those of one chunk. */
  readonly #records: JsonRecord[] = [];
  readonly #record: RecordText;
  /** Containers that are open inside the record. */
  #depth = 0;
  #inTopArray = false;
  #failure: Error | undefined;
  #handedOut = 0;

  constructor(
    keyField: string | undefined,
    private readonly recordBytesMax: number,
  ) {
    this.#record = new RecordText(keyField);
    this.#parser = new parserClass({ jsonStreaming: true, packValues: true, streamValues: false });
    this.#parser.on("data", (token: Token) => this.#onToken(token));
    this.#parser.on("error", (error: Error) => (this.#failure ??= error));
  }

  /** Records handed out so far. */
  get records(): number {
    return this.#handedOut;
  }

  /** Hands out each record that ends in `chunk`; waits where `onRecord` does. */
  async push(chunk: Buffer, onRecord: OnRecord): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#parser.write(chunk, (error) => {
        if (error) this.#failure ??= error;
        resolve();
      });
    });
    await this.#handOut(onRecord);
  }

  /** The rest, and an error when the input ends inside a value. */
  async end(onRecord: OnRecord): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#parser.once("close", resolve);
      this.#parser.end();
    });
    await this.#handOut(onRecord);
    if (this.#depth > 0 || this.#inTopArray) throw this.#malformed("the input ends inside a value");
  }

  async #handOut(onRecord: OnRecord): Promise<void> {
    const failure = this.#failure;
    for (const record of this.#records.splice(0)) {
      this.#handedOut += 1;
      const pending = onRecord(record);
      if (pending !== undefined) await pending;
    }
    if (failure !== undefined) throw failure instanceof CliError ? failure : this.#malformed(failure.message);
  }

  #malformed(reason: string): CliError {
    return new CliError("INVALID_JSON", `the input is not JSON after record ${this.#handedOut}: ${reason}`, {
      hint: "give a stream of JSON values or one array; for plain lines use --format lines",
    });
  }

  #onToken({ name, value = "" }: Token): void {
    if (this.#failure !== undefined) return;
    if (this.#depth === 0 && name === "startArray" && !this.#inTopArray) {
      this.#inTopArray = true;
      return;
    }
    if (this.#depth === 0 && name === "endArray") {
      this.#inTopArray = false;
      return;
    }
    switch (name) {
      case "startObject":
      case "startArray":
        this.#depth += 1;
        this.#record.open(name === "startObject" ? "{" : "[");
        break;
      case "endObject":
      case "endArray":
        this.#depth -= 1;
        this.#record.close(name === "endObject" ? "}" : "]");
        break;
      case "keyValue":
        this.#record.key(value);
        break;
      case "stringValue":
        this.#record.value(JSON.stringify(value), value);
        break;
      case "numberValue":
        this.#record.value(compactNumber(value));
        break;
      case "nullValue":
        this.#record.value("null");
        break;
      case "trueValue":
        this.#record.value("true");
        break;
      case "falseValue":
        this.#record.value("false");
        break;
      default:
        return;
    }
    if (this.#record.length > this.recordBytesMax) {
      this.#failure = new CliError(
        "MESSAGE_TOO_LARGE",
        `record ${this.#handedOut + this.#records.length + 1} is longer than ${this.recordBytesMax} bytes`,
        { hint: "no topic accepts such a record; split it" },
      );
      return;
    }
    if (this.#depth > 0) return;
    const missing = this.#record.missingKeyField();
    const record = this.#record.finish();
    if (missing === undefined) this.#records.push(record);
    else this.#failure = this.#withoutKeyField(missing.field, missing.known);
  }

  #withoutKeyField(field: string, known: readonly string[]): CliError {
    const number = this.#handedOut + this.#records.length + 1;
    return new CliError("NO_KEY_FIELD", `record ${number} has no field ${field} (--key-field)`, {
      hint: didYouMean(field, known) ?? "add the field to the record, with null in it for one without a key",
    });
  }
}

/** Of the fields of a record so many are looked at for the one that was probably meant. */
const NAMES_MAX = 100;

/** Writes one value compactly and watches for the key field at its top level. */
class RecordText {
  #parts: string[] = [];
  #length = 0;
  /** Per open container: whether it holds something, so that a comma is due. */
  #filled: boolean[] = [];
  #afterKey = false;
  /** The key field's name was the last key, and its value comes next. */
  #keyComes = false;
  /** Where the key field's value, a container, begins in `#parts`. */
  #keyFrom = -1;
  #key: string | null = null;
  #keySeen = false;
  /** The names at the top of a record that has not shown the key field yet. */
  #names: string[] = [];

  constructor(private readonly keyField: string | undefined) {}

  /** The key field, when the record that ends here does not have it, and the fields it has. */
  missingKeyField(): { readonly field: string; readonly known: readonly string[] } | undefined {
    if (this.keyField === undefined || this.#keySeen) return undefined;
    return { field: this.keyField, known: this.#names };
  }

  get length(): number {
    return this.#length;
  }

  open(bracket: string): void {
    this.#separate();
    if (this.#keyComes) this.#keyFrom = this.#parts.length;
    this.#keyComes = false;
    this.#add(bracket);
    this.#filled.push(false);
  }

  close(bracket: string): void {
    this.#filled.pop();
    this.#add(bracket);
    if (this.#keyFrom >= 0 && this.#filled.length === 1) {
      this.#key = this.#parts.slice(this.#keyFrom).join("");
      this.#keyFrom = -1;
    }
  }

  key(name: string): void {
    this.#separate();
    this.#add(`${JSON.stringify(name)}:`);
    this.#afterKey = true;
    if (this.keyField === undefined || this.#filled.length !== 1) return;
    this.#keyComes = name === this.keyField;
    if (this.#keyComes) this.#keySeen = true;
    else if (!this.#keySeen && this.#names.length < NAMES_MAX) this.#names.push(name);
  }

  /** `plain` is the text of a value that is one. */
  value(text: string, plain = text): void {
    this.#separate();
    this.#add(text);
    if (this.#keyComes) this.#key = text === "null" ? null : plain;
    this.#keyComes = false;
  }

  finish(): JsonRecord {
    const record = { text: this.#parts.join(""), key: this.#key };
    this.#parts = [];
    this.#length = 0;
    this.#filled = [];
    this.#key = null;
    this.#keySeen = false;
    this.#names = [];
    return record;
  }

  #separate(): void {
    if (this.#afterKey) {
      this.#afterKey = false;
      return;
    }
    const last = this.#filled.length - 1;
    if (last < 0) return;
    if (this.#filled[last]) this.#add(",");
    this.#filled[last] = true;
  }

  #add(text: string): void {
    this.#parts.push(text);
    this.#length += text.length;
  }
}

function compactNumber(digits: string): string {
  const value = Number(digits);
  const isExact = !/^-?\d+$/.test(digits) || Number.isSafeInteger(value);
  return isExact && Number.isFinite(value) && !Object.is(value, -0) ? String(value) : digits;
}
