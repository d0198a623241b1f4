/** Calibrations: from keys and values to scales that a cache takes. */
import { equal, is, ok, throws } from 'uvu/assert';
import { Calibration, KvCache, quantize, recipes, wasmBackend } from '../../src/index.js';
import type { CalibrationOptions, FloatArray, LayerScales, ObserveOptions, QuantizeOptions } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { bestFactors } from '../reference/grid-search.js';
import { suite } from '../suite.js';

const test = suite('calibration');
const shape = { layers: 1, kvHeads: 2, headDim: 8 };

/** The scales of the only layer. */
const layerOf = (calibration: Calibration): LayerScales => calibration.scales().layers[0];

/** A calibration that has seen each of these as keys, and as values. */
function seen(options: Partial<CalibrationOptions>, ...calls: readonly FloatArray[]): Calibration {
  const calibration = new Calibration({ ...shape, ...options });
  for (const call of calls) calibration.observe(0, call, call);
  return calibration;
}

/** One token of `shape`, whose elements repeat these. */
const token = (...numbers: readonly number[]): Float32Array => Float32Array.from({ length: 16 }, (_, i) => numbers[i % numbers.length]);

test('the vectors of the moving average', () => {
  const calls = [token(0, 0), token(-3, 1), token(-1, 3)];
  const scaleOf = (options: Partial<CalibrationOptions>, list = calls): number => layerOf(seen({ dtype: 'int8', recipe: 'amax', ...options }, ...list)).scale.k[0];
  const scale = (amax: number): number => Math.fround(Math.fround(amax) / 127);
  is(scaleOf({ observer: 'memoryless-minmax' }), scale(3));
  is(scaleOf({ observer: 'memoryless-minmax' }, calls.slice(0, 2)), scale(3));
  is(scaleOf({ observer: 'static-minmax' }), scale(3));
  is(scaleOf({ observer: 'minmax', averagingConstant: 0.1 }), scale(0.39));
  is(scaleOf({}, [token(1), token(127)]), scale(2.26));
  is(scaleOf({}, [token(1), token(-128)]), scale(0.29));
});

test('keys that are all one, in int8 as llm-compressor has it', () => {
  const { dtype, granularity, scale } = layerOf(seen({ dtype: 'int8' }, token(1)));
  equal([dtype, granularity], ['int8', 'tensor']);
  assertSameBits(scale.k, Float32Array.of(1 / 127.5));
  assertSameBits(scale.v, Float32Array.of(1 / 127.5));
  assertSameBits(layerOf(seen({ dtype: 'int8', recipe: 'amax' }, token(1))).scale.k, Float32Array.of(1 / 127));
});

test('nothing but zeros: the scale is what the recipe has for it', () => {
  is(layerOf(seen({}, token(0))).scale.k[0], 2 ** -23);
  is(layerOf(seen({ recipe: 'amax' }, token(0))).scale.k[0], 1);
});

for (const recipe of Object.values(recipes)) {
  test(`the bits that quantization on write would give: ${recipe.name}`, () => {
    const x = random(3).normals(16 * 20);
    for (const dtype of ['e4m3fn', 'e5m2', 'int8'] as const) {
      if (dtype === 'int8' ? recipe.int8 === undefined : recipe.int8Only) continue;
      const expected = quantize(x, { format: dtype, rowLength: x.length, recipe } as QuantizeOptions).scales;
      const options = { dtype, recipe, observer: 'static-minmax' } as const;
      assertSameBits(layerOf(seen(options, x.subarray(0, 160), x.subarray(160))).scale.k, expected, dtype);
    }
  });
}

