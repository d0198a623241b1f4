import { equal, is, not, ok } from 'uvu/assert';
import { KvCache, wasmBackend, type AttendResult, type Backend, type StepEntry } from '../../src/index.js';
import { ATTENTION_BOUND, attentionError } from '../../src/files/compare.js';
import { random } from '../random.js';
import { referenceAttention } from '../reference/attention.js';
import { suite } from '../suite.js';
import { appendToAll, assertHolds, assertSameResult, attendDirectly, cacheOf, concatenate, f32, fp8, randomTokens } from './tokens.js';
import type { LayerShape, Tokens } from './tokens.js';

const test = suite('cache');
const backend = wasmBackend();

/** Some rows of a result. */
function rowsOf({ out, lse }: AttendResult, { queryHeads, headDim }: LayerShape, from: number, rows: number): AttendResult {
  const [start, end] = [from * queryHeads, (from + rows) * queryHeads];
  return { out: out.subarray(start * headDim, end * headDim), lse: lse.subarray(start, end) };
}

function assertNearReference(actual: AttendResult, shape: LayerShape, { key, value }: Tokens, q: Float32Array, what: string): void {
  const { queryHeads, kvHeads, headDim } = shape;
  const at = (x: Float32Array) => (j: number, head: number, d: number): number => x[(j * kvHeads + head) * headDim + d];
  const kvLen = key.length / (kvHeads * headDim);
  const { out, lse } = referenceAttention({ q, queryHeads, kvHeads, headDim, kvLen, key: at(key), value: at(value) });
  const error = attentionError(actual, { out: Float32Array.from(out), lse: Float32Array.from(lse) }, headDim);
  ok(error.out <= ATTENTION_BOUND && error.lse <= ATTENTION_BOUND, `${what}: out ${error.out}, lse ${error.lse}`);
}

test('steps of several sequences, with 0, 1 and many tokens, attend as float64 and as level 1 do', () => {
  const cache = cacheOf(backend, f32, 40);
  const numbers = random(2);
  const sequences = Array.from({ length: 5 }, () => cache.createSequence());
  const history: Tokens[] = sequences.map(() => randomTokens(numbers, f32, 0));
  for (const counts of [[3, 0, 1, 9, 0], [1, 0, 6, 0, 1], [4, 4, 4, 4, 4], [0, 1, 1, 30, 1]]) {
    const entries = sequences.map((sequence, s): StepEntry => ({ sequence, tokens: counts[s] }));
    const lengths = sequences.map(({ length }) => length);
    const added = counts.map((count) => randomTokens(numbers, f32, count));
    added.forEach((tokens, s) => (history[s] = concatenate([history[s], tokens])));
    const step = cache.begin(entries);
    is(step.tokens, counts.reduce((a, b) => a + b));
    const q = numbers.normals(step.tokens * 32);
    for (const layer of [0, 1]) {
      const { key, value } = concatenate(added);
      equal(step.append(layer, key, value), { written: step.tokens, skipped: 0 });
      const result = step.attendSync(layer, q);
      let row = 0;
      counts.forEach((count, s) => {
        const own = q.subarray(row * 32, (row + count) * 32);
        const part = rowsOf(result, f32, row, count);
        assertSameResult(part, attendDirectly(backend, f32, history[s], own), `layer ${layer}, sequence ${s}`);
        assertNearReference(part, f32, history[s], own, `layer ${layer}, sequence ${s}`);
        row += count;
      });
    }
    equal(sequences.map(({ length }) => length), lengths, 'before the commit');
    step.commit();
    equal(sequences.map(({ length }) => length), lengths.map((length, s) => length + counts[s]));
  }
  sequences.forEach((sequence, s) => assertHolds(backend, cache, sequence, history[s], f32, `sequence ${s}`));
  cache.dispose();
});

