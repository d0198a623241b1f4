/** What options make of a cache, and what a step tells its backend of them. */
import { equal, is, match, ok, throws } from 'uvu/assert';
import {
  KvCache, OutOfPagesError, presets, recipes, wasmBackend,
  type AppendCall, type AttendCall, type Backend, type KvCacheOptions, type OutDtype, type PresetName,
} from '../../src/index.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { appendToAll, assertHolds, attendDirectly, assertSameResult, concatenate, extend, f32, fp8, randomTokens } from './tokens.js';

const test = suite('cache options');
const backend = wasmBackend();
const shape = { queryHeads: 4, kvHeads: 2, headDim: 16, capacity: 16 };

/** Format and granularity of both sides of each layer. */
function sidesOf(options: Partial<KvCacheOptions> & Pick<KvCacheOptions, 'layers'>): string[] {
  const cache = new KvCache(backend, { ...shape, ...options });
  const all = Array.from({ length: cache.layers }, (_, layer) => {
    const { k, v } = cache.pages(layer).layout;
    return [k, v].map(({ format, granularity, groupSize }) => `${format} ${granularity}${granularity === 'group' ? ` ${groupSize}` : ''}`).join(', ');
  });
  cache.dispose();
  return all;
}

test('auto is the dtype of the model, on either side and in layers', () => {
  equal(sidesOf({ layers: 1, dtype: 'auto' }), ['f32 tensor, f32 tensor']);
  equal(sidesOf({ layers: 1, dtype: 'auto', modelDtype: 'f16' }), ['f16 tensor, f16 tensor']);
  equal(sidesOf({ layers: 1, dtype: 'auto', modelDtype: 'bf16' }), ['f32 tensor, f32 tensor']);
  equal(sidesOf({ layers: 1, dtype: { k: 'auto', v: 'int8' }, modelDtype: 'f16' }), ['f16 tensor, int8 token-head']);
  equal(
    sidesOf({ layers: [{}, { dtype: 'auto' }, { dtype: { k: 'fp8', v: 'auto' }, modelDtype: 'f32' }], modelDtype: 'f16', granularity: 'head', scale: 0.5 }),
    ['e4m3fn head, e4m3fn head', 'f16 tensor, f16 tensor', 'e4m3fn head, f32 tensor'],
  );
});

test('skipped layers stay as the model has them, and settings of scales pass them by', () => {
  const group = { granularity: 'group', groupSize: 8, recipe: 'vllm-token-head', scalePrecision: 'f16' } as const;
  const [quantized, plain] = ['e4m3fn group 8, e4m3fn group 8', 'f16 tensor, f16 tensor'];
  equal(sidesOf({ ...group, layers: 3, modelDtype: 'f16', skipLayers: [2, 0] }), [plain, quantized, plain]);
  equal(sidesOf({ ...group, layers: 3, modelDtype: 'f16', skipLayers: (layer) => layer === 1 }), [quantized, plain, quantized]);
  equal(sidesOf({ ...group, layers: [{}, { headDim: 32 }], modelDtype: 'f16', skipLayers: [1] }), [quantized, plain]);
  equal(sidesOf({ ...group, layers: 2, skipLayers: [] }), [quantized, quantized]);
  equal(sidesOf({ layers: 2, granularity: 'channel', scale: new Float32Array(32).fill(0.5), skipLayers: [0] }), ['f32 tensor, f32 tensor', 'e4m3fn channel, e4m3fn channel']);
  equal(sidesOf({ layers: 2, dtype: 'int8', recipe: 'ferrum-int8', skipLayers: [0] }), ['f32 tensor, f32 tensor', 'int8 token-head, int8 token-head']);
});

test('a skipped layer attends as an unquantized one does', () => {
  const cache = new KvCache(backend, { ...fp8, layers: 2, capacity: 16, skipLayers: [1] });
  const tokens = randomTokens(random(11), fp8, 5);
  const q = random(12).normals(5 * 32);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 5 }]);
  appendToAll(cache, step, tokens);
  assertSameResult(step.attendSync(0, q), attendDirectly(backend, fp8, tokens, q), 'quantized');
  assertSameResult(step.attendSync(1, q), attendDirectly(backend, f32, tokens, q), 'skipped');
  cache.dispose();
});

