/** What is asked: shapes, and for each the same seeded keys, values and queries for everyone who answers. */
import { normals, SEED } from '../inputs.js';
import { llama3, qwen2Small, type Shape } from '../shapes.js';

/** `tokens` new tokens come to `past` that are cached already; the answer is their attention. */
export interface Question extends Shape {
  readonly name: string;
  readonly past: number;
  readonly tokens: number;
  /** Turns that everyone gets; see race.ts for those who take seconds. */
  readonly rounds: number;
}

export const questions: readonly Question[] = [
  { ...llama3, name: 'decode-4k', past: 4095, tokens: 1, rounds: 12 },
  { ...llama3, name: 'decode-16k', past: 16383, tokens: 1, rounds: 9 },
  { ...qwen2Small, name: 'decode-2k-small', past: 2047, tokens: 1, rounds: 12 },
  { ...llama3, name: 'prefill-1k', past: 0, tokens: 1024, rounds: 5 },
  { ...llama3, name: 'chunk-512', past: 512, tokens: 512, rounds: 5 },
];

export interface Inputs {
  /** [tokens, queryHeads, headDim] */
  readonly q: Float32Array;
  /** [past + tokens, kvHeads, headDim] */
  readonly key: Float32Array;
  /** [past + tokens, kvHeads, headDim] */
  readonly value: Float32Array;
}

export function inputsOf({ past, tokens, queryHeads, kvHeads, headDim }: Question): Inputs {
  const rows = (past + tokens) * kvHeads * headDim;
  return { q: normals(SEED, tokens * queryHeads * headDim), key: normals(SEED + 1, rows), value: normals(SEED + 2, rows) };
}

/** Someone who answers. One `run` takes in keys and values of the new tokens and attends: a whole step. */
export interface Contestant {
  readonly name: string;
  /** How keys and values are stored. */
  readonly cache: string;
  run(): void | Promise<void>;
  /** [tokens, queryHeads, headDim] of the last run. */
  out(): Float32Array;
  /** The numbers that are attended over, rounded as this cache rounds them. */
  readonly held: Inputs;
  /** Largest deviation from a float64 answer on `held`, relative to the largest value of a head's row. */
  readonly tolerance: number;
  dispose(): void | Promise<void>;
}

/** Arithmetic in f32: the bound of the package's own promise. */
export const F32_TOLERANCE = 1e-4;
/** Where queries, weights or the answer are f16. */
export const F16_TOLERANCE = 5e-3;

/** x: [tokens, kvHeads, headDim] → its first `count` tokens as [kvHeads, capacity, headDim]. */
export function headMajor<T extends Float32Array | Uint16Array | Int8Array>(x: T, to: T, count: number, { kvHeads, headDim }: Question): T {
  const capacity = to.length / (kvHeads * headDim);
  for (let token = 0; token < count; token++) {
    for (let head = 0; head < kvHeads; head++) {
      const from = (token * kvHeads + head) * headDim;
      to.set(x.subarray(from, from + headDim), (head * capacity + token) * headDim);
    }
  }
  return to;
}