test('each layer has its own heads, dimensions, formats, scales, window and sinks', () => {
  const layers: LayerShape[] = [
    { queryHeads: 4, kvHeads: 2, headDim: 8, dtype: 'f32', windowLeft: 2 },
    { queryHeads: 3, kvHeads: 3, headDim: 24, dtype: { k: 'e5m2', v: 'f16' }, softcap: 3 },
    { queryHeads: 6, kvHeads: 1, headDim: 16, granularity: { k: 'tensor', v: 'token-head' }, scale: { k: 0.03, v: undefined } },
    { queryHeads: 4, kvHeads: 1, headDim: 8, sinks: Float32Array.of(0, 1, -1, 9) },
    { queryHeads: 2, kvHeads: 1, headDim: 40, dtype: 'fp8_e5m2', granularity: 'tensor', scale: 0.5, causal: false, windowRight: 1 },
    { queryHeads: 2, kvHeads: 2, headDim: 8, recipe: { k: 'vllm-token-head', v: 'max-over-amax' }, softmaxScale: 0.9 },
  ];
  const cache = new KvCache(backend, { layers, blockSize: 3, capacity: 30 });
  is(cache.layers, 6);
  const numbers = random(3);
  const sequence = cache.createSequence();
  const other = cache.createSequence();
  const history = layers.map((shape) => randomTokens(numbers, shape, 0));
  for (const tokens of [7, 1, 2]) {
    const step = cache.begin([{ sequence: other, tokens: 1 }, { sequence, tokens }]);
    layers.forEach((shape, layer) => {
      const added = randomTokens(numbers, shape, tokens);
      const { key, value } = concatenate([randomTokens(numbers, shape, 1), added]);
      const q = numbers.normals((tokens + 1) * shape.queryHeads * shape.headDim);
      history[layer] = concatenate([history[layer], added]);
      step.append(layer, key, value);
      const expected = attendDirectly(backend, shape, history[layer], q.subarray(shape.queryHeads * shape.headDim));
      assertSameResult(rowsOf(step.attendSync(layer, q), shape, 1, tokens), expected, `layer ${layer}`);
    });
    step.commit();
  }
  cache.dispose();
});

test('what a layer or a call leaves open, or states as undefined, is as the cache or the layer says', () => {
  const cache = new KvCache(backend, { layers: [{}, { windowLeft: undefined }, { windowLeft: 5 }], ...f32, windowLeft: 0, capacity: 16 });
  const tokens = randomTokens(random(4), f32, 4);
  const q = random(5).normals(4 * 32);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 4 }]);
  appendToAll(cache, step, tokens);
  const narrow = attendDirectly(backend, { ...f32, windowLeft: 0 }, tokens, q);
  const wide = attendDirectly(backend, f32, tokens, q);
  not.equal(narrow.out, wide.out);
  for (const layer of [0, 1]) assertSameResult(step.attendSync(layer, q), narrow, `layer ${layer}`);
  assertSameResult(step.attendSync(2, q), wide, 'layer 2');
  assertSameResult(step.attendSync(0, q, { windowLeft: undefined }), narrow, 'undefined');
  assertSameResult(step.attendSync(0, q, { windowLeft: -1 }), wide, 'overridden');
  cache.dispose();
});

test('f16 keys, values and queries go in as bits', () => {
  const cache = cacheOf(backend, f32, 2);
  const halves = Uint16Array.from({ length: 3 * 16 }, (_, i) => 0x3800 + 97 * i);
  const widened = Float32Array.from(halves, (half) => 2 ** ((half >> 10) - 15) * (1 + (half & 0x3ff) / 1024));
  const q = Uint16Array.from({ length: 3 * 32 }, (_, i) => halves[i % 48]);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 3 }]);
  step.append(0, halves, halves, { dtype: 'f16' });
  const expected = attendDirectly(backend, f32, { key: widened, value: widened }, Float32Array.from(q, (_, i) => widened[i % 48]));
  assertSameResult(step.attendSync(0, q, { dtype: 'f16' }), expected, 'f16');
  cache.dispose();
});

