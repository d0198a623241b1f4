/** Codes of a kernel, and perhaps its scales, against what they ought to be. */
import { showShape } from '../files/tensor.js';
import { bytesOf, describe, floatDtypeOf, resolveQuantizedFormat, type FloatArray, type FloatDtype, type FormatName } from '../formats.js';
import type { Granularity } from '../layout.js';
import { checkPolicy, isGiven } from '../policies.js';
import { resolveRecipe, withScalePrecision, type Recipe, type RecipeName, type ScalePrecision } from '../recipe.js';
import { checkScale } from '../scale.js';
import type { Axes } from '../swap-rows.js';
import { bitsAt, checkSubject, type CodeCheck } from './check.js';
import { widenedBits, type Given, type Subject } from './making.js';

export interface CheckCodesCall {
  /** What was encoded, [..., dim]: f32 values, or f16/bf16 bits with `dtype` stated. */
  readonly input: FloatArray;
  /** Dtype of `input`; needed for a Uint16Array. */
  readonly dtype?: FloatDtype;
  /** Of `input` and `codes`. Scales per head, and layouts, need [..., tokens, heads, dim]. */
  readonly shape: readonly number[];
  /** What the kernel made of it, one code per value: int8 also as an Int8Array. */
  readonly codes: Uint8Array | Int8Array;
  /** Default e4m3fn. */
  readonly format?: FormatName;
  /** Absent: values are encoded as they are, without a scale. */
  readonly granularity?: Granularity;
  /**
   * Given scales: [1], [heads] or [heads, dim]. Computed ones: what the kernel stored, [...] with granularity token-head and
   * [..., dim / groupSize] with group; absent where only codes are to be checked.
   */
  readonly scales?: Float32Array;
  /** With granularity group: values that share a scale. */
  readonly groupSize?: number;
  /** How scales are computed. Default `amax`. */
  readonly recipe?: RecipeName | Recipe;
  /** In place of the recipe's. */
  readonly scalePrecision?: ScalePrecision;
  /** Default NHD: [..., tokens, heads, dim]. HND: [..., heads, tokens, dim]. */
  readonly layout?: 'NHD' | 'HND';
  /** True (default): too large becomes the largest finite code. False: NaN (e4m3fn) or infinity (e5m2). Only without scales. */
  readonly saturate?: boolean;
}

export interface CodesCheck extends CodeCheck {
  /** Tells it apart from other checks. */
  readonly kind: 'codes';
}

/** The two axes before the last one, where both have more than one place. */
function axesOf(shape: readonly number[]): Axes | undefined {
  const [a, b] = shape.slice(-3);
  return shape.length >= 3 && a > 1 && b > 1 ? [a, b] : undefined;
}

function expectCount(name: string, actual: number, expected: number): void {
  if (actual !== expected) throw new RangeError(`"${name}" expected ${expected} elements, got ${actual}`);
}

function givenScales({ scales, shape, layout = 'NHD' }: CheckCodesCall, granularity: Given['granularity']): Given {
  if (scales === undefined) throw new TypeError(`"scales" expected those that values are divided by, as granularity ${granularity} has them, got undefined`);
  const dim = shape[shape.length - 1];
  const [heads, headStride] = layout === 'NHD' ? [shape[shape.length - 2], 1] : [shape[shape.length - 3], shape[shape.length - 2]];
  if (granularity !== 'tensor' && heads === undefined) throw new RangeError(`"shape" expected heads, as granularity ${granularity} has a scale for each, got [${shape.join(', ')}]`);
  expectCount('scales', scales.length, granularity === 'tensor' ? 1 : granularity === 'head' ? heads : heads * dim);
  for (const [i, scale] of scales.entries()) checkScale(scale, `scales[${i}]`);
  return { values: scales, granularity, heads: heads ?? 1, headStride };
}

/** The length of groups that share a computed scale. */
function groupSizeOf({ shape, groupSize }: CheckCodesCall, granularity: Granularity): number {
  const dim = shape[shape.length - 1];
  if (granularity !== 'group') {
    if (groupSize !== undefined) throw new TypeError('"groupSize" expected to be absent where granularity is not group');
    return dim;
  }
  if (!Number.isSafeInteger(groupSize) || groupSize! < 1 || dim % groupSize! !== 0) throw new RangeError(`"groupSize" expected a divisor of ${dim}, got ${describe(groupSize)}`);
  return groupSize!;
}

