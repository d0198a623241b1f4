/** Small calls of every kind, to be run on two backends. */
import { alignAppend, alignAttend, type Alignment } from '../align.js';
import type { AppendCall, AttentionOptions, Backend } from '../backend.js';
import type { FloatDtype } from '../formats.js';
import { pageLayout, type PageLayout, type PageShape, type SideOptions } from '../layout.js';
import { recipes, type Recipe, type RecipeName } from '../recipe.js';
import type { GivenScale } from '../scale.js';
import { hardRows, randomCache, type RandomCache } from './inputs.js';
import { random, type Random } from './random.js';

/** A call that is the same each time. */
export interface Case {
  readonly name: string;
  /** @param bound of attention */
  readonly run: (reference: Backend, other: Backend, bound?: number) => Promise<Alignment>;
}

const sideName = ({ dtype, granularity, groupSize }: SideOptions): string => [dtype, granularity, groupSize].filter((part) => part !== undefined).join(' ');

type AppendOptions = Pick<AppendCall, 'recipe' | 'scalePrecision' | 'kScale' | 'vScale'>;

function appendCase(seed: number, dtype: FloatDtype, shape: PageShape & { k: SideOptions; v: SideOptions }, options: AppendOptions, title: string): Case {
  const { kvHeads, headDim, blockSize } = shape;
  return {
    name: `append ${dtype}, ${sideName(shape.k)} and ${sideName(shape.v)}, ${kvHeads} × ${headDim}, pages of ${blockSize}${title && `, ${title}`}`,
    run(reference, other) {
      const numbers = random(seed);
      const layout = pageLayout(shape);
      const tokens = Math.ceil(66 / kvHeads);
      // It starts from a full cache: what is written beside its place shows.
      const { count, cache: start, blockTable } = randomCache(numbers, layout, [2 * tokens]);
      const slotMapping = Int32Array.from({ length: tokens }, (_, i) => {
        const place = (i * 7) % (2 * tokens);
        return i % 6 === 4 ? -1 : blockTable[Math.floor(place / blockSize)] * blockSize + (place % blockSize);
      });
      const rows = (): ReturnType<typeof hardRows> => hardRows(numbers, dtype, tokens * kvHeads, headDim);
      return alignAppend(reference, other, { layout, count, start, key: rows(), value: rows(), dtype, slotMapping, ...options });
    },
  };
}

const all = Object.keys(recipes) as RecipeName[];
const fp8Recipes = all.filter((name) => !(recipes[name] as Recipe).int8Only);
const int8Recipes = all.filter((name) => (recipes[name] as Recipe).int8);

/** No rule of the well-known ones has all of its bounds. */
const own: Recipe = { name: 'own', amaxFloor: 2 ** -20, scaleFloor: 2 ** -30, scaleIfZero: 1, quotient: 'max-over-amax' };

export function appendCases(): Case[] {
  const shape = { kvHeads: 3, headDim: 24, blockSize: 5 };
  const computed = { ...shape, k: { dtype: 'e4m3fn', granularity: 'token-head' }, v: { dtype: 'e5m2', granularity: 'token-head' } } as const;
  const given = { ...shape, k: { dtype: 'e5m2', granularity: 'tensor' }, v: { dtype: 'e4m3fn', granularity: 'tensor' } } as const;
  const integers = { ...shape, k: { dtype: 'int8', granularity: 'token-head' }, v: { dtype: 'int8', granularity: 'group', groupSize: 8 } } as const;
  const channels = { ...shape, k: { dtype: 'e4m3fn', granularity: 'channel' }, v: { dtype: 'int8', granularity: 'head' } } as const;
  const groups = { ...shape, k: { dtype: 'e4m3fn', granularity: 'group', groupSize: 8 }, v: { dtype: 'e5m2', granularity: 'group', groupSize: 24 } } as const;
  const unquantized = { ...shape, k: { dtype: 'f16' }, v: { dtype: 'f32' } } as const;
  const cases = (['f32', 'f16', 'bf16'] as const).flatMap((dtype, d) => [
    ...fp8Recipes.map((recipe, i) => appendCase(100 * d + i, dtype, computed, { recipe }, recipe)),
    appendCase(100 * d + 10, dtype, computed, { recipe: { k: own, v: 'vllm-token-head' } }, 'rules of their own'),
    appendCase(100 * d + 20, dtype, given, { kScale: 0.037, vScale: 1.5 }, 'scales 0.037 and 1.5'),
    appendCase(100 * d + 21, dtype, given, { kScale: 2 ** -140, vScale: 2 ** 120 }, 'scales 2^-140 and 2^120'),
    appendCase(100 * d + 30, dtype, unquantized, {}, ''),
  ]);
  const scales = (seed: number, length: number): Float32Array => Float32Array.from(random(seed).normals(length), (x) => Math.abs(x) + 0.001);
  const oneFormat = (dtype: 'e4m3fn' | 'e5m2'): { k: SideOptions; v: SideOptions } => ({ k: { dtype, granularity: 'token-head' }, v: { dtype, granularity: 'token-head' } });
  return [
    ...cases,
    ...int8Recipes.map((recipe, i) => appendCase(50 + i, 'f32', integers, { recipe }, recipe)),
    appendCase(60, 'bf16', integers, { recipe: 'vllm-token-head', scalePrecision: 'f16' }, 'scales in f16'),
    appendCase(61, 'f16', channels, { kScale: scales(61, 3 * 24), vScale: scales(62, 3) }, 'scales of their own'),
    appendCase(63, 'f32', groups, {}, ''),
    appendCase(40, 'f32', { kvHeads: 1, headDim: 8, blockSize: 1, ...oneFormat('e4m3fn') }, {}, ''),
    appendCase(41, 'f16', { kvHeads: 2, headDim: 256, blockSize: 16, ...oneFormat('e5m2') }, {}, ''),
    appendCase(42, 'bf16', { kvHeads: 4, headDim: 128, blockSize: 3, ...oneFormat('e4m3fn') }, {}, ''),
  ];
}

