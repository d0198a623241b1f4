/**
 * Kernels with a known fault each, written down plainly from what those systems say of themselves, and sharing nothing with
 * src/oracle: codes are looked for among all 256.
 */
import { decode, type Fp8Format } from '../../src/index.js';
import { halfOf } from '../reference/codec.js';

type Name = Fp8Format | 'e4m3fnuz' | 'e5m2fnuz';

/** The values of the codes of no sign, up to the largest finite one. */
const magnitudes: { readonly [name in Name]: Float32Array } = (() => {
  const all = Uint8Array.from({ length: 128 }, (_, code) => code);
  // AMD's have half the value for the same bits, and where e4m3fn has NaN, or e5m2 infinity and NaN, they have numbers.
  const beyond = (format: Fp8Format, mantissas: number): Float32Array =>
    decode(all, format).map((value, code) => (Number.isFinite(value) ? value : (1 + (code % mantissas) / mantissas) * 2 ** (Math.floor(code / mantissas) - (format === 'e4m3fn' ? 7 : 15)))).map((value) => value / 2);
  return { e4m3fn: decode(all, 'e4m3fn').subarray(0, 0x7f), e5m2: decode(all, 'e5m2').subarray(0, 0x7c), e4m3fnuz: beyond('e4m3fn', 8), e5m2fnuz: beyond('e5m2', 4) };
})();

interface Cast {
  readonly to?: (format: Fp8Format) => Name;
  readonly rounding?: 'even' | 'away' | 'zero';
  /** What is too large; for infinity `finite` is `none`. Default saturates. */
  readonly overflow?: 'saturate' | 'finite' | 'none';
  /** The code of a NaN. Default 0x7f. */
  readonly nan?: (format: Fp8Format, negative: boolean) => number;
}

function codeOf(bits: number, format: Fp8Format, { to = (same) => same, rounding = 'even', overflow = 'saturate', nan = () => 0x7f }: Cast): number {
  const name = to(format);
  const fnuz = name.endsWith('fnuz');
  const values = magnitudes[name];
  const negative = bits >>> 31 === 1;
  const x = new Float32Array(Uint32Array.of(bits & 0x7fffffff).buffer)[0];
  if (Number.isNaN(x)) return fnuz ? 0x80 : nan(format, negative);
  const last = values.length - 1;
  let code = 0;
  while (code < last && values[code + 1] <= x) code++;
  const next = code < last ? values[code + 1] : 2 * values[last] - values[last - 1];
  const [below, above] = [x - values[code], next - x];
  if (rounding !== 'zero' && (above < below || (above === below && (rounding === 'away' || code % 2 === 1)))) code++;
  if (rounding === 'zero' && x >= next) code = last + 1;
  if (x === Infinity) code = last + 1;
  if (code > last) {
    if (overflow === 'saturate' || (overflow === 'finite' && x < Infinity)) code = last;
    else return fnuz ? 0x80 : (negative ? 0x80 : 0) | (format === 'e4m3fn' ? 0x7f : 0x7c);
  }
  return fnuz && code === 0 ? 0 : (negative ? 0x80 : 0) | code;
}

export interface Fault extends Cast {
  readonly quotient?: 'reciprocal' | 'max-over-amax';
  /** A scale from amax. */
  readonly scale?: (amax: number, max: number, format: Fp8Format) => number;
  /** The scale that values are divided by, from the right one. */
  readonly divisor?: (scale: number) => number;
  /** The scale that is stored, from the right one. */
  readonly stored?: (scale: number) => number;
}

const toHalf = (scale: number): number => {
  const half = halfOf(scale);
  const exponent = half >> 10;
  if (exponent === 31) return Infinity;
  return exponent === 0 ? half * 2 ** -24 : (1 + (half & 0x3ff) / 1024) * 2 ** (exponent - 15);
};