test('attend and attendSync give the same bits, and into the given arrays', async () => {
  const cache = cacheOf(backend, fp8, 3);
  const numbers = random(6);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 9 }]);
  appendToAll(cache, step, randomTokens(numbers, fp8, 9));
  const q = numbers.normals(9 * 32);
  const expected = step.attendSync(1, q);
  assertSameResult(await step.attend(1, q), expected, 'attend');
  const out = new Float32Array(9 * 32);
  const lse = new Float32Array(9 * 4);
  for (const result of [step.attendSync(1, q, { out, lse }), await step.attend(1, q, { out: out.fill(0), lse: lse.fill(0) })]) {
    is(result.out, out);
    is(result.lse, lse);
  }
  assertSameResult({ out, lse }, expected, 'given');
  cache.dispose();
});

test('a backend that answers later serves a cache as well', async () => {
  const later: Backend = {
    kind: 'webgpu',
    synchronous: false,
    createPages: (layout, count) => backend.createPages(layout, count),
    append: async (call) => backend.append(call),
    requantize: async (call) => backend.requantize(call),
    attend: async (call) => backend.attend(call),
    dispose: () => {},
    [Symbol.dispose]: () => {},
  };
  const cache = new KvCache(later, { ...f32, layers: 1, capacity: 16 });
  const tokens = randomTokens(random(7), f32, 5);
  const q = random(8).normals(5 * 32);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 5 }]);
  equal(await step.append(0, tokens.key, tokens.value), { written: 5, skipped: 0 });
  assertSameResult(await step.attend(0, q), attendDirectly(backend, f32, tokens, q), 'later');
  cache.dispose();
});

test('the memory report adds up', () => {
  const layers = [{ kvHeads: 2, headDim: 8 }, { kvHeads: 1, headDim: 24, dtype: 'f16' as const }];
  const cache = new KvCache(backend, { layers, blockSize: 4, capacity: 10 });
  is(cache.capacity, 12, 'whole pages');
  // FP8: rows padded to 16 bytes, 2 · 2 · 4 of them, and each head's 4 scales; f16: 2 · 4 rows of 48 bytes.
  const page = 2 * 2 * 4 * 16 + 2 * 2 * 16 + 2 * 4 * 48;
  const values = 2 * 2 * 8 + 2 * 24;
  const expected = { bytes: 3 * page, bytesPerToken: page / 4, f32Bytes: 12 * values * 4, f16Bytes: 12 * values * 2 };
  equal(cache.memory, { ...expected, bytesInUse: 0 });
  is(cache.pages(0).byteLength + cache.pages(1).byteLength, cache.memory.bytes);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 5 }]);
  equal(cache.memory, { ...expected, bytesInUse: 2 * page });
  step.abort();
  is(cache.memory.bytesInUse, 0);
  cache.dispose();
});

test('one granularity and scale for all layers passes those by that carry no scales', () => {
  const shape = { queryHeads: 2, kvHeads: 1, headDim: 8, capacity: 4 };
  const computed = new KvCache(backend, { ...shape, granularity: 'token-head', layers: [{}, { dtype: 'f16' }, { dtype: { k: 'fp8', v: 'f32' } }] });
  is(computed.pages(0).layout.k.granularity, 'token-head');
  is(computed.pages(1).layout.k.granularity, 'tensor');
  is(computed.pages(2).layout.k.granularity, 'token-head');
  is(computed.pages(2).layout.v.granularity, 'tensor');
  const given = new KvCache(backend, { ...shape, granularity: 'tensor', scale: 0.5, layers: [{}, { dtype: 'f16' }] });
  is(given.pages(1).layout.v.format, 'f16');
  computed.dispose();
  given.dispose();
});

test('a disposed cache gives back its memory and leaves the backend in use', () => {
  const addressOf = (cache: KvCache): number => (cache.pages(0) as unknown as { address: number }).address;
  const one = cacheOf(backend, f32, 2);
  const address = addressOf(one);
  one.dispose();
  one.dispose();
  const two = cacheOf(backend, f32, 2);
  is(addressOf(two), address);
  two[Symbol.dispose]();
});
