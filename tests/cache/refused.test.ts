import { equal, is, ok, throws } from 'uvu/assert';
import { alignBattery, attendCascade, Calibration, HuggingFaceCache, KvCache, loadSnapshot, OutOfPagesError, pageLayout, requiredLimits, saveSnapshot, vllmLayout, wasmBackend } from '../../src/index.js';
import type { Backend, CalibrationOptions, KvCacheOptions, Sequence, StepEntry, WasmPages } from '../../src/index.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { appendToAll, cacheOf as cacheOn, extend, fp8 as shape, randomTokens } from './tokens.js';

const test = suite('cache refuses');
const backend = wasmBackend();
const cacheOf = (pages: number): KvCache => cacheOn(backend, shape, pages);
const tokens = (count: number) => randomTokens(random(count), shape, count);

/** Runs what must throw an error of this class and message. */
function refused(body: () => unknown, kind: new (...args: never[]) => Error, message: RegExp): void {
  throws(body, (error: unknown) => {
    ok(error instanceof kind, `expected ${kind.name}, got ${String(error)}`);
    ok(message.test(error.message), `expected ${String(message)}, got ${error.message}`);
    return true;
  });
}

async function rejected(promise: Promise<unknown>, message: RegExp): Promise<void> {
  const error = await promise.then(() => undefined, (reason: unknown) => reason as Error);
  ok(error !== undefined && message.test(error.message), `expected ${String(message)}, got ${String(error)}`);
}

/** What running out says. */
function shortage(body: () => unknown): { need: number; have: number } {
  try {
    body();
  } catch (error) {
    if (!(error instanceof OutOfPagesError)) throw error;
    is(error.name, 'OutOfPagesError');
    ok(error.message.startsWith(`the step needs ${error.need} pages, ${error.have} are free`), error.message);
    return { need: error.need, have: error.have };
  }
  throw new Error('expected an OutOfPagesError, the step began');
}

test('a step that needs more pages than are free reserves and writes nothing', () => {
  const cache = cacheOf(4);
  const [a, b] = [cache.createSequence(), cache.createSequence()];
  extend(cache, a, tokens(6), shape);
  const before = [0, 1].map((layer) => cache.pages(layer).export());
  equal(shortage(() => cache.begin([{ sequence: a, tokens: 2 }, { sequence: b, tokens: 9 }])), { need: 3, have: 2 });
  equal(shortage(() => cache.begin([{ sequence: a, tokens: 3 }, { sequence: b, tokens: 5 }])), { need: 3, have: 2 });
  equal(shortage(() => cache.begin([{ sequence: b, tokens: Number.MAX_SAFE_INTEGER }])).have, 2);
  is(cache.freePages, 2);
  is(a.length, 6);
  equal([0, 1].map((layer) => cache.pages(layer).export()), before);
  cache.begin([{ sequence: a, tokens: 2 }, { sequence: b, tokens: 8 }]).abort();
  cache.dispose();
});

test('the page for a copy counts, also where it alone is missing', () => {
  const cache = cacheOf(2);
  const sequence = cache.createSequence();
  extend(cache, sequence, tokens(6), shape);
  const twin = sequence.fork();
  const before = [0, 1].map((layer) => cache.pages(layer).export());
  for (const each of [sequence, twin]) equal(shortage(() => cache.begin([{ sequence: each, tokens: 1 }])), { need: 1, have: 0 });
  equal(shortage(() => cache.begin([{ sequence, tokens: 3 }])), { need: 2, have: 0 });
  equal([0, 1].map((layer) => cache.pages(layer).export()), before);
  cache.begin([{ sequence, tokens: 0 }]).commit();
  twin.free();
  cache.begin([{ sequence, tokens: 2 }]).abort();
  cache.dispose();
});

