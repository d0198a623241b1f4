/** Attention against slow float64, on every backend: ragged batches, formats, granularities, masks, and more keys than one cut. */
import { ok } from 'uvu/assert';
import type { AttendCall, AttentionOptions, Backend, FormatName, Granularity, SideOptions } from '../src/index.js';
import { ATTENTION_BOUND, attentionError } from '../src/files/compare.js';
import { assertSameBits } from './bits.js';
import { callOf, fixture, type FixtureOptions } from './fixture.js';
import { random } from './random.js';
import { referenceAttention } from './reference/attention.js';
import { halfOf } from './reference/codec.js';
import type { Suite } from './suite.js';

/** A call's own scales, [sequences, kvHeads]. */
type Descales = Pick<AttendCall, 'kDescale' | 'vDescale'>;

/** Runs rows of every sequence against float64 on the same codes. */
async function againstReference(
  backend: Backend, seed: number, options: FixtureOptions, qLens: readonly number[], queryHeads: number, attention: AttentionOptions, descales?: Descales,
): Promise<void> {
  const numbers = random(seed);
  const cache = await fixture(backend, numbers, options);
  const { kvHeads, headDim } = options;
  const q = numbers.normals(qLens.reduce((a, b) => a + b, 0) * queryHeads * headDim);
  const call = { ...callOf(cache, qLens, q), ...attention };
  const { out, lse } = await backend.attend(descales ? { ...call, kScale: undefined, vScale: undefined, ...descales } : call);
  const valueAt = (side: 'k' | 'v', s: number, j: number, head: number, d: number): number => {
    const descale = descales?.[`${side}Descale`];
    if (descale === undefined) return cache.valueAt(side, s, j, head, d);
    return cache.codeAt(side, s, j, head, d) * (typeof descale === 'number' ? descale : descale[descale.length === 1 ? 0 : s * kvHeads + head]);
  };
  let row = 0;
  for (const [s, rows] of qLens.entries()) {
    const part = q.subarray(row * queryHeads * headDim, (row + rows) * queryHeads * headDim);
    const tokenFloats = kvHeads * headDim;
    const [keys, values] = (['k', 'v'] as const).map((side) =>
      Float64Array.from({ length: options.kvLens[s] * tokenFloats }, (_, i) => valueAt(side, s, Math.floor(i / tokenFloats), Math.floor((i % tokenFloats) / headDim), i % headDim)));
    const expected = referenceAttention({
      ...attention, q: part, queryHeads, kvHeads, headDim, kvLen: options.kvLens[s],
      key: (j, head, d) => keys[j * tokenFloats + head * headDim + d],
      value: (j, head, d) => values[j * tokenFloats + head * headDim + d],
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

/** How keys and values share scales, and what else the call asks for. */
const granularities = [
  { k: ['e4m3fn', 'head'], v: ['int8', 'channel'], attention: { softcap: 4 }, alibi: true, sinks: true },
  { k: ['int8', 'channel'], v: ['e4m3fn', 'group'], attention: { windowLeft: 9 }, alibi: true, sinks: false },
  { k: ['e4m3fn', 'group'], v: ['e5m2', 'head'], attention: { causal: false, windowLeft: 30, windowRight: 4 }, alibi: true, sinks: true },
  { k: ['e5m2', 'channel'], v: ['e4m3fn', 'token-head'], attention: {}, alibi: false, sinks: false },
] as const satisfies readonly { k: readonly [FormatName, Granularity]; v: readonly [FormatName, Granularity]; attention: AttentionOptions; alibi: boolean; sinks: boolean }[];

const kvLens = [0, 1, 3, 130, 65, 20];
const qLens = [0, 1, 5, 1, 64, 20];

/** A side of that granularity, and scales where they are given. */
function granular([dtype, granularity]: readonly [FormatName, Granularity], kvHeads: number, headDim: number): { side: SideOptions; scale: Float32Array | undefined } {
  if (granularity === 'group') return { side: { dtype, granularity, groupSize: headDim % 32 === 0 ? headDim / 4 : 8 }, scale: undefined };
  if (granularity === 'head') return { side: { dtype, granularity }, scale: Float32Array.from({ length: kvHeads }, (_, head) => 0.02 * (head + 1)) };
  if (granularity === 'channel') return { side: { dtype, granularity }, scale: Float32Array.from({ length: kvHeads * headDim }, (_, i) => 0.02 * 1.1 ** (i % 31)) };
  return { side: { dtype, granularity }, scale: undefined };
}

const slopesOf = (queryHeads: number): Float32Array => Float32Array.from({ length: queryHeads }, (_, head) => (head === 1 ? -0.01 : 2 ** -(head % 9)));

/** With scales of every kind: one shape, for each is a kernel of its own on a GPU. */
const granularShapes: readonly Shape[] = [[2, 3, 64, 16]];
/** More of them. */
export const manyGranularShapes: readonly Shape[] = [[2, 3, 64, 16], [3, 2, 24, 5], [1, 17, 256, 8], [2, 1, 16, 16]];

/** @param open gives the backend once the tests run */
export function testAgainstReference(test: Suite, open: () => Backend, tried = shapes, triedGranular = granularShapes): void {
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

  for (const [index, { k, v, attention, alibi, sinks }] of granularities.entries()) {
    test(`${k.join(' ')} keys and ${v.join(' ')} values against float64: ${JSON.stringify(attention)}${alibi ? ', ALiBi' : ''}`, async () => {
      for (const [kvHeads, group, headDim, blockSize] of triedGranular) {
        const [keys, values] = [granular(k, kvHeads, headDim), granular(v, kvHeads, headDim)];
        const options = { kvHeads, headDim, blockSize, kvLens, k: keys.side, v: values.side, kScale: keys.scale, vScale: values.scale };
        const queryHeads = kvHeads * group;
        await againstReference(open(), 300 + index, options, qLens, queryHeads, {
          ...attention, alibiSlopes: alibi ? slopesOf(queryHeads) : undefined, sinks: sinks ? random(index).normals(queryHeads, 3) : undefined,
        });
      }
    });
  }

  test('descales for each sequence and head take the place of given scales, against float64', async () => {
    const [kvHeads, group, headDim, blockSize] = triedGranular[0];
    const given = granular(['int8', 'head'], kvHeads, headDim);
    const options = { kvHeads, headDim, blockSize, kvLens, k: { dtype: 'e4m3fn', granularity: 'tensor' } as const, kScale: 0.03, v: given.side, vScale: given.scale };
    const descale = (by: number): Float32Array => Float32Array.from({ length: kvLens.length * kvHeads }, (_, i) => by * (1 + i / 5));
    for (const descales of [{ kDescale: descale(0.02), vDescale: descale(0.5) }, { kDescale: 0.05, vDescale: Float32Array.of(3) }]) {
      await againstReference(open(), 400, options, qLens, kvHeads * group, {}, descales);
    }
  });

  test('f16 output is the f32 output rounded to nearest even', async () => {
    const [kvHeads, group, headDim, blockSize] = triedGranular[0];
    const { k, v } = granularities[0];
    const [keys, values] = [granular(k, kvHeads, headDim), granular(v, kvHeads, headDim)];
    const cache = await fixture(open(), random(500), { kvHeads, headDim, blockSize, kvLens, k: keys.side, v: values.side, kScale: keys.scale, vScale: values.scale });
    const q = random(501).normals(qLens.reduce((a, b) => a + b) * kvHeads * group * headDim);
    // Some results then are f16's subnormal numbers, and some beyond its largest.
    for (const vScale of [values.scale!, values.scale!.map((scale) => scale * 1e-5), values.scale!.map((scale) => scale * 1e5)]) {
      const call = { ...callOf(cache, qLens, q), vScale };
      const { out, lse } = await open().attend(call);
      const rounded = await open().attend({ ...call, outDtype: 'f16', out: undefined });
      assertSameBits(rounded.out, Uint16Array.from(out, halfOf), 'out');
      assertSameBits(rounded.lse, lse, 'lse');
    }
    cache.pages.dispose();
  });

  test('more keys than one cut, against float64', async () => {
    await againstReference(open(), 7, { kvHeads: 1, headDim: 16, blockSize: 16, kvLens: [4500, 2048, 2049] }, [3, 2, 1], 2, {});
    await againstReference(open(), 8, { kvHeads: 1, headDim: 16, blockSize: 3, kvLens: [4500] }, [3], 2, { windowLeft: 2100, sinks: Float32Array.of(1, -2) });
  });
}
