/**
 * The range of a layer's keys, values or queries, by group, over any number of calls, as llm-compressor's observers have it:
 * `observers/min_max.py`, `moving_base.py`, `mse.py`.
 */
import type { FloatArray, FloatDtype } from '../formats.js';
import type { GridSearch } from './grid-search.js';
import type { Floats, Groups } from './groups.js';
import { minMaxInto } from './min-max.js';

/** How the ranges of calls become one. */
export type ObserverName =
  /** The last call's alone. */
  | 'memoryless-minmax'
  /** Of all calls. */
  | 'static-minmax'
  /** A moving average: the first call's, then `running += averagingConstant · (new − running)`. */
  | 'minmax'
  /** The same average, of ranges that were shrunk to where the call's quantization error is least. */
  | 'mse';

/** How one observer goes on from a range to the next. */
type Update = (running: number, observed: number, side: 'min' | 'max') => number;

export function updateOf(name: ObserverName, averagingConstant: number): Update {
  if (name === 'memoryless-minmax') return (_, observed) => observed;
  if (name === 'static-minmax') return (running, observed, side) => Math[side](running, observed);
  return (running, observed) => running + averagingConstant * (observed - running);
}

export interface ObserverParts {
  readonly update: Update;
  readonly floats: Floats;
  /** Of observer `mse`. */
  readonly search: GridSearch | undefined;
}

export class Observer {
  /** [groups]; NaN where nothing was seen yet */
  readonly min: Float64Array;
  readonly max: Float64Array;
  /** Whether any value was infinite: it has no range then that could be used. */
  infinite = false;
  readonly #callMin: Float32Array;
  readonly #callMax: Float32Array;

  constructor(
    readonly groups: Groups,
    private readonly parts: ObserverParts,
  ) {
    this.min = new Float64Array(groups.count).fill(NaN);
    this.max = new Float64Array(groups.count).fill(NaN);
    this.#callMin = new Float32Array(groups.count);
    this.#callMax = new Float32Array(groups.count);
  }

  /** @param values [tokens, groups.count, groups.span]; a group in which all are NaN stays as it was */
  observe(values: FloatArray, dtype: FloatDtype): void {
    const { groups, parts: { floats, search } } = this;
    const min = this.#callMin.fill(Infinity);
    const max = this.#callMax.fill(-Infinity);
    floats.forEach(values, dtype, groups.count * groups.span, (x, length) => minMaxInto(min, max, x, length, groups));
    if (min.includes(-Infinity) || max.includes(Infinity)) {
      this.infinite = true;
      return;
    }
    search?.shrink(min, max, values, dtype, groups);
    for (let g = 0; g < groups.count; g++) if (min[g] <= max[g]) this.#update(g, min[g], max[g]);
  }

  #update(g: number, min: number, max: number): void {
    const { update } = this.parts;
    const isFirst = Number.isNaN(this.min[g]);
    this.min[g] = isFirst ? min : update(this.min[g], min, 'min');
    this.max[g] = isFirst ? max : update(this.max[g], max, 'max');
  }

  /** `[groups]`: the largest magnitude of each, as f32; NaN where nothing was seen. */
  amax(): Float32Array {
    return Float32Array.from(this.min, (min, g) => Math.max(Math.abs(min), Math.abs(this.max[g])));
  }
}