test('a step is of no use once it has ended', async () => {
  const cache = cacheOf(4);
  for (const ends of ['commit', 'abort'] as const) {
    const sequence = cache.createSequence();
    const step = cache.begin([{ sequence, tokens: 1 }]);
    const { key, value } = tokens(1);
    appendToAll(cache, step, { key, value });
    step[ends]();
    const stored = cache.pages(0).export();
    const over = /the step expected to be open, got one that was committed or aborted/;
    refused(() => step.append(0, value, key), Error, over);
    refused(() => step.attendSync(0, new Float32Array(32)), Error, over);
    await rejected(step.attend(0, new Float32Array(32)), over);
    refused(() => step.commit(), Error, over);
    const next = cache.begin([{ sequence, tokens: 1 }]);
    step.abort();
    refused(() => sequence.free(), Error, /in a step/);
    next.abort();
    is(cache.freePages, 3);
    is(sequence.length, ends === 'commit' ? 1 : 0);
    equal(cache.pages(0).export(), stored);
  }
  cache.dispose();
});

test('a sequence is in one place at a time', () => {
  const cache = cacheOf(4);
  const stranger = cacheOf(1).createSequence();
  const [a, b, freed] = [cache.createSequence(), cache.createSequence(), cache.createSequence()];
  freed.free();
  freed.free();
  const step = cache.begin([{ sequence: a, tokens: 1 }]);
  const free = cache.freePages;
  const one = (sequence: Sequence): StepEntry => ({ sequence, tokens: 1 });
  for (const action of [() => a.fork(), () => a.truncate(0), () => a.free(), () => cache.begin([one(b), one(a)])]) {
    refused(action, Error, /the sequence expected to be idle, got one that is in a step/);
  }
  for (const action of [() => freed.fork(), () => freed.truncate(0), () => cache.begin([one(b), one(freed)])]) {
    refused(action, Error, /the sequence expected to be idle, got one that is freed/);
  }
  refused(() => cache.begin([one(b), one(b)]), TypeError, /"entries\[1\]\.sequence" expected each sequence once/);
  refused(() => cache.begin([one(b), one(stranger)]), TypeError, /"entries\[1\]\.sequence" expected a sequence of this cache, got Sequence/);
  refused(() => cache.begin(Object.assign(Array.from<StepEntry>({ length: 2 }), [one(b)])), TypeError, /"entries\[1\]" expected \{ sequence, tokens \}, got undefined/);
  refused(() => cache.begin([one({} as Sequence)]), TypeError, /"entries\[0\]\.sequence" expected a sequence of this cache, got Object/);
  for (const count of [-1, 1.5, NaN, '1' as unknown as number]) {
    refused(() => cache.begin([{ sequence: b, tokens: count }]), RangeError, /"entries\[0\]\.tokens" expected an integer of at least 0/);
  }
  is(cache.freePages, free);
  cache.begin([{ sequence: b, tokens: 1 }]).abort();
  step.abort();
  a.free();
  cache.dispose();
});

test('truncation goes back only', () => {
  const cache = cacheOf(2);
  const sequence = cache.createSequence();
  extend(cache, sequence, tokens(5), shape);
  for (const length of [6, -1, 2.5, NaN]) refused(() => sequence.truncate(length), RangeError, /"length" expected an integer from 0 to 5/);
  is(sequence.length, 5);
  is(sequence.blocks.length, 2);
  cache.dispose();
});

test('attending needs this step\'s append, and committing every layer\'s', async () => {
  const cache = cacheOf(2);
  const sequence = cache.createSequence();
  extend(cache, sequence, tokens(1), shape);
  const step = cache.begin([{ sequence, tokens: 1 }]);
  const { key, value } = tokens(1);
  step.append(0, key, value);
  const early = /"attend" expected layer 1 to have been appended to in this step/;
  refused(() => step.attendSync(1, new Float32Array(32)), Error, early);
  await rejected(step.attend(1, new Float32Array(32)), early);
  refused(() => step.commit(), Error, /"commit" expected every layer to have been appended to, missing 1$/);
  is(sequence.length, 1);
  step.append(1, key, value);
  step.commit();
  is(sequence.length, 2);
  cache.begin([{ sequence, tokens: 0 }]).commit();
  cache.dispose();
});

