/** Tokens of a sequence out of a layer's pages, as attention reads them: a code times its scale, in f32. */
import type { CacheTensors, Pages, ScaleStrides, TensorStrides } from '../backend.js';
import { bytesOf, isQuantized, type FloatArray, type QuantizedFormat } from '../formats.js';
import type { PageLayout, SideLayout } from '../layout.js';
import { widen } from '../layouts/half-scales.js';
import { groupsOf } from '../layouts/row-major.js';
import { checkGivenScale, type GivenScales } from '../scale.js';
import { codeArrays } from '../tensors.js';
import { decode } from '../wasm/codec.js';
import type { Held } from './groups.js';
import type { LayerStores } from './stores.js';

/** Keys and values of some tokens, [kvHeads, tokens, headDim] each. */
export interface Rows {
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** Tokens that lie in pages: the first in the first place of the first, and so on. */
interface Span {
  readonly pages: Pages;
  readonly list: readonly number[];
  readonly tokens: number;
}

/** What is in the pages as it is: codes [kvHeads, tokens, headDim], scales [kvHeads, tokens, groups]. */
function readSpan({ pages, list, tokens }: Span): CacheTensors {
  const { layout } = pages;
  const { kvHeads, headDim, blockSize, k, v } = layout;
  const codes = (side: SideLayout) => new codeArrays[side.format](kvHeads * tokens * headDim);
  const scales = (side: SideLayout) => (side.groupSize === 0 ? undefined : new Float32Array(kvHeads * tokens * groupsOf(layout, side)));
  const tensors = { keyCache: codes(k), valueCache: codes(v), keyScale: scales(k), valueScale: scales(v) };
  const strides = (first: number, width: number): TensorStrides => ({ offset: first * width, block: blockSize * width, token: width, head: tokens * width });
  const side = (first: number, of: SideLayout): { codes: TensorStrides; scales?: ScaleStrides } =>
    of.groupSize === 0 ? { codes: strides(first, headDim) } : { codes: strides(first, headDim), scales: { ...strides(first, groupsOf(layout, of)), group: 1 } };
  for (let block = 0; block * blockSize < tokens; ) {
    let end = block + 1;
    while (list[end] === list[end - 1] + 1) end++;
    const first = block * blockSize;
    const count = Math.min(end * blockSize, tokens) - first;
    void pages.exportInto({ ...tensors, layout: { tokens: count, k: side(first, k), v: side(first, v) } }, list[block]);
    block = end;
  }
  return tensors;
}

const tables: { [F in QuantizedFormat]?: Float32Array } = {};

/** What each of a format's codes stands for, by the byte that it is stored as. */
function tableOf(format: QuantizedFormat): Float32Array {
  const bytes = Uint8Array.from({ length: 256 }, (_, code) => code);
  return tables[format] ??= format === 'int8' ? Float32Array.from(new Int8Array(bytes.buffer)) : decode(bytes, format);
}

/** Rows of one side, on their way to where they belong in the rows of all tokens. */
interface Placing {
  readonly layout: PageLayout;
  readonly side: SideLayout;
  readonly given: GivenScales;
  /** Tokens of the span, of all, and before the span. */
  readonly tokens: number;
  readonly all: number;
  readonly before: number;
}

/** Each product is rounded once: that of two f32 is exact until it is stored. */
function dequantize(codes: Uint8Array, format: QuantizedFormat, scales: Float32Array | undefined, out: Float32Array, { layout, side, given, tokens, all, before }: Placing): void {
  const { kvHeads, headDim } = layout;
  const table = tableOf(format);
  // As many dims as share a scale, one after the other.
  const run = scales ? side.groupSize : given.dimStride === 0 ? headDim : 1;
  for (let head = 0; head < kvHeads; head++) {
    for (let token = 0; token < tokens; token++) {
      const row = head * tokens + token;
      const [from, to] = [row * headDim, (head * all + before + token) * headDim];
      for (let d = 0; d < headDim; d += run) {
        const scale = scales ? scales[(row * headDim + d) / run] : given.values[head * given.headStride + d * given.dimStride];
        for (let i = d; i < d + run; i++) out[to + i] = table[codes[from + i]] * scale;
      }
    }
  }
}

/** What is not quantized has no scale. */
function copyRows(values: Float32Array, out: Float32Array, { layout: { kvHeads, headDim }, tokens, all, before }: Placing): void {
  for (let head = 0; head < kvHeads; head++) {
    out.set(values.subarray(head * tokens * headDim, (head + 1) * tokens * headDim), (head * all + before) * headDim);
  }
}

/** What is in some pages, and the scales that it was given. */
type CodeSpan = Span & Partial<Pick<LayerStores['codes'], 'kScale' | 'vScale'>>;

/**
 * The rows of spans that follow each other, of pages whose backend answers at once.
 * @param spans of one shape of tokens, one at least
 */
export function readSpans(spans: readonly CodeSpan[]): Rows {
  const { kvHeads, headDim } = spans[0].pages.layout;
  const all = spans.reduce((sum, { tokens }) => sum + tokens, 0);
  const rows: Rows = { k: new Float32Array(kvHeads * all * headDim), v: new Float32Array(kvHeads * all * headDim) };
  let before = 0;
  for (const span of spans) {
    const { pages: { layout }, tokens } = span;
    const { keyCache, valueCache, keyScale, valueScale } = readSpan(span);
    for (const [name, codes, scales, scale] of [['k', keyCache, keyScale, span.kScale], ['v', valueCache, valueScale, span.vScale]] as const) {
      const side = layout[name];
      const placing: Placing = { layout, side, given: checkGivenScale(scale, side, layout, `${name}Scale`), tokens, all, before };
      if (isQuantized(side.format)) dequantize(bytesOf(codes), side.format, scales, rows[name], placing);
      else copyRows(widen(codes as FloatArray, side.format === 'f16' ? 'f16' : 'f32'), rows[name], placing);
    }
    before += tokens;
  }
  return rows;
}

/**
 * All that a layer which keeps all tokens has of a sequence: those that are quantized, then those of the residual.
 * @param held what the sequence holds, by number of the cache's groups
 */
export function readRows({ codes, residual }: LayerStores, held: readonly Held[]): Rows {
  const { pages: list, end } = held[codes.group];
  const spans: CodeSpan[] = [{ ...codes, list, tokens: end }];
  if (residual) {
    const { pages: recent, floor, end: length } = held[residual.group];
    spans.push({ pages: residual.pages, list: recent, tokens: length - floor });
  }
  return readSpans(spans);
}
