/** What quantization with a given scale does to values: Σ |x − decode(encode(x / scale)) · scale|^norm, by group. */
import { formats, type QuantizedFormat } from '../formats.js';
import type { Recipe } from '../recipe.js';
import type { Groups } from './groups.js';

/** Mantissa bits, and the exponent of the smallest normal; of int8 each step is 1. */
const steps = { e4m3fn: { mantissa: 3, least: -6 }, e5m2: { mantissa: 2, least: -14 } } as const;

/** 2^exponent, times what a f64 must hold for its last bit to be worth that: adding and taking it away again rounds, ties to even. */
const rounderOf = (exponent: number): number => 1.5 * 2 ** (52 + exponent);

/** By the exponent bits of an f32. */
const roundersOf = (format: QuantizedFormat): Float64Array =>
  Float64Array.from({ length: 256 }, (_, bits) => rounderOf(format === 'int8' ? 0 : Math.max(bits - 127, steps[format].least) - steps[format].mantissa));

/** Mantissa bits that a table of powers has; between its entries lines stand in, and are right to 2⁻²⁵. */
const TABLE_BITS = 12;
const TABLE = 2 ** TABLE_BITS;
const REST = 2 ** (23 - TABLE_BITS);

/** Sums errors. Math.pow would take 9/10 of the time: |error|^norm is 2^(norm · exponent) · mantissa^norm, both from tables. */
export class ErrorSum {
  readonly #rounders: Float64Array;
  readonly #highest: number;
  /** Of what is negative, its sign left out. */
  readonly #lowest: number;
  readonly #exponents: Float64Array;
  readonly #mantissas: Float64Array;
  readonly #slopes: Float64Array;
  readonly #float = new Float32Array(1);
  readonly #word = new Uint32Array(this.#float.buffer);

  constructor(format: QuantizedFormat, recipe: Recipe, norm: number) {
    this.#rounders = roundersOf(format);
    this.#highest = formats[format].max;
    this.#lowest = format === 'int8' ? -(recipe.int8?.least ?? -127) : this.#highest;
    // An error below 2⁻¹²⁶ is none.
    this.#exponents = Float64Array.from({ length: 256 }, (_, bits) => (bits === 0 ? 0 : 2 ** (norm * (bits - 127))));
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
    for (let i = 0, g = 0; i < length; i += span) {
      sums[g] += this.#ofSpan(x, i, i + span, scales[g]);
      g = g + 1 < count ? g + 1 : 0;
    }
  }

  #ofSpan(x: Float32Array, from: number, to: number, scale: number): number {
    const float = this.#float, word = this.#word, rounders = this.#rounders, highest = this.#highest, lowest = this.#lowest;
    const exponents = this.#exponents, mantissas = this.#mantissas, slopes = this.#slopes;
    let sum = 0;
    for (let i = from; i < to; i++) {
      const value = x[i];
      if (Number.isNaN(value)) continue;
      const magnitude = Math.abs(value);
      const clamped = Math.min(Math.fround(magnitude / scale), value < 0 ? lowest : highest);
      float[0] = clamped;
      const rounder = rounders[word[0] >>> 23];
      float[0] = Math.abs(magnitude - Math.fround((clamped + rounder - rounder) * scale));
      const bits = word[0];
      const at = (bits >>> (23 - TABLE_BITS)) & (TABLE - 1);
      sum += exponents[bits >>> 23] * (mantissas[at] + slopes[at] * (bits & (REST - 1)));
    }
    return sum;
  }
}
