/** The keys and values of one layer at rest: pages that were filled once and are never written again. */
import { resolveCache, type Layer, type LayerConfig } from '../cache/config.js';
import { readSpans } from '../cache/rows.js';
import { bytesOf, type FloatArray } from '../formats.js';
import { checkInteger, MAX_BLOCK_SIZE, pageLayout, type PageLayout } from '../layout.js';
import type { WasmBackend } from '../wasm/backend.js';
import type { WasmPages } from '../wasm/pages.js';
import { asType, type Rows } from './tensors.js';

/** How keys and values are stored, as in {@link LayerConfig}. */
export type StoreOptions = Pick<LayerConfig, 'dtype' | 'modelDtype' | 'granularity' | 'groupSize' | 'recipe' | 'scalePrecision' | 'scale'>;

/** A side's values, [batch, kvHeads, tokens, headDim]. */
export interface Pair<T> {
  readonly key: T;
  readonly value: T;
}

/** Tokens that came to rest together: page b holds those of row b of the batch. */
interface Segment {
  readonly pages: WasmPages;
  readonly tokens: number;
}

/** Pages of another size. */
function withBlockSize(layout: PageLayout, blockSize: number): PageLayout {
  const { kvHeads, headDim, order, k, v } = layout;
  const side = ({ format, granularity, groupSize }: PageLayout['k']) => (granularity === 'group' ? { dtype: format, granularity, groupSize } : { dtype: format, granularity });
  return pageLayout({ kvHeads, headDim, blockSize, order, k: side(k), v: side(v) });
}

/** The last tokens of one row of a batch, as append takes them: (head, token, dim) → (token, head, dim). */
function lastTokens(x: FloatArray, { dims: [, kvHeads, all, headDim] }: Rows, row: number, tokens: number): FloatArray {
  const out = x.constructor === Float32Array ? new Float32Array(tokens * kvHeads * headDim) : new Uint16Array(tokens * kvHeads * headDim);
  for (let head = 0; head < kvHeads; head++) {
    for (let token = 0; token < tokens; token++) {
      const from = ((row * kvHeads + head) * all + all - tokens + token) * headDim;
      out.set(x.subarray(from, from + headDim), (token * kvHeads + head) * headDim);
    }
  }
  return out;
}

/** Whether the first tokens of `x` are `past`, bit for bit. */
function beginsWith(x: FloatArray, { dims: [batch, kvHeads, all, headDim] }: Rows, past: FloatArray, tokens: number): boolean {
  const [ours, theirs] = [bytesOf(past), bytesOf(x)];
  const width = headDim * x.BYTES_PER_ELEMENT;
  const length = tokens * width;
  for (let row = 0; row < batch * kvHeads; row++) {
    const [from, at] = [row * length, row * all * width];
    for (let i = 0; i < length; i++) if (ours[from + i] !== theirs[at + i]) return false;
  }
  return true;
}

/**
 * One layer. What it was given once is not quantized again: tokens that come back as they were given out, with others behind
 * them, keep their codes.
 */
export class RestingLayer {
  readonly #segments: Segment[] = [];

  constructor(
    readonly rows: Rows,
    readonly layer: Layer,
  ) {}

  get tokens(): number {
    return this.#segments.reduce((sum, { tokens }) => sum + tokens, 0);
  }

  /** Of codes and scales. */
  get bytes(): number {
    return this.#segments.reduce((sum, { pages }) => sum + pages.byteLength, 0);
  }

  /** Whether tensors of this kind can follow those that are here. */
  #isLike({ type, dims: [batch, kvHeads, tokens, headDim] }: Rows): boolean {
    const [ourBatch, ourHeads, , ourDim] = this.rows.dims;
    return type === this.rows.type && batch === ourBatch && kvHeads === ourHeads && headDim === ourDim && tokens >= this.tokens;
  }

  /** Whether these are the tokens that are here, and maybe others behind them. */
  continues(given: Pair<FloatArray>, rows: Rows): boolean {
    if (!this.#isLike(rows)) return false;
    const past = this.read();
    return beginsWith(given.key, rows, past.key, this.tokens) && beginsWith(given.value, rows, past.value, this.tokens);
  }

  /** Quantizes the tokens behind those that are here. */
  append(backend: WasmBackend, given: Pair<FloatArray>, rows: Rows): void {
    const { layout, recipe, kScale, vScale } = this.layer;
    const [batch, , all] = rows.dims;
    const tokens = all - this.tokens;
    if (tokens === 0) return;
    const pages = backend.createPages(withBlockSize(layout, tokens), batch);
    const dtype = rows.type === 'float32' ? 'f32' : 'f16';
    for (let row = 0; row < batch; row++) {
      const slotMapping = Int32Array.from({ length: tokens }, (_, token) => row * tokens + token);
      backend.append({ pages, key: lastTokens(given.key, rows, row, tokens), value: lastTokens(given.value, rows, row, tokens), dtype, slotMapping, recipe, kScale, vScale });
    }
    this.#segments.push({ pages, tokens });
  }

  /** All tokens, dequantized: [batch, kvHeads, tokens, headDim] each, of the type that they came in. */
  read(): Pair<FloatArray> {
    const [batch, kvHeads, , headDim] = this.rows.dims;
    const { kScale, vScale } = this.layer;
    const each = kvHeads * this.tokens * headDim;
    const [key, value] = [new Float32Array(batch * each), new Float32Array(batch * each)];
    for (let row = 0; row < batch; row++) {
      const { k, v } = readSpans(this.#segments.map(({ pages, tokens }) => ({ pages, tokens, list: [row], kScale, vScale })));
      key.set(k, row * each);
      value.set(v, row * each);
    }
    return { key: asType(key, this.rows.type), value: asType(value, this.rows.type) };
  }

  dispose(): void {
    for (const { pages } of this.#segments.splice(0)) pages.dispose();
  }
}

/** @throws TypeError or RangeError naming the option, or the size, that does not fit */
export function resolveStore(options: StoreOptions, { dims: [, kvHeads, tokens, headDim], type }: Rows): Layer {
  checkInteger(tokens, 'tokens', 1, MAX_BLOCK_SIZE);
  const [layer] = resolveCache({ modelDtype: type === 'float16' ? 'f16' : 'f32', ...options, layers: 1, kvHeads, headDim, layout: 'paged', capacity: 1 }).layers;
  return layer;
}
