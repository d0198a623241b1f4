/** Calibrations that are attached to caches: they see what steps are given. */
import { equal, is, throws } from 'uvu/assert';
import { Calibration, KvCache, wasmBackend, type CacheObserver } from '../../src/index.js';
import { ThreadedBackend } from '../../src/wasm/threads/backend.js';
import { suite } from '../suite.js';
import { assertSameScales, cacheOf, calibrationOf, runSteps } from './attached.js';

const test = suite('attached calibrations');
const backend = wasmBackend();

test('sees what the model has', async () => {
  const cache = cacheOf(backend);
  const [attached, shrunk, plain] = [calibrationOf(), calibrationOf({ observer: 'mse', queries: false }), calibrationOf()];
  cache.attach(attached);
  cache.attach(shrunk);
  await runSteps(cache, plain);
  assertSameScales(attached.scales(), plain.scales());
  equal([attached.tokens(0), shrunk.tokens(1)], [18, 18]);
  is(shrunk.scales().layers[0].qScale, undefined);
  cache.dispose();
});

test('sees the same beside threads', async () => {
  const threads = new ThreadedBackend('baseline', 2, 0);
  const cache = cacheOf(threads);
  const [attached, plain] = [calibrationOf(), calibrationOf()];
  cache.attach(attached);
  await runSteps(cache, plain);
  assertSameScales(attached.scales(), plain.scales());
  cache.dispose();
  threads.dispose();
});

test('sees nothing before it is attached, nor after it is detached, and goes on after a restore', async () => {
  const cache = cacheOf(backend);
  const [attached, plain, unseen] = [calibrationOf(), calibrationOf(), calibrationOf()];
  await runSteps(cache, unseen, 1);
  const detach = cache.attach(attached);
  await runSteps(cache, plain, 2);
  await cache.restore(wasmBackend());
  await runSteps(cache, plain, 3);
  detach();
  detach();
  await runSteps(cache, unseen, 4);
  is(attached.tokens(0), 36);
  assertSameScales(attached.scales(), plain.scales());
  const again = cache.attach(attached);
  detach();
  await runSteps(cache, plain, 5);
  is(attached.tokens(0), 54);
  again();
  cache.dispose();
});

/** One layer, one head, of 8 dims. */
const small = { layers: 1, kvHeads: 1, headDim: 8 };

test('sees nothing of a call that throws, and all of one that is aborted', () => {
  const cache = new KvCache(backend, { ...small, dtype: 'f16', capacity: 16 });
  const calibration = new Calibration({ ...small, queries: true });
  cache.attach(calibration);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  const x = new Float32Array(8).fill(3);
  throws(() => step.append(0, x, x.subarray(1)), /"value" expected 1 tokens/);
  throws(() => step.append(1, x, x), /"layer" expected/);
  throws(() => step.attendSync(0, x), /to have been appended to/);
  is(calibration.tokens(0), 0);
  const bits = new Uint16Array(8).fill(0x4200);
  void step.append(0, bits, bits, { dtype: 'f16' });
  throws(() => step.attendSync(0, x, { softcap: -1 }), /softcap/);
  throws(() => calibration.scales(), /queries to have been observed/);
  step.attendSync(0, bits, { dtype: 'f16' });
  step.abort();
  is(calibration.tokens(0), 1);
  const { scale, qScale } = calibration.scales().layers[0];
  equal([scale.k[0], scale.v[0], qScale![0]], [3 / 448, 3 / 448, 3 / 448].map(Math.fround));
  cache.dispose();
});

test('sees queries as they were, also where the result takes their place', () => {
  const cache = new KvCache(backend, { ...small, dtype: 'f32', capacity: 16 });
  const calibration = new Calibration({ ...small, queries: true });
  cache.attach(calibration);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  void step.append(0, new Float32Array(8), new Float32Array(8).fill(100));
  const q = new Float32Array(8).fill(3);
  step.attendSync(0, q, { out: q });
  is(q[0], 100);
  is(calibration.scales().layers[0].qScale![0], Math.fround(3 / 448));
  step.attendSync(0, q.fill(0).fill(6, 0, 1), { lse: q.subarray(0, 1) });
  is(q[0], 0);
  is(calibration.scales().layers[0].qScale![0], Math.fround(Math.fround(3.03) / 448));
  step.abort();
  cache.dispose();
});

test('all see a call, also where one of them detaches itself', () => {
  const cache = new KvCache(backend, { ...small, dtype: 'f32', capacity: 16 });
  const seen: string[] = [];
  const attach = (name: string): void => {
    const note = (what: string): void => void seen.push(`${name} ${what}`);
    const detach = cache.attach({ shapes: [{ kvHeads: 1, headDim: 8, queryHeads: 1 }], observe: () => note('append'), observeQuery: () => (note('attend'), detach()) });
  };
  ['a', 'b', 'c'].forEach(attach);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  void step.append(0, new Float32Array(8), new Float32Array(8));
  step.attendSync(0, new Float32Array(8));
  step.attendSync(0, new Float32Array(8));
  equal(seen, ['a append', 'b append', 'c append', 'a attend', 'b attend', 'c attend']);
  step.abort();
  cache.dispose();
});

test('attach refuses what does not fit the cache', () => {
  const cache = new KvCache(backend, { ...small, layers: 2, queryHeads: 4, capacity: 16 });
  const fitting = new Calibration({ ...small, layers: 2 });
  const detach = cache.attach(fitting);
  const refusals: [unknown, RegExp][] = [
    [undefined, /"observer" expected a Calibration, .* got undefined/],
    [{ observe: () => {} }, /"observer" expected a Calibration/],
    [fitting, /"observer" expected one that is not attached/],
    [new Calibration(small), /"observer" expected 2 layers, as the cache has, got 1/],
    [new Calibration({ layers: [{}, { kvHeads: 4 }], kvHeads: 1, headDim: 8 }), /"observer" expected kvHeads 1 in layer 1, as the cache has, got 4/],
    [new Calibration({ ...small, layers: 2, headDim: 16 }), /"observer" expected headDim 8 in layer 0, as the cache has, got 16/],
    [new Calibration({ ...small, layers: 2, queryHeads: 2, queries: true }), /"observer" expected queryHeads 4 in layer 0, as the cache has, got 2/],
  ];
  for (const [observer, message] of refusals) throws(() => cache.attach(observer as CacheObserver), message, String(message));
  detach();
  cache.attach(new Calibration({ ...small, layers: 2, queryHeads: 4, queries: true }))();
  cache.dispose();
  throws(() => cache.attach(fitting), /"cache" expected to be in use/);
});

test('what was calibrated fits the cache that it is for', async () => {
  const cache = cacheOf(backend);
  const calibration = calibrationOf({ observer: 'mse', granularity: 'head', dtype: 'int8' });
  cache.attach(calibration);
  await runSteps(cache, calibrationOf());
  const { layers } = calibration.scales();
  const quantized = new KvCache(backend, { layers: layers.map((each, i) => ({ ...each, ...calibration.shapes[i] })), capacity: 64 });
  await runSteps(quantized, calibrationOf());
  cache.dispose();
  quantized.dispose();
});
