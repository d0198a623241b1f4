/** Two prompts that begin alike, through one cache: the second has only its end to compute. */
import { table } from '../src/cli/table.js';
import { KvCache, type Backend, type PrefixCounters } from '../src/index.js';
import { feed } from '../src/model/cached-model.js';
import type { LlamaRunner } from '../src/model/llama.js';
import type { Tokenizer } from '../src/model/tokenizer.js';
import { largest } from './generate.js';

/** What became of a prompt. */
export interface Answer {
  /** Tokens of the prompt that the cache had, and that went through the model. */
  readonly found: number;
  readonly computed: number;
  /** From the prompt to the first new token. */
  readonly milliseconds: number;
  /** What was generated. */
  readonly tokens: readonly number[];
}

/** Tokens that are generated behind a prompt, and the most that a prompt's own end may have. */
const NEW_TOKENS = 24;
const END_TOKENS = 24;
const endings = [' And the captain said:', ' But the Senate, and the people of the States, have'];

const cacheWithPrefix = (backend: Backend, { layers, queryHeads, kvHeads, headDim, context }: LlamaRunner['config']): KvCache =>
  new KvCache(backend, { layers, queryHeads, kvHeads, headDim, capacity: 2 * context, prefix: { model: 'demo' } });

/** Greedy continuation of a prompt by a sequence of its own, which begins with what the cache has of it. */
async function answer(runner: LlamaRunner, cache: KvCache, prompt: readonly number[]): Promise<Answer> {
  const start = performance.now();
  const { sequence, length: found } = await cache.matchPrefix(prompt);
  const { vocab } = runner.config;
  const tokens = [largest((await feed(runner, cache, sequence, prompt.slice(found))).subarray(-vocab))];
  const milliseconds = performance.now() - start;
  while (tokens.length < NEW_TOKENS) tokens.push(largest(await feed(runner, cache, sequence, tokens.slice(-1))));
  sequence.free();
  return { found, computed: prompt.length - found, milliseconds, tokens };
}

/** Prompts of one beginning and of different ends, which leave room for an answer. */
export function promptsOf(text: string, { encode }: Pick<Tokenizer, 'encode'>, { config: { context }, maxTokens }: LlamaRunner): number[][] {
  const beginning = encode(text).slice(0, Math.min(context, maxTokens) - NEW_TOKENS - END_TOKENS);
  return endings.map((ending) => [...beginning, ...encode(ending).slice(1, 1 + END_TOKENS)]);
}

/** Each prompt's answer from a cache of its own, and from one that all share. */
export async function compareSharing(backend: Backend, runner: LlamaRunner, prompts: readonly (readonly number[])[]): Promise<{ alone: Answer[]; shared: Answer[]; counters: PrefixCounters }> {
  const alone: Answer[] = [];
  for (const prompt of prompts) {
    using cache = cacheWithPrefix(backend, runner.config);
    alone.push(await answer(runner, cache, prompt));
  }
  using cache = cacheWithPrefix(backend, runner.config);
  const shared: Answer[] = [];
  for (const prompt of prompts) shared.push(await answer(runner, cache, prompt));
  return { alone, shared, counters: cache.prefixCounters };
}

/** @throws Error where there is no text to take the prompts from */
export async function sharePrefix(backend: Backend, runner: LlamaRunner, tokenizer: Tokenizer, text: string | undefined): Promise<void> {
  if (text === undefined) throw new Error('--share-prefix needs a text to take its prompts from: --text FILE');
  const prompts = promptsOf(text, tokenizer, runner);
  // The first run compiles and warms up; the second is timed.
  await compareSharing(backend, runner, prompts);
  const { alone, shared, counters } = await compareSharing(backend, runner, prompts);
  const common = prompts[0].findIndex((token, i) => token !== prompts[1][i]);
  console.log(`\ntwo prompts of ${prompts[0].length} and ${prompts[1].length} tokens, the first ${common} of them the same, through one cache:\n`);
  const row = ({ found, computed, milliseconds }: Answer, i: number): string[] => [['first', 'second'][i], `${found}`, `${computed}`, milliseconds.toFixed(1), alone[i].milliseconds.toFixed(1)];
  console.log(table(['prompt', 'found', 'computed', 'ms to the first token', 'without sharing'], shared.map(row)));
  console.log(`\npages: ${Object.entries(counters).map(([name, count]) => `${count} ${name}`).join(', ')}`);
  const differs = shared.findIndex(({ tokens }, i) => tokens.some((token, n) => token !== alone[i].tokens[n]));
  console.log(differs < 0 ? `both go on with the same ${NEW_TOKENS} tokens as without sharing` : `the ${['first', 'second'][differs]} goes on with other tokens than without sharing`);
  console.log(`\nsecond: …${tokenizer.decode(prompts[1].slice(common))}${tokenizer.decode(shared[1].tokens)}`);
}
