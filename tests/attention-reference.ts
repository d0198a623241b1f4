/** Attention against slow float64, on every backend: ragged batches, formats, masks, and more keys than one cut. */
import { ok } from 'uvu/assert';
import type { AttentionOptions, Backend } from '../src/index.js';
import { ATTENTION_BOUND, attentionError } from '../src/files/compare.js';
import { callOf, fixture, type FixtureOptions } from './fixture.js';
import { random } from './random.js';
import { referenceAttention } from './reference/attention.js';
import type { Suite } from './suite.js';

/** Runs rows of every sequence against float64 on the same codes. */
async function againstReference(backend: Backend, seed: number, options: FixtureOptions, qLens: readonly number[], queryHeads: number, attention: AttentionOptions): Promise<void> {
  const numbers = random(seed);
  const cache = await fixture(backend, numbers, options);
  const { kvHeads, headDim } = options;
  const q = numbers.normals(qLens.reduce((a, b) => a + b, 0) * queryHeads * headDim);
  const { out, lse } = await backend.attend({ ...callOf(cache, qLens, q), ...attention });
  let row = 0;
  for (const [s, rows] of qLens.entries()) {
    const part = q.subarray(row * queryHeads * headDim, (row + rows) * queryHeads * headDim);
    const expected = referenceAttention({
      ...attention, q: part, queryHeads, kvHeads, headDim, kvLen: options.kvLens[s],
      key: (j, head, d) => cache.valueAt('k', s, j, head, d),
      value: (j, head, d) => cache.valueAt('v', s, j, head, d),
    });
    const actual = {
      out: out.subarray(row * queryHeads * headDim, (row + rows) * queryHeads * headDim),
      lse: lse.subarray(row * queryHeads, (row + rows) * queryHeads),
    };
    const error = attentionError(actual, { out: Float32Array.from(expected.out), lse: Float32Array.from(expected.lse) }, headDim);
    ok(error.out <= ATTENTION_BOUND && error.lse <= ATTENTION_BOUND, `seed ${seed}, sequence ${s}: out ${error.out}, lse ${error.lse}`);
    row += rows;
  }
  cache.pages.dispose();
}

const formats = [
  { k: { dtype: 'e4m3fn' }, v: { dtype: 'e4m3fn' } },
  { k: { dtype: 'e5m2' }, v: { dtype: 'e4m3fn', granularity: 'tensor' } },
  { k: { dtype: 'e4m3fn', granularity: 'tensor' }, v: { dtype: 'e5m2' } },
  { k: { dtype: 'f32' }, v: { dtype: 'f16' } },
  { k: { dtype: 'f16' }, v: { dtype: 'e4m3fn' } },
  { k: { dtype: 'int8' }, v: { dtype: 'e5m2' } },
  { k: { dtype: 'e4m3fn' }, v: { dtype: 'int8', granularity: 'tensor' } },
] as const;
const options: AttentionOptions[] = [
  {},
  { causal: false },
  { windowLeft: 5 },
  { causal: false, windowLeft: 3, windowRight: 4 },
  { causal: false, windowRight: 0 },
  { windowLeft: 0, windowRight: 0 },
  { softcap: 2.5 },
  { softmaxScale: 0.3, windowLeft: 70, softcap: 30 },
  { causal: false, windowRight: 0x7fffffff, windowLeft: 0x7fffffff },
];

type Shape = readonly [kvHeads: number, group: number, headDim: number, blockSize: number];

/** Head dimensions and groups of any kind. */
const shapes: readonly Shape[] = [[1, 1, 8, 1], [2, 3, 24, 5], [1, 71, 64, 16], [3, 1, 40, 7], [2, 4, 256, 16]];
/** Some of them, for a backend that takes long to compile a kernel for each. */
export const fewShapes: readonly Shape[] = [[2, 3, 8, 5], [1, 17, 64, 16], [2, 1, 256, 7]];

/** @param open gives the backend once the tests run */
export function testAgainstReference(test: Suite, open: () => Backend, tried = shapes): void {
  for (const [index, attention] of options.entries()) {
    test(`ragged batch against float64: ${JSON.stringify(attention)}`, async () => {
      const sides = formats[index % formats.length];
      const numbers = random(100 + index);
      for (const [kvHeads, group, headDim, blockSize] of tried) {
        const kvLens = [0, 1, 3, 64, 65, 130, 20];
        const qLens = [0, 1, 5, 1, 3, 70, 20];
        const sinks = index % 2 === 0 ? undefined : numbers.normals(kvHeads * group, 3);
        await againstReference(open(), 200 + index, { kvHeads, headDim, blockSize, kvLens, ...sides }, qLens, kvHeads * group, { ...attention, sinks });
      }
    });
  }

  test('more keys than one cut, against float64', async () => {
    await againstReference(open(), 7, { kvHeads: 1, headDim: 16, blockSize: 16, kvLens: [4500, 2048, 2049] }, [3, 2, 1], 2, {});
    await againstReference(open(), 8, { kvHeads: 1, headDim: 16, blockSize: 3, kvLens: [4500] }, [3], 2, { windowLeft: 2100, sinks: Float32Array.of(1, -2) });
  });
}
