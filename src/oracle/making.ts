/** Codes and scales of rows, made in plain numbers, step by step: the right way, and by a changed step every other way. */
import { bytesOf, floatDtypes, formats, type FloatArray, type FloatDtype, type QuantizedFormat } from '../formats.js';
import type { GivenGranularity } from '../kv-scales.js';
import { widen } from '../layouts/half-scales.js';
import type { Recipe } from '../recipe.js';
import { swapRows, type Axes } from '../swap-rows.js';
import { cudaNaN, float8Encoder, int8Encoder, roundToHalf, type Encoder } from './encoders.js';

/** Scales that are given, and which of them is for a value. */
export interface Given {
  readonly values: Float32Array;
  readonly granularity: GivenGranularity;
  readonly heads: number;
  /** Row r is of head ⌊r / headStride⌋ mod heads. */
  readonly headStride: number;
  /** Values are encoded as they are: there is no scale that could be wrong. */
  readonly unscaled?: boolean;
}

/** What is checked: values, what their codes depend on, and the codes that were found. */
export interface Subject {
  readonly format: QuantizedFormat;
  /** [rows, dim], as bits of f32; a NaN keeps its own. */
  readonly input: Uint32Array;
  readonly dim: number;
  /** Where scales are given. */
  readonly given?: Given;
  /** Scales that a kernel may have taken in place of those. */
  readonly others?: Given;
  /** Computed scales: values that share one. dim where scales are given. */
  readonly groupSize: number;
  /** How scales are computed where none are given. */
  readonly recipe: Recipe;
  /** Rows of which the scales may have been taken in place of these ones' own: the keys, where these are values. */
  readonly otherRows?: Uint32Array;
  /** False: too large becomes NaN or infinity. */
  readonly saturate: boolean;
  /** Where row r is in what was found, negative for nowhere. Default r. */
  readonly place?: Int32Array;
  /** What is found where no row is. */
  readonly base: Tensors;
  readonly found: Tensors;
  /** How input, and what was found, would lie in the other layout. */
  readonly swaps: { readonly input?: Axes; readonly found?: Axes };
  /** The layout that it has. */
  readonly layout: 'NHD' | 'HND';
}

/** Codes [rows, dim], int8 by their bytes, and where scales are computed those, [rows, groups]; absent where nobody looks at them. */
export interface Tensors {
  readonly codes: Uint8Array;
  readonly scales?: Float32Array;
}

/** One way to make codes and scales: every step that known kernels take differently. */
export interface Making {
  readonly encode: Encoder;
  readonly recipe: Recipe;
  /** What amax is divided by. */
  readonly max: number;
  /** A NaN that arises, as of infinity by infinity: its sign is the machine's affair. Default 0x7fc00000. */
  readonly arisingNaN?: number;
  /** amax · (1 / max) in place of amax / max. */
  readonly multipliesAmax?: boolean;
  /** A scale as it ought to be → the one that values are divided by. `at` is its place among those that were found, or among the given ones. */
  readonly divisor: (scale: number, at: number) => number;
  /** The same → the one that is stored. */
  readonly stored: (scale: number, at: number) => number;
  /** Whether rows are taken from where the other layout has them, or put there, with their scales or one without the other. */
  readonly order: 'kept' | 'read' | 'written' | 'codes written' | 'scales written';
  readonly given?: Given;
  /** Rows of which the scales are that values are divided by, and those of which they are that are stored. */
  readonly measured?: { readonly divisor?: Uint32Array; readonly stored?: Uint32Array };
}

const same = (scale: number): number => scale;

function defaultEncoder({ format, saturate, given, recipe }: Pick<Subject, 'format' | 'saturate' | 'given' | 'recipe'>): Encoder {
  if (format === 'int8') return int8Encoder(given ? -127 : (recipe.int8?.least ?? -127), 'even');
  return float8Encoder(format, 'even', saturate ? 'saturate' : 'none', cudaNaN);
}

/** As the library makes them: src/rule.ts and assembly/quantize.ts. Given scales are divided by, whatever the recipe. */
export function rightMaking(subject: Subject): Making {
  const { format, given, recipe } = subject;
  const max = format === 'int8' ? (recipe.int8?.divisor ?? formats.int8.max) : formats[format].max;
  return {
    encode: defaultEncoder(subject), recipe: given ? { ...recipe, quotient: 'divide' } : recipe, max, given, order: 'kept', divisor: same,
    stored: (recipe.scalePrecision ?? 'f32') === 'f32' ? same : roundToHalf,
  };
}

/** Unquantized values as bits of f32. A Uint16Array's dtype is not for guessing. */
export function widenedBits(values: FloatArray, dtype: FloatDtype): Uint32Array {
  return new Uint32Array(floatDtypes[dtype].bytes === 4 ? bytesOf(values).slice().buffer : widen(values, dtype).buffer);
}

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** The f32 that has these bits. */
export function numberOf(bits: number): number {
  word[0] = bits;
  return float[0];
}

function bitsOf(x: number): number {
  float[0] = x;
  return word[0];
}

/** The largest magnitude of a group, NaN left out. */
function amaxOf(input: Uint32Array, start: number, length: number): number {
  let largest = 0;
  for (let i = start; i < start + length; i++) {
    const magnitude = input[i] & 0x7fffffff;
    if (magnitude > largest && magnitude <= 0x7f800000) largest = magnitude;
  }
  return numberOf(largest);
}

