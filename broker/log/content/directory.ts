import { join } from "node:path";
import type { File } from "../../../common/env/files.js";
import { METADATA_FILE, encodePartitionMetadata } from "../files/names.js";
import type { LogDisk } from "./disk.js";
import type { LogContext, LogIdentity } from "./log-context.js";

/**
 * The directory of a log, with the file that says which topic it belongs to: made with the first segment, in the middle of
 * an append. Remembers what of it is not durable yet.
 */
export class LogDirectory {
  readonly path: string;
  #metadataFile: File | undefined;
  #namesChanged = false;
  #isNew = false;
  #isMade: boolean;
  /** Made by a process that may have died before it was durable. */
  #isUnproven: boolean;

  constructor(
    private readonly context: LogContext,
    private readonly identity: LogIdentity,
    private readonly disk: LogDisk,
    { hasDirectory, isDirectoryDurable }: { readonly hasDirectory: boolean; readonly isDirectoryDurable: boolean },
  ) {
    this.path = join(context.directory, identity.directoryName);
    this.#isMade = hasDirectory;
    this.#isUnproven = !isDirectoryDurable;
  }

  get exists(): boolean {
    return this.#isMade;
  }

  /** Fine when it exists. Throws StorageFailure. */
  make(): void {
    const { files } = this.context.env;
    files.makeDirectorySync(this.path);
    void this.#metadataFile?.close();
    const metadata = files.openSync(join(this.path, METADATA_FILE), "create");
    const content = Buffer.from(encodePartitionMetadata(this.identity.topicId));
    if (metadata.size() > content.length) metadata.truncateSync(content.length);
    metadata.writeSync([content], 0);
    this.#metadataFile = metadata;
    this.#isNew = true;
    this.#isMade = true;
  }

  /** Files in it were made or removed. */
  namesChanged(): void {
    this.#namesChanged = true;
  }

  async syncMetadata(): Promise<void> {
    if (this.#isUnproven) {
      this.make();
      this.namesChanged();
      this.#isUnproven = false;
    }
    const metadata = this.#metadataFile;
    if (metadata === undefined) return;
    await this.disk.sync(() => metadata.sync());
    this.#metadataFile = undefined;
    await metadata.close();
  }

  async syncNames(): Promise<void> {
    if (this.#namesChanged) {
      this.#namesChanged = false;
      await this.#syncDirectory(this.path, () => (this.#namesChanged = true));
    }
    if (this.#isNew) {
      this.#isNew = false;
      await this.#syncDirectory(this.context.directory, () => (this.#isNew = true));
    }
  }

  /** What changes meanwhile is for the next time, and so is what could not be synced. */
  async #syncDirectory(path: string, onFailure: () => void): Promise<void> {
    try {
      await this.disk.sync(() => this.context.env.files.syncDirectory(path));
    } catch (error) {
      onFailure();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#metadataFile?.close();
  }
}