test('a preset is the options that its row says, and what is stated wins', () => {
  const expected: { [P in PresetName]: [sides: string, blockSize: number, pages: number] } = {
    vllm: ['e4m3fn tensor', 16, 4], 'vllm-token-head': ['e4m3fn token-head', 16, 4], mila: ['e4m3fn token-head', 64, 1],
    ferrum: ['int8 token-head', 16, 4], 'compressed-tensors': ['e4m3fn tensor', 16, 4], xpu: ['e4m3fn tensor', 64, 1],
  };
  for (const preset of Object.keys(presets) as PresetName[]) {
    const cache = new KvCache(backend, { ...shape, layers: 2, preset, capacity: 64 });
    const [side, blockSize, pages] = expected[preset];
    equal(sidesOf({ layers: 1, preset }), [`${side}, ${side}`], preset);
    is(cache.blockSize, blockSize, preset);
    is(cache.freePages, pages, preset);
    is(cache.capacity, 64, preset);
    ok(Object.isFrozen(presets) && Object.isFrozen(presets[preset]));
    cache.dispose();
  }
  equal(sidesOf({ layers: 1, preset: 'vllm-token-head', dtype: 'int8' }), ['int8 token-head, int8 token-head']);
  equal(sidesOf({ layers: 1, preset: 'compressed-tensors', granularity: 'head' }), ['e4m3fn head, e4m3fn head']);
  equal(sidesOf({ layers: 1, preset: 'mila', dtype: 'auto' }), ['f32 tensor, f32 tensor']);
  equal(sidesOf({ layers: [{}, { granularity: 'channel' }], preset: 'xpu', dtype: undefined, skipLayers: [0] }), ['f32 tensor, f32 tensor', 'e4m3fn channel, e4m3fn channel']);
  for (const [options, blockSize] of [[{ preset: 'xpu', blockSize: 32 }, 32], [{ preset: 'mila', layout: 'paged' }, 16], [{ preset: 'ferrum', layout: 'contiguous' }, 48]] as const) {
    const cache = new KvCache(backend, { ...shape, layers: 1, capacity: 48, ...options });
    is(cache.blockSize, blockSize);
    cache.dispose();
  }
});

/** A cache, and the calls that its backend gets. */
function watched(options: Partial<KvCacheOptions>) {
  const appends: AppendCall[] = [];
  const attends: AttendCall<OutDtype>[] = [];
  const watching: Backend = {
    kind: 'wasm', synchronous: true,
    createPages: (layout, count) => backend.createPages(layout, count),
    append: (call) => (appends.push(call), { written: 1, skipped: 0 }),
    requantize: (call) => backend.requantize(call),
    attend: (call) => (attends.push(call), { out: new Float32Array(0), lse: new Float32Array(0) }) as never,
    dispose: () => {}, [Symbol.dispose]: () => {},
  };
  const cache = new KvCache(watching, { ...shape, layers: 1, ...options });
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  step.append(0, new Float32Array(32), new Float32Array(32));
  return { step, appends, attends, q: new Float32Array(64) };
}

test('a step tells the backend what its layer and its caller say', () => {
  const scale = { k: Float32Array.of(0.5, 2), v: 3 };
  const alibiSlopes = new Float32Array(4).fill(0.25);
  const { step, appends, attends, q } = watched({ granularity: { k: 'head', v: 'tensor' }, scale, alibiSlopes });
  const k = scale.k.slice();
  const v = Float32Array.of(3);
  // What a cache is made of stays so.
  scale.k.fill(7);
  alibiSlopes.fill(7);
  equal([appends[0].kScale, appends[0].vScale], [k, v]);
  const slopes = new Float32Array(4);
  const out = new Uint16Array(64);
  step.attendSync(0, q);
  const bits: Uint16Array = step.attendSync(0, q, { kDescale: 4, alibiSlopes: slopes, outDtype: 'f16', out }).out;
  ok(bits);
  const { kScale, vScale, kDescale, vDescale, outDtype } = attends[0];
  equal([kScale, vScale, kDescale, vDescale, outDtype], [k, v, undefined, undefined, undefined]);
  equal(attends[0].alibiSlopes, new Float32Array(4).fill(0.25));
  equal([attends[1].kScale, attends[1].vScale, attends[1].kDescale, attends[1].outDtype], [undefined, v, 4, 'f16']);
  is(attends[1].alibiSlopes, slopes);
  is(attends[1].out, out);
});