/** What the values of one group are divided by or multiplied with. */
interface Operand {
  readonly divides: boolean;
  readonly by: number;
}

/** A group's scale: see {@link Recipe}. */
function computedScale(amax: number, { recipe, max, multipliesAmax }: Making): { scale: number; replaced: boolean } {
  const scale = Math.max(Math.fround(multipliesAmax ? amax * Math.fround(1 / max) : amax / max), Math.fround(recipe.scaleFloor));
  const rounded = recipe.scalePrecision === 'f16' ? roundToHalf(scale) : scale;
  const replaced = rounded === 0 && recipe.scaleIfZero !== 0;
  return { scale: replaced ? Math.fround(recipe.scaleIfZero) : rounded, replaced };
}

function operandOf(scale: number, { recipe: { quotient } }: Making, factor: () => number): Operand {
  if (quotient === 'divide') return { divides: true, by: scale };
  return { divides: false, by: quotient === 'reciprocal' ? Math.fround(1 / scale) : factor() };
}

/** The bits of x / scale, or x · factor. A NaN among the values keeps its bits. */
function quotientBits(bits: number, { divides, by }: Operand, { arisingNaN = 0x7fc00000 }: Making): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return bits;
  const x = numberOf(bits);
  const quotient = divides ? x / by : x * by;
  return Number.isNaN(quotient) ? arisingNaN : bitsOf(quotient);
}

/** Which of the given scales is for value i of rows of `dim`. */
export function givenAt({ granularity, heads, headStride }: Given, dim: number, i: number): number {
  const head = Math.floor(i / dim / headStride) % heads;
  return granularity === 'tensor' ? 0 : granularity === 'head' ? head : head * dim + (i % dim);
}

/** Puts one row's codes, and where they are computed its scales, into tensors, as their row `at`. */
export type MakeRow = (row: number, into: Tensors, at: number) => void;

function computesRow(input: Uint32Array, { dim, groupSize, place }: Subject, making: Making): MakeRow {
  const { encode, recipe, max, measured } = making;
  const groups = dim / groupSize;
  return (row, { codes, scales }, at) => {
    for (let g = 0; g < groups; g++) {
      const first = row * dim + g * groupSize;
      const foundAt = (place ? place[row] : row) * groups + g;
      const scaleOf = (rows: Uint32Array) => {
        const amax = Math.max(amaxOf(rows, first, groupSize), Math.fround(recipe.amaxFloor));
        return { amax, ...computedScale(amax, making) };
      };
      const { amax, scale, replaced } = scaleOf(measured?.divisor ?? input);
      const operand = operandOf(making.divisor(scale, foundAt), making, () => (replaced ? 1 : Math.fround(max / amax)));
      const to = at * dim + g * groupSize;
      for (let i = 0; i < groupSize; i++) codes[to + i] = encode(quotientBits(input[first + i], operand, making));
      const stored = measured?.divisor === measured?.stored ? scale : scaleOf(measured?.stored ?? input).scale;
      scales![at * groups + g] = making.stored(stored, foundAt);
    }
  };
}

function givesRow(input: Uint32Array, { dim }: Subject, given: Given, making: Making): MakeRow {
  // A given scale has no amax; its factor is its reciprocal.
  const operands = Array.from(given.values, (scale, at): Operand => {
    const divisor = making.divisor(scale, at);
    return operandOf(divisor, making, () => Math.fround(1 / divisor));
  });
  return (row, { codes }, at) => {
    for (let i = 0; i < dim; i++) codes[at * dim + i] = making.encode(quotientBits(input[row * dim + i], operands[givenAt(given, dim, row * dim + i)], making));
  };
}

/** What makes a row, taken from where this way takes it. */
export function rowMaker(subject: Subject, making: Making): MakeRow {
  const read = making.order === 'read' ? subject.swaps.input : undefined;
  // Who takes (a, b) for (b, a) reads what is to be at (a, b) where (b, a) would have it.
  const input = read ? swapRows(subject.input, [read[1], read[0]], subject.dim) : subject.input;
  return making.given ? givesRow(input, subject, making.given, making) : computesRow(input, subject, making);
}

/** All that would be found, were it made this way. */
export function make(subject: Subject, making: Making): Tensors {
  const { input, dim, groupSize, place, base, swaps } = subject;
  const rows = input.length / dim;
  const groups = dim / groupSize;
  const into: Tensors = {
    codes: place ? base.codes.slice() : new Uint8Array(input.length),
    scales: making.given ? undefined : place && base.scales ? base.scales.slice() : new Float32Array(rows * groups),
  };
  const makeRow = rowMaker(subject, making);
  for (let row = 0; row < rows; row++) {
    const at = place ? place[row] : row;
    if (at >= 0) makeRow(row, into, at);
  }
  const { found } = swaps;
  const { order } = making;
  const { codes, scales } = into;
  if (!found) return into;
  return {
    codes: order === 'written' || order === 'codes written' ? swapRows(codes, found, dim) : codes,
    scales: scales && (order === 'written' || order === 'scales written') ? swapRows(scales, found, groups) : scales,
  };
}
