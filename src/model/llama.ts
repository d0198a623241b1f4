/**
 * A Llama forward pass that leaves keys and values to a cache of the caller's choice. Weights and activations lie in a
 * WebAssembly memory of its own. A token's logits have the same bits whether it comes alone or among others, as long as the
 * cache's attention keeps that too.
 */
import type { LlamaWeights, LayerWeights } from './weights.js';
import type { LlamaConfig } from './config.js';
import { openKernels, type Kernels } from './kernels.js';
import { MemoryPlan } from './memory-plan.js';
import { ropeTable } from './rope-table.js';

/** What the forward pass asks of a cache, layer by layer. The arrays are views that change with the next layer. */
export interface AttentionCache {
  /** Stores the new tokens' keys (after RoPE) and values: [tokens, kvHeads, headDim]. */
  append(layer: number, key: Float32Array, value: Float32Array): void | Promise<void>;
  /** Causal attention of the new tokens' queries over all that is stored; q, out: [tokens, queryHeads, headDim]. */
  attend(layer: number, q: Float32Array, out: Float32Array): void | Promise<void>;
}

/** Byte addresses. */
type Addresses<T> = { readonly [K in keyof T]: number };

export class LlamaRunner {
  readonly config: LlamaConfig;
  private readonly memory: WebAssembly.Memory;
  private readonly kernels: Kernels;
  private readonly embedding: number;
  private readonly layers: readonly Addresses<LayerWeights>[];
  private readonly finalNorm: number;
  private readonly head: number;
  /** (positions, cos | sin, headDim / 2) */
  private readonly ropeTable: number;
  private readonly at: ReturnType<typeof reserveActivations>;

  /**
   * @param maxTokens most tokens that one call of `forward` takes
   * @param positions most tokens of a sequence, at most the context
   * @throws RangeError for what does not fit into a WebAssembly memory
   */
  constructor(weights: LlamaWeights, readonly maxTokens = Math.min(weights.config.context, 512), private readonly positions = weights.config.context) {
    this.config = weights.config;
    const plan = new MemoryPlan();
    this.embedding = plan.place(weights.embedding);
    this.layers = weights.layers.map((layer) => placeLayer(plan, layer));
    this.finalNorm = plan.place(weights.finalNorm);
    this.head = weights.head === weights.embedding ? this.embedding : plan.place(weights.head);
    this.at = reserveActivations(plan, this.config, maxTokens);
    // Last, as it is made here: what does not fit is refused before.
    this.ropeTable = plan.reserve(positions * this.config.headDim);
    plan.fill(this.ropeTable, ropeTable(this.config, positions));
    this.memory = plan.build();
    this.kernels = openKernels(this.memory);
  }

  /**
   * One call at a time: activations have one place.
   * @param tokens at most `maxTokens`
   * @param position how many tokens of the sequence came before
   * @returns [tokens, vocab], a view that lasts until the next call
   */
  async forward(tokens: ArrayLike<number>, position: number, cache: AttentionCache): Promise<Float32Array> {
    this.check(tokens, position);
    const { kernels, at } = this;
    const { hidden, vocab, normEpsilon } = this.config;
    const count = tokens.length;
    this.embed(tokens);
    for (let layer = 0; layer < this.layers.length; layer++) {
      await this.attention(layer, count, position, cache);
      this.mlp(this.layers[layer], count);
    }
    kernels.rmsnorm(at.residual, this.finalNorm, at.normed, count, hidden, normEpsilon);
    kernels.matmul(at.normed, this.head, at.logits, count, vocab, hidden);
    return this.view(at.logits, count * vocab);
  }

