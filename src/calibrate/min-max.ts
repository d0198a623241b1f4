/** Minima and maxima of groups. NaN, which compares with nothing, is left out. */
import type { Groups } from './groups.js';

/**
 * Takes the first `length` elements of x, [tokens, count, span], into minima and maxima that are there already.
 * @param min [count], at first +∞
 * @param max [count], at first −∞
 */
export function minMaxInto(min: Float32Array, max: Float32Array, x: Float32Array, length: number, groups: Groups): void {
  if (groups.span === 1) perElement(min, max, x, length);
  else perSpan(min, max, x, length, groups);
}

function perSpan(min: Float32Array, max: Float32Array, x: Float32Array, length: number, { count, span }: Groups): void {
  let g = 0;
  for (let from = 0; from < length; from += span) {
    let low = min[g];
    let high = max[g];
    for (let i = from; i < from + span; i++) {
      const value = x[i];
      if (value < low) low = value;
      if (value > high) high = value;
    }
    min[g] = low;
    max[g] = high;
    g = g + 1 < count ? g + 1 : 0;
  }
}

function perElement(min: Float32Array, max: Float32Array, x: Float32Array, length: number): void {
  const count = min.length;
  for (let row = 0; row < length; row += count) {
    for (let g = 0; g < count; g++) {
      const value = x[row + g];
      if (value < min[g]) min[g] = value;
      if (value > max[g]) max[g] = value;
    }
  }
}
