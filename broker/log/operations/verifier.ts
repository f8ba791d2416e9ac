import type { FileSystem } from "../../../common/env/files.js";
import type { Offset } from "../../../protocol/types.js";
import type { LogContent } from "../content/log-content.js";
import { surveySegment } from "../segment/scan.js";
import type { DamagedRange } from "../segment/scan.js";

/** What a look at the files compares and changes. */
type VerifiedContent = Pick<LogContent, "cuts" | "offsets" | "segments" | "damage">;

/** Reads the files of a log again and checks every checksum. What it finds damaged is not served from then on. */
export class LogVerifier {
  constructor(
    private readonly files: FileSystem,
    private readonly content: VerifiedContent,
    /** Gives a change of files its turn. */
    private readonly inTurn: (change: () => Promise<void>) => Promise<void>,
  ) {}

  /**
   * The segment that holds the offset. Returns the damage from there on; nothing when the disk is innocent. A look that a cut
   * overtook has shown nothing, so it is taken again: the cut may lie behind the damage.
   */
  async verifyRange(from: Offset): Promise<readonly DamagedRange[]> {
    const { segments } = this.content;
    for (;;) {
      const { cuts } = this.content;
      const segment = segments.all[segments.indexOf(from)];
      if (segment === undefined) return [];
      const damage = await this.verifySegment(segment.baseOffset);
      if (this.content.cuts === cuts) return damage.filter((range) => range.to > from);
    }
  }

  /** As slowly as `pace` says. */
  async verifySegment(baseOffset: Offset, pace?: (bytes: number) => Promise<void>): Promise<readonly DamagedRange[]> {
    const { segments, offsets } = this.content;
    const segment = segments.all.find((candidate) => candidate.baseOffset === baseOffset);
    if (segment === undefined || segment.sizeBytes === 0) return [];
    const { cuts } = this.content;
    // Of a segment that was just rolled the last writes may still be queued.
    const end = segment.endOffset < offsets.logEnd ? segment.endOffset : offsets.logEnd;
    const endPosition = segment.sizeBytes;
    const behindDamage: { readonly offset: Offset; readonly position: number }[] = [];
    const file = await this.files.open(segment.path("log"), "read");
    try {
      const survey = await surveySegment(
        file,
        { position: 0, endPosition, offset: baseOffset },
        end,
        (batch, position, afterDamage) => {
          if (afterDamage) behindDamage.push({ offset: batch.baseOffset, position });
        },
        pace,
      );
      // A cut or a removal in the meantime changed what the bytes should be.
      const isOld = (): boolean => this.content.cuts !== cuts || !segments.all.includes(segment);
      if (isOld() || survey.damage.length === 0) return [];
      await this.inTurn(async () => {
        if (isOld()) return;
        const isWritten = segment !== segments.active && segment.syncedBytes >= segment.plannedBytes;
        if (isWritten) await segments.rebuildIndexes(segment);
        else for (const { offset, position } of behindDamage) segment.indexBehindDamage(offset, position);
      });
      if (isOld()) return [];
      this.content.damage.add(survey.damage);
      return survey.damage;
    } finally {
      await file.close();
    }
  }
}
