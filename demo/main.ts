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
import { SingleBar } from 'cli-progress';
import { openBackend, requestWebgpuBackend, type Backend } from '../src/index.js';
import { CachedModel } from '../src/model/cached-model.js';
import { readWeights } from '../src/model/weights.js';
import { generate } from './generate.js';
import { LlamaRunner } from '../src/model/llama.js';
import { measure } from '../src/evaluate/quality.js';
import { sharePrefix } from './share-prefix.js';
import { table } from './table.js';
import { variants } from './variants.js';
import { readTokenizer, type Tokenizer } from '../src/model/tokenizer.js';

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
async function showTexts(models: readonly CachedModel[], tokenizer: Tokenizer): Promise<number[]> {
  const prompt = tokenizer.encode(options.prompt);
  const count = Math.min(positive('tokens'), models[0].runner.config.context - prompt.length);
  if (count < 1) throw new RangeError(`--prompt expected fewer than ${models[0].runner.config.context} tokens, got ${prompt.length}`);
  // The first run of each compiles and warms up; the second is timed.
  const results = [];
  for (const model of models) {
    await generate(model, prompt, count, tokenizer.eos);
    results.push(await generate(model, prompt, count, tokenizer.eos));
  }
  const text = (tokens: readonly number[]): string => tokenizer.decode([...prompt, ...tokens]);
  const [first] = results;
  console.log(`\n${variants[0].name}: ${text(first.tokens)}\n`);
  for (const [i, { tokens }] of results.entries()) {
    if (i === 0) continue;
    const length = Math.max(tokens.length, first.tokens.length);
    const at = Array.from({ length }, (_, n) => n).findIndex((n) => tokens[n] !== first.tokens[n]);
    if (at < 0) console.log(`${variants[i].name}: the same ${first.tokens.length} tokens`);
    else console.log(`${variants[i].name}: differs from token ${at + 1} on: …${text(tokens).slice(text(tokens.slice(0, at)).length)}`);
  }
  return results.map(({ tokensPerSecond }) => tokensPerSecond);
}

function evaluationText(): string | undefined {
  const file = options.text ?? join(options.model, 'eval.txt');
  if (options.text === undefined && !existsSync(file)) return undefined;
  return readFileSync(file, 'utf8');
}

/** What the model says through every cache, what that costs and what it saves. */
async function compareCaches(): Promise<void> {
  const models = variants.map((variant) => new CachedModel(backend, runner, variant));
  const speeds = await showTexts(models, tokenizer);

  const bytesPerToken = models.map(({ cache }) => cache.memory.bytesPerToken);
  const saved = (i: number): string => `${(bytesPerToken[0] / bytesPerToken[i]).toFixed(2)}×`;
  const text = evaluationText();
  if (text === undefined) {
    console.log(`\nno eval.txt in ${options.model}: --text FILE measures perplexity and KL\n`);
    console.log(table(['cache', 'bytes/token', 'saves', 'tokens/s'], models.map((_, i) => [variants[i].name, `${bytesPerToken[i]}`, saved(i), speeds[i].toFixed(0)])));
  } else {
    const ids = tokenizer.encode(text).slice(1, 1 + positive('limit'));
    const windows = Math.ceil(ids.length / runner.maxTokens);
    console.log(`\n${ids.length} tokens of text in windows of ${runner.maxTokens}, through ${models.length} caches:`);
    const bar = new SingleBar({ format: '{bar} {percentage} % | {value} of {total} windows | {eta} s left', stopOnComplete: true, clearOnComplete: true });
    bar.start(windows * models.length, 0);
    const qualities = await measure(models, ids, tokenizer.bos, () => bar.increment());
    bar.stop();
    const rows = qualities.map(({ perplexity, kl, agreement, tokensPerSecond }, i) => [
      variants[i].name, `${bytesPerToken[i]}`, saved(i), perplexity.toFixed(3), i === 0 ? '–' : kl.toExponential(1), `${(100 * agreement).toFixed(2)} %`,
      tokensPerSecond.toFixed(0), speeds[i].toFixed(0),
    ]);
    console.log(table(['cache', 'bytes/token', 'saves', 'perplexity', 'mean KL', 'top-1 as f32', 'prefill tokens/s', 'decode tokens/s'], rows));
  }
  for (const model of models) model.dispose();
}

const { backend, reason } = await chosenBackend();
const started = performance.now();
const checkpoint = readWeights(options.model);
const tokenizer = await readTokenizer(options.model);
const runner = new LlamaRunner(checkpoint);
const { layers, queryHeads, kvHeads, headDim, context } = runner.config;
console.log(`model     ${basename(resolve(options.model))}: ${layers} layers, ${queryHeads} query and ${kvHeads} KV heads of ${headDim}, context ${context}`);
console.log(`backend   ${backend.kind}: ${reason} (model loaded in ${Math.round(performance.now() - started)} ms)`);

if (options['share-prefix']) await sharePrefix(backend, runner, tokenizer, evaluationText());
else await compareCaches();
backend.dispose();