/** Axes of one place say nothing: kernels keep them, or drop them. */
const squeezed = (shape: readonly number[]): string => `[${shape.filter((size) => size !== 1).join(', ')}]`;

/**
 * Whether scales that came with a shape have that of the call: their number alone may be right by chance.
 * @throws RangeError naming the argument
 */
export function checkScalesShape(actual: readonly number[], { shape, granularity, groupSize = 1, layout = 'NHD' }: CheckCodesCall, argument: string): void {
  const [dim, heads] = [shape[shape.length - 1], shape[shape.length - (layout === 'NHD' ? 2 : 3)]];
  const rows = shape.slice(0, -1);
  const expected = { tensor: [1], head: [heads], channel: [heads, dim], 'token-head': rows, group: [...rows, dim / groupSize] }[granularity ?? 'tensor'];
  if (squeezed(actual) !== squeezed(expected)) throw new RangeError(`"${argument}" expected shape ${showShape(expected)}, got ${showShape(actual)}`);
}

function checkShape({ shape, input, codes, scales }: CheckCodesCall): void {
  if (!(codes instanceof Uint8Array || codes instanceof Int8Array)) throw new TypeError(`"codes" expected a Uint8Array, or an Int8Array, got ${describe(codes)}`);
  if (scales !== undefined && !(scales instanceof Float32Array)) throw new TypeError(`"scales" expected a Float32Array, got ${describe(scales)}`);
  if (!Array.isArray(shape)) throw new TypeError(`"shape" expected an array of sizes, got ${describe(shape)}`);
  if (shape.length === 0 || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)) throw new RangeError(`"shape" expected sizes, got [${shape.join(', ')}]`);
  const length = shape.reduce((a, b) => a * b, 1);
  expectCount('input', input.length, length);
  expectCount('codes', codes.length, length);
}

/** What goes with encoding without scales, and what does not. */
function checkUnscaled({ scales, recipe, scalePrecision, groupSize }: CheckCodesCall): Given {
  for (const [name, value] of Object.entries({ scales, recipe, scalePrecision, groupSize })) {
    if (value !== undefined) throw new TypeError(`"${name}" expected to be absent without "granularity"`);
  }
  return { values: Float32Array.of(1), granularity: 'tensor', heads: 1, headStride: 1, unscaled: true };
}

/**
 * Checks codes that a kernel made, and the scales it computed, against what the library makes, bit by bit, and looks for the
 * dialect that explains the difference.
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function checkCodes(call: CheckCodesCall): CodesCheck {
  const format = resolveQuantizedFormat(call.format ?? 'e4m3fn');
  const dtype = floatDtypeOf(call.input, call.dtype, 'input');
  const { granularity, shape, layout = 'NHD', saturate = true, scales } = call;
  checkShape(call);
  if (layout !== 'NHD' && layout !== 'HND') throw new TypeError(`"layout" expected NHD or HND, got ${describe(layout)}`);
  if (!saturate && granularity !== undefined) throw new TypeError('"saturate" expected to be true with "granularity": scaled values saturate');
  const recipe = withScalePrecision(resolveRecipe(call.recipe), call.scalePrecision);
  if (granularity !== undefined) checkPolicy({ format, granularity }, 'k', recipe);
  const given = granularity === undefined ? checkUnscaled(call) : isGiven(granularity) ? givenScales(call, granularity as Given['granularity']) : undefined;
  const dim = shape[shape.length - 1];
  const groupSize = groupSizeOf(call, granularity ?? 'tensor');
  const scaleShape = granularity === 'group' ? [...shape.slice(0, -1), dim / groupSize] : shape.slice(0, -1);
  const stored = given ? undefined : scales;
  if (stored) expectCount('scales', stored.length, call.input.length / groupSize);
  const axes = axesOf(shape);
  const found = { codes: bytesOf(call.codes), scales: stored };
  const subject: Subject = {
    format, dim, given, groupSize, recipe, saturate, layout, found, base: found,
    input: widenedBits(call.input, dtype), swaps: { input: axes, found: axes },
  };
  return { kind: 'codes', ...checkSubject(subject, { codes: 'codes', scales: 'scales', shape, scaleShape, valueOf: (i) => i, bitsOf: (i) => bitsAt(call.input, i) }) };
}
