/** What keys and values become in a cache. */
import { HuggingFaceCache, type WasmBackend } from '../index.js';
import type { Storage } from '../model/cached-model.js';
import type { LlamaConfig } from '../model/config.js';
import { swapRows } from '../swap-rows.js';

export type Shape = Pick<LlamaConfig, 'layers' | 'kvHeads' | 'headDim'>;

/** [tokens, kvHeads, headDim] as [kvHeads, tokens, headDim]. */
function headMajor(rows: Float32Array, { kvHeads, headDim }: Shape): Float32Array {
  return swapRows(rows, [rows.length / (kvHeads * headDim), kvHeads], headDim);
}

/** A way to store, tried on rows that are not kept. */
export class RoundTrip {
  readonly #shape: Shape;
  readonly #cache: HuggingFaceCache;

  /** @param backend stays the caller's */
  constructor(backend: WasmBackend, shape: Shape, storage: Storage) {
    const { layers, kvHeads, headDim } = shape;
    this.#shape = shape;
    this.#cache = new HuggingFaceCache(backend, { layers, kvHeads, headDim, ...storage, store: false });
  }

  /**
   * @param key, value [tokens, kvHeads, headDim]
   * @returns the same, and what a cache gives back for it: [kvHeads, tokens, headDim]
   */
  pass(layer: number, key: Float32Array, value: Float32Array): { readonly [side in 'k' | 'v']: { readonly exact: Float32Array; readonly stored: Float32Array } } {
    const { kvHeads, headDim } = this.#shape;
    const [k, v] = [headMajor(key, this.#shape), headMajor(value, this.#shape)];
    const dims = [1, kvHeads, k.length / (kvHeads * headDim), headDim];
    const [storedKeys, storedValues] = this.#cache.update({ data: k, dims }, { data: v, dims }, layer);
    return { k: { exact: k, stored: storedKeys.data }, v: { exact: v, stored: storedValues.data } };
  }
}