test('mse: of each call the ranges that the plain search finds, and their average', () => {
  for (const [seed, settings] of [{}, {}, {}, { maxshrink: 0.5 }, { patience: 1 }, { grid: 37 }, { norm: 1 }].entries()) {
    // Positive: the larger end of the average is the average of the larger ends.
    const calls = [0, 1].map((call) => random(10 * seed + call).normals(16 * 20).map(Math.abs));
    const [first, second] = calls.map((call) => {
      const channels = Array.from({ length: 16 }, (_, c) => [...call].filter((_, i) => i % 16 === c));
      return bestFactors(channels, 'e4m3fn', settings).map((factor, c) => Math.fround(Math.max(...channels[c]) * Math.fround(factor)));
    });
    const scalesWith = (options: Partial<CalibrationOptions>): Float32Array => layerOf(seen({ observer: 'mse', granularity: 'channel', ...settings, ...options }, ...calls)).scale.k;
    const average = first.map((amax, c) => Math.fround(amax + 0.01 * (second[c] - amax)));
    assertSameBits(scalesWith({}), Float32Array.from(average, (amax) => amax / 448), `seed ${seed}`);
    assertSameBits(scalesWith({ averagingConstant: 1 }), Float32Array.from(second, (amax) => amax / 448), `seed ${seed}`);
  }
});

test('mse shrinks a range by less than a fifth, and is patient for five steps of a hundredth', () => {
  // So many that a single 1 beside them counts for little. In steps of the whole range they are rounded to 1, in somewhat smaller ones to 2.
  const scaleOf = (steps: number): number => layerOf(seen({ dtype: 'int8', observer: 'mse' }, new Float32Array(16 * 20000).fill(steps / 127.5).fill(1, 0, 1))).scale.k[0];
  // With 95 % of the range their error is first smaller, 0.445 in place of 0.455, and from there on falls.
  is(scaleOf(1.455), Math.fround(Math.fround(0.81) / 127.5));
  // With 94 %.
  is(scaleOf(1.445), Math.fround(1 / 127.5));
});

test('keys and values apart, by head and by channel', () => {
  const key = Float32Array.from({ length: 16 * 3 }, (_, i) => (i % 16) + 1);
  const value = key.map((each) => -2 * each);
  for (const [granularity, amax] of [['tensor', [16]], ['head', [8, 16]], ['channel', [...key.subarray(0, 16)]]] as const) {
    const calibration = new Calibration({ ...shape, granularity });
    calibration.observe(0, key, value);
    const { scale } = layerOf(calibration);
    assertSameBits(scale.k, Float32Array.from(amax, (each) => each / 448), granularity);
    assertSameBits(scale.v, Float32Array.from(amax, (each) => (2 * each) / 448), granularity);
  }
});

test('f16 and bf16 count as what they stand for', () => {
  for (const [dtype, bits] of [['f16', 0x4200], ['bf16', 0x4040]] as const) {
    const calibration = new Calibration(shape);
    const threes = new Uint16Array(16).fill(bits);
    calibration.observe(0, threes, threes, { dtype });
    is(layerOf(calibration).scale.k[0], Math.fround(3 / 448));
  }
});

test('queries: the largest of those that share a KV head', () => {
  // Of the first three heads the second is the largest, of the others the last.
  const q = Float32Array.from({ length: 6 * 8 }, (_, i) => [1, 9, 2, 3, 4, 5][Math.floor(i / 8)] * ((i % 8) + 1));
  const expected = { tensor: [72], head: [72, 40], channel: [...q.subarray(8, 16), ...q.subarray(40, 48)] };
  for (const granularity of ['tensor', 'head', 'channel'] as const) {
    const calibration = new Calibration({ ...shape, queryHeads: 6, queries: true, granularity });
    calibration.observe(0, token(1), token(1));
    throws(() => calibration.scales(), /expected queries to have been observed in every layer, missing 0/);
    calibration.observeQuery(0, q);
    calibration.observeQuery(0, new Float32Array(0));
    const { qScale, scale } = layerOf(calibration);
    assertSameBits(qScale!, Float32Array.from(expected[granularity], (amax) => amax / 448), granularity);
    is(qScale!.length, scale.k.length);
  }
  is(layerOf(seen({ queryHeads: 6 }, token(1))).qScale, undefined);
});