  private check(tokens: ArrayLike<number>, position: number): void {
    const { vocab } = this.config;
    const { length } = tokens;
    if (length < 1 || length > this.maxTokens) throw new RangeError(`"tokens" expected 1 to ${this.maxTokens} tokens, got ${length}`);
    if (!(position >= 0 && position + length <= this.positions)) {
      throw new RangeError(`"position" expected 0 to ${this.positions - length} (${length} tokens in a context of ${this.positions}), got ${position}`);
    }
    for (let i = 0; i < length; i++) {
      if (!(tokens[i] >= 0 && tokens[i] < vocab)) throw new RangeError(`"tokens" expected ids below ${vocab}, got ${tokens[i]} at ${i}`);
    }
  }

  private embed(tokens: ArrayLike<number>): void {
    const { hidden, vocab } = this.config;
    const table = this.view(this.embedding, vocab * hidden);
    const rows = this.view(this.at.residual, tokens.length * hidden);
    for (let i = 0; i < tokens.length; i++) rows.set(table.subarray(tokens[i] * hidden, (tokens[i] + 1) * hidden), i * hidden);
  }

  /** residual += attention(rmsnorm(residual)) */
  private async attention(layer: number, count: number, position: number, cache: AttentionCache): Promise<void> {
    const { kernels, at } = this;
    const { hidden, headDim, queryHeads, kvHeads, normEpsilon } = this.config;
    const weights = this.layers[layer];
    const queryWidth = queryHeads * headDim;
    const kvWidth = kvHeads * headDim;
    const table = this.ropeTable + position * headDim * 4;
    kernels.rmsnorm(at.residual, weights.attentionNorm, at.normed, count, hidden, normEpsilon);
    kernels.matmul(at.normed, weights.query, at.query, count, queryWidth, hidden);
    kernels.matmul(at.normed, weights.key, at.key, count, kvWidth, hidden);
    kernels.matmul(at.normed, weights.value, at.value, count, kvWidth, hidden);
    kernels.rope(at.query, table, count, queryHeads, headDim);
    kernels.rope(at.key, table, count, kvHeads, headDim);
    await cache.append(layer, this.view(at.key, count * kvWidth), this.view(at.value, count * kvWidth));
    await cache.attend(layer, this.view(at.query, count * queryWidth), this.view(at.attended, count * queryWidth));
    kernels.matmul(at.attended, weights.output, at.projected, count, hidden, queryWidth);
    kernels.add(at.residual, at.projected, count * hidden);
  }

  /** residual += down(silu(gate(x)) · up(x)), x = rmsnorm(residual) */
  private mlp(weights: Addresses<LayerWeights>, count: number): void {
    const { kernels, at } = this;
    const { hidden, intermediate, normEpsilon } = this.config;
    kernels.rmsnorm(at.residual, weights.mlpNorm, at.normed, count, hidden, normEpsilon);
    kernels.matmul(at.normed, weights.gate, at.gate, count, intermediate, hidden);
    kernels.matmul(at.normed, weights.up, at.up, count, intermediate, hidden);
    kernels.siluMul(at.gate, at.up, count * intermediate);
    kernels.matmul(at.gate, weights.down, at.projected, count, hidden, intermediate);
    kernels.add(at.residual, at.projected, count * hidden);
  }

  private view(address: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, length);
  }
}

function placeLayer(plan: MemoryPlan, layer: LayerWeights): Addresses<LayerWeights> {
  const placed = Object.entries(layer).map(([name, values]) => [name, plan.place(values)]);
  return Object.fromEntries(placed) as Addresses<LayerWeights>;
}

/** The addresses of what one call computes, each (tokens, width). */
function reserveActivations(plan: MemoryPlan, config: LlamaConfig, tokens: number) {
  const { hidden, intermediate, headDim, queryHeads, kvHeads, vocab } = config;
  const rows = (width: number): number => plan.reserve(tokens * width);
  return {
    residual: rows(hidden),
    normed: rows(hidden),
    query: rows(queryHeads * headDim),
    key: rows(kvHeads * headDim),
    value: rows(kvHeads * headDim),
    attended: rows(queryHeads * headDim),
    projected: rows(hidden),
    gate: rows(intermediate),
    up: rows(intermediate),
    logits: rows(vocab),
  };
}
