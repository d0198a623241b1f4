/** What the page should say, computed in Node. */
import { readFileSync } from 'node:fs';
import { storages } from '../../demo/web/caches.js';
import { compare, type Errors, type Pair, type Started } from '../../demo/web/compare.js';
import { wasmBackend } from '../../src/index.js';
import { readTokenizer, readWeights } from '../../src/model/folder.js';
import { LlamaRunner } from '../../src/model/llama.js';
import type { Storage } from '../../src/model/cached-model.js';
import { orator } from '../model/orator.js';

export const runner = new LlamaRunner(readWeights(orator));
export const tokenizer = await readTokenizer(orator);
export const text = readFileSync(`${orator}/eval.txt`, 'utf8');

/** All that a comparison tells. */
export interface Compared {
  readonly started: Started;
  /** Without the prompt. */
  readonly texts: Pair<string>;
  /** Counted from 1. */
  readonly partedAt: number | undefined;
  /** Of each position. */
  readonly kl: readonly number[];
  readonly agreed: number;
  /** Of each position, joined. */
  readonly errors: Pair<{ readonly k: readonly number[]; readonly v: readonly number[] }>;
}

export const storagesOf = async (names: Pair<string>): Promise<Pair<Storage>> => (await storages(names, { runner, tokenizer, text })) as unknown as Pair<Storage>;

/** The comparison on the CPU. */
export async function compareInNode(names: Pair<string>, prompt: string, tokens: number, breathe?: () => void): Promise<Compared> {
  using backend = wasmBackend();
  const pair = await storagesOf(names);
  let started: Started | undefined;
  const texts: [string, string] = ['', ''];
  const kl: number[] = [];
  const errors = [{ k: [] as number[], v: [] as number[] }, { k: [] as number[], v: [] as number[] }] as const;
  let [agreed, said] = [0, 0];
  let partedAt: number | undefined;
  const join = (of: (typeof errors)[number], more: Errors): void => {
    of.k.push(...more.k);
    of.v.push(...more.v);
  };
  await compare({ backend, runner, tokenizer, storages: pair, prompt, tokens, breathe }, (event) => {
    if (event.type === 'started') started = event;
    if (event.type === 'said') {
      said++;
      for (const i of [0, 1]) texts[i] += event.pieces[i] ?? '';
      if (event.parted) partedAt ??= said;
    }
    if (event.type === 'stored') {
      kl.push(...event.kl);
      agreed += event.agreed;
      for (const i of [0, 1] as const) join(errors[i], event.errors[i]);
    }
  });
  return { started: started!, texts, partedAt, kl, agreed, errors };
}
