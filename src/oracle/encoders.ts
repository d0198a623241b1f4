/**
 * 8-bit codes by their definitions, one at a time: slow, with every choice that kernels make differently as a parameter. What is
 * right is `defaultEncoder`; it gives the codes of src/wasm/codec.ts, which tests compare.
 */
import type { Fp8Format } from '../formats.js';

/** A quotient, as the bits of its f32 → its code, 0 … 255; int8 in two's complement. */
export type Encoder = (bits: number) => number;

/** To the nearest with ties to even, to the nearest with ties away from zero, or toward zero. */
export type Rounding = 'even' | 'away' | 'zero';

/** What lies above the largest finite code becomes that code; so does infinity, or not; or none does. */
type Overflow = 'saturate' | 'saturate finite' | 'none';

interface Float8 {
  readonly mantissaBits: number;
  readonly bias: number;
  /** The largest finite code. */
  readonly largest: number;
  /** What overflow becomes where it does not saturate, sign left out. */
  readonly infinity: number;
  /** AMD's formats: the code of −0 is the only NaN. */
  readonly fnuz?: boolean;
}

/** OCP 8-bit Floating Point Specification 1.0, table 1; the FNUZ formats: AMD CDNA 3 ISA, and LLVM's Float8E4M3FNUZ, Float8E5M2FNUZ. */
const float8 = {
  e4m3fn: { mantissaBits: 3, bias: 7, largest: 0x7e, infinity: 0x7f },
  e5m2: { mantissaBits: 2, bias: 15, largest: 0x7b, infinity: 0x7c },
  e4m3fnuz: { mantissaBits: 3, bias: 8, largest: 0x7f, infinity: 0, fnuz: true },
  e5m2fnuz: { mantissaBits: 2, bias: 16, largest: 0x7f, infinity: 0, fnuz: true },
} as const satisfies { readonly [name: string]: Float8 };

type Float8Name = keyof typeof float8;

/** AMD's format beside each of ours. */
export const fnuzOf = { e4m3fn: 'e4m3fnuz', e5m2: 'e5m2fnuz' } as const satisfies { readonly [F in Fp8Format]: Float8Name };

const FNUZ_NAN = 0x80;
const F32_INFINITY = 0x7f800000;

/** v / 2^shift, rounded to an integer. */
function shiftRounded(v: number, shift: number, rounding: Rounding): number {
  if (shift > 31) return 0;
  const whole = Math.floor(v / 2 ** shift);
  if (rounding === 'zero') return whole;
  const rest = v - whole * 2 ** shift;
  const half = 2 ** (shift - 1);
  return rest > half || (rest === half && (rounding === 'away' || whole % 2 === 1)) ? whole + 1 : whole;
}

/** A finite magnitude's code, as if codes had no end: a mantissa that is rounded up carries into the exponent. */
function magnitudeCode(bits: number, { mantissaBits, bias }: Float8, rounding: Rounding): number {
  const exponent = bits >>> 23;
  if (exponent >= 128 - bias) return shiftRounded(bits - ((127 - bias) << 23), 23 - mantissaBits, rounding);
  const significand = exponent === 0 ? bits : (bits & 0x7fffff) | 0x800000;
  // The unit of the smallest codes is 2^(1 − bias − mantissaBits), that of the significand 2^(exponent − 150).
  return shiftRounded(significand, 151 - bias - mantissaBits - Math.max(1, exponent), rounding);
}

/** @param nanCode the code of a NaN, by its bits; FNUZ formats have but one */
export function float8Encoder(name: Float8Name, rounding: Rounding, overflow: Overflow, nanCode: (bits: number) => number): Encoder {
  const format: Float8 = float8[name];
  const { largest, infinity, fnuz } = format;
  return (bits) => {
    const sign = (bits >>> 24) & 0x80;
    const magnitude = bits & 0x7fffffff;
    if (magnitude > F32_INFINITY) return fnuz ? FNUZ_NAN : nanCode(bits);
    const code = magnitude === F32_INFINITY ? Infinity : magnitudeCode(magnitude, format, rounding);
    if (code <= largest) return fnuz && code === 0 ? 0 : sign | code;
    const saturates = overflow === 'saturate' || (overflow === 'saturate finite' && magnitude < F32_INFINITY);
    if (saturates) return sign | largest;
    return fnuz ? FNUZ_NAN : sign | infinity;
  };
}

/** A FNUZ code's value. Those of the formats without that name are what `decode` gives. */
export function fnuzValue(code: number, format: Fp8Format): number {
  if (code === FNUZ_NAN) return NaN;
  const { mantissaBits, bias } = float8[fnuzOf[format]];
  const mantissa = code & (2 ** mantissaBits - 1);
  const exponent = (code & 0x7f) >> mantissaBits;
  const value = exponent === 0 ? mantissa * 2 ** (1 - bias - mantissaBits) : (1 + mantissa / 2 ** mantissaBits) * 2 ** (exponent - bias);
  return code & 0x80 ? -value : value;
}

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** @param least the lowest code: -127 or -128 */
export function int8Encoder(least: number, rounding: Rounding): Encoder {
  return (bits) => {
    word[0] = bits;
    const x = float[0];
    if (Number.isNaN(x)) return 0;
    const magnitude = Math.min(128, Math.abs(x));
    const rounded = shiftRounded(magnitude * 2 ** 20, 20, rounding);
    return Math.max(least, Math.min(127, x < 0 ? -rounded : rounded)) & 0xff;
  };
}

/** NVIDIA's NaN, and ours: one code whatever its sign. */
export const cudaNaN = (): number => 0x7f;

/** Casts that keep a NaN's sign. */
export const signedNaN = (bits: number): number => 0x7f | ((bits >>> 24) & 0x80);

/** The f16 nearest to a number of at least 0, ties to even. */
export function roundToHalf(x: number): number {
  if (!(x < 65520)) return Number.isNaN(x) ? x : Infinity;
  float[0] = x;
  const unit = 2 ** (Math.max(-14, (word[0] >>> 23) - 127) - 10);
  const whole = Math.floor(x / unit);
  const rest = x / unit - whole;
  return (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? whole + 1 : whole) * unit;
}
