/** Plain attention of one row and head, over the numbers that went into a cache: no bench times wrong results. */
import type { Format } from '../../src/index.js';
import type { Shape } from '../shapes.js';
import { BLOCK } from '../pages.js';
import { sourceToken, type Tokens } from './cache.js';

/** Deviation that a format may have, relative to the size of the result: its own rounding, on normal keys and values. */
const bounds: { readonly [F in Format]: number } = { e4m3fn: 0.15, e5m2: 0.3, int8: 0.05, f16: 0.01, f32: 0.001 };
/** What f16 products may add. */
const F16_BOUND = 0.01;

interface Row {
  /** Pages of its sequence. */
  readonly blocks: Int32Array;
  /** Keys that it sees. */
  readonly keys: number;
  /** [headDim] */
  readonly q: Float32Array;
  /** Of the query. */
  readonly head: number;
}

/** [headDim] */
export function plainAttention({ queryHeads, kvHeads, headDim }: Shape, { key, value }: Tokens, { blocks, keys, q, head }: Row): Float64Array {
  const kvHead = Math.floor(head / (queryHeads / kvHeads));
  const start = (token: number): number => (sourceToken(blocks[Math.floor(token / BLOCK)], token % BLOCK) * kvHeads + kvHead) * headDim;
  const scores = Float64Array.from({ length: keys }, (_, token) => {
    const from = start(token);
    return q.reduce((sum, x, d) => sum + x * key[from + d], 0) / Math.sqrt(headDim);
  });
  const largest = scores.reduce((a, b) => Math.max(a, b));
  const out = new Float64Array(headDim);
  let weights = 0;
  for (const [token, score] of scores.entries()) {
    const [weight, from] = [Math.exp(score - largest), start(token)];
    weights += weight;
    for (let d = 0; d < headDim; d++) out[d] += weight * value[from + d];
  }
  return out.map((sum) => sum / weights);
}

/** @throws Error where a result is further from what it should be than its format explains */
export function assertPlausible(name: string, actual: Float32Array, expected: Float64Array, format: Format, f16Products: boolean): void {
  let [error, size] = [0, 0];
  for (const [d, value] of expected.entries()) {
    error += (actual[d] - value) ** 2;
    size += value ** 2;
  }
  const deviation = Math.sqrt(error / size);
  const bound = bounds[format] + (f16Products ? F16_BOUND : 0);
  if (!(deviation <= bound)) throw new Error(`${name} computes wrongly: its result is off by ${deviation.toPrecision(3)} of its size, ${format} explains ${bound}`);
}