test('a layer\'s recipe has its scale precision, each side its own', () => {
  const { appends } = watched({ dtype: 'int8', recipe: { k: 'amax', v: 'ferrum-int8' }, scalePrecision: { k: 'f16', v: undefined } });
  equal(appends[0].recipe, { k: { ...recipes.amax, scalePrecision: 'f16' }, v: recipes['ferrum-int8'] });
});

/** What running out says. */
function shortage(body: () => unknown): OutOfPagesError {
  try {
    body();
  } catch (error) {
    if (error instanceof OutOfPagesError) return error;
    throw error;
  }
  throw new Error('expected an OutOfPagesError, the step began');
}

test('a contiguous cache gives each sequence one run of slots', () => {
  const cache = new KvCache(backend, { ...fp8, layers: 2, layout: 'contiguous', capacity: 24, sequences: 3 });
  equal([cache.blockSize, cache.capacity, cache.freePages], [24, 72, 3]);
  const numbers = random(21);
  const [a, b] = [cache.createSequence(), cache.createSequence()];
  const [first, other] = [randomTokens(numbers, fp8, 10), randomTokens(numbers, fp8, 24)];
  extend(cache, a, first, fp8);
  extend(cache, b, other, fp8);
  equal([a.blocks, b.blocks], [[0], [1]]);
  assertHolds(backend, cache, a, first, fp8, 'a');
  assertHolds(backend, cache, b, other, fp8, 'b');

  const twin = a.fork();
  is(cache.freePages, 1);
  const more = randomTokens(numbers, fp8, 4);
  extend(cache, twin, more, fp8);
  is(cache.freePages, 0);
  assertHolds(backend, cache, a, first, fp8, 'what was forked');
  assertHolds(backend, cache, twin, concatenate([first, more]), fp8, 'the fork');

  const third = a.fork();
  equal(shortage(() => cache.begin([{ sequence: third, tokens: 1 }])), new OutOfPagesError(1, 0));
  b.truncate(0);
  extend(cache, third, more, fp8);
  assertHolds(backend, cache, third, concatenate([first, more]), fp8, 'the second fork');
  cache.dispose();
});

test('a sequence of a contiguous cache has one page at most, however many are free', () => {
  const cache = new KvCache(backend, { ...f32, layers: 1, layout: 'contiguous', capacity: 5, sequences: 4 });
  const sequence = cache.createSequence();
  const tooLong = shortage(() => cache.begin([{ sequence, tokens: 6 }]));
  equal([tooLong.need, tooLong.have], [2, 1]);
  is(tooLong.message, 'the step needs 2 pages, 1 are free: a sequence has one, of 5 tokens: truncate it, or give the cache a larger capacity');
  extend(cache, sequence, randomTokens(random(22), f32, 5), f32);
  const full = shortage(() => cache.begin([{ sequence: cache.createSequence(), tokens: 1 }, { sequence, tokens: 1 }]));
  equal([full.need, full.have], [1, 0]);
  is(cache.freePages, 3);
  cache.begin([{ sequence, tokens: 0 }]).commit();
  const twins = [1, 2, 3].map(() => cache.createSequence());
  match(shortage(() => cache.begin([...twins, cache.createSequence()].map((each) => ({ sequence: each, tokens: 1 })))).message, /give the cache more "sequences"$/);
  sequence.truncate(3);
  extend(cache, sequence, randomTokens(random(23), f32, 2), f32);
  is(sequence.length, 5);
  cache.dispose();
});

test('a contiguous cache comes back from its checkpoint', async () => {
  const cache = new KvCache(backend, { ...fp8, layers: 2, layout: 'contiguous', capacity: 24, sequences: 2 });
  const sequence = cache.createSequence();
  const tokens = randomTokens(random(24), fp8, 9);
  extend(cache, sequence, tokens, fp8);
  const checkpoint = await cache.checkpoint();
  extend(cache, sequence, randomTokens(random(25), fp8, 3), fp8);
  equal((await cache.restore(backend, checkpoint)).lost, 3);
  assertHolds(backend, cache, sequence, tokens, fp8, 'restored');
  throws(() => cache.begin([{ sequence, tokens: 16 }]), /the step needs 1 pages, 0 are free: a sequence has one, of 24 tokens/);
  cache.dispose();
});
