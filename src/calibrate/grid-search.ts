/** The range of a call's values that quantizes them with the least error: the search of llm-compressor's `observers/mse.py`. */
import type { FloatArray, FloatDtype } from '../formats.js';
import { ErrorSum } from './error-sum.js';
import type { Floats, Groups } from './groups.js';
import type { ScaleRule } from './scale-rule.js';

export interface SearchSettings {
  readonly maxshrink: number;
  readonly patience: number;
  readonly grid: number;
  readonly norm: number;
}

/** Ranges p · [min, max] for p = 1, 1 − 1/grid, … above 1 − maxshrink, until none has done better for `patience` of them. */
export class GridSearch {
  readonly #steps: number;
  readonly #patience: number;
  readonly #grid: number;
  readonly #errorSum: ErrorSum;
  readonly #amax: Float32Array;
  readonly #sums: Float64Array;
  readonly #best: Float64Array;
  readonly #factors: Float32Array;

  /** @param most groups that one call may have */
  constructor(
    private readonly rule: ScaleRule,
    private readonly floats: Floats,
    { maxshrink, patience, grid, norm }: SearchSettings,
    most: number,
  ) {
    this.#steps = Math.floor(maxshrink * grid);
    this.#patience = patience;
    this.#grid = grid;
    this.#errorSum = new ErrorSum(rule.format, norm);
    this.#amax = new Float32Array(most);
    this.#sums = new Float64Array(most);
    this.#best = new Float64Array(most);
    this.#factors = new Float32Array(most);
  }

  /**
   * Shrinks minima and maxima to the best range of each group. Patience is the call's, not a group's: it ends when no group does
   * better any more.
   * @param min [count], finite, or +∞ with a max of −∞ where a group has nothing
   */
  shrink(min: Float32Array, max: Float32Array, values: FloatArray, dtype: FloatDtype, groups: Groups): void {
    const { count } = groups;
    this.#best.fill(Infinity, 0, count);
    this.#factors.fill(1, 0, count);
    let since = 0;
    for (let i = 0; i < this.#steps && since < this.#patience; i++) {
      const factor = Math.fround(1 - i / this.#grid);
      this.#measure(factor, min, max, values, dtype, groups);
      since = this.#keepBetter(factor, count) ? 0 : since + 1;
    }
    for (let g = 0; g < count; g++) {
      min[g] *= this.#factors[g];
      max[g] *= this.#factors[g];
    }
  }

  #measure(factor: number, min: Float32Array, max: Float32Array, values: FloatArray, dtype: FloatDtype, groups: Groups): void {
    const { count, span } = groups;
    for (let g = 0; g < count; g++) this.#amax[g] = min[g] > max[g] ? 0 : Math.max(Math.abs(min[g]), Math.abs(max[g])) * factor;
    const scales = this.rule.scales(this.#amax, count);
    this.#sums.fill(0, 0, count);
    this.floats.forEach(values, dtype, count * span, (x, length) => this.#errorSum.addTo(this.#sums, x, length, groups, scales));
  }

  /** Whether any group does better with this factor than with those before. */
  #keepBetter(factor: number, count: number): boolean {
    let any = false;
    for (let g = 0; g < count; g++) {
      if (!(this.#sums[g] < this.#best[g])) continue;
      this.#best[g] = this.#sums[g];
      this.#factors[g] = factor;
      any = true;
    }
    return any;
  }
}
