/** Tokens as plain arrays, into a cache and past it: what a cache must give, without one. */
import { is } from 'uvu/assert';
import { KvCache, pageLayout } from '../../src/index.js';
import type { AttendResult, Backend, FormatName, LayerConfig, PerSide, Sequence, SideOptions, Step } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { random, type Random } from '../random.js';

/** Keys and values of some tokens of one layer, each [tokens, kvHeads, headDim]. */
export interface Tokens {
  readonly key: Float32Array;
  readonly value: Float32Array;
}

/** The shape of a layer, all stated. */
export type LayerShape = Omit<LayerConfig, 'dtype'> & Required<Pick<LayerConfig, 'queryHeads' | 'kvHeads' | 'headDim'>> & { readonly dtype?: PerSide<FormatName> };

export const f32: LayerShape = { queryHeads: 4, kvHeads: 2, headDim: 8, dtype: 'f32' };
export const fp8: LayerShape = { ...f32, dtype: 'fp8' };

/** Two layers of pages of 4 tokens. */
export function cacheOf(backend: Backend, shape: LayerShape, pages: number): KvCache {
  return new KvCache(backend, { ...shape, layers: 2, blockSize: 4, capacity: pages * 4 });
}

export function randomTokens(random: Random, { kvHeads, headDim }: LayerShape, tokens: number): Tokens {
  return { key: random.normals(tokens * kvHeads * headDim), value: random.normals(tokens * kvHeads * headDim) };
}

export function concatenate(parts: readonly Tokens[]): Tokens {
  const joined = (side: keyof Tokens): Float32Array => Float32Array.from(parts.flatMap((part) => [...part[side]]));
  return { key: joined('key'), value: joined('value') };
}

const tokensIn = ({ key }: Tokens, { kvHeads, headDim }: LayerShape): number => key.length / (kvHeads * headDim);

/** The first `count` tokens. */
export function first({ key, value }: Tokens, { kvHeads, headDim }: LayerShape, count: number): Tokens {
  const end = count * kvHeads * headDim;
  return { key: key.slice(0, end), value: value.slice(0, end) };
}

/** Appends the same tokens to every layer. */
export function appendToAll(cache: KvCache, step: Step, { key, value }: Tokens): void {
  for (let layer = 0; layer < cache.layers; layer++) step.append(layer, key, value);
}

/** A committed step of one sequence, every layer alike. */
export function extend(cache: KvCache, sequence: Sequence, tokens: Tokens, shape: LayerShape): void {
  const step = cache.begin([{ sequence, tokens: tokensIn(tokens, shape) }]);
  appendToAll(cache, step, tokens);
  step.commit();
}

/** Attention of rows at a sequence's end over the pages that the cache says it has; changes nothing. */
export function attendTo(backend: Backend, cache: KvCache, layer: number, sequence: Sequence, q: Float32Array, shape: LayerShape): AttendResult {
  const cuSeqlensQ = Int32Array.of(0, q.length / (shape.queryHeads * shape.headDim));
  const blockTable = Int32Array.from(sequence.blocks);
  return backend.attend({ pages: cache.pages(layer), q, blockTable, cuSeqlensQ, seqUsedK: Int32Array.of(sequence.length) }) as AttendResult;
}

function sideOf<T>(setting: PerSide<T> | undefined, side: 'k' | 'v'): T | undefined {
  return typeof setting === 'object' && setting !== null ? (setting as { k: T; v: T })[side] : setting;
}

/** Level 1 on fresh pages: all tokens of one sequence at once, then attention of the rows at its end. */
export function attendDirectly(backend: Backend, shape: LayerShape, { key, value }: Tokens, q: Float32Array): AttendResult {
  const { dtype, granularity, scale, recipe, queryHeads, kvHeads, headDim, ...attention } = shape;
  const side = (name: 'k' | 'v'): SideOptions => ({ dtype: sideOf(dtype, name), granularity: sideOf(granularity, name) });
  const tokens = key.length / (kvHeads * headDim);
  const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize: 16, k: side('k'), v: side('v') }), Math.max(1, Math.ceil(tokens / 16)));
  const scales = { kScale: sideOf(scale, 'k'), vScale: sideOf(scale, 'v') };
  void backend.append({ pages, key, value, slotMapping: Int32Array.from({ length: tokens }, (_, token) => token), recipe, ...scales });
  const result = backend.attend({
    ...attention, ...scales, pages, q,
    blockTable: Int32Array.from({ length: pages.count }, (_, page) => page),
    cuSeqlensQ: Int32Array.of(0, q.length / (queryHeads * headDim)),
    seqUsedK: Int32Array.of(tokens),
  }) as AttendResult;
  pages.dispose();
  return result;
}

export function assertSameResult(actual: AttendResult, expected: AttendResult, what: string): void {
  assertSameBits(actual.out, expected.out, `${what}, out`);
  assertSameBits(actual.lse, expected.lse, `${what}, lse`);
}

/** The sequence attends, in every layer, as if it had the tokens for itself. */
export function assertHolds(backend: Backend, cache: KvCache, sequence: Sequence, tokens: Tokens, shape: LayerShape, what: string): void {
  is(sequence.length, tokensIn(tokens, shape), what);
  const q = random(1).normals(2 * shape.queryHeads * shape.headDim);
  const expected = attendDirectly(backend, shape, tokens, q);
  for (let layer = 0; layer < cache.layers; layer++) {
    assertSameResult(attendTo(backend, cache, layer, sequence, q, shape), expected, `${what}, layer ${layer}`);
  }
}