/** What attention is tried on: shapes are few, since each has kernels of its own. */
interface AttendShape extends PageShape {
  readonly queryHeads: number;
  readonly kScale?: GivenScale;
  readonly vScale?: GivenScale;
}

const usual: AttendShape = { kvHeads: 2, headDim: 64, blockSize: 16, queryHeads: 8 };
const mixed: AttendShape = { kvHeads: 3, headDim: 40, blockSize: 5, k: { dtype: 'e5m2' }, v: { dtype: 'e4m3fn', granularity: 'tensor' }, queryHeads: 3, vScale: 0.05 };
const wide: AttendShape = { kvHeads: 1, headDim: 256, blockSize: 7, k: { granularity: 'tensor' }, v: { dtype: 'e5m2' }, queryHeads: 3, kScale: 0.05 };
const channels: AttendShape = {
  kvHeads: 2, headDim: 64, blockSize: 16, queryHeads: 8,
  k: { dtype: 'int8', granularity: 'channel' }, v: { dtype: 'e4m3fn', granularity: 'head' }, kScale: Float32Array.from({ length: 128 }, (_, i) => 0.01 + (i % 7) / 100), vScale: Float32Array.of(0.03, 0.07),
};
const groups: AttendShape = { kvHeads: 2, headDim: 64, blockSize: 16, queryHeads: 8, k: { dtype: 'e4m3fn', granularity: 'group', groupSize: 16 }, v: { dtype: 'int8', granularity: 'group', groupSize: 32 } };
const multiQuery: AttendShape = { kvHeads: 1, headDim: 8, blockSize: 1, k: { dtype: 'f32' }, v: { dtype: 'f16' }, queryHeads: 71 };

interface AttendOptions extends AttentionOptions {
  readonly dtype?: FloatDtype;
  /** Changes the cache before it is read. */
  readonly spoil?: (cache: RandomCache, layout: PageLayout) => void;
}

/** q of any dtype: 16 bits of a random sign and size around 1. */
function queries(numbers: Random, dtype: FloatDtype, length: number): Float32Array | Uint16Array {
  if (dtype === 'f32') return numbers.normals(length);
  const [one, step] = dtype === 'f16' ? [0x3c00, 0x400] : [0x3f80, 0x80];
  return Uint16Array.from({ length }, () => (numbers.integer(2) << 15) | (one - numbers.integer(6 * step)));
}

function attendCase(seed: number, title: string, shape: AttendShape, lengths: readonly (readonly [rows: number, keys: number])[], { dtype = 'f32', spoil, ...options }: AttendOptions = {}): Case {
  const { kvHeads, headDim, queryHeads, kScale, vScale } = shape;
  return {
    name: `attend ${title}, ${queryHeads}/${kvHeads} heads of ${headDim}`,
    run(reference, other, bound) {
      const numbers = random(seed);
      const layout = pageLayout(shape);
      const filled = randomCache(numbers, layout, lengths.map(([, keys]) => keys));
      spoil?.(filled, layout);
      const cuSeqlensQ = new Int32Array(lengths.length + 1);
      for (const [s, [rows]] of lengths.entries()) cuSeqlensQ[s + 1] = cuSeqlensQ[s] + rows;
      const q = queries(numbers, dtype, cuSeqlensQ[lengths.length] * queryHeads * headDim);
      return alignAttend(reference, other, { ...options, ...filled, layout, q, dtype, cuSeqlensQ, kScale, vScale }, bound);
    },
  };
}

