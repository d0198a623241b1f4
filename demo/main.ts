/**
 * A real model through an f32 cache and through caches of 8 bits: what it says, what that costs and what it saves.
 *
 *   npm run demo -- [--model DIR] [--prompt TEXT] [--tokens N] [--text FILE] [--limit TOKENS] [--backend auto|webgpu|wasm]
 *   npm run demo -- --share-prefix [--model DIR] [--backend auto|webgpu|wasm]
 *
 * The second shows two prompts that begin alike: what the first has computed, the second finds.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Progress } from '../src/cli/progress.js';
import { table } from '../src/cli/table.js';
import { shareOut, storagesOf, type Text } from '../src/evaluate/evaluate.js';
import { measure, windowsOf, type Measured } from '../src/evaluate/measure.js';
import { isCalibrated } from '../src/evaluate/variants.js';
import { openBackend, requestWebgpuBackend, type Backend } from '../src/index.js';
import { CachedModel } from '../src/model/cached-model.js';
import { LlamaRunner } from '../src/model/llama.js';
import { readTokenizer, readWeights } from '../src/model/folder.js';
import type { Tokenizer } from '../src/model/tokenizer.js';
import { generate } from './generate.js';
import { sharePrefix } from './share-prefix.js';
import { variants } from './variants.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: fileURLToPath(new URL('models/orator', import.meta.url)) },
    prompt: { type: 'string', default: 'The whale, in the judgment of the Congress, is' },
    tokens: { type: 'string', default: '100' },
    text: { type: 'string' },
    limit: { type: 'string', default: 'Infinity' },
    backend: { type: 'string', default: 'auto' },
    'share-prefix': { type: 'boolean', default: false },
  },
});

function positive(name: 'tokens' | 'limit'): number {
  const value = Number(options[name]);
  if (!(value >= 1)) throw new RangeError(`--${name} expected a number of at least 1, got ${options[name]}`);
  return value;
}

/** The backend that was asked for, and why it is that one. */
async function chosenBackend(): Promise<{ backend: Backend; reason: string }> {
  if (options.backend === 'webgpu') return { backend: await requestWebgpuBackend(), reason: 'it was asked for' };
  if (options.backend !== 'auto' && options.backend !== 'wasm') throw new RangeError(`--backend expected auto, webgpu or wasm, got ${options.backend}`);
  let reason = '';
  const backend = await openBackend({ prefer: options.backend === 'wasm' ? 'wasm' : undefined, onChoice: (choice) => ({ reason } = choice) });
  return { backend, reason };
}

/** Continues the prompt through every cache and shows where each leaves the first one's text. */
async function showTexts(caches: readonly Compared[], tokenizer: Tokenizer): Promise<number[]> {
  const { context } = caches[0].model.runner.config;
  const prompt = tokenizer.encode(options.prompt);
  const count = Math.min(positive('tokens'), context - prompt.length);
  if (count < 1) throw new RangeError(`--prompt expected fewer than ${context} tokens, got ${prompt.length}`);
  // The first run of each compiles and warms up; the second is timed.
  const results = [];
  for (const { model } of caches) {
    await generate(model, prompt, count, tokenizer.eos);
    results.push(await generate(model, prompt, count, tokenizer.eos));
  }
  const text = (tokens: readonly number[]): string => tokenizer.decode([...prompt, ...tokens]);
  const [first] = results;
  console.log(`\n${caches[0].name}: ${text(first.tokens)}\n`);
  for (const [i, { tokens }] of results.entries()) {
    if (i === 0) continue;
    const length = Math.max(tokens.length, first.tokens.length);
    const at = Array.from({ length }, (_, n) => n).findIndex((n) => tokens[n] !== first.tokens[n]);
    if (at < 0) console.log(`${caches[i].name}: the same ${first.tokens.length} tokens`);
    else console.log(`${caches[i].name}: differs from token ${at + 1} on: …${text(tokens).slice(text(tokens.slice(0, at)).length)}`);
  }
  return results.map(({ tokensPerSecond }) => tokensPerSecond);
}

