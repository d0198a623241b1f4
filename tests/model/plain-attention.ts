import type { AttentionCache } from '../../src/model/llama.js';
import type { LlamaConfig } from '../../src/model/config.js';

/** Keys and values as they come, in f32, and attention over them as written in books. One sequence. */
export class PlainAttention implements AttentionCache {
  private readonly keys: number[][] = [];
  private readonly values: number[][] = [];

  constructor(private readonly config: LlamaConfig) {}

  append(layer: number, key: Float32Array, value: Float32Array): void {
    (this.keys[layer] ??= []).push(...key);
    (this.values[layer] ??= []).push(...value);
  }

  attend(layer: number, q: Float32Array, out: Float32Array): void {
    const { queryHeads, kvHeads, headDim } = this.config;
    const rows = q.length / (queryHeads * headDim);
    const stored = this.keys[layer].length / (kvHeads * headDim);
    for (let row = 0; row < rows; row++) {
      const visible = stored - rows + row + 1;
      for (let head = 0; head < queryHeads; head++) {
        const start = (row * queryHeads + head) * headDim;
        const kvHead = Math.floor(head / (queryHeads / kvHeads));
        this.attendRow(layer, kvHead, visible, q.subarray(start, start + headDim), out.subarray(start, start + headDim));
      }
    }
  }

  private attendRow(layer: number, kvHead: number, visible: number, q: Float32Array, out: Float32Array): void {
    const { kvHeads, headDim } = this.config;
    const keys = this.keys[layer];
    const values = this.values[layer];
    const startOf = (token: number): number => (token * kvHeads + kvHead) * headDim;
    const scores = Array.from({ length: visible }, (_, token) => {
      const start = startOf(token);
      let score = 0;
      for (let i = 0; i < headDim; i++) score += q[i] * keys[start + i];
      return score / Math.sqrt(headDim);
    });
    const top = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - top));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let i = 0; i < headDim; i++) {
      let sum = 0;
      for (let token = 0; token < visible; token++) sum += weights[token] * values[startOf(token) + i];
      out[i] = sum / total;
    }
  }
}
