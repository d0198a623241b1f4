/** Which attention is measured: heads as well-known models have them, and between those the rest of the grid. */

export interface Shape {
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

export interface NamedShape extends Shape {
  readonly name: string;
}

const HEAD_DIMS = [64, 80, 96, 128, 256];
const GROUPS = [1, 4, 7, 8];

const shape = (model: string, queryHeads: number, kvHeads: number, headDim: number): NamedShape => ({
  name: `${model} ${queryHeads}/${kvHeads}×${headDim}`.trim(),
  queryHeads,
  kvHeads,
  headDim,
});

export const qwen2Small = shape('Qwen2-0.5B', 14, 2, 64);
export const llama3 = shape('Llama-3-8B', 32, 8, 128);

/** In every run: one of each head dimension, and of each group. */
const few: readonly NamedShape[] = [qwen2Small, shape('Phi-2', 32, 32, 80), shape('Phi-3-mini', 32, 32, 96), llama3, shape('Gemma-2B', 8, 1, 256)];

const models: readonly NamedShape[] = [
  ...few,
  shape('GPT-2', 12, 12, 64),
  shape('Llama-3.2-1B', 32, 8, 64),
  shape('TinyLlama-1.1B', 32, 4, 64),
  shape('H2O-Danube-1.8B', 32, 8, 80),
  shape('Llama-2-7B', 32, 32, 128),
  shape('Qwen2.5-7B', 28, 4, 128),
  shape('Llama-3-70B', 64, 8, 128),
  shape('Gemma-7B', 16, 16, 256),
  shape('Gemma-3-1B', 4, 1, 256),
];

/** Every head dimension with every group: two KV heads where no model comes to mind. */
const grid = HEAD_DIMS.flatMap((headDim) =>
  GROUPS.map((group) => models.find((model) => model.headDim === headDim && model.queryHeads / model.kvHeads === group) ?? shape('', 2 * group, 2, headDim)),
);

export const shapes = (all: boolean): readonly NamedShape[] => (all ? grid : few);

/** Multiply-adds of q · k and of p · v, two each, of the pairs that causality leaves to `tokens` new tokens on `past` others. */
export function flops({ queryHeads, headDim }: Shape, past: number, tokens: number): number {
  return 4 * queryHeads * headDim * (tokens * past + (tokens * (tokens + 1)) / 2);
}