test('wrong lengths, dtypes and layers are refused by name, and nothing is written', () => {
  const cache = cacheOf(2);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 3 }]);
  const before = [0, 1].map((layer) => cache.pages(layer).export());
  const { key, value } = tokens(3);
  const halves = new Uint16Array(48);
  refused(() => step.append(0, key.subarray(1), value), RangeError, /"key" expected 3 tokens × 2 heads × 8 = 48 elements, got 47/);
  refused(() => step.append(0, key, new Float32Array(49)), RangeError, /"value" expected 3 tokens × 2 heads × 8 = 48 elements, got 49/);
  refused(() => step.append(0, halves, halves), TypeError, /"key" is a Uint16Array: its dtype expected f16 or bf16/);
  refused(() => step.append(0, key, halves, { dtype: 'f16' }), TypeError, /"key" expected a Uint16Array of f16 bits/);
  refused(() => step.append(2, key, value), RangeError, /"layer" expected an integer from 0 to 1, got number 2/);
  refused(() => step.commit(), Error, /missing 0, 1$/);
  equal([0, 1].map((layer) => cache.pages(layer).export()), before);
  appendToAll(cache, step, { key, value });
  const out = new Float32Array(96).fill(7);
  refused(() => step.attendSync(0, new Float32Array(48), { out }), RangeError, /"q" expected 3 tokens × 4 heads × 8 = 96 elements, got 48/);
  refused(() => step.attendSync(-1, new Float32Array(96), { out }), RangeError, /"layer"/);
  refused(() => step.attendSync(0, new Float32Array(96), { out, lse: new Float32Array(11) }), RangeError, /"lse" expected length 12, got 11/);
  refused(() => step.attendSync(0, new Float32Array(96), { out, windowLeft: -2 }), RangeError, /"windowLeft"/);
  refused(() => step.attendSync(0, new Float32Array(96), { out: new Float32Array(95) }), RangeError, /"out" expected length 96, got 95/);
  ok(out.every((element) => element === 7));
  refused(() => cache.pages(2), RangeError, /"layer"/);
  step.commit();
  cache.dispose();
});

test('attendSync is refused by name where the backend answers later', () => {
  const later: Backend = {
    kind: 'webgpu', synchronous: false,
    createPages: (layout, count) => backend.createPages(layout, count), append: (call) => backend.append(call), attend: (call) => backend.attend(call),
    requantize: (call) => backend.requantize(call),
    dispose: () => {}, [Symbol.dispose]: () => {},
  };
  const cache = new KvCache(later, { ...shape, layers: 1, capacity: 16 });
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  appendToAll(cache, step, tokens(1));
  refused(() => step.attendSync(0, new Float32Array(32)), TypeError, /"attendSync" expected a backend that answers at once, got one \(webgpu\) that gives promises: use attend/);
  cache.dispose();
});

test('a layer whose append failed later is not taken for appended to', async () => {
  let fails = true;
  const later: Backend = {
    kind: 'webgpu', synchronous: false,
    createPages: (layout, count) => backend.createPages(layout, count),
    append: async (call) => (fails ? Promise.reject(new RangeError('later')) : backend.append(call)),
    requantize: async (call) => backend.requantize(call),
    attend: async (call) => backend.attend(call),
    dispose: () => {}, [Symbol.dispose]: () => {},
  };
  const cache = cacheOn(later, shape, 2);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  const { key, value } = tokens(1);
  await rejected(step.append(0, key, value) as Promise<unknown>, /^later$/);
  fails = false;
  await step.append(1, key, value);
  refused(() => step.commit(), Error, /missing 0$/);
  await rejected(step.attend(0, new Float32Array(32)), /expected layer 0 to have been appended to/);
  await step.append(0, key, value);
  step.commit();
  cache.dispose();
});

for (const what of ['cache', 'backend'] as const) {
  test(`after dispose of the ${what}, nothing is reserved, written or read`, () => {
    const own = wasmBackend();
    const cache = new KvCache(own, { ...shape, layers: 2, blockSize: 4, capacity: 16 });
    const [sequence, other] = [cache.createSequence(), cache.createSequence()];
    extend(cache, sequence, tokens(5), shape);
    const twin = sequence.fork();
    const step = cache.begin([{ sequence: other, tokens: 1 }]);
    const { key, value } = tokens(1);
    step.append(0, key, value);
    (what === 'cache' ? cache : own).dispose();
    const gone = /"pages" expected to be in use, got pages that were disposed of/;
    refused(() => step.append(1, key, value), TypeError, gone);
    refused(() => step.attendSync(0, new Float32Array(32)), TypeError, gone);
    const { freePages } = cache;
    const disposed = what === 'cache' ? /"cache" expected to be in use, got one that was disposed of/ : gone;
    refused(() => cache.begin([{ sequence: twin, tokens: 1 }]), TypeError, disposed);
    if (what === 'cache') refused(() => cache.createSequence(), TypeError, disposed);
    is(cache.freePages, freePages);
    step.abort();
    for (const each of [sequence, twin, other]) each.free();
    is(cache.freePages, 4);
    cache.dispose();
  });
}

