/** The codec as plain functions: values ↔ codes, and rows → codes and scales. Synchronous, exact, no backend needed. */
import { bytesOf, countNaN, describe, floatDtypeOf, floatDtypes, formats, resolveFp8Format, resolveQuantizedFormat, type FloatArray, type FloatDtype, type FormatName } from '../formats.js';
import { paramWriter, quantizeParams, ROWS_AT_ONCE } from '../layout.js';
import { checkObject } from '../options.js';
import { checkPolicy } from '../policies.js';
import { quotients, resolveRecipe, type Recipe, type RecipeName } from '../recipe.js';
import { checkScale } from '../scale.js';
import { instantiateCodec, type CodecKernels } from './kernels.js';
import { Scratch, WasmMemory } from './memory.js';
import { quantizeRule } from '../rule.js';

const writer = paramWriter(quantizeParams);

/** Values taken through WASM memory at a time: 160 KiB with their codes, which an L2 cache holds; a quarter as many decoded 6 % slower. */
const CHUNK = 32768;
let shared: { kernels: CodecKernels; memory: WasmMemory; scratch: Scratch } | undefined;

/** The codec's kernels, over a memory of its own. */
function codec(): { kernels: CodecKernels; memory: WasmMemory; scratch: Scratch } {
  if (shared === undefined) {
    const memory = new WasmMemory();
    shared = { memory, kernels: instantiateCodec(memory), scratch: new Scratch(memory, 'the codec') };
  }
  return shared;
}

function checkOut<T extends Uint8Array | Int8Array | Float32Array>(out: T | undefined, kind: new (length: number) => T, length: number, argument: string): T {
  if (out === undefined) return new kind(length);
  if (!(out instanceof kind)) throw new TypeError(`"${argument}" expected a ${kind.name}, got ${describe(out)}`);
  if (out.length !== length) throw new RangeError(`"${argument}" expected length ${length}, got ${out.length}`);
  return out;
}

export interface EncodeOptions {
  /** True (default): too large becomes the largest finite code, as CUDA's SATFINITE. False: NaN (e4m3fn) or infinity (e5m2). */
  readonly saturate?: boolean;
  /** Dtype of the input; needed for a Uint16Array. */
  readonly from?: FloatDtype;
  /** Where to put the codes; as long as the input. */
  readonly out?: Uint8Array;
}

/**
 * Encodes values to FP8: round to nearest, ties to even, one rounding also from f16 and bf16. NaN → 0x7F whatever its
 * sign; −0 and negative underflow → 0x80. Equal to NVIDIA's `__nv_cvt_float_to_fp8` for all 2³² inputs.
 *
 * @param x f32 values, or f16/bf16 bits with `from` stated
 * @param format e4m3fn or e5m2, or vLLM's name of one
 * @returns one code per value: `out`, or a new array
 * @throws TypeError or RangeError when an argument does not fit
 */
export function encode(x: FloatArray, format: FormatName, options: EncodeOptions = {}): Uint8Array {
  checkObject(options, 'options');
  const { saturate = true } = options;
  if (typeof saturate !== 'boolean') throw new TypeError(`"saturate" expected true or false, got ${describe(saturate)}`);
  const { id } = formats[resolveFp8Format(format)];
  const dtype = floatDtypes[floatDtypeOf(x, options.from, 'x')];
  const out = checkOut(options.out, Uint8Array, x.length, 'out');
  const { kernels, memory, scratch } = codec();
  const at = scratch.reserve(CHUNK * 5);
  const codes = at + CHUNK * dtype.bytes;
  const input = bytesOf(x);
  const { u8 } = memory;
  for (let start = 0; start < x.length; start += CHUNK) {
    const n = Math.min(CHUNK, x.length - start);
    u8.set(input.subarray(start * dtype.bytes, (start + n) * dtype.bytes), at);
    kernels.encode(at, dtype.id, (n + 15) & ~15, codes, id, saturate ? 1 : 0);
    out.set(u8.subarray(codes, codes + n), start);
  }
  return out;
}

export interface DecodeOptions {
  /** Where to put the values; as long as the input. */
  readonly out?: Float32Array;
}

/**
 * Decodes FP8 codes: exact; every NaN code gives 0x7FC00000.
 *
 * @param codes one code per byte
 * @param format e4m3fn or e5m2, or vLLM's name of one
 * @returns one f32 per code: `out`, or a new array
 * @throws TypeError or RangeError when an argument does not fit
 */
export function decode(codes: Uint8Array, format: FormatName, options: DecodeOptions = {}): Float32Array {
  checkObject(options, 'options');
  const { id } = formats[resolveFp8Format(format)];
  if (!(codes instanceof Uint8Array)) throw new TypeError(`"codes" expected a Uint8Array, got ${describe(codes)}`);
  const out = checkOut(options.out, Float32Array, codes.length, 'out');
  const { kernels, memory, scratch } = codec();
  const at = scratch.reserve(CHUNK * 5);
  const values = at + CHUNK;
  const { u8, f32 } = memory;
  for (let start = 0; start < codes.length; start += CHUNK) {
    const n = Math.min(CHUNK, codes.length - start);
    u8.set(codes.subarray(start, start + n), at);
    kernels.decode(at, n, values, id);
    out.set(f32.subarray(values >>> 2, (values >>> 2) + n), start);
  }
  return out;
}

