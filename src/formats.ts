/** Facts about each cache format, and the names under which users may ask for one. */

/** How one element of a cached key or value is stored. */
export type Format = 'e4m3fn' | 'e5m2' | 'int8' | 'f16' | 'f32';

/** The 8-bit floating-point formats (OCP 8-bit Floating Point Specification 1.0). */
export type Fp8Format = 'e4m3fn' | 'e5m2';

/** Those of 8 bits, which need a scale to cover a model's range. */
export type QuantizedFormat = Fp8Format | 'int8';

/** A format, or a name that vLLM's `--kv-cache-dtype` gives to one. */
export type FormatName = Format | 'fp8' | 'fp8_e4m3' | 'fp8_e5m2';

/** What a cache may be asked to store: a format, or vLLM's `auto`, which leaves it to the model's dtype. */
export type CacheDtype = FormatName | 'auto';

/** The dtype of unquantized tensors. f16 and bf16 travel as bits in a `Uint16Array`. */
export type FloatDtype = 'f32' | 'f16' | 'bf16';

/** Unquantized values: f32 numbers, or f16/bf16 bits (then the call states which). */
export type FloatArray = Float32Array | Uint16Array;

interface FormatFacts {
  /** The number under which the kernels know the format. */
  readonly id: number;
  /** Bytes per element. Those of one byte have the first numbers. */
  readonly bytes: 1 | 2 | 4;
  /** The largest finite value. */
  readonly max: number;
  /** True where the format needs a scale to cover a model's range. */
  readonly quantized: boolean;
  /** The dtype's name in .safetensors files. */
  readonly safetensors: 'F8_E4M3' | 'F8_E5M2' | 'I8' | 'F16' | 'F32';
}

export const formats: { readonly [F in Format]: FormatFacts } = {
  e4m3fn: { id: 0, bytes: 1, max: 448, quantized: true, safetensors: 'F8_E4M3' },
  e5m2: { id: 1, bytes: 1, max: 57344, quantized: true, safetensors: 'F8_E5M2' },
  int8: { id: 2, bytes: 1, max: 127, quantized: true, safetensors: 'I8' },
  f16: { id: 3, bytes: 2, max: 65504, quantized: false, safetensors: 'F16' },
  f32: { id: 4, bytes: 4, max: 3.4028234663852886e38, quantized: false, safetensors: 'F32' },
};

/** The numbers under which the kernels know the input dtypes, and their sizes. */
export const floatDtypes: { readonly [D in FloatDtype]: { readonly id: number; readonly bytes: 2 | 4 } } = {
  f32: { id: 0, bytes: 4 },
  f16: { id: 1, bytes: 2 },
  bf16: { id: 2, bytes: 2 },
};

const aliases: { readonly [name: string]: Format } = { fp8: 'e4m3fn', fp8_e4m3: 'e4m3fn', fp8_e5m2: 'e5m2' };

/** @throws TypeError for a name of none of the formats that fit, saying which there are */
function formatAmong<F extends Format>(name: string, argument: string, fits: (format: Format) => format is F, more: readonly string[] = []): F {
  const format = Object.hasOwn(aliases, name) ? aliases[name] : (name as Format);
  if (Object.hasOwn(formats, format) && fits(format)) return format;
  const known = [...Object.keys(formats).filter((each) => fits(each as Format)), ...Object.keys(aliases).filter((alias) => fits(aliases[alias])), ...more];
  const hint = name === 'auto' ? ', which only the "dtype" of a KvCache may be, as "modelDtype" says there what it stands for' : '';
  throw new TypeError(`"${argument}" expected one of ${known.join(', ')}, got ${describe(name)}${hint}`);
}

const isAny = (_format: Format): _format is Format => true;

/**
 * The format behind a name.
 * @param name one of {@link FormatName}
 * @param argument what to call the argument in the error
 * @throws TypeError for any other name
 */
export function resolveFormat(name: string, argument = 'format'): Format {
  return formatAmong(name, argument, isAny);
}

/** What holds a model's keys and values as they are. There is no format of bf16: f32 has all its values. */
const modelFormats: { readonly [D in FloatDtype]: Format } = { f32: 'f32', f16: 'f16', bf16: 'f32' };

/**
 * The format behind a name that may be `auto`.
 * @throws TypeError for any other name
 */
