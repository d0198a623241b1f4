import { equal, is, match, ok } from 'uvu/assert';
import { countWindows, evaluate, shareOut, storagesOf, type EvaluateOptions } from '../../src/evaluate/evaluate.js';
import { HeadErrors } from '../../src/evaluate/head-errors.js';
import { cutWindows } from '../../src/evaluate/measure.js';
import { isCalibrated, listVariants, storageOf, type Choices } from '../../src/evaluate/variants.js';
import { quantizedFormats } from '../../src/formats.js';
import { quantize, decode, wasmBackend } from '../../src/index.js';
import { CachedModel } from '../../src/model/cached-model.js';
import { heldOut } from '../model/orator.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('evaluate');

const TOKENS = 700;
const window = 256;
const { runner, bos, ids } = await heldOut(5 * TOKENS);
const backend = wasmBackend();
const names = { model: 'orator', backend: 'wasm' };
const choices: Choices = { formats: ['e4m3fn', 'int8'], scales: ['one', 'head', 'token-head', 'group'], observers: ['minmax', 'mse'], groupSize: 16 };
const short = { name: 'text', ids: ids.slice(0, TOKENS) };

const optionsOf = (variants: EvaluateOptions['variants'], more: Partial<EvaluateOptions> = {}): EvaluateOptions => ({ backend, runner, bos, window, variants, names, ...shareOut(short), ...more });

test('formats × scales are listed with the reference first, each calibrated granularity once for each observer', () => {
  equal(listVariants({ ...choices, formats: ['e5m2'] }).map(({ name }) => name), ['f32', 'e5m2, scale 1', 'e5m2, head, minmax', 'e5m2, head, mse', 'e5m2, token-head', 'e5m2, group 16']);
});

test('a text is calibrated with in its first fifth, and evaluated in the rest', () => {
  const { calibration, text } = shareOut({ name: 'text', ids: [1, 2, 3, 4, 5, 6] });
  equal([calibration.ids, text.ids], [[1, 2], [3, 4, 5, 6]]);
  try {
    shareOut({ name: 'text', ids: [1] });
    ok(false);
  } catch (error) {
    match((error as Error).message, /text expected tokens to calibrate with and others to evaluate, got 1/);
  }
});

test('the reference differs from itself in nothing, finer scales and more bits from it in less', async () => {
  let windows = 0;
  const options = optionsOf(listVariants(choices), { onWindow: () => void windows++ });
  const { variants, text, calibration } = await evaluate(options);
  is(windows, countWindows(options));
  equal([text.tokens, calibration!.tokens], [560, 140]);
  const [f32] = variants;
  equal([f32.kl, f32.agreement, f32.headErrors], [{ mean: 0, p99: 0, max: 0 }, 1, undefined]);
  // 4 layers, 2 heads of 64, keys and values; a scale of each head, or of 16 dims.
  equal(variants.map(({ bytesPerToken }) => bytesPerToken), [4096, 1024, 1024, 1024, 1088, 1280, 1024, 1024, 1024, 1088, 1280]);
  const of = (name: string) => variants.find((variant) => variant.name === name)!;
  ok(of('int8, token-head').kl.mean < of('int8, head, minmax').kl.mean);
  ok(of('int8, head, minmax').kl.mean < of('e4m3fn, head, minmax').kl.mean);
  ok(of('e4m3fn, head, minmax').kl.mean < of('int8, scale 1').kl.mean);
  for (const { kl, agreement, perplexity, headErrors } of variants.slice(1)) {
    ok(kl.mean > 0 && kl.mean < kl.p99 && kl.p99 <= kl.max && agreement > 0.5 && agreement < 1 && perplexity > 10);
    equal([headErrors!.k.length, headErrors!.v.length, headErrors!.k[3].length, headErrors!.v[3].length], [4, 4, 2, 2]);
  }
  // Three bits of mantissa: what is between 1 and 2 is off by 1/16 at most, and by 2.6 % on average of squares.
  const relative = (name: string): number => of(name).headErrors!.k[0][0];
  ok(relative('e4m3fn, token-head') > 0.02 && relative('e4m3fn, token-head') < 0.03, `got ${relative('e4m3fn, token-head')}`);
});

