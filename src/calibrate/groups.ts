/** Which elements of a call share a statistic, and the elements of a call as f32, a bounded number at a time. */
import { widenHalves } from '../layouts/half-scales.js';
import type { FloatArray, FloatDtype } from '../formats.js';
import type { GivenGranularity } from '../kv-scales.js';

/** Of a token, [heads, headDim]: `count` groups, each of `span` elements that lie one after the other. */
export interface Groups {
  readonly count: number;
  readonly span: number;
}

export function groupsOf(granularity: GivenGranularity, heads: number, headDim: number): Groups {
  const groups = { tensor: { count: 1, span: heads * headDim }, head: { count: heads, span: headDim }, channel: { count: heads * headDim, span: 1 } };
  return groups[granularity];
}

/** Floats that halves are widened into at a time, or one token where that is longer. With their bits they fit in an L2 cache. */
const CHUNK = 16384;

let halves: Float32Array | undefined;

function widenInto(out: Float32Array, words: Uint32Array, bits: Uint16Array, dtype: 'f16' | 'bf16', from: number, length: number): void {
  if (dtype === 'bf16') {
    for (let i = 0; i < length; i++) words[i] = bits[from + i] << 16;
    return;
  }
  const table = (halves ??= widenHalves(Uint16Array.from({ length: 65536 }, (_, code) => code)));
  for (let i = 0; i < length; i++) out[i] = table[bits[from + i]];
}

/** Hands out a call's elements as f32. Its memory does not depend on how many there are. */
export class Floats {
  readonly #floats: Float32Array;
  readonly #words: Uint32Array;

  /** @param longest floats of a token, at most */
  constructor(longest: number) {
    this.#floats = new Float32Array(Math.max(CHUNK, longest));
    this.#words = new Uint32Array(this.#floats.buffer);
  }

  /**
   * @param row floats of a token
   * @param visit is given the first `length` floats of an array: whole tokens
   */
  forEach(values: FloatArray, dtype: FloatDtype, row: number, visit: (floats: Float32Array, length: number) => void): void {
    if (values instanceof Float32Array) {
      visit(values, values.length);
      return;
    }
    const most = Math.floor(this.#floats.length / row) * row;
    for (let from = 0; from < values.length; from += most) {
      const length = Math.min(most, values.length - from);
      widenInto(this.#floats, this.#words, values, dtype as 'f16' | 'bf16', from, length);
      visit(this.#floats, length);
    }
  }
}