const good: KvCacheOptions = { ...shape, layers: 2, capacity: 64 };

test('options that do not fit are refused by name', () => {
  const cases: [Partial<KvCacheOptions>, typeof TypeError | typeof RangeError, RegExp][] = [
    [{ layers: 0 }, RangeError, /^"layers" expected an integer from 1/],
    [{ layers: [] }, RangeError, /^"layers" expected at least one layer/],
    [{ layers: '3' as unknown as number }, RangeError, /^"layers"/],
    [{ layers: [{}, null as unknown as object] }, TypeError, /^"layers\[1\]" expected an object, got null/],
    [{ layers: Array.from<object>({ length: 2 }) }, TypeError, /^"layers\[0\]" expected an object, got undefined/],
    [{ layers: [{}, { headDim: 12 }] }, RangeError, /^layers\[1\]: "headDim" expected a multiple of 8 from 8 to 256, got number 12/],
    [{ layers: [{ queryHeads: 3 }, {}] }, RangeError, /^layers\[0\]: "queryHeads" expected a multiple of kvHeads \(2\), got 3/],
    [{ layers: [{}, {}, { dtype: 'fp4' as 'fp8' }] }, TypeError, /^layers\[2\]: "k\.dtype" expected one of/],
    [{ capacity: 0 }, RangeError, /^"capacity" expected an integer from 1 to 2147483632, got number 0/],
    [{ capacity: 1.5 }, RangeError, /^"capacity"/],
    [{ capacity: 2 ** 31 - 1 }, RangeError, /^"capacity"/],
    [{ capacity: undefined as unknown as number }, RangeError, /^"capacity"/],
    [{ blockSize: 0 }, RangeError, /^"blockSize"/],
    [{ blockSize: 2 ** 17 }, RangeError, /^"blockSize"/],
    [{ kvHeads: undefined }, TypeError, /^"kvHeads" expected a value, got undefined/],
    [{ headDim: undefined }, TypeError, /^"headDim" expected a value, got undefined/],
    [{ headDim: 264 }, RangeError, /^"headDim"/],
    [{ kvHeads: 0 }, RangeError, /^"kvHeads"/],
    [{ queryHeads: 3 }, RangeError, /^"queryHeads"/],
    [{ dtype: { k: 'fp8', v: 'int4' as 'fp8' } }, TypeError, /^"v\.dtype"/],
    [{ granularity: 'row' as 'tensor' }, TypeError, /^"k\.granularity" expected one of tensor, head, channel, token-head, group, got "row"/],
    [{ granularity: 'group' }, RangeError, /^"k\.groupSize" expected a multiple of 8 that divides headDim \(8\), got undefined/],
    [{ granularity: 'group', groupSize: { k: 8, v: 16 } }, RangeError, /^"v\.groupSize" expected a multiple of 8 that divides headDim \(8\), got number 16/],
    [{ groupSize: 8 }, TypeError, /^"k\.groupSize" expected to be absent with granularity token-head, got number 8/],
    [{ granularity: 'head', scale: new Float32Array(3).fill(1) }, RangeError, /^"scale" expected 1 scale or 2 for granularity head, got 3/],
    [{ granularity: 'channel', scale: { k: new Float32Array(16).fill(1), v: new Float32Array(2).fill(1) } }, RangeError, /^"scale" expected 1 scale or 16 for granularity channel, got 2/],
    [{ granularity: 'head', scale: Float32Array.of(1, 0) }, RangeError, /^"scale\[1\]" expected a finite scale greater than 0, got number 0/],
    [{ scalePrecision: 'f8' as 'f16' }, TypeError, /^"scalePrecision" expected one of f32, f16, f16-stored, got "f8"/],
    [{ recipe: 'ferrum-int8' }, TypeError, /^"recipe" expected amax, .* for e4m3fn, got ferrum-int8/],
    [{ dtype: { k: 'fp8', v: 'int8' }, recipe: 'max-over-amax' }, TypeError, /^"recipe" expected amax, .* for int8, got max-over-amax/],
    [{ modelDtype: 'f64' as 'f32' }, TypeError, /^"modelDtype" expected one of f32, f16, bf16, got "f64"/],
    [{ dtype: 'auto', granularity: 'head' }, TypeError, /^"k\.granularity" expected tensor for f32, which carries no scales, got head/],
    [{ skipLayers: [2] }, RangeError, /^"skipLayers\[0\]" expected an integer from 0 to 1, got number 2/],
    [{ skipLayers: [0, -1] }, RangeError, /^"skipLayers\[1\]" expected an integer from 0 to 1, got number -1/],
    [{ skipLayers: [1, 1] }, RangeError, /^"skipLayers\[1\]" expected each layer once, got 1 again/],
    [{ skipLayers: '0' as never }, TypeError, /^"skipLayers" expected an array of layer numbers, or a function, got "0"/],
    [{ skipLayers: () => 1 as never }, TypeError, /^"skipLayers" expected true or false for layer 0, got number 1/],
    [{ layers: [{}, { dtype: 'int8' }], skipLayers: [1] }, TypeError, /^layers\[1\]: "dtype" expected to be absent where "skipLayers" names the layer, got "int8"/],
    [{ layers: [{ granularity: 'head' }, {}], skipLayers: [0] }, TypeError, /^layers\[0\]: "k\.granularity" expected tensor for f32/],
    [{ preset: 'llama.cpp' as 'vllm' }, TypeError, /^"preset" expected one of vllm, .*, xpu, got "llama.cpp"/],
    [{ preset: 'ferrum', dtype: 'fp8' }, TypeError, /^"recipe" expected amax, .* for e4m3fn, got ferrum-int8/],
    [{ preset: 'mila', blockSize: 16 }, TypeError, /^"blockSize" expected to be absent with layout contiguous, where "capacity" says how long a sequence may be, got number 16/],
    [{ layout: 'ring' as 'paged' }, TypeError, /^"layout" expected paged or contiguous, got "ring"/],
    [{ sequences: 2 }, TypeError, /^"sequences" expected to be absent with layout paged, where "capacity" is that of all sequences, got number 2/],
    [{ layout: 'contiguous', sequences: 0 }, RangeError, /^"sequences" expected an integer from 1 to/],
    [{ layout: 'contiguous', capacity: 2 ** 20 + 1 }, RangeError, /^"capacity" expected an integer from 1 to 1048576/],
    [{ layout: 'contiguous', capacity: 2 ** 20, kvHeads: 16, queryHeads: 16, headDim: 128 }, RangeError, /^"capacity" expected pages of at most 2 GiB/],
    [{ alibiSlopes: new Float32Array(2) }, RangeError, /^"alibiSlopes" expected one number per query head \(4\), got 2/],
    [{ dtype: 'f16', granularity: 'token-head' }, TypeError, /^"k\.granularity" expected tensor for f16/],
    [{ recipe: 'nope' as 'amax' }, TypeError, /^"recipe" expected one of/],
    [{ recipe: { k: 'amax', v: { name: 'own', amaxFloor: -1, scaleFloor: 0, scaleIfZero: 1, quotient: 'divide' } } }, RangeError, /^"recipe\.amaxFloor"/],
    [{ scale: 0.5 }, TypeError, /^"scale" expected to be absent/],
    [{ granularity: 'tensor', scale: 0 }, RangeError, /^"scale" expected a finite scale greater than 0, got number 0/],
    [{ granularity: 'tensor', scale: { k: 1, v: NaN } }, RangeError, /^"scale" expected a finite scale greater than 0, got number NaN/],
    [{ dtype: 'f32', scale: 2 }, RangeError, /^"scale" expected 1 for f32/],
    [{ windowLeft: -2 }, RangeError, /^"windowLeft"/],
    [{ windowRight: 0.5 }, RangeError, /^"windowRight"/],
    [{ softcap: -1 }, RangeError, /^"softcap"/],
    [{ softmaxScale: NaN }, RangeError, /^"softmaxScale"/],
    [{ causal: 'yes' as unknown as boolean }, TypeError, /^"causal"/],
    [{ sinks: new Float32Array(2) }, RangeError, /^"sinks" expected one number per query head \(4\), got 2/],
  ];
  for (const [change, kind, message] of cases) refused(() => new KvCache(backend, { ...good, ...change }), kind, message);
  new KvCache(backend, good).dispose();
});

