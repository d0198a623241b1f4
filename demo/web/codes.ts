/** What becomes of a number in 8 bits, with a scale of 1. */
import { decode, encode, quantize } from '../../src/index.js';
import { formats, type QuantizedFormat } from '../../src/formats.js';

/** A code that stands for a finite number. */
export interface Code {
  /** 0 to 255. */
  readonly code: number;
  readonly value: number;
}

const bytes = Uint8Array.from({ length: 256 }, (_, code) => code);

/** The code that a format keeps a number as. */
export function encodeOne(x: number, format: QuantizedFormat, saturate = true): number {
  if (format !== 'int8') return encode(Float32Array.of(x), format, { saturate })[0];
  // Rows are multiples of 8 values.
  return quantize(new Float32Array(8).fill(x), { format, rowLength: 8, scale: 1 }).codes[0] & 255;
}

/** What a code of a format stands for. */
export function decodeOne(code: number, format: QuantizedFormat): number {
  return format === 'int8' ? (code << 24) >> 24 : decode(bytes.subarray(code, code + 1), format)[0];
}

/** All finite values that rounding may give, from the least to the largest, zero once. */
export function codesOf(format: QuantizedFormat): Code[] {
  const finite = [...bytes].map((code): Code => ({ code, value: decodeOne(code, format) }));
  return finite.filter(({ value }) => Math.abs(value) <= formats[format].max && !Object.is(value, -0)).sort((a, b) => a.value - b.value);
}

type Outcome =
  /** The number is one of the codes'. */
  | 'exact'
  | 'nearest'
  /** Halfway between two codes. */
  | 'tie'
  /** Beyond the largest, and further than rounding reaches. */
  | 'saturated'
  | 'nan';

export interface Rounding {
  /** The number as f32, which is what is encoded. */
  readonly input: number;
  readonly code: number;
  /** What is read back. */
  readonly value: number;
  readonly outcome: Outcome;
  /** The nearest codes on both sides, or both the same where the number is exact; absent beyond the ends. */
  readonly below?: Code;
  readonly above?: Code;
  /** What would be kept without saturation, where that differs. */
  readonly unsaturated?: number;
}

/** How a format rounds a number. */
export function roundTo(x: number, format: QuantizedFormat, codes: readonly Code[]): Rounding {
  const input = Math.fround(x);
  const code = encodeOne(input, format);
  const value = decodeOne(code, format);
  if (Number.isNaN(input)) return { input, code, value, outcome: 'nan' };
  const below = codes.filter((each) => each.value <= input).at(-1);
  const above = codes.find((each) => each.value >= input);
  const plain = format === 'int8' ? code : encodeOne(input, format, false);
  const unsaturated = plain === code ? undefined : plain;
  const common = { input, code, value, below, above, unsaturated };
  if (below === undefined || above === undefined) {
    return { ...common, outcome: unsaturated === undefined && format !== 'int8' ? 'nearest' : 'saturated' };
  }
  if (below === above) return { ...common, outcome: 'exact' };
  return { ...common, outcome: input - below.value === above.value - input ? 'tie' : 'nearest' };
}

/** The parts of a code, as text of zeros and ones. */
export interface Bits {
  readonly sign: string;
  /** Of floats. */
  readonly exponent: string;
  /** Of floats; the other seven bits of int8. */
  readonly mantissa: string;
}

const exponentBits = { e4m3fn: 4, e5m2: 5, int8: 0 } as const;

export function bitsOf(code: number, format: QuantizedFormat): Bits {
  const all = code.toString(2).padStart(8, '0');
  const end = 1 + exponentBits[format];
  return { sign: all.slice(0, 1), exponent: all.slice(1, end), mantissa: all.slice(end) };
}

/** How a float is computed from its bits: sign · 2^power · (whole + part / of). */
export interface Formula {
  readonly sign: '+' | '−';
  readonly power: number;
  /** 1, or 0 where the number is subnormal. */
  readonly whole: 0 | 1;
  readonly part: number;
  readonly of: number;
}

/** Of the code of a finite float. */
export function formulaOf(code: number, format: 'e4m3fn' | 'e5m2'): Formula {
  const { sign, exponent, mantissa } = bitsOf(code, format);
  const field = parseInt(exponent, 2);
  const bias = 2 ** (exponent.length - 1) - 1;
  return { sign: sign === '1' ? '−' : '+', power: Math.max(field, 1) - bias, whole: field === 0 ? 0 : 1, part: parseInt(mantissa, 2), of: 2 ** mantissa.length };
}

/** A number near to it on the codes' own scale: `steps` quarters of the gaps between neighbours further. */
export function stepFrom(x: number, steps: number, codes: readonly Code[]): number {
  const last = codes.length - 1;
  const clamped = Math.min(Math.max(x, codes[0].value), codes[last].value);
  const at = Math.min(codes.filter(({ value }) => value <= clamped).length - 1, last - 1);
  const place = at + (clamped - codes[at].value) / (codes[at + 1].value - codes[at].value);
  // To the next quarter in the direction of the step, wherever it begins.
  const quarters = steps > 0 ? Math.floor(4 * place + 1e-9) + steps : Math.ceil(4 * place - 1e-9) + steps;
  const to = Math.min(Math.max(quarters, 0), 4 * last) / 4;
  const left = Math.min(Math.floor(to), last - 1);
  return codes[left].value + (to - left) * (codes[left + 1].value - codes[left].value);
}
