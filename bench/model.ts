/** How many tokens per second does the demo's model take in and generate, end to end, through an f32 cache and through FP8? */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { CachedModel, type Storage } from '../src/model/cached-model.js';
import { readTokenizer, readWeights } from '../src/model/folder.js';
import { generate } from '../demo/generate.js';
import { LlamaRunner } from '../src/model/llama.js';
import { openBackends } from './attention.js';
import { figureOf, report, type Section } from './harness.js';
import { median, race } from './race.js';

const GENERATED = 200;
const ROUNDS = 15;
/** No token: nothing ends a text before it has its length. */
const NO_END = -1;

const directory = fileURLToPath(new URL('../demo/models/orator', import.meta.url));
const runner = new LlamaRunner(readWeights(directory));
const tokenizer = await readTokenizer(directory);
const prompt = tokenizer.encode(readFileSync(`${directory}/eval.txt`, 'utf8').slice(0, 4000)).slice(0, runner.maxTokens);

const caches: readonly { readonly name: string; readonly storage: Storage }[] = [
  { name: 'f32', storage: { dtype: 'f32' } },
  { name: 'e4m3fn, token-head', storage: { dtype: 'e4m3fn', granularity: 'token-head' } },
];
const raced = openBackends().flatMap(({ backend, build, threads }) =>
  caches.map(({ name, storage }) => ({ name, build, threads, model: new CachedModel(backend, runner, storage) })),
);

async function measure(title: string, tokens: number, run: (model: CachedModel) => Promise<unknown>): Promise<Section> {
  const times = await race(raced.map(({ model }) => () => run(model)), ROUNDS);
  const figures = raced.map((one, i) => {
    const f32 = raced.findIndex(({ name, build, threads }) => name === 'f32' && build === one.build && threads === one.threads);
    return figureOf(one, times[i], (seconds) => ({ 'tokens/s': tokens / seconds, '÷ f32': median(times[i]) / median(times[f32]) }));
  });
  return { title, figures };
}

const prefill = await measure(`prefill: ${prompt.length} tokens`, prompt.length, (model) => {
  model.restart();
  return model.feed(prompt);
});
// The one token that begins a text costs what each of the others does.
const decode = await measure(`decode: ${GENERATED} tokens, greedily, from none`, GENERATED, (model) => generate(model, [tokenizer.bos], GENERATED, NO_END));
report('Model: orator, end to end', [prefill, decode]);