test('an option of a name that there is not is refused, with the one that may be meant', () => {
  const cases: [object, RegExp][] = [
    [{ granularty: 'group' }, /^"granularty" expected the name of an option, got an unknown one: is "granularity" meant\?$/],
    [{ block_size: 32 }, /^"block_size" .* is "blockSize" meant\?$/],
    [{ sliding_window: 8 }, /^"sliding_window" .* is "slidingWindow" meant\?$/],
    [{ quantization: 'int8' }, /^"quantization" .* unknown one: there are queryHeads, .*, chunk$/],
    [{ layers: [{}, { Dtype: 'int8' }] }, /^layers\[1\]: "Dtype" .* is "dtype" meant\?$/],
    [{ layers: [{}, { capacity: 8 }] }, /^layers\[1\]: "capacity" expected the name of an option/],
    [{ prefix: { model: 'm', sotre: {} } }, /^"prefix\.sotre" .* is "store" meant\?$/],
  ];
  for (const [change, message] of cases) refused(() => new KvCache(backend, { ...good, ...change }), TypeError, message);
  refused(() => wasmBackend({ thread: 2 } as object), TypeError, /^"thread" .* is "threads" meant\?$/);
  refused(() => new Calibration({ layers: 1, kvHeads: 1, headDim: 8, granularty: 'head' } as CalibrationOptions), TypeError, /^"granularty" .* is "granularity" meant\?$/);
  refused(() => requiredLimits({ ...good, blocksize: 8 } as KvCacheOptions), TypeError, /^"blocksize" .* is "blockSize" meant\?$/);
  new KvCache(backend, { ...good, block_size: undefined } as KvCacheOptions).dispose();
  // What readScales says of a layer may stand there.
  new KvCache(backend, { ...good, layers: [{ dtype: 'fp8', granularity: 'tensor', qScale: Float32Array.of(1) } as object] }).dispose();
});