test('layers of different shapes become layers of a cache', () => {
  const layers = [{ kvHeads: 1 }, { headDim: 16, slidingWindow: 8 }, { kvHeads: 3 }];
  const calibration = new Calibration({ layers, kvHeads: 2, headDim: 8, granularity: 'channel', observer: 'mse' });
  const lengths = [8, 32, 24];
  for (const [layer, length] of lengths.entries()) {
    const x = random(layer).normals(length * 5);
    calibration.observe(layer, x, x);
    is(calibration.tokens(layer), 5);
  }
  const scales = calibration.scales();
  equal(scales.layers.map(({ scale }) => scale.v.length), lengths);
  const cache = new KvCache(wasmBackend(), { layers: scales.layers.map((each, i) => ({ kvHeads: 2, headDim: 8, ...layers[i], ...each, slidingWindow: undefined })), capacity: 16 });
  equal([cache.pages(1).layout.k.format, cache.pages(1).layout.k.granularity], ['e4m3fn', 'channel']);
  cache.dispose();
});

test('more may come after scales were taken, and each call has its own', () => {
  const calibration = seen({ observer: 'static-minmax' }, token(1));
  const first = calibration.scales();
  calibration.observe(0, token(2), token(4));
  calibration.observe(0, new Float32Array(0), new Float32Array(0));
  is(first.layers[0].scale.k[0], Math.fround(1 / 448));
  is(layerOf(calibration).scale.v[0], Math.fround(4 / 448));
  is(calibration.tokens(0), 2);
});

test('NaN is left out; what has no scale is refused, by layer and side', () => {
  is(layerOf(seen({}, token(1, NaN))).scale.k[0], Math.fround(1 / 448));
  throws(() => seen({ granularity: 'channel' }, token(1, NaN)).scales(), /in every group of the keys of layer 0, got nothing but NaN in group 1/);
  for (const observer of ['memoryless-minmax', 'static-minmax', 'minmax', 'mse'] as const) {
    const calibration = new Calibration({ ...shape, layers: 2, observer });
    calibration.observe(0, token(1), token(1));
    throws(() => calibration.scales(), (error: unknown) => error instanceof Error && /expected tokens to have been observed in every layer, missing 1/.test(error.message));
    calibration.observe(1, token(1), token(1, -Infinity));
    calibration.observe(1, token(1), token(1));
    throws(() => calibration.scales(), (error: unknown) => error instanceof RangeError && /expected finite values of layer 1, got an infinity/.test(error.message), observer);
  }
  const recipe = { ...recipes['compressed-tensors'], name: 'own', scaleIfZero: 0 };
  throws(() => seen({ recipe }, token(2 ** -149)).scales(), /keys of layer 0 that have a scale, got 0 for group 0, whose largest magnitude is 1.4/);
  throws(() => seen({ recipe: { ...recipe, scalePrecision: 'f16' } }, token(1e38)).scales(), /got Infinity for group 0/);
});

test('observe refuses what does not fit, and takes nothing in', () => {
  const calibration = new Calibration({ ...shape, queries: true });
  const [x, halves] = [new Float32Array(16).fill(9), new Uint16Array(16)];
  const refusals: [number, unknown, unknown, ObserveOptions | undefined, RegExp][] = [
    [1, x, x, undefined, /"layer" expected an integer from 0 to 0, got number 1/],
    [0, [...x], x, undefined, /"key" expected a Float32Array/],
    [0, x, halves, undefined, /"value" is a Uint16Array: its dtype/],
    [0, halves, x, { dtype: 'f16' }, /"value" expected a Uint16Array of f16 bits/],
    [0, x, x, { dtype: 'bf16' }, /"key" expected a Uint16Array of bf16 bits/],
    [0, x.subarray(1), x, undefined, /"key" expected \[tokens, 2 heads, 8\], a multiple of 16 elements, got 15/],
    [0, x, new Float32Array(32), undefined, /"value" expected 1 tokens × 2 heads × 8 = 16 elements, as "key", got 32/],
  ];
  for (const [layer, key, value, options, message] of refusals) throws(() => calibration.observe(layer, key as FloatArray, value as FloatArray, options), message);
  throws(() => calibration.observeQuery(0, x.subarray(1)), /"q" expected \[tokens, 2 heads, 8\]/);
  throws(() => calibration.observeQuery(0, halves), /"q" is a Uint16Array/);
  throws(() => new Calibration(shape).observeQuery(0, x), /"observeQuery" expected a calibration that was made with queries: true/);
  throws(() => calibration.tokens(-1), /"layer" expected/);
  is(calibration.tokens(0), 0);
  calibration.observe(0, token(1), token(1));
  calibration.observeQuery(0, token(1));
  is(layerOf(calibration).scale.k[0], Math.fround(1 / 448));
});

