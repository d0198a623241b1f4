/** Keys, values and caches on which kernels go wrong, if they do. */
import type { CodeArray, NhdTensors } from '../backend.js';
import { floatDtypes, formats, type FloatArray, type FloatDtype } from '../formats.js';
import type { PageLayout, SideLayout } from '../layout.js';
import { encode } from '../wasm/codec.js';
import type { Random } from './random.js';

/** Bits of exponent and mantissa. */
const widths: { readonly [D in FloatDtype]: { readonly exponent: number; readonly mantissa: number } } = {
  f32: { exponent: 8, mantissa: 23 },
  f16: { exponent: 5, mantissa: 10 },
  bf16: { exponent: 8, mantissa: 7 },
};

/** A number's parts, sign left out. */
type Parts = readonly [exponent: number, mantissa: number];

/** Makes the numbers of one row; `top` is the exponent of infinity and NaN, `one` counts mantissas. */
type RowKind = (numbers: Random, top: number, one: number) => (i: number) => Parts;

/** The number, cut off, in what the dtype has for its exponent. */
function partsOf(value: number, top: number, one: number): Parts {
  const exponent = Math.floor(Math.log2(value)) + (top >> 1);
  return exponent > 0 ? [exponent, Math.floor((value / 2 ** (exponent - (top >> 1)) - 1) * one)] : [0, Math.floor(value * 2 ** ((top >> 1) - 1) * one)];
}

/** One mantissa up or down, or as it is, where there is one. */
const beside = (numbers: Random, [exponent, mantissa]: Parts, one: number): Parts => [exponent, Math.max(0, Math.min(one - 1, mantissa + numbers.integer(3) - 1))];

const spread = (numbers: Random, largest: number, one: number): Parts => [Math.max(0, largest - numbers.integer(12)), numbers.integer(one)];

/** Rows of every kind that the rules of scales and codes tell apart. */
const rowKinds: { readonly [kind: string]: RowKind } = {
  ordinary: (numbers, top, one) => () => spread(numbers, (top >> 1) + 2, one),
  'of any size': (numbers, top, one) => {
    const largest = numbers.integer(top);
    return () => spread(numbers, largest, one);
  },
  // 1.75 · 2^n is each format's largest number, or a power of two times it: the scale is a power of two, and numbers of
  // few bits, and their neighbours, lie at and beside the middle between two codes. Those of 11 bits do between two of f16.
  ties: (numbers, top, one) => {
    const largest = (top >> 1) + numbers.integer(8);
    return (i) => {
      if (i === 0) return [largest, (one * 3) / 4];
      const steps = i % 2 === 0 ? 16 : Math.min(one, 2048);
      return beside(numbers, [Math.max(1, largest - 1 - numbers.integer(20)), numbers.integer(steps) * (one / steps)], one);
    };
  },
  // The same with any scale, of which the quotients are nearly in the middle.
  'near ties': (numbers, top, one) => {
    const amax: Parts = [(top >> 1) + numbers.integer(6), numbers.integer(one)];
    const size = (1 + amax[1] / one) * 2 ** (amax[0] - (top >> 1));
    return (i) => {
      if (i === 0) return amax;
      const middle = i % 2 === 0 ? (8.5 + numbers.integer(8)) / 14 : (4.5 + numbers.integer(4)) / 7;
      return beside(numbers, partsOf(size * middle * 2 ** -(1 + numbers.integer(8)), top, one), one);
    };
  },
  // amax / max is a tie of two denormals.
  'a scale between two': (numbers, top, one) => {
    const largest = partsOf(7 * (2 * numbers.integer(1000) + 1) * 2 ** (numbers.integer(2) === 0 ? 5 : 12) * 2 ** -149, top, one);
    return (i) => (i === 0 ? largest : [0, numbers.integer(Math.min(one, 100))]);
  },
  outlier: (numbers, top, one) => (i) => (i === 3 ? [top - 2, numbers.integer(one)] : spread(numbers, top >> 1, one)),
  zeros: () => () => [0, 0],
  denormal: (numbers, _, one) => () => [0, numbers.integer(one)],
  // The scale comes out as 0.
  'all but zero': (numbers, _, one) => () => [0, numbers.integer(Math.min(one, 100))],
  largest: (numbers, top, one) => () => [top - 1, one - 1 - numbers.integer(2)],
  infinite: (numbers, top, one) => (i) => (i % 5 === 2 ? [top, 0] : spread(numbers, top >> 1, one)),
  // The first and the last NaN there are, too.
  'with NaN': (numbers, top, one) => (i) => (i % 7 === 1 ? [top, [1, one - 1, 1 + numbers.integer(one - 1)][numbers.integer(3)]] : spread(numbers, top >> 1, one)),
  'all NaN': (numbers, top, one) => () => [top, 1 + numbers.integer(one - 1)],
};