test('what is no backend, and what are no options, is said so', async () => {
  const pending = Promise.resolve(backend);
  refused(() => new KvCache(pending as never, good), TypeError, /^"backend" expected a backend, as .* give, got Promise: await it$/);
  refused(() => new KvCache(good as never, good), TypeError, /^"backend" expected a backend, .*, got Object$/);
  refused(() => new HuggingFaceCache(undefined as never, good), TypeError, /^"backend" expected a backend, .*, got undefined$/);
  refused(() => wasmBackend(4 as never), TypeError, /^"options" expected an object, got number 4$/);
  const cache = cacheOf(4);
  await rejected(cache.restore(undefined as never), /^"backend" expected a backend/);
  await rejected(cache.warm({ maxTokens: 1 } as object), /^"maxTokens" expected the name of an option/);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  const { key, value } = tokens(1);
  refused(() => step.append(0, key, value, 'f16' as never), TypeError, /^"options" expected an object, got "f16"$/);
  refused(() => step.append(0, key, value, { Dtype: 'f32' } as object), TypeError, /^"Dtype" .* is "dtype" meant\?$/);
  step.append(0, key, value);
  refused(() => step.attendSync(0, undefined as never), TypeError, /^"q" expected a Float32Array, or a Uint16Array of f16 or bf16 bits, got undefined$/);
  refused(() => step.attendSync(0, new Float32Array(32), null as never), TypeError, /^"options" expected an object, got null$/);
  refused(() => step.attendSync(0, new Float32Array(32), { window_left: 2 } as object), TypeError, /^"window_left" .* is "windowLeft" meant\?$/);
  is(step.attendSync(0, new Float32Array(32)).out.length, 32);
  step.abort();
  cache.dispose();
  await rejected(alignBattery(backend, undefined as never), /^"other" expected a backend/);
  await rejected(attendCascade(backend, undefined as never), /^"call" expected an object, got undefined/);
});

