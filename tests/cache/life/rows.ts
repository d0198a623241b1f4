/** Keys and values of token ids, and the bits that they become in a cache's pages. */
import { pageLayout, type PageLayout } from '../../../src/index.js';
import type { CodeArray, NhdTensors, Pages } from '../../../src/backend.js';
import type { WasmBackend } from '../../../src/wasm/backend.js';
import { random } from '../../random.js';

export const VOCABULARY = 61;
const DIMS = 8;

/** Keys and values of all ids in one layer. Few bits: f16 holds them as they are. */
function rowsOf(layer: number, side: number): Float32Array {
  return random(100 * layer + side).normals(VOCABULARY * DIMS).map((x) => Math.round(x * 32) / 32);
}

const wordsOf = (array: CodeArray): Uint32Array => new Uint32Array(array.buffer, array.byteOffset, array.byteLength / 4);

/** All slots of a store as words: token i's begin at i · width in each of the arrays. */
export class Bits {
  readonly #sides: readonly { readonly words: Uint32Array; readonly width: number }[];

  constructor({ keyCache, valueCache, keyScale, valueScale }: NhdTensors, slots: number) {
    const there = [keyCache, valueCache, keyScale, valueScale].filter((array) => array !== undefined);
    this.#sides = there.map(wordsOf).map((words) => ({ words, width: words.length / slots }));
  }

  /** Whether a slot holds the same as that of another. */
  isSame(slot: number, other: Bits, otherSlot: number): boolean {
    for (const [i, { words, width }] of this.#sides.entries()) {
      const others = other.#sides[i].words;
      for (let at = 0; at < width; at++) if (words[slot * width + at] !== others[otherSlot * width + at]) return false;
    }
    return true;
  }
}

/** What a layer's tokens are. */
export class LayerRows {
  readonly #key: Float32Array;
  readonly #value: Float32Array;

  constructor(layer: number) {
    this.#key = rowsOf(layer, 1);
    this.#value = rowsOf(layer, 2);
  }

  /** Of some tokens: each [tokens, 1, dims]. */
  of(ids: readonly number[]): { readonly key: Float32Array; readonly value: Float32Array } {
    const rows = (all: Float32Array): Float32Array => Float32Array.from(ids.flatMap((id) => [...all.subarray(id * DIMS, (id + 1) * DIMS)]));
    return { key: rows(this.#key), value: rows(this.#value) };
  }

  /** What they are in pages of some layout: id i in slot i. */
  bits(backend: WasmBackend, { k, v }: PageLayout): Bits {
    const side = ({ format, granularity }: PageLayout['k']) => ({ dtype: format, granularity });
    const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim: DIMS, blockSize: 1, k: side(k), v: side(v) }), VOCABULARY);
    backend.append({ pages, key: this.#key, value: this.#value, slotMapping: Int32Array.from({ length: VOCABULARY }, (_, id) => id) });
    const bits = new Bits(pages.export(), VOCABULARY);
    pages.dispose();
    return bits;
  }
}

/** A store's pages as they are now. */
export const bitsOf = (pages: Pages): Bits => new Bits(pages.export() as NhdTensors, pages.count * pages.layout.blockSize);
