/** Observer mse: ranges that quantize a call's values with the least error. */
import { is, ok } from 'uvu/assert';
import { ErrorSum } from '../../src/calibrate/error-sum.js';
import { GridSearch } from '../../src/calibrate/grid-search.js';
import { Floats, groupsOf, type Groups } from '../../src/calibrate/groups.js';
import { ScaleRule } from '../../src/calibrate/scale-rule.js';
import type { QuantizedFormat } from '../../src/formats.js';
import { decode, quantize, recipes } from '../../src/index.js';
import { widenHalves } from '../../src/layouts/half-scales.js';
import { random } from '../random.js';
import { bestFactors, errorOf } from '../reference/grid-search.js';
import { suite } from '../suite.js';

const test = suite('grid search');
const allFormats = ['e4m3fn', 'e5m2', 'int8'] as const;
const one: Groups = { count: 1, span: 8 };

/** What a cache with this given scale would give back. */
function roundTrip(x: Float32Array, format: QuantizedFormat, scale: number): Float32Array {
  const values = format === 'int8' ? Float32Array.from(quantize(x, { format, scale, rowLength: x.length }).codes) : decode(quantize(x, { format, scale, rowLength: x.length }).codes, format);
  return values.map((value) => value * scale);
}

for (const format of allFormats) {
  test(`the errors are those of the codec, of all halves: ${format}`, () => {
    const x = widenHalves(Uint16Array.from({ length: 65536 }, (_, bits) => bits)).filter((value) => Number.isFinite(value));
    for (const scale of [1, Math.fround(0.0371), 2 ** -20]) {
      const back = roundTrip(x, format, scale);
      const sums = new Float64Array(x.length);
      new ErrorSum(format, 1).addTo(sums, x, x.length, { count: x.length, span: 1 }, new Float32Array(x.length).fill(scale));
      for (let i = 0; i < x.length; i++) {
        const error = Math.abs(x[i] - back[i]);
        // Half way between two values, which lie at distances that f32 rounds.
        ok(Math.abs(sums[i] - error) <= 2 ** -23 * (error + Math.abs(x[i])), `${x[i]} with scale ${scale}: expected ${error}, got ${sums[i]}`);
      }
    }
  });
}

test('powers of errors', () => {
  const numbers = random(1);
  for (const norm of [0.5, 1, 2, 2.4, 8]) {
    const errorSum = new ErrorSum('int8', norm);
    for (let i = 0; i < 2000; i++) {
      // Of what is that much above the largest value, the error is the rest.
      const error = Math.fround(numbers.normals(1)[0] ** 2 * 2 ** (i % 40));
      const x = new Float32Array(1).fill(127 + error);
      const sums = new Float64Array(1);
      errorSum.addTo(sums, x, 1, { count: 1, span: 1 }, Float32Array.of(1));
      const expected = (x[0] > 127 ? x[0] - 127 : 127 - x[0]) ** norm;
      if (x[0] > 127.5) ok(Math.abs(sums[0] - expected) <= 1e-6 * expected, `${x[0] - 127} ^ ${norm}: expected ${expected}, got ${sums[0]}`);
    }
  }
});

test('int8 goes from −127 to 127, as in a cache that is given its scales, and NaN has no error', () => {
  const errorOfInt8 = (value: number): number => {
    const sums = new Float64Array(1);
    new ErrorSum('int8', 1).addTo(sums, Float32Array.of(value, NaN), 2, { count: 1, span: 2 }, Float32Array.of(1));
    return sums[0];
  };
  is(errorOfInt8(-127), 0);
  is(errorOfInt8(-128), 1);
  is(errorOfInt8(128), 1);
});

/** Normals with a few that are much larger, as keys have. */
function heavy(seed: number, length: number): Float32Array {
  const numbers = random(seed);
  const outliers = numbers.normals(length);
  return numbers.normals(length).map((value, i) => value * (1 + Math.abs(outliers[i]) ** 3));
}