test('level 1: what is no call, no layout and no list is said so, and nothing is written', () => {
  const layout = pageLayout({ kvHeads: 1, headDim: 8, blockSize: 2 });
  refused(() => pageLayout({ kvHeads: 1, headDim: 8, blockSize: 2, dtype: 'int8' } as never), TypeError, /^"dtype" expected to be stated for each side/);
  refused(() => pageLayout({ kvHeads: 1, headDim: 8, blockSize: 2, k: 'int8' as never }), TypeError, /^"k" expected an object, got "int8"/);
  refused(() => pageLayout({ kvHeads: 1, headDim: 8, blockSize: 2, v: { format: 'int8' } as never }), TypeError, /^"v\.dtype" expected a format, got undefined: "v\.format" is not looked at/);
  refused(() => pageLayout(undefined as never), TypeError, /^"shape" expected an object/);
  refused(() => backend.createPages({ kvHeads: 1, headDim: 8, blockSize: 2 } as never, 1), TypeError, /^"layout" expected what pageLayout\(\) gives, got Object without offsets/);
  refused(() => vllmLayout(layout, { blocks: 1, shpe: 'interleaved' } as never), TypeError, /^"shpe" .* is "shape" meant\?$/);
  const pages = backend.createPages(layout, 2);
  const before = pages.export();
  for (const call of ['append', 'attend', 'requantize'] as const) refused(() => backend[call](undefined as never), TypeError, /^"call" expected an object, got undefined/);
  refused(() => pages.copyPages(1 as never, 0 as never), TypeError, /^"from" expected an array of pages, got number 1/);
  refused(() => pages.copyPages([1], undefined as never), TypeError, /^"to" expected an array of pages, got undefined/);
  refused(() => pages.import(undefined as never), TypeError, /^"tensors" expected \{ keyCache, valueCache \}, got undefined/);
  refused(() => pages.import({ ...before, layout: { tokens: 1 } as never }), TypeError, /^"layout\.k" expected \{ codes \}, got undefined/);
  equal(pages.export(), before);
  pages.dispose();
});

test('snapshots are of caches only', async () => {
  for (const nothing of [undefined, {}]) {
    refused(() => saveSnapshot(nothing as KvCache), TypeError, /"cache" expected a KvCache, got/);
    await rejected(loadSnapshot(nothing as KvCache, new Uint8Array(8)), /"cache" expected a KvCache, got/);
  }
  const cache = cacheOf(4);
  refused(() => saveSnapshot(cache, { sequence: [] } as object), TypeError, /^"sequence" .* is "sequences" meant\?$/);
  await rejected(loadSnapshot(cache, new Uint8Array(8), { file: 'x' } as object), /^"file" expected the name of an option/);
  // A stream of text: what it holds is no part of the message.
  await rejected(loadSnapshot(cache, (async function* () { yield 'x'.repeat(1000); })() as never), /^"source" expected chunks of Uint8Array, got a string of 1000 characters$/);
});

test('a cache beyond 4 GiB is refused by name, and the layers already made are given back', () => {
  const own = wasmBackend();
  const probe = (): WasmPages => {
    const cache = new KvCache(own, good);
    const pages = cache.pages(0) as WasmPages;
    cache.dispose();
    return pages;
  };
  const { memory } = probe();
  const { byteLength } = memory.memory.buffer;
  const layers = [{}, {}, { queryHeads: 65536, kvHeads: 65536, headDim: 256 }];
  for (let i = 0; i < 50; i++) {
    const message = /^"pages" expected to fit into WebAssembly memory, got \d+ bytes: \d+ bytes are left of 4 GiB/;
    refused(() => new KvCache(own, { ...good, layers, capacity: 192 }), RangeError, message);
  }
  is(memory.memory.buffer.byteLength, byteLength);
});