function evaluationText(): string | undefined {
  const file = options.text ?? join(options.model, 'eval.txt');
  if (options.text === undefined && !existsSync(file)) return undefined;
  return readFileSync(file, 'utf8');
}

/** A cache, and the model that runs with it. */
interface Compared {
  readonly name: string;
  readonly model: CachedModel;
}

/** The caches that are compared. Scales that are given come from a calibration on a text, which runs the model with an f32 cache. */
async function openCaches(calibration: Text | undefined): Promise<Compared[]> {
  const compared = calibration ? variants : variants.filter((variant) => !isCalibrated(variant));
  const storages = await storagesOf({ backend, runner, bos: tokenizer.bos, window: runner.maxTokens, variants: compared, calibration });
  return storages.map((storage, i) => ({ name: compared[i].name, model: new CachedModel(backend, runner, storage) }));
}

/** What the model says through every cache, what that costs and what it saves. */
async function compareCaches(): Promise<void> {
  const given = evaluationText();
  const texts = given === undefined ? undefined : shareOut({ name: 'the text', ids: tokenizer.encode(given).slice(1, 1 + positive('limit')) });
  if (texts) console.log(`scales    calibrated with ${texts.calibration.ids.length} tokens of text, which are not among those below`);
  const caches = await openCaches(texts?.calibration);
  const models = caches.map(({ model }) => model);
  const speeds = await showTexts(caches, tokenizer);

  const bytesPerToken = models.map(({ cache }) => cache.memory.bytesPerToken);
  const saved = (i: number): string => `${(bytesPerToken[0] / bytesPerToken[i]).toFixed(2)}×`;
  if (texts === undefined) {
    console.log(`\nno eval.txt in ${options.model}: --text FILE measures perplexity and KL, and calibrates\n`);
    console.log(table(['cache', 'bytes/token', 'saves', 'tokens/s'], caches.map(({ name }, i) => [name, `${bytesPerToken[i]}`, saved(i), speeds[i].toFixed(0)])));
  } else {
    const { ids } = texts.text;
    const window = runner.maxTokens;
    console.log(`\n${ids.length} tokens of text in windows of ${window}, through ${models.length} caches:`);
    const qualities = await measureAll(models, ids, window);
    const rows = qualities.map(({ perplexity, kl, agreement, tokensPerSecond }, i) => [
      caches[i].name, `${bytesPerToken[i]}`, saved(i), perplexity.toFixed(3), i === 0 ? '–' : kl.mean.toExponential(1), `${(100 * agreement).toFixed(2)} %`,
      tokensPerSecond.toFixed(0), speeds[i].toFixed(0),
    ]);
    console.log(table(['cache', 'bytes/token', 'saves', 'perplexity', 'mean KL', 'top-1 as f32', 'prefill tokens/s', 'decode tokens/s'], rows));
  }
  for (const model of models) model.dispose();
}

async function measureAll(models: readonly CachedModel[], ids: readonly number[], window: number): Promise<Measured[]> {
  using progress = new Progress(windowsOf(ids.length, window) * models.length, 'windows');
  return await measure(models, ids, { bos: tokenizer.bos, window, onWindow: () => progress.step() });
}

const { backend, reason } = await chosenBackend();
const started = performance.now();
const tokenizer = await readTokenizer(options.model);
const runner = new LlamaRunner(readWeights(options.model));
const { layers, queryHeads, kvHeads, headDim, context } = runner.config;
console.log(`model     ${basename(resolve(options.model))}: ${layers} layers, ${queryHeads} query and ${kvHeads} KV heads of ${headDim}, context ${context}`);
console.log(`backend   ${backend.kind}: ${reason} (model loaded in ${Math.round(performance.now() - started)} ms)`);

if (options['share-prefix']) await sharePrefix(backend, runner, tokenizer, evaluationText());
else await compareCaches();
backend.dispose();
