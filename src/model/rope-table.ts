import type { LlamaConfig } from './config.js';

/** cos and sin of position · theta^(−2i / headDim): (positions, cos | sin, headDim / 2). */
export function ropeTable({ headDim, ropeTheta }: LlamaConfig, positions: number): Float32Array {
  const half = headDim / 2;
  const table = new Float32Array(positions * headDim);
  for (let i = 0; i < half; i++) {
    const frequency = ropeTheta ** (-i / half);
    for (let position = 0; position < positions; position++) {
      table[position * headDim + i] = Math.cos(position * frequency);
      table[position * headDim + half + i] = Math.sin(position * frequency);
    }
  }
  return table;
}