const signed = (_: Fp8Format, negative: boolean): number => (negative ? 0xff : 0x7f);
const quiet = (format: Fp8Format, negative: boolean): number => (format === 'e4m3fn' ? 0x7f : 0x7e) | (negative ? 0x80 : 0);
const fnuz = (format: Fp8Format): Name => (format === 'e4m3fn' ? 'e4m3fnuz' : 'e5m2fnuz');
const scaleFor = (largest: number) => (amax: number, max: number, format: Fp8Format): number => amax / (format === 'e4m3fn' ? largest : max);
const product = (amax: number, max: number): number => Math.fround(amax * Math.fround(1 / max));

/** By the name that the oracle has for each. */
export const faults: { readonly [name: string]: Fault } = {
  'non-saturating': { overflow: 'none' },
  torch: { overflow: 'none', nan: signed },
  'torch, clamped': { nan: signed },
  ml_dtypes: { overflow: 'none', nan: quiet },
  'ml_dtypes, clipped': { nan: quiet },
  FNUZ: { to: fnuz },
  'FNUZ, scale for 240': { to: fnuz, scale: scaleFor(240) },
  'FNUZ, scale for 224': { to: fnuz, scale: scaleFor(224) },
  'round-half-away': { rounding: 'away' },
  truncation: { rounding: 'zero' },
  reciprocal: { quotient: 'reciprocal' },
  'max-over-amax': { quotient: 'max-over-amax' },
  'scale one ulp off': { scale: product },
  'f16-rounded scale': { divisor: toHalf, stored: toHalf },
  'inverse scale': { stored: (scale) => Math.fround(1 / scale) },
  'scale stored as f16': { stored: toHalf },
  'divided by an f16 scale': { divisor: toHalf },
  'scale one ulp off + reciprocal': { scale: product, quotient: 'reciprocal' },
  'f16-rounded scale + reciprocal': { divisor: toHalf, stored: toHalf, quotient: 'reciprocal' },
  'reciprocal + torch, clamped': { quotient: 'reciprocal', nan: signed },
  'reciprocal + FNUZ, scale for 224': { quotient: 'reciprocal', to: fnuz, scale: scaleFor(224) },
  'scale one ulp off + truncation': { scale: product, rounding: 'zero' },
};

const maxima = { e4m3fn: 448, e5m2: 57344 } as const;

/**
 * Codes, and scales where none are given, as a kernel with a fault makes them of rows of which every `groupSize` values share a scale.
 * @param givenAt the scale that value i has, where scales are given
 */
export function faulty(input: Float32Array, format: Fp8Format, groupSize: number, fault: Fault, givenAt?: (i: number) => number): { codes: Uint8Array; scales: Float32Array } {
  const bits = new Uint32Array(input.buffer, input.byteOffset, input.length);
  const codes = new Uint8Array(input.length);
  const scales = new Float32Array(input.length / groupSize);
  const max = maxima[format];
  const { divisor = (same) => same, stored = (same) => same, scale: scaleFrom = (amax) => amax / max } = fault;
  const amaxes = scales.map((_, group) => input.subarray(group * groupSize, (group + 1) * groupSize).reduce((a, b) => (Math.abs(b) > a ? Math.abs(b) : a), 0));
  for (let i = 0; i < input.length; i++) {
    const group = Math.floor(i / groupSize);
    const amax = amaxes[group];
    const computed = Math.fround(scaleFrom(amax, max, format));
    const zero = computed === 0;
    const scale = givenAt ? givenAt(i) : zero ? 1 : computed;
    const by = divisor(scale);
    const factor = fault.quotient === 'max-over-amax' && !givenAt ? Math.fround(zero ? 1 : max / amax) : Math.fround(1 / by);
    const quotient = Math.fround(fault.quotient ? input[i] * factor : input[i] / by);
    // Who divides a NaN has it back. One that arises is negative on x86.
    const quotientBits = Number.isNaN(input[i]) ? bits[i] : Number.isNaN(quotient) ? 0xffc00000 : new Uint32Array(Float32Array.of(quotient).buffer)[0];
    codes[i] = codeOf(quotientBits, format, fault);
    scales[group] = stored(scale);
  }
  return { codes, scales };
}
