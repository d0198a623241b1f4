/** The index arrays of a step, as the backend takes them. */
import type { Reservation } from './step.js';

export interface StepTables {
  /** [tokens] */
  readonly slotMapping: Int32Array;
  /** [sequences, width], width at least that of the longest sequence */
  readonly blockTable: Int32Array;
  /** [sequences + 1] */
  readonly cuSeqlensQ: Int32Array;
  /** [sequences] */
  readonly seqUsedK: Int32Array;
}

/** Hands them out. The arrays of a step that has ended serve the next of the same size, so that decoding token by token makes none. */
export class TableStore {
  #spare: StepTables | undefined;

  constructor(private readonly blockSize: number) {}

  take(reservations: readonly Reservation[]): StepTables {
    const sequences = reservations.length;
    let [rows, longest] = [0, 0];
    for (const { tokens, blocks } of reservations) {
      rows += tokens;
      longest = Math.max(longest, blocks.length);
    }
    // Rounded up to a power of two: a sequence that takes one more page seldom needs a wider table.
    const width = longest < 2 ? longest : 2 ** (32 - Math.clz32(longest - 1));
    const spare = this.#spare;
    this.#spare = undefined;
    const fits = spare !== undefined && spare.slotMapping.length === rows && spare.seqUsedK.length === sequences && spare.blockTable.length === sequences * width;
    const tables = fits ? spare : {
      slotMapping: new Int32Array(rows),
      blockTable: new Int32Array(sequences * width),
      cuSeqlensQ: new Int32Array(sequences + 1),
      seqUsedK: new Int32Array(sequences),
    };
    this.#fill(tables, reservations, width);
    return tables;
  }

  /** Takes back the arrays of a step that nobody reads any more. */
  give(tables: StepTables): void {
    this.#spare = tables;
  }

  #fill({ slotMapping, blockTable, cuSeqlensQ, seqUsedK }: StepTables, reservations: readonly Reservation[], width: number): void {
    const { blockSize } = this;
    blockTable.fill(-1);
    let row = 0;
    for (let s = 0; s < reservations.length; s++) {
      const { sequence, tokens, blocks } = reservations[s];
      blockTable.set(blocks, s * width);
      seqUsedK[s] = sequence.length + tokens;
      for (let token = sequence.length; token < sequence.length + tokens; token++) {
        slotMapping[row++] = blocks[Math.floor(token / blockSize)] * blockSize + (token % blockSize);
      }
      cuSeqlensQ[s + 1] = row;
    }
  }
}
