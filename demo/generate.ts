import type { CachedModel } from '../src/model/cached-model.js';

export interface Generation {
  /** What was generated, without the prompt. */
  readonly tokens: readonly number[];
  readonly tokensPerSecond: number;
}

/** The likeliest token. */
export function largest(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** Greedy continuation of a prompt, which begins with the token that begins a sequence; stops at `eos`. */
export async function generate(model: CachedModel, prompt: readonly number[], count: number, eos: number): Promise<Generation> {
  model.restart();
  const tokens: number[] = [];
  const { vocab } = model.runner.config;
  let logits = (await model.feed(prompt)).subarray(-vocab);
  const start = performance.now();
  for (;;) {
    const next = largest(logits);
    if (next === eos) break;
    tokens.push(next);
    if (tokens.length === count) break;
    logits = await model.feed([next]);
  }
  return { tokens, tokensPerSecond: (1000 * Math.max(0, tokens.length - 1)) / (performance.now() - start) };
}