/** FP8 codes are bytes, those of int8 integers. */
type Codes = Uint8Array | Int8Array;

export interface QuantizeOptions<C extends Codes = Uint8Array> {
  /** Default e4m3fn. */
  readonly format?: C extends Int8Array ? 'int8' : Exclude<FormatName, 'int8'>;
  /** Values that share a scale; a multiple of 8 that divides the input's length. */
  readonly rowLength: number;
  /** How each row's scale is computed. Default `amax`. Not together with `scale`. */
  readonly recipe?: RecipeName | Recipe;
  /** A given scale for all rows, instead of a recipe. Finite and greater than 0. */
  readonly scale?: number;
  /** With a given scale: `divide` (default) or `reciprocal`. */
  readonly quotient?: 'divide' | 'reciprocal';
  /** Dtype of the input; needed for a Uint16Array. */
  readonly from?: FloatDtype;
  /** Where to put the codes; as long as the input. */
  readonly out?: C;
}

export interface Quantized<C extends Codes = Uint8Array> {
  /** One code per value: an Int8Array for int8. */
  readonly codes: C;
  /** One f32 per row; the given scale once where there is one. */
  readonly scales: Float32Array;
  /** NaN among the values, where codes are int8, which has none: they are 0. */
  readonly nan?: number;
}

/**
 * Quantizes rows to FP8 or int8 with a scale each: x ≈ decode(code) · scale. Exact: the very bytes that a cache of granularity
 * token-head would hold, so that other kernels can be checked against it.
 *
 * @param x [rows, rowLength]
 * @returns codes [rows, rowLength] and scales [rows]
 * @throws TypeError or RangeError when an argument does not fit
 */
export function quantize(x: FloatArray, options: QuantizeOptions<Int8Array> & { readonly format: 'int8' }): Quantized<Int8Array>;
export function quantize(x: FloatArray, options: QuantizeOptions): Quantized;
export function quantize(x: FloatArray, options: QuantizeOptions<Uint8Array> | QuantizeOptions<Int8Array>): Quantized<Codes> {
  checkObject(options, 'options', '{ rowLength }');
  const format = resolveQuantizedFormat(options.format ?? 'e4m3fn');
  const from = floatDtypeOf(x, options.from, 'x');
  const dtype = floatDtypes[from];
  const dim = options.rowLength;
  if (!Number.isSafeInteger(dim) || dim < 8 || dim % 8 !== 0 || x.length % dim !== 0) {
    throw new RangeError(`"rowLength" expected a multiple of 8 that divides ${x.length}, got ${describe(dim)}`);
  }
  const given = options.scale === undefined ? undefined : checkScale(options.scale, 'scale');
  if (given !== undefined && options.recipe !== undefined) throw new TypeError('"recipe" expected to be absent where "scale" is given');
  if (given === undefined && options.quotient !== undefined) throw new TypeError('"quotient" expected to come from the recipe where no "scale" is given');
  const { quotient = 'divide' } = options;
  if (quotient !== 'divide' && quotient !== 'reciprocal') throw new TypeError(`"quotient" expected divide or reciprocal, got ${describe(quotient)}`);
  const recipe = resolveRecipe(options.recipe);
  checkPolicy({ format, granularity: 'token-head' }, 'k', recipe);
  const computed = quantizeRule({ format, granularity: 'token-head' }, recipe);
  const rule = given === undefined ? computed : { ...computed, quotient: quotients[quotient] };
  const out = checkOut<Codes>(options.out, format === 'int8' ? Int8Array : Uint8Array, x.length, 'out');
  const outBytes = bytesOf(out);
  const rows = x.length / dim;
  const scales = given === undefined ? new Float32Array(rows) : Float32Array.of(given);
  const rowsAtOnce = Math.max(1, Math.floor(CHUNK / dim));
  const { kernels, memory, scratch } = codec();
  const params = scratch.reserve(writer.bytes + ROWS_AT_ONCE * 4 + rowsAtOnce * (dim * 5 + 4) + 8);
  const operands = params + writer.bytes;
  const values = operands + ROWS_AT_ONCE * 4;
  const input = bytesOf(x);
  const { u8, f32, view } = memory;
  const scalesAt = values + rowsAtOnce * dim * dtype.bytes;
  const codes = scalesAt + rowsAtOnce * 4;
  if (given !== undefined) f32[scalesAt >>> 2] = given;
  writer.write(view, params, { ...rule, x: values, dtype: dtype.id, dim, groupSize: dim, codes, codesStride: dim, scales: scalesAt, given: given === undefined ? 0 : 1, operands });
  // Before any code is written: `out` may lie where x does.
  const nan = format === 'int8' ? countNaN(x, from, 0, x.length) : 0;
  for (let start = 0; start < rows; start += rowsAtOnce) {
    const n = Math.min(rowsAtOnce, rows - start);
    u8.set(input.subarray(start * dim * dtype.bytes, (start + n) * dim * dtype.bytes), values);
    kernels.quantizeRows(params, n);
    outBytes.set(u8.subarray(codes, codes + n * dim), start * dim);
    if (given === undefined) scales.set(f32.subarray(scalesAt >>> 2, (scalesAt >>> 2) + n), start);
  }
  return format === 'int8' ? { codes: out, scales, nan } : { codes: out, scales };
}