/** The ranges of one call with this search, and the values of its groups. */
function searched(x: Float32Array, groups: Groups, format: QuantizedFormat, settings = {}): { amax: Float32Array; factors: number[]; values: number[][] } {
  const rule = new ScaleRule(format, recipes['compressed-tensors'], groups.count);
  const floats = new Floats(groups.count * groups.span);
  const search = new GridSearch(rule, floats, { maxshrink: 0.2, patience: 5, grid: 100, norm: 2.4, ...settings }, groups.count);
  const values: number[][] = Array.from({ length: groups.count }, () => []);
  for (const [i, value] of x.entries()) values[Math.floor(i / groups.span) % groups.count].push(value);
  const [min, max] = [Float32Array.from(values, (each) => Math.min(...each)), Float32Array.from(values, (each) => Math.max(...each))];
  const amax = Float32Array.from(min, (each, g) => Math.max(-each, max[g]));
  search.shrink(min, max, x, 'f32', groups);
  return { amax, values, factors: Array.from(amax, (each, g) => Math.max(-min[g], max[g]) / each) };
}

for (const format of allFormats) {
  for (const granularity of ['tensor', 'head', 'channel'] as const) {
    test(`finds what the plain search finds: ${format}, ${granularity}`, () => {
      for (let seed = 0; seed < 4; seed++) {
        const { amax, factors, values } = searched(heavy(seed, 40 * 3 * 8), groupsOf(granularity, 3, 8), format);
        const expected = bestFactors(values, format);
        for (const [g, factor] of factors.entries()) {
          if (Math.abs(factor - expected[g]) < 1e-6) continue;
          // Two that are as good to the last bits of f32.
          const [ours, theirs] = [factor, expected[g]].map((each) => errorOf(values[g], amax[g] * each, format));
          ok(ours <= theirs * (1 + 1e-5), `seed ${seed}, group ${g}: expected factor ${expected[g]} of error ${theirs}, got ${factor} of ${ours}`);
        }
      }
    });
  }
}

test('its settings are those of the plain search', () => {
  for (const settings of [{ maxshrink: 0.5 }, { patience: 1 }, { grid: 37 }, { norm: 1.5 }, { maxshrink: 0.004 }]) {
    const { factors, values } = searched(heavy(9, 640), { count: 1, span: 64 }, 'int8', settings);
    const [expected] = bestFactors(values, 'int8', settings);
    ok(Math.abs(factors[0] - expected) < 1e-6, `${JSON.stringify(settings)}: expected ${expected}, got ${factors[0]}`);
  }
});

test('a call that has nothing, or nothing but zeros, in a group leaves its range', () => {
  const rule = new ScaleRule('e4m3fn', recipes['compressed-tensors'], 1);
  const search = new GridSearch(rule, new Floats(8), { maxshrink: 0.2, patience: 5, grid: 100, norm: 2.4 }, 1);
  const [min, max] = [Float32Array.of(Infinity), Float32Array.of(-Infinity)];
  search.shrink(min, max, new Float32Array(8).fill(NaN), 'f32', one);
  is(min[0], Infinity);
  is(max[0], -Infinity);
  const [low, high] = [Float32Array.of(0), Float32Array.of(0)];
  search.shrink(low, high, new Float32Array(8), 'f32', one);
  is(low[0] + high[0], 0);
});

for (const format of allFormats) {
  test(`the mean squared error is no larger than that of the whole range: ${format}`, () => {
    const squares = (x: Float32Array, amax: number): number => {
      const [scale] = new ScaleRule(format, recipes['compressed-tensors'], 1).scales(Float32Array.of(amax), 1);
      return roundTrip(x, format, scale).reduce((sum, value, i) => sum + (x[i] - value) ** 2, 0);
    };
    let better = 0;
    for (let seed = 20; seed < 30; seed++) {
      const x = heavy(seed, 200 * 64);
      const { amax, factors } = searched(x, { count: 1, span: 64 }, format);
      const [whole, shrunk] = [squares(x, amax[0]), squares(x, amax[0] * factors[0])];
      ok(shrunk <= whole, `seed ${seed}: ${whole} with the whole range, ${shrunk} with ${factors[0]} of it`);
      if (shrunk < whole) better++;
    }
    ok(better > 0);
  });
}
