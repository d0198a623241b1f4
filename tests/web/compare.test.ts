/** The page's comparison, in Node: against the demo's way to go on with a text, and the evaluation's figures. */
import { equal, is, ok, throws } from 'uvu/assert';
import { codesOf, decodeOne, encodeOne, roundTo, stepFrom } from '../../demo/web/codes.js';
import { Pieces } from '../../demo/web/pieces.js';
import { partsOf } from '../../demo/web/load.js';
import { generate } from '../../demo/generate.js';
import { HeadErrors } from '../../src/evaluate/head-errors.js';
import { measure } from '../../src/evaluate/measure.js';
import { quantizedFormats } from '../../src/formats.js';
import { wasmBackend } from '../../src/index.js';
import { CachedModel } from '../../src/model/cached-model.js';
import { suite } from '../suite.js';
import { compareInNode, runner, storagesOf, text, tokenizer } from './orator.js';

const test = suite('web page, in Node');

const PROMPT = 'The whale, in the judgment of the Congress, is';

for (const [names, tokens] of [[['f32', 'e5m2, scale 1'], 40], [['int8, head, calibrated', 'e4m3fn, group 32'], 12], [['f32', 'e4m3fn, scale 1'], 110]] as const) {
  test(`${names.join(' and ')}: texts, KL and errors are those that each cache has by itself`, async () => {
    using backend = wasmBackend();
    const compared = await compareInNode(names, PROMPT, tokens);
    const models = (await storagesOf(names)).map((storage) => new CachedModel(backend, runner, storage));
    const prompt = tokenizer.encode(PROMPT);
    const generations = [];
    for (const model of models) generations.push((await generate(model, prompt, tokens, tokenizer.eos)).tokens);
    equal(compared.texts, generations.map((ids) => tokenizer.decode([...prompt, ...ids]).slice(PROMPT.length)));
    const [first, second] = generations;
    const at = Array.from({ length: tokens }, (_, n) => n).findIndex((n) => first[n] !== second[n]);
    is(compared.partedAt, at < 0 ? undefined : at + 1);

    // All but the last token are in the caches, unless the text has ended.
    const ended = first.length < tokens;
    const ids = [...prompt, ...first].slice(1);
    const stored = ids.length + (ended ? 1 : 0);
    is(compared.kl.length, stored);
    const [, quality] = await measure(models, ended ? [...ids, tokenizer.eos] : ids, { bos: tokenizer.bos, window: ids.length + 1 });
    const mean = compared.kl.reduce((sum, kl) => sum + kl) / stored;
    ok(Math.abs(mean / quality.kl.mean - 1) < 1e-9, `${mean} ${quality.kl.mean}`);
    is(Math.max(...compared.kl), quality.kl.max);
    is(compared.agreed / stored, quality.agreement);

    // Of all positions together, an error is between those of single ones.
    for (const [i, storage] of (await storagesOf(names)).entries()) {
      const { layers, kvHeads } = runner.config;
      const whole = new HeadErrors(backend, runner.config, storage);
      models[i].restart();
      await models[i].feed([...prompt, ...first].slice(0, stored), (layer, key, value) => whole.add(layer, key, value));
      for (const side of ['k', 'v'] as const) {
        is(compared.errors[i][side].length, stored * layers * kvHeads);
        for (let layer = 0; layer < layers; layer++) {
          for (let head = 0; head < kvHeads; head++) {
            const each = Array.from({ length: stored }, (_, position) => compared.errors[i][side][(position * layers + layer) * kvHeads + head]);
            const of = whole.result[side][layer][head];
            ok(Math.min(...each) <= of && of <= Math.max(...each), `${side} ${layer} ${head}: ${of}`);
          }
        }
      }
    }
    for (const model of models) model.dispose();
  });
}

test('what breathing throws ends it, and a prompt without room for more is refused', async () => {
  let breaths = 0;
  const stop = (): void => {
    if (++breaths === 3) throw new Error('enough');
  };
  const error = await compareInNode(['f32', 'f16'], PROMPT, 100, stop).catch((reason: Error) => reason);
  is((error as Error).message, 'enough');
  const long = await compareInNode(['f32', 'f16'], text.slice(0, 2000), 1).catch((reason: Error) => reason);
  ok(/^the prompt expected fewer than 256 tokens, the model's context, got \d+$/.test((long as Error).message), String(long));
});

test('a text comes in pieces, of which those that begin a character are empty', () => {
  const sample = `${text.slice(0, 300)} naïve – 鯨 🐋!`;
  const ids = tokenizer.encode(sample);
  const pieces = new Pieces(tokenizer);
  const all = ids.map((id) => pieces.add(id));
  is(all.join(''), sample);
  is(all[0], '');
  ok(all.slice(-12).includes('🐋'));
});

test('of a folder, what a model is read from is taken, and what is missing is named', () => {
  const named = (...names: string[]): { name: string }[] => names.map((name) => ({ name }));
  const taken = (...names: string[]): string[] => partsOf('m', named(...names)).map(({ name }) => name);
  equal(taken('README.md', 'config.json', 'other.safetensors', 'model.safetensors', 'tokenizer.json'), ['config.json', 'model.safetensors', 'tokenizer.json']);
  equal(taken('config.json', 'tokenizer.json', 'a.safetensors', 'b.safetensors', 'model.safetensors.index.json').length, 5);
  throws(() => taken('model.safetensors'), /^m\/config.json is missing: a model is a folder with/);
  throws(() => taken('config.json', 'model.safetensors'), /^m\/tokenizer.json is missing/);
  throws(() => taken('config.json', 'tokenizer.json'), /^m\/model.safetensors is missing/);
});

for (const format of quantizedFormats) {
  test(`${format}: every code is its own, halfway is a tie to the even one, and a little more or less is none`, () => {
    const codes = codesOf(format);
    is(codes.length, { e4m3fn: 253, e5m2: 247, int8: 255 }[format]);
    for (const [i, { code, value }] of codes.entries()) {
      const exact = roundTo(value, format, codes);
      equal([exact.outcome, exact.code, exact.value, exact.below, exact.above], ['exact', code, value, codes[i], codes[i]]);
      const next = codes[i + 1];
      if (next === undefined) continue;
      const half = (value + next.value) / 2;
      const tie = roundTo(half, format, codes);
      is(tie.outcome, 'tie');
      is(Math.abs(tie.code) % 2, 0);
      equal([tie.below, tie.above], [codes[i], next]);
      for (const [part, to] of [[0.25, codes[i]], [0.75, next]] as const) {
        const near = roundTo(value + part * (next.value - value), format, codes);
        // What is rounded to 0 from below keeps its sign.
        equal([near.outcome, Math.abs(near.value)], ['nearest', Math.abs(to.value)]);
      }
      is(stepFrom(value, 4, codes), next.value);
      is(stepFrom(next.value, -4, codes), value);
      is(stepFrom(value, 2, codes), half);
    }
    const most = codes.at(-1)!.value;
    is(stepFrom(most, 1, codes), most);
    is(stepFrom(-most, -1, codes), -most);
    for (const beyond of [1e6, Infinity]) equal([roundTo(beyond, format, codes).outcome, roundTo(-beyond, format, codes).value], ['saturated', -most]);
    is(roundTo(NaN, format, codes).outcome, 'nan');
    for (let code = 0; code < 256; code++) {
      const value = decodeOne(code, format);
      if (Number.isFinite(value) && Math.abs(value) <= most) is(encodeOne(value, format), code);
    }
  });
}