test('options that do not fit are refused by name', () => {
  const refusals: [unknown, RegExp][] = [
    [undefined, /"options" expected an object/],
    [{ ...shape, layers: 0 }, /"layers" expected an integer from 1/],
    [{ ...shape, layers: [] }, /"layers" expected at least one layer, got none/],
    [{ ...shape, layers: [null] }, /"layers\[0\]" expected an object, got null/],
    [{ ...shape, layers: [{}, { headDim: 12 }] }, /layers\[1\]: "headDim" expected a multiple of 8/],
    [{ layers: 1, headDim: 8 }, /"kvHeads" expected a value, got undefined/],
    [{ layers: 1, kvHeads: 2 }, /"headDim" expected a value, got undefined/],
    [{ ...shape, kvHeads: 0 }, /"kvHeads" expected an integer/],
    [{ ...shape, queryHeads: 3 }, /"queryHeads" expected a multiple of kvHeads \(2\), got 3/],
    [{ ...shape, queryHeads: 0 }, /"queryHeads" expected an integer of at least 1/],
    [{ ...shape, queries: 1 }, /"queries" expected true or false/],
    [{ ...shape, dtype: 'f16' }, /"dtype" expected one of e4m3fn, e5m2, int8, .*, got "f16"/],
    [{ ...shape, dtype: 'fp4' }, /"dtype" expected one of/],
    [{ ...shape, granularity: 'token-head' }, /"granularity" expected tensor, head or channel, got "token-head"/],
    [{ ...shape, granularity: ['head'] }, /"granularity" expected tensor, head or channel/],
    [{ ...shape, granularity: 'attn_head' }, /"granularity" expected tensor, head or channel/],
    [{ ...shape, observer: 'max' }, /"observer" expected one of memoryless-minmax, static-minmax, minmax, mse, got "max"/],
    [{ ...shape, observer: ['mse'] }, /"observer" expected one of .*, got/],
    [{ ...shape, observer: 'toString' }, /"observer" expected one of/],
    [{ ...shape, recipe: 'fp' }, /"recipe" expected one of/],
    [{ ...shape, recipe: 'ferrum-int8' }, /"recipe" expected .* for e4m3fn, got ferrum-int8/],
    [{ ...shape, dtype: 'int8', recipe: 'mila-activation' }, /"recipe" expected .* for int8, got mila-activation/],
    [{ ...shape, averagingConstant: 0 }, /"averagingConstant" expected a number greater than 0, at most 1, got number 0/],
    [{ ...shape, averagingConstant: NaN }, /"averagingConstant"/],
    [{ ...shape, averagingConstant: '1' }, /"averagingConstant"/],
    [{ ...shape, observer: 'static-minmax', averagingConstant: 0.1 }, /"averagingConstant" expected to be absent with observer static-minmax/],
    [{ ...shape, patience: 5 }, /"patience" expected to be absent with observer minmax/],
    [{ ...shape, observer: 'mse', maxshrink: 1.5 }, /"maxshrink" expected a number from 0 to 1/],
    [{ ...shape, observer: 'mse', patience: 0 }, /"patience" expected an integer of at least 1/],
    [{ ...shape, observer: 'mse', grid: 0.5 }, /"grid" expected an integer/],
    [{ ...shape, observer: 'mse', norm: 0 }, /"norm" expected a number greater than 0, at most 8/],
  ];
  for (const [options, message] of refusals) throws(() => new Calibration(options as CalibrationOptions), message, String(message));
});

test('vLLM’s names of formats are understood', () => {
  is(layerOf(seen({ dtype: 'fp8' }, token(1))).dtype, 'e4m3fn');
  is(layerOf(seen({ dtype: 'fp8_e5m2' }, token(1))).scale.k[0], Math.fround(1 / 57344));
  ok(new Calibration({ ...shape, observer: 'mse', averagingConstant: 1, maxshrink: 0, patience: 1, grid: 10, norm: 2 }));
});
