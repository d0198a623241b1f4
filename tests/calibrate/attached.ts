/** A calibration that is attached to a cache of any backend, and another that is shown the same by hand. */
import { Calibration, KvCache, type Backend, type CalibrationOptions, type KvScales } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';

const layers = [{ kvHeads: 2, queryHeads: 4 }, { kvHeads: 1, headDim: 16, queryHeads: 3 }];
const sizes = layers.map(({ kvHeads, queryHeads, headDim = 8 }) => ({ kv: kvHeads * headDim, q: queryHeads * headDim }));

export const cacheOf = (backend: Backend): KvCache => new KvCache(backend, { layers, headDim: 8, dtype: 'f32', capacity: 64 });
export const calibrationOf = (more: Partial<CalibrationOptions> = {}): Calibration =>
  new Calibration({ layers, headDim: 8, granularity: 'channel', queries: true, observer: 'static-minmax', ...more });

/** Some steps of two sequences through both layers. Keys and values are spoilt as soon as `append` returns: they are the caller's again. */
export async function runSteps(cache: KvCache, plain: Calibration, seed = 1): Promise<void> {
  const numbers = random(seed);
  const sequences = [cache.createSequence(), cache.createSequence()];
  for (const tokens of [5, 1, 0, 3]) {
    const step = cache.begin(sequences.map((sequence) => ({ sequence, tokens })));
    for (const [layer, size] of sizes.entries()) {
      const [key, value] = [numbers.normals(2 * tokens * size.kv), numbers.normals(2 * tokens * size.kv)];
      const q = numbers.normals(2 * tokens * size.q);
      plain.observe(layer, key, value);
      plain.observeQuery(layer, q);
      const appended = step.append(layer, key, value);
      for (const mine of [key, value]) mine.fill(1000);
      await appended;
      await step.attend(layer, q);
    }
    step.commit();
  }
  for (const sequence of sequences) sequence.free();
}

export function assertSameScales(actual: KvScales, expected: KvScales): void {
  for (const [i, { scale, qScale }] of actual.layers.entries()) {
    assertSameBits(scale.k, expected.layers[i].scale.k, `keys of layer ${i}`);
    assertSameBits(scale.v, expected.layers[i].scale.v, `values of layer ${i}`);
    assertSameBits(qScale ?? new Float32Array(0), expected.layers[i].qScale ?? new Float32Array(0), `queries of layer ${i}`);
  }
}
