/** The runner joined with a KvCache: one sequence that tokens are fed to. */
import { KvCache, type Backend, type KvCacheOptions, type Sequence, type TokenIds } from '../index.js';
import type { LayerScales } from '../kv-scales.js';
import type { LlamaRunner } from './llama.js';

/** A way to keep keys and values: of all layers alike, or of each its own. */
export interface Storage extends Pick<KvCacheOptions, 'dtype' | 'granularity' | 'groupSize' | 'recipe'> {
  /** Scales that are given. */
  readonly layers?: readonly LayerScales[];
}

/** Sees keys and values of a layer, [tokens, kvHeads, headDim]: views that change with the next layer. What it throws ends the pass, of which nothing stays. */
export type SeenStates = (layer: number, key: Float32Array, value: Float32Array) => void | Promise<void>;

/** Feeds tokens to a sequence and gives their logits: [tokens, vocab], a view until the next call. */
export async function feed(runner: LlamaRunner, cache: KvCache, sequence: Sequence, tokens: TokenIds, onStates?: SeenStates): Promise<Float32Array> {
  using step = cache.begin([{ sequence, tokens }]);
  const logits = await runner.forward(tokens, sequence.length, {
    append: async (layer, key, value) => {
      await onStates?.(layer, key, value);
      await step.append(layer, key, value);
    },
    attend: async (layer, q, out) => void (await step.attend(layer, q, { out })),
  });
  step.commit();
  return logits;
}

/** A model with one sequence. */
export class CachedModel {
  readonly cache: KvCache;
  #sequence: Sequence;

  constructor(
    backend: Backend,
    readonly runner: LlamaRunner,
    storage: Storage,
    capacity = runner.config.context,
  ) {
    const { layers, queryHeads, kvHeads, headDim } = runner.config;
    this.cache = new KvCache(backend, { layers, queryHeads, kvHeads, headDim, capacity, ...storage });
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
  feed(tokens: TokenIds, onStates?: SeenStates): Promise<Float32Array> {
    return feed(this.runner, this.cache, this.#sequence, tokens, onStates);
  }

  dispose(): void {
    this.cache.dispose();
  }
}
