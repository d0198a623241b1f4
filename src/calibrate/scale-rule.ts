/** From the largest magnitude of a group to its scale. */
import type { QuantizedFormat } from '../formats.js';
import type { Recipe } from '../recipe.js';
import { quantize } from '../wasm/codec.js';

/** The shortest row that there is. */
const ROW = 8;

/** A recipe's rule, as the kernel that quantizes rows has it: so it exists once. Every step is one IEEE f32 operation. */
export class ScaleRule {
  /** [groups, ROW], of which only the first of each row is not 0: that is its largest magnitude. */
  readonly #rows: Float32Array;
  readonly #codes: Uint8Array;

  /** @param most groups that one call may have */
  constructor(
    readonly format: QuantizedFormat,
    readonly recipe: Recipe,
    most: number,
  ) {
    this.#rows = new Float32Array(most * ROW);
    this.#codes = new Uint8Array(most * ROW);
  }

  /**
   * @param amax [count or more]
   * @returns [count]
   */
  scales(amax: Float32Array, count: number): Float32Array {
    for (let g = 0; g < count; g++) this.#rows[g * ROW] = amax[g];
    const rows = this.#rows.subarray(0, count * ROW);
    const { format, recipe } = this;
    if (format === 'int8') return quantize(rows, { format, recipe, rowLength: ROW, out: new Int8Array(this.#codes.buffer, 0, rows.length) }).scales;
    return quantize(rows, { format, recipe, rowLength: ROW, out: this.#codes.subarray(0, rows.length) }).scales;
  }
}
