/** What the commands that run a model share: the model, its backend. */
import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import type { Backend } from '../backend.js';
import { LlamaRunner } from '../model/llama.js';
import { readTokenizer, readWeights } from '../model/folder.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { wasmBackend } from '../wasm/open.js';
import { adapterName } from '../webgpu/adapter.js';
import { requestWebgpuBackend } from '../webgpu/open.js';
import { UsageError } from './command.js';

/** Tokens that go through a model at a time, unless the command line says how many. */
const WINDOW = 512;

/** @throws UsageError for anything but a whole number of at least 1 */
export function countOption(value: string | undefined, name: string): number | undefined {
  if (value === undefined) return undefined;
  if (!/^[1-9]\d{0,9}$/.test(value)) throw new UsageError(`--${name} expected a number of at least 1, got ${value}`);
  return Number(value);
}

/** @throws UsageError naming the first of a list that is none of what there is */
export function listOption<T extends string>(value: string | undefined, name: string, all: readonly T[], fallback: readonly T[]): readonly T[] {
  if (value === undefined) return fallback;
  const names = value.split(',');
  const unknown = names.find((each) => !(all as readonly string[]).includes(each));
  if (unknown !== undefined) throw new UsageError(`--${name} expected some of ${all.join(', ')}, with commas between, got "${unknown}"`);
  return [...new Set(names)] as T[];
}

/** @throws UsageError for anything but one of what there is */
export function choiceOption<T extends string>(value: string | undefined, name: string, all: readonly T[], fallback: T): T {
  if (value === undefined) return fallback;
  if (!(all as readonly string[]).includes(value)) throw new UsageError(`--${name} expected one of ${all.join(', ')}, got ${value}`);
  return value as T;
}

export interface ModelOptions {
  readonly model?: string;
  readonly window?: string;
}

export interface OpenModel {
  readonly name: string;
  readonly directory: string;
  readonly runner: LlamaRunner;
  readonly tokenizer: Tokenizer;
  /** Tokens that go through the model at a time. */
  readonly window: number;
}

export const MODEL_DETAILS = `  --model DIR            a Llama checkpoint: config.json, model.safetensors, tokenizer.json
  --window N             tokens that go through the model at a time, each time from an empty cache: at most its context, default ${WINDOW}`;

export const BATCH_DETAILS = '  --batch N              tokens that observers take as one batch; default as many as 256 MiB hold';

/** @throws UsageError for options that do not fit; Error naming what of the model is missing or not run here */
export async function openModel(options: ModelOptions): Promise<OpenModel> {
  const { model: directory } = options;
  if (directory === undefined) throw new UsageError('expected --model DIR');
  if (!existsSync(join(directory, 'config.json'))) throw new UsageError(`--model expected a folder with config.json, got ${directory}`);
  const stated = countOption(options.window, 'window');
  const weights = readWeights(directory);
  const { context } = weights.config;
  if (stated !== undefined && stated > context) throw new UsageError(`--window expected at most ${context}, the model's context, got ${stated}`);
  const window = stated ?? Math.min(WINDOW, context);
  return { name: basename(resolve(directory)), directory, runner: new LlamaRunner(weights, window, window), tokenizer: await readTokenizer(directory), window };
}

/** The backend that was asked for, and what to call it. */
export async function openNamedBackend(name = 'wasm'): Promise<{ readonly backend: Backend; readonly label: string }> {
  if (name === 'wasm') {
    const backend = wasmBackend();
    return { backend, label: `wasm, ${backend.simd} build` };
  }
  if (name !== 'webgpu') throw new UsageError(`--backend expected wasm or webgpu, got ${name}`);
  const backend = await requestWebgpuBackend();
  return { backend, label: `webgpu, ${adapterName(backend.device.adapterInfo)}` };
}