/** Row in a cache's tensors, counted in heads, of key j of the first sequence. */
const rowOf = ({ blockTable }: RandomCache, { blockSize, kvHeads }: PageLayout, j: number, head: number): number =>
  (blockTable[Math.floor(j / blockSize)] * blockSize + (j % blockSize)) * kvHeads + head;

/** NaN in a key of one head, and in one element of a value of the other. */
function spoilWithNaN(cache: RandomCache, layout: PageLayout): void {
  const { keyCache, valueCache } = cache.cache;
  keyCache[rowOf(cache, layout, 4, 0) * layout.headDim + 5] = 0x7f;
  valueCache[rowOf(cache, layout, 6, 1) * layout.headDim + 7] = 0xff;
}

/** As an append of an infinite value leaves it. */
function spoilWithInfiniteScales(cache: RandomCache, layout: PageLayout): void {
  cache.cache.keyScale![rowOf(cache, layout, 3, 0)] = Infinity;
  cache.cache.valueScale![rowOf(cache, layout, 9, 1)] = Infinity;
}

export function attendCases(): Case[] {
  const numbers = random(900);
  const sinks = numbers.normals(8, 2);
  const ragged = [[1, 33], [5, 5], [0, 9], [20, 64], [1, 0], [16, 40], [17, 17]] as const;
  return [
    attendCase(901, 'decode', usual, [[1, 1], [1, 17], [1, 300]]),
    attendCase(902, 'decode over more keys than a cut', usual, [[2, 700]]),
    attendCase(903, 'prefill', usual, [[40, 40]]),
    attendCase(904, 'ragged', usual, ragged),
    attendCase(905, 'window', usual, ragged, { windowLeft: 9 }),
    attendCase(906, 'windows to both sides', usual, ragged, { causal: false, windowLeft: 3, windowRight: 4 }),
    attendCase(907, 'not causal', usual, ragged, { causal: false }),
    attendCase(908, 'softcap', usual, ragged, { softcap: 2.5 }),
    attendCase(909, 'sinks', usual, ragged, { sinks }),
    attendCase(910, 'softcap, sinks and window, sharp', usual, ragged, { softcap: 30, sinks, windowLeft: 20, softmaxScale: 2 }),
    attendCase(911, 'rows that see nothing', usual, [[5, 3], [20, 2], [3, 0]]),
    attendCase(912, 'rows that see a sink only', usual, [[5, 3], [20, 2], [3, 0]], { sinks }),
    attendCase(913, 'visible NaN', usual, [[4, 40]], { spoil: spoilWithNaN }),
    attendCase(914, 'visible NaN, prefill', usual, [[40, 40]], { spoil: spoilWithNaN }),
    attendCase(915, 'infinite scales', usual, [[4, 40]], { spoil: spoilWithInfiniteScales }),
    attendCase(916, 'infinite scales, prefill', usual, [[40, 40]], { spoil: spoilWithInfiniteScales }),
    attendCase(917, 'f16 queries', usual, ragged, { dtype: 'f16' }),
    attendCase(918, 'bf16 queries', usual, ragged, { dtype: 'bf16' }),
    attendCase(919, 'e5m2 and e4m3fn', mixed, ragged),
    attendCase(920, 'f32 and f16, one KV head', multiQuery, [[1, 20], [3, 30]]),
    attendCase(922, 'ALiBi', usual, ragged, { alibiSlopes: Float32Array.from({ length: 8 }, (_, h) => 2 ** -h / 2), softcap: 20, windowLeft: 30 }),
    attendCase(923, 'int8 with scales per channel, and per head', channels, ragged),
    attendCase(924, 'scales per group', groups, ragged, { sinks }),
    attendCase(921, 'e4m3fn and e5m2', wide, [[1, 100], [3, 20]]),
  ];
}

/** One append and one decode step as most models have them. */
export function usualCases(): Case[] {
  return [appendCase(990, 'f32', { ...usual, k: { dtype: 'e4m3fn' }, v: { dtype: 'e4m3fn' } }, {}, ''), attendCase(991, 'decode', usual, [[1, 1], [1, 40]])];
}
