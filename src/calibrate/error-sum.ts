/**
 * What quantization with a given scale does to values: Σ |x − decode(encode(x / scale)) · scale|^norm, by group. Codes are those of a
 * cache that is given the scale: of int8 from −127 to 127, where llm-compressor's search has −128, too.
 *
 * 10 ns a value on one of two busy cores, Node 20; mse's search makes up to 20 of them. Math.pow alone would take 55, and the exponent of
 * x / scale from its bits, which a store and a load have to wait for, 5 more.
 */
import { formats, type QuantizedFormat } from '../formats.js';
import type { Groups } from './groups.js';

/** Mantissa bits, the leading one included, and the smallest normal number; of int8 all steps are the same. */
const steps = { e4m3fn: { bits: 4, least: 2 ** -6 }, e5m2: { bits: 3, least: 2 ** -14 }, int8: { bits: 8, least: Infinity } } as const;

/** Below the smallest normal number: the distance from a value to the next. */
const spacings = { e4m3fn: 2 ** -9, e5m2: 2 ** -16, int8: 1 } as const;

/** Mantissa bits that a table of powers has; between its entries lines stand in, and are right to 2⁻²⁵. */
const TABLE_BITS = 12;
const TABLE = 2 ** TABLE_BITS;
const REST = 2 ** (23 - TABLE_BITS);

/** Tokens whose channels are taken one after the other: 1,024 of them are 128 KiB, which an L2 cache holds. */
const TILE = 32;

// Not a field: V8 knows where a constant array lies, which saves a third of the time.
const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

export class ErrorSum {
  readonly #highest: number;
  readonly #least: number;
  readonly #splitter: number;
  readonly #rounder: number;
  /** |error|^norm is 2^(norm · exponent) · mantissa^norm. */
  readonly #exponents: Float64Array;
  readonly #mantissas: Float64Array;
  readonly #slopes: Float64Array;

  constructor(format: QuantizedFormat, norm: number) {
    const { bits, least } = steps[format];
    this.#highest = formats[format].max;
    this.#least = least;
    // Veltkamp's: x · (2^k + 1) in f64 leaves 53 − k bits of x.
    this.#splitter = 2 ** (53 - bits) + 1;
    // A f64 of that size has no bits below the spacing.
    this.#rounder = 1.5 * 2 ** 52 * spacings[format];
    // An error below 2⁻¹²⁶ is none.
    this.#exponents = Float64Array.from({ length: 256 }, (_, exponent) => (exponent === 0 ? 0 : 2 ** (norm * (exponent - 127))));
    const power = (i: number): number => (1 + i / TABLE) ** norm;
    this.#mantissas = Float64Array.from({ length: TABLE }, (_, i) => power(i));
    this.#slopes = Float64Array.from({ length: TABLE }, (_, i) => (power(i + 1) - power(i)) / REST);
  }

  /**
   * Adds the errors of the first `length` elements of x, [tokens, count, span], NaN left out.
   * @param sums [count]
   * @param scales [count]
   */
  addTo(sums: Float64Array, x: Float32Array, length: number, { count, span }: Groups, scales: Float32Array): void {
    if (span === 1) {
      for (let from = 0; from < length; from += TILE * count) {
        const to = Math.min(from + TILE * count, length);
        for (let g = 0; g < count; g++) sums[g] += this.#sum(x, from + g, to, count, scales[g]);
      }
      return;
    }
    let g = 0;
    for (let from = 0; from < length; from += span) {
      sums[g] += this.#sum(x, from, from + span, 1, scales[g]);
      g = g + 1 < count ? g + 1 : 0;
    }
  }

  /** Where x lies in the middle between two values, either may be taken: the error is the same. */
  #sum(x: Float32Array, from: number, to: number, stride: number, scale: number): number {
    const highest = this.#highest, least = this.#least;
    const splitter = this.#splitter, rounder = this.#rounder, exponents = this.#exponents, mantissas = this.#mantissas, slopes = this.#slopes;
    let sum = 0;
    for (let i = from; i < to; i += stride) {
      const value = x[i];
      if (Number.isNaN(value)) continue;
      const quotient = Math.max(-highest, Math.min(highest, Math.fround(value / scale)));
      const split = quotient * splitter;
      const rounded = Math.abs(quotient) < least ? quotient + rounder - rounder : split - (split - quotient);
      float[0] = Math.abs(value - Math.fround(rounded * scale));
      const bits = word[0];
      const at = (bits >>> (23 - TABLE_BITS)) & (TABLE - 1);
      sum += exponents[bits >>> 23] * (mantissas[at] + slopes[at] * (bits & (REST - 1)));
    }
    return sum;
  }
}
