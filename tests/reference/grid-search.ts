/** The range that quantizes values with the least error, by llm-compressor's grid search, in plain numbers: slow, to be read. */
import type { QuantizedFormat } from '../../src/formats.js';
import { definitions, valueOf } from './codec.js';

/** All finite values of a format, in order; of int8 those that given scales can give, from −127 on. */
const valuesOf = (format: QuantizedFormat): number[] =>
  format === 'int8'
    ? Array.from({ length: 255 }, (_, i) => i - 127)
    : Array.from({ length: 256 }, (_, code) => valueOf(code, definitions[format])).filter((value) => Number.isFinite(value)).sort((a, b) => a - b);

const lists = { e4m3fn: valuesOf('e4m3fn'), e5m2: valuesOf('e5m2'), int8: valuesOf('int8') };

/** The nearest of a format's values. Which of two that are as near does not matter to errors. */
const nearest = (x: number, format: QuantizedFormat): number => lists[format].reduce((best, value) => (Math.abs(value - x) < Math.abs(best - x) ? value : best));

/** What the largest magnitude is divided by. */
const divisors = { e4m3fn: 448, e5m2: 57344, int8: 127.5 };

/** Σ |x − fakequant(x)|^norm with the scale of a range [−amax, amax]. */
export function errorOf(values: readonly number[], amax: number, format: QuantizedFormat, norm = 2.4): number {
  const scale = Math.fround(amax / divisors[format]);
  return values.reduce((sum, x) => sum + Math.abs(x - nearest(Math.fround(x / scale), format) * scale) ** norm, 0);
}

/** @returns of each group the factor by which its range shrinks */
export function bestFactors(groups: readonly (readonly number[])[], format: QuantizedFormat, { maxshrink = 0.2, patience = 5, grid = 100, norm = 2.4 } = {}): number[] {
  const amax = groups.map((values) => Math.max(...values.map(Math.abs)));
  const best = groups.map(() => ({ error: Infinity, factor: 1 }));
  let worse = 0;
  for (let i = 0; i < Math.floor(maxshrink * grid) && worse < patience; i++) {
    const factor = 1 - i / grid;
    worse++;
    for (const [g, values] of groups.entries()) {
      const error = errorOf(values, amax[g] * factor, format, norm);
      if (error < best[g].error) [best[g], worse] = [{ error, factor }, 0];
    }
  }
  return best.map(({ factor }) => factor);
}