test('the same evaluation gives the same figures', async () => {
  const options = optionsOf(listVariants({ ...choices, formats: ['e4m3fn'], scales: ['one', 'token-head'] }), { calibration: undefined });
  equal(await evaluate(options), await evaluate(options));
});

test('what onWindow or onBatch throws ends it', async () => {
  for (const name of ['onWindow', 'onBatch'] as const) {
    const options = optionsOf(listVariants(choices), { [name]: () => Promise.reject(new Error(name)) });
    is(await evaluate(options).catch((error: Error) => error.message), name);
  }
  let batches = 0;
  await storagesOf({ ...optionsOf(listVariants(choices)), window: 50, batch: 64, onBatch: () => void batches++ });
  // Of 140 tokens two windows are a batch, and the third is the rest: for 4 layers and 4 calibrations.
  is(batches, 2 * 4 * 4);
});

test('calibrated variants need a text', async () => {
  const message = await evaluate(optionsOf(listVariants(choices), { calibration: undefined })).catch((error: Error) => error.message);
  is(message, 'calibrated scales expected a text to calibrate with');
});

test('errors of heads are those of quantizing each by itself', () => {
  const [layers, kvHeads, headDim, tokens] = [2, 2, 16, 5];
  const numbers = random(8);
  const shape = { layers, kvHeads, headDim };
  const errors = new HeadErrors(backend, shape, storageOf({ name: '', dtype: 'e4m3fn', granularity: 'token-head', scales: 'computed' }));
  const exact = new HeadErrors(backend, shape, { dtype: 'f32' });
  const [key, value] = [numbers.normals(tokens * kvHeads * headDim, 3), numbers.normals(tokens * kvHeads * headDim)];
  errors.add(1, key, value);
  exact.add(1, key, value);
  equal(exact.result, { k: [[0, 0], [0, 0]], v: [[0, 0], [0, 0]] });
  for (const [side, x] of [['k', key], ['v', value]] as const) {
    const { codes, scales } = quantize(x, { rowLength: headDim });
    const stored = decode(codes, 'e4m3fn').map((code, i) => code * scales[Math.floor(i / headDim)]);
    for (let head = 0; head < kvHeads; head++) {
      let [error, sum] = [0, 0];
      for (let token = 0; token < tokens; token++) {
        for (let d = 0; d < headDim; d++) {
          const i = (token * kvHeads + head) * headDim + d;
          error += (stored[i] - x[i]) ** 2;
          sum += x[i] ** 2;
        }
      }
      const got = errors.result[side][1][head];
      ok(Math.abs(got - Math.sqrt(error / sum)) < 1e-12, `${side} ${head}: expected ${Math.sqrt(error / sum)}, got ${got}`);
    }
  }
  equal(errors.result.k[0], [0, 0]);
});

test('mse is no worse than minmax in mean squared error on the text that both were calibrated with', async () => {
  const variants = listVariants({ formats: quantizedFormats, scales: ['tensor', 'head', 'channel'], observers: ['minmax', 'mse'], groupSize: 16 }).filter(isCalibrated);
  const calibration = { name: 'text', ids };
  const storages = await storagesOf({ backend, runner, bos, window, variants, calibration });
  const errors = storages.map((storage) => new HeadErrors(backend, runner.config, storage));
  const model = new CachedModel(backend, runner, { dtype: 'f32' });
  for (const { inputs } of cutWindows(ids, { bos, window })) {
    model.restart();
    await model.feed(inputs, (layer, key, value) => errors.forEach((each) => each.add(layer, key, value)));
  }
  model.dispose();
  /** Over all layers and heads, each relative to what it is of. */
  const meanSquare = (of: readonly (readonly number[])[]): number => of.flat().reduce((sum, each) => sum + each * each, 0) / of.flat().length;
  for (let i = 0; i < variants.length; i += 2) {
    const [minmax, mse] = [errors[i].result, errors[i + 1].result];
    equal([variants[i].observer, variants[i + 1].observer], ['minmax', 'mse']);
    for (const side of ['k', 'v'] as const) {
      const [theirs, ours] = [meanSquare(minmax[side]), meanSquare(mse[side])];
      ok(ours <= theirs, `${variants[i + 1].name}, ${side}: ${ours} is more than ${theirs}`);
    }
  }
});
