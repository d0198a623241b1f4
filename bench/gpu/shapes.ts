/** What GPU benches measure: on a GPU the shapes of large models under load; on the CPU, which plays one, what ends in minutes. */
import { llama3, type NamedShape } from '../shapes.js';

export interface GpuCase {
  readonly shape: NamedShape;
  readonly sequences: number;
  /** Keys of each sequence, those of the new tokens included. */
  readonly keys: number;
  /** New tokens of each sequence. */
  readonly tokens: number;
}

export type Size = 'small' | 'large';

const llama2: NamedShape = { name: 'Llama-2-7B 32/32×128', queryHeads: 32, kvHeads: 32, headDim: 128 };
const llama3Large: NamedShape = { name: 'Llama-3-70B 64/8×128', queryHeads: 64, kvHeads: 8, headDim: 128 };

const decode = (shape: NamedShape, sequences: number, keys: number): GpuCase => ({ shape, sequences, keys, tokens: 1 });
/** A prompt that is taken in at once: it sees itself. */
const prefill = (shape: NamedShape, tokens: number): GpuCase => ({ shape, sequences: 1, keys: tokens, tokens });

export const decodeCases: { readonly [S in Size]: readonly GpuCase[] } = {
  small: [decode(llama3, 1, 16_384), decode(llama3, 1, 4096)],
  large: [decode(llama3, 32, 16_384), decode(llama3, 1, 131_072), decode(llama2, 8, 16_384), decode(llama3Large, 32, 16_384)],
};

export const prefillCases: { readonly [S in Size]: readonly GpuCase[] } = {
  small: [prefill(llama3, 256)],
  large: [prefill(llama3, 4096), prefill(llama3, 1024)],
};

/** Bytes that are copied at a time to find out what memory gives. */
export const copyBytes: { readonly [S in Size]: number } = { small: 2 ** 27, large: 2 ** 30 };
/** Samples of each contestant. */
export const rounds: { readonly [S in Size]: number } = { small: 5, large: 21 };