/** Rows of these kinds in turn: of all, where none are named. */
export function hardRows(numbers: Random, dtype: FloatDtype, rows: number, dim: number, names: readonly string[] = Object.keys(rowKinds)): FloatArray {
  const { exponent, mantissa } = widths[dtype];
  const [top, one] = [2 ** exponent - 1, 2 ** mantissa];
  const bits = floatDtypes[dtype].bytes === 4 ? new Uint32Array(rows * dim) : new Uint16Array(rows * dim);
  for (let row = 0; row < rows; row++) {
    const make = rowKinds[names[row % names.length]](numbers, top, one);
    for (let i = 0; i < dim; i++) {
      const [e, m] = make(i);
      bits[row * dim + i] = (numbers.integer(2) * (top + 1) + e) * one + m;
    }
  }
  return bits instanceof Uint16Array ? bits : new Float32Array(bits.buffer);
}

/** The number as f16 bits, for numbers that f16 has normal numbers near: cut off, not rounded. */
function f16Bits(value: number): number {
  const [bits] = new Uint32Array(Float32Array.of(value).buffer);
  const exponent = ((bits >>> 23) & 0xff) - 112;
  return ((bits >>> 16) & 0x8000) | (exponent > 0 ? (exponent << 10) | ((bits >>> 13) & 0x3ff) : 0);
}

/** NaN, as an unused place may hold it; int8 has none. */
const NAN_CODES = { e4m3fn: 0x7f, e5m2: 0x7f, int8: -128, f16: 0x7e00, f32: NaN } as const;

/** Random rows as one side holds them: codes, and scales such that values are a few units large. */
function sideTensors(numbers: Random, { format, groupSize }: SideLayout, rows: number, dim: number): { codes: CodeArray; scales?: Float32Array } {
  const values = numbers.normals(rows * dim, formats[format].quantized ? 20 : 1);
  if (format === 'f32') return { codes: values };
  if (format === 'f16') return { codes: Uint16Array.from(values, f16Bits) };
  const codes = format === 'int8' ? Int8Array.from(values, (x) => Math.max(-127, Math.min(127, Math.round(x)))) : encode(values, format);
  if (groupSize === 0) return { codes };
  return { codes, scales: Float32Array.from({ length: (rows * dim) / groupSize }, () => 0.02 + 0.08 * numbers.uniform()) };
}

export interface RandomCache {
  readonly count: number;
  readonly cache: NhdTensors;
  readonly blockTable: Int32Array;
  readonly seqUsedK: Int32Array;
}

/** A cache of random tokens on shuffled pages; every place that no sequence uses holds NaN. */
export function randomCache(numbers: Random, layout: PageLayout, kvLens: readonly number[]): RandomCache {
  const { blockSize, kvHeads, headDim } = layout;
  const blocks = kvLens.map((length) => Math.ceil(length / blockSize));
  const count = blocks.reduce((sum, n) => sum + n, 0) + 2;
  const order = Array.from({ length: count }, (_, page) => page);
  for (let i = count - 1; i > 0; i--) {
    const j = numbers.integer(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  const maxBlocks = Math.max(1, ...blocks);
  const blockTable = new Int32Array(kvLens.length * maxBlocks).fill(-1);
  const used = new Set<number>();
  for (const [s, length] of kvLens.entries()) {
    for (let b = 0; b < blocks[s]; b++) blockTable[s * maxBlocks + b] = order.pop()!;
    for (let j = 0; j < length; j++) used.add(blockTable[s * maxBlocks + Math.floor(j / blockSize)] * blockSize + (j % blockSize));
  }
  const rows = count * blockSize * kvHeads;
  const side = (each: SideLayout): ReturnType<typeof sideTensors> => {
    const tensors = sideTensors(numbers, each, rows, headDim);
    for (let row = 0; row < rows; row++) {
      if (used.has(Math.floor(row / kvHeads))) continue;
      tensors.codes.fill(NAN_CODES[each.format], row * headDim, (row + 1) * headDim);
      const groups = tensors.scales ? tensors.scales.length / rows : 0;
      tensors.scales?.fill(NaN, row * groups, (row + 1) * groups);
    }
    return tensors;
  };
  const [k, v] = [side(layout.k), side(layout.v)];
  return {
    count, blockTable, seqUsedK: Int32Array.from(kvLens),
    cache: { keyCache: k.codes, valueCache: v.codes, keyScale: k.scales, valueScale: v.scales },
  };
}
