/** What cases are made of: options, given scales, and rows on which kernels go wrong, if they do. */
import { hardRows } from '../align/inputs.js';
import type { Random } from '../align/random.js';
import { scaleShape } from '../files/case.js';
import { fileDtypes, float32, type Tensor } from '../files/tensor.js';
import { bytesOf, formats, resolveFormat, type FloatArray, type FloatDtype, type Format, type FormatName, type QuantizedFormat } from '../formats.js';
import { pageLayout, type Granularity } from '../layout.js';
import { isGiven } from '../policies.js';
import type { RecipeName } from '../recipe.js';
import { hardValues } from './hard-values.js';
import { givenAt, type Given } from './making.js';

/** What is drawn, and in which shapes. */
export interface GenerateOptions {
  /** Default 0. */
  readonly seed?: number;
  /** Of keys and values. Default e4m3fn. */
  readonly format?: FormatName;
  /** Default token-head; given scales are drawn from the seed. */
  readonly granularity?: Granularity;
  /** With granularity `group`: dims that share a scale. */
  readonly groupSize?: number;
  /** Default `amax`. */
  readonly recipe?: RecipeName;
  /** Dtype of keys and values, or of q. Default f32. */
  readonly dtype?: FloatDtype;
  /** Tokens to append, or keys to attend to. Default 40. */
  readonly tokens?: number;
  /** Default 2. */
  readonly kvHeads?: number;
  /** Default 64. */
  readonly headDim?: number;
  /** Default 16. */
  readonly blockSize?: number;
  /** Of attention. Default 4 times kvHeads. */
  readonly queryHeads?: number;
}

export const tensor = (dtype: Tensor['dtype'], shape: readonly number[], values: ArrayBufferView): Tensor => ({ dtype, shape, data: bytesOf(values) });

/** Everything stated, and checked by what pages may be */
export function resolved(options: GenerateOptions) {
  const { seed = 0, groupSize, recipe, dtype = 'f32', tokens = 40, kvHeads = 2, headDim = 64, blockSize = 16, queryHeads = 4 * kvHeads } = options;
  const format = resolveFormat(options.format ?? 'e4m3fn');
  const granularity = options.granularity ?? (formats[format].quantized ? 'token-head' : 'tensor');
  for (const [name, value] of Object.entries({ tokens, queryHeads })) {
    if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`"${name}" expected a positive integer, got ${value}`);
  }
  if (!Object.hasOwn(fileDtypes, dtype)) throw new TypeError(`"dtype" expected one of ${Object.keys(fileDtypes).join(', ')}, got ${String(dtype)}`);
  const side = { dtype: format, granularity, groupSize };
  const layout = pageLayout({ kvHeads, headDim, blockSize, k: side, v: side });
  return { seed, format, granularity, groupSize, recipe, dtype, tokens, kvHeads, headDim, blockSize, queryHeads, layout };
}

export type Resolved = ReturnType<typeof resolved>;

/** Bits of a scale such that scale times a middle between two codes is a value of the dtype: then quotients can be ties. f16 has no such scales of f32. */
const scaleBits: { readonly [D in FloatDtype]: number } = { f32: 17, f16: 6, bf16: 3 };

/** Whether the quotient of some tie, of E5M2 or of the others, is another than its product with the reciprocal. */
const tellsDivision = (scale: number, format: Format): boolean =>
  (format === 'e5m2' ? [9, 11, 13, 15] : [17, 19, 21, 23, 25, 27, 29, 31]).some((tie) => Math.fround(tie * scale * Math.fround(1 / scale)) !== tie);

/** Given scales of one side, of which all tell apart how is divided: K's and V's are never the same. */
export function givenScales(numbers: Random, { format, granularity, groupSize, dtype, kvHeads, headDim }: Resolved, side: 'k' | 'v'): Tensor {
  const shape = scaleShape(granularity, groupSize, [1, 1, kvHeads, headDim]);
  const length = shape.reduce((a, b) => a * b, 1);
  const half = 2 ** (scaleBits[dtype] - 1);
  const draw = (): number => ((half + 1 + 2 * numbers.integer(half / 2)) / half) * 2 ** -(4 + 2 * numbers.integer(2) + (side === 'v' ? 1 : 0));
  const scales = Float32Array.from({ length }, () => {
    let scale = draw();
    while (!tellsDivision(scale, format)) scale = draw();
    return scale;
  });
  return tensor('F32', shape, scales);
}

const givesScales = ({ format, granularity }: Resolved): boolean => formats[format].quantized && isGiven(granularity);

/** Given scales of both sides, where they are given. */
export function bothScales(numbers: Random, all: Resolved): [string, Tensor][] {
  return givesScales(all) ? (['k', 'v'] as const).map((side) => [`${side}_scale`, givenScales(numbers, all, side)]) : [];
}

/**
 * Rows on which kernels go wrong. The tokens with an even number are such that their quotients do: at boundaries of codes where
 * scales are given, and nearly between two codes where they are computed, as that tells ways to divide apart.
 */
export function rowsFor(numbers: Random, all: Resolved, scales: Tensor | undefined): FloatArray {
  const { format, granularity, dtype, tokens, kvHeads, headDim } = all;
  const rows = hardRows(numbers, dtype, tokens * kvHeads, headDim);
  const nearTies = (): FloatArray => hardRows(numbers, dtype, tokens * kvHeads, headDim, ['near ties']);
  const boundaries = (values: Float32Array): FloatArray => {
    const given = { values, granularity: granularity as Given['granularity'], heads: kvHeads, headStride: 1 };
    return hardValues(numbers, format as QuantizedFormat, dtype, rows.length, (i) => values[givenAt(given, headDim, i)]);
  };
  const even = scales ? boundaries(float32(scales)) : nearTies();
  return rows.map((value, i) => (Math.floor(i / headDim / kvHeads) % 2 === 0 ? even[i] : value)) as FloatArray;
}
