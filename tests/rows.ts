/** Rows of values that make trouble for whoever quantizes them. */
import type { FloatArray, FloatDtype } from '../src/index.js';
import type { Random } from './random.js';

const specials: { readonly [D in FloatDtype]: readonly number[] } = {
  f32: [0x7fc00001, 0xff800001, 0x7f800000, 0xff800000, 0, 0x80000000, 1, 0x007fffff, 0x7f7fffff],
  f16: [0x7e01, 0xfc01, 0x7c00, 0xfc00, 0, 0x8000, 1, 0x03ff, 0x7bff],
  bf16: [0x7fc1, 0xff81, 0x7f80, 0xff80, 0, 0x8000, 1, 0x007f, 0x7f7f],
};

/**
 * Rows [rows, length] of one dtype: magnitudes of each row around a power of two from anywhere in the dtype's range, some rows
 * of powers of two, of zeros, of random bits, and every few rows one that holds NaN or an infinity.
 */
export function mixedRows(numbers: Random, dtype: FloatDtype, rows: number, length: number): FloatArray {
  const words = dtype === 'f32' ? new Uint32Array(rows * length) : new Uint16Array(rows * length);
  const [bits, mantissaBits] = dtype === 'f32' ? [32, 23] : dtype === 'f16' ? [16, 10] : [16, 7];
  const top = (1 << (bits - 1 - mantissaBits)) - 1;
  const sign = 2 ** (bits - 1);
  for (let row = 0; row < rows; row++) {
    const kind = numbers.integer(8);
    const exponent = numbers.integer(top);
    const spread = 1 + numbers.integer(16);
    for (let i = 0; i < length; i++) {
      const mantissa = kind === 1 ? 0 : numbers.integer(2 ** mantissaBits);
      const magnitude = Math.max(0, exponent - numbers.integer(spread)) * 2 ** mantissaBits + mantissa;
      const word = kind === 0 ? 0 : kind === 2 ? numbers.integer(top * 2 ** mantissaBits) : magnitude;
      words[row * length + i] = word + numbers.integer(2) * sign;
    }
    if (kind >= 6) {
      for (let n = 1 + numbers.integer(3); n > 0; n--) words[row * length + numbers.integer(length)] = specials[dtype][numbers.integer(9)];
    }
  }
  return words instanceof Uint32Array ? new Float32Array(words.buffer) : words;
}
