/** The runner joined with a KvCache: one sequence that tokens are fed to. */
import { KvCache, type Backend, type FormatName, type Granularity, type Sequence, type TokenIds } from '../src/index.js';
import type { LlamaRunner } from './llama.js';

/** A way to keep keys and values. */
export interface Variant {
  readonly name: string;
  readonly dtype: FormatName;
  readonly granularity?: Granularity;
}

/** The f32 cache comes first: the others are compared with it. */
export const variants: readonly Variant[] = [
  { name: 'f32', dtype: 'f32' },
  { name: 'e4m3fn, scale 1', dtype: 'e4m3fn', granularity: 'tensor' },
  { name: 'e4m3fn, token-head', dtype: 'e4m3fn', granularity: 'token-head' },
  { name: 'e5m2, scale 1', dtype: 'e5m2', granularity: 'tensor' },
  { name: 'e5m2, token-head', dtype: 'e5m2', granularity: 'token-head' },
  { name: 'int8, token-head', dtype: 'int8', granularity: 'token-head' },
];

/** Feeds tokens to a sequence and gives their logits: [tokens, vocab], a view until the next call. */
export async function feed(runner: LlamaRunner, cache: KvCache, sequence: Sequence, tokens: TokenIds): Promise<Float32Array> {
  using step = cache.begin([{ sequence, tokens }]);
  const logits = await runner.forward(tokens, sequence.length, {
    append: async (layer, key, value) => void (await step.append(layer, key, value)),
    attend: async (layer, q, out) => void (await step.attend(layer, q, { out })),
  });
  step.commit();
  return logits;
}

export class CachedModel {
  readonly cache: KvCache;
  #sequence: Sequence;

  constructor(
    backend: Backend,
    readonly runner: LlamaRunner,
    { dtype, granularity }: Variant,
  ) {
    const { layers, queryHeads, kvHeads, headDim, context } = runner.config;
    this.cache = new KvCache(backend, { layers, queryHeads, kvHeads, headDim, dtype, granularity, capacity: context });
    this.#sequence = this.cache.createSequence();
  }

  /** Tokens so far. */
  get length(): number {
    return this.#sequence.length;
  }

  /** Forgets all tokens. */
  restart(): void {
    this.#sequence.truncate(0);
  }

  /** Feeds tokens and gives their logits: [tokens, vocab], a view until the next call. */
  feed(tokens: TokenIds): Promise<Float32Array> {
    return feed(this.runner, this.cache, this.#sequence, tokens);
  }

  dispose(): void {
    this.cache.dispose();
  }
}