export function resolveCacheDtype(name: CacheDtype, modelDtype: FloatDtype, argument: string): Format {
  if (!Object.hasOwn(modelFormats, modelDtype)) throw new TypeError(`"modelDtype" expected one of ${Object.keys(modelFormats).join(', ')}, got ${describe(modelDtype)}`);
  return name === 'auto' ? modelFormats[modelDtype] : formatAmong(name, argument, isAny, ['auto']);
}

/** Whether a format has 8 bits, and needs a scale. */
export const isQuantized = (format: Format): format is QuantizedFormat => formats[format].quantized;

export const quantizedFormats: readonly QuantizedFormat[] = (Object.keys(formats) as Format[]).filter(isQuantized);

const isFp8 = (format: Format): format is Fp8Format => format === 'e4m3fn' || format === 'e5m2';

/** As {@link resolveFormat}, for calls that encode to or decode from FP8 only. */
export const resolveFp8Format = (name: string, argument = 'format'): Fp8Format => formatAmong(name, argument, isFp8);

/** As {@link resolveFormat}, for calls that quantize. */
export const resolveQuantizedFormat = (name: string, argument = 'format'): QuantizedFormat => formatAmong(name, argument, isQuantized);

/**
 * The dtype of a typed array of unquantized values.
 * @param dtype what the caller says; needed for 16-bit input, where the array does not tell
 * @throws TypeError when the array's kind and the dtype do not fit together
 */
export function floatDtypeOf(values: FloatArray, dtype: FloatDtype | undefined, argument: string): FloatDtype {
  if (values instanceof Float32Array) {
    if (dtype !== undefined && dtype !== 'f32') throw new TypeError(`"${argument}" expected a Uint16Array of ${dtype} bits, got Float32Array`);
    return 'f32';
  }
  if (values instanceof Uint16Array) {
    if (dtype === 'f16' || dtype === 'bf16') return dtype;
    throw new TypeError(`"${argument}" is a Uint16Array: its dtype expected f16 or bf16, got ${describe(dtype)}`);
  }
  throw new TypeError(`"${argument}" expected a Float32Array, or a Uint16Array of f16 or bf16 bits, got ${describe(values)}`);
}

/** Whether NaN may be among the values from … to − 1: a sum that takes it in is NaN. Infinities may say so, too. Takes a third of the time that counting does. */
function mayHoldNaN(values: FloatArray, from: number, to: number): boolean {
  let a = 0, b = 0, c = 0, d = 0;
  for (let i = from; i < to; i += 4) {
    a += values[i];
    b += values[i + 1];
    c += values[i + 2];
    d += values[i + 3];
  }
  return Number.isNaN(a + b + c + d);
}

/** The same of halves: NaN are above infinity. Takes half of that time. */
function mayHoldNaNHalf(values: FloatArray, infinity: number, from: number, to: number): boolean {
  let below = 0;
  for (let i = from; i < to; i += 4) {
    below |= (infinity - (values[i] & 0x7fff)) | (infinity - (values[i + 1] & 0x7fff)) | (infinity - (values[i + 2] & 0x7fff)) | (infinity - (values[i + 3] & 0x7fff));
  }
  return below < 0;
}

/** NaN among the values from … to − 1. */
export function countNaN(values: FloatArray, dtype: FloatDtype, from: number, to: number): number {
  const infinity = dtype === 'bf16' ? 0x7f80 : 0x7c00;
  if (dtype === 'f32' ? !mayHoldNaN(values, from, to) : !mayHoldNaNHalf(values, infinity, from, to)) return 0;
  let nan = 0;
  for (let i = from; i < to; i++) if (dtype === 'f32' ? Number.isNaN(values[i]) : (values[i] & 0x7fff) > infinity) nan++;
  return nan;
}

/** The bytes behind a typed array, in place. */
export const bytesOf = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Of a longer string its length says enough: it may be a whole file. */
const MOST_QUOTED = 200;

/** What a value is, in a word, for error messages. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'object') return value.constructor?.name ?? 'an object';
  if (typeof value !== 'string') return `${typeof value} ${String(value as number)}`;
  return value.length <= MOST_QUOTED ? JSON.stringify(value) : `a string of ${value.length} characters`;
}
