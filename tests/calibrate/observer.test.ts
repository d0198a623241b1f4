/** Ranges by group, as llm-compressor's observers find them. */
import { equal, is, ok } from 'uvu/assert';
import type { GivenGranularity } from '../../src/kv-scales.js';
import { Floats, groupsOf, type Groups } from '../../src/calibrate/groups.js';
import { Observer, updateOf, type ObserverName } from '../../src/calibrate/observer.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('observers');

const observerOf = (name: ObserverName, groups: Groups, averagingConstant = 0.01): Observer =>
  new Observer(groups, { update: updateOf(name, averagingConstant), floats: new Floats(groups.count * groups.span), search: undefined });

/** The range of a single group after each call. */
function rangesOf(name: ObserverName, calls: readonly (readonly number[])[], averagingConstant?: number): { min: number[]; max: number[] } {
  const observer = observerOf(name, { count: 1, span: calls[0].length }, averagingConstant);
  const ranges: { min: number[]; max: number[] } = { min: [], max: [] };
  for (const call of calls) {
    observer.observe(Float32Array.from(call), 'f32');
    ranges.min.push(observer.min[0]);
    ranges.max.push(observer.max[0]);
  }
  return ranges;
}

const near = (actual: readonly number[], expected: readonly number[]): void => equal(actual.map(Math.fround), expected.map(Math.fround));

const rows = [[0, 0], [-3, 1], [-1, 3]];

test('memoryless-minmax: the last call alone', () => equal(rangesOf('memoryless-minmax', rows), { min: [0, -3, -1], max: [0, 1, 3] }));

test('static-minmax: all calls', () => equal(rangesOf('static-minmax', rows), { min: [0, -3, -3], max: [0, 1, 3] }));

test('minmax: the moving average of calls', () => {
  const { min, max } = rangesOf('minmax', rows, 0.1);
  near(min, [0, -0.3, -0.37]);
  near(max, [0, 0.1, 0.39]);
  near(rangesOf('minmax', [[1], [127]]).max, [1, 2.26]);
  near(rangesOf('minmax', [[1], [-128]]).min, [1, -0.29]);
});

/** Numbers of call c. */
const callOf = (c: number, length: number): Float32Array => random(1000 + c).normals(length);

for (const granularity of ['tensor', 'head', 'channel'] as const satisfies readonly GivenGranularity[]) {
  test(`${granularity}: minima and maxima of its groups`, () => {
    const [tokens, heads, headDim] = [7, 3, 16];
    const groups = groupsOf(granularity, heads, headDim);
    const observer = observerOf('static-minmax', groups);
    const [min, max] = [Infinity, -Infinity].map((start) => Array.from({ length: groups.count }, () => start));
    for (let c = 0; c < 3; c++) {
      const values = callOf(c, tokens * heads * headDim);
      observer.observe(values, 'f32');
      for (const [i, value] of values.entries()) {
        const [head, dim] = [Math.floor(i / headDim) % heads, i % headDim];
        const g = { tensor: 0, head, channel: head * headDim + dim }[granularity];
        [min[g], max[g]] = [Math.min(min[g], value), Math.max(max[g], value)];
      }
    }
    equal([...observer.min], min);
    equal([...observer.max], max);
  });
}

test('halves count as the numbers that they stand for, over many pieces', () => {
  const groups = groupsOf('channel', 2, 24);
  const bits = Uint16Array.from(callOf(1, 48 * 1500), (value) => new Uint32Array(Float32Array.of(value).buffer)[0] >>> 16);
  const wide = { bf16: new Float32Array(Uint32Array.from(bits, (each) => each << 16).buffer), f16: Float32Array.from(bits, (each) => (each & 0x8000 ? -1 : 1) * ((each & 0x7c00) === 0 ? (each & 0x3ff) * 2 ** -24 : (1024 + (each & 0x3ff)) * 2 ** (((each >> 10) & 31) - 25))) };
  for (const dtype of ['bf16', 'f16'] as const) {
    const [narrow, plain] = [observerOf('static-minmax', groups), observerOf('static-minmax', groups)];
    narrow.observe(bits, dtype);
    plain.observe(wide[dtype], 'f32');
    assertSameBits(narrow.min, plain.min, dtype);
    assertSameBits(narrow.max, plain.max, dtype);
  }
});

test('NaN is left out, and a group of nothing else stays as it was', () => {
  const observer = observerOf('memoryless-minmax', groupsOf('head', 2, 2));
  observer.observe(Float32Array.of(1, NaN, NaN, NaN), 'f32');
  equal([...observer.min, ...observer.max], [1, NaN, 1, NaN]);
  observer.observe(Float32Array.of(NaN, NaN, -2, NaN), 'f32');
  equal([...observer.min, ...observer.max], [1, -2, 1, -2]);
  is(observer.infinite, false);
});

test('an infinity is remembered', () => {
  for (const name of ['memoryless-minmax', 'static-minmax', 'minmax'] as const) {
    for (const infinity of [Infinity, -Infinity]) {
      const observer = observerOf(name, groupsOf('channel', 1, 2));
      observer.observe(Float32Array.of(1, 2, 3, infinity), 'f32');
      observer.observe(Float32Array.of(1, 2), 'f32');
      ok(observer.infinite, name);
    }
  }
});
