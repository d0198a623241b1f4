/** What each layer of a cache keeps, by the words of the documentation, and where: written down once more, as plainly as can be. */
import type { KvCacheOptions } from '../../../src/index.js';

/** One layer, as a world states it. */
interface LayerRule {
  readonly slidingWindow?: number;
  readonly sinkTokens?: number;
  /** Whether it stays unquantized, and so has no residual. */
  readonly skipped?: boolean;
}

/** What a world's cache is made of: all layers have one head of 8 dims. */
export interface WorldShape {
  readonly layers: readonly LayerRule[];
  readonly dtype: 'e4m3fn' | 'e5m2' | 'int8' | 'f32';
  readonly blockSize: number;
  readonly pages: number;
  /** Tokens of a step's sequence, at most; Infinity where the cache does not ask. */
  readonly chunk: number;
  readonly context?: number;
  readonly sequences?: number;
  readonly residual?: number;
  readonly residualRule?: 'page' | 'huggingface';
  readonly residualDtype?: 'f32' | 'f16';
}

/** Layers that keep the same tokens in the same places. */
export interface GroupRule {
  readonly kind: 'all' | 'ring' | 'residual';
  readonly blockSize: number;
  /** Of a ring: how many keys a row sees, how many tokens are kept, the first ones not counted, and how many of those. */
  readonly window: number;
  readonly capacity: number;
  readonly sinkTokens: number;
  /** Whether tokens come only when they leave the residual. */
  readonly late: boolean;
  /** The layers. */
  readonly layers: readonly number[];
}

export function optionsOf(shape: WorldShape): KvCacheOptions {
  const { layers, dtype, blockSize, pages, chunk, context, sequences, residual, residualRule, residualDtype } = shape;
  return {
    kvHeads: 1, headDim: 8, dtype, blockSize, capacity: pages * blockSize, context, sequences, residual, residualRule, residualDtype,
    chunk: Number.isFinite(chunk) ? chunk : undefined,
    layers: layers.map(({ slidingWindow, sinkTokens }) => ({ slidingWindow, sinkTokens })),
    skipLayers: layers.flatMap(({ skipped }, layer) => (skipped ? [layer] : [])),
  };
}

/** How long a sequence may get: where there are rings, or it is stated. */
export function longestOf({ layers, context, pages, blockSize }: WorldShape): number {
  return context ?? (layers.some(({ slidingWindow }) => slidingWindow) ? pages * blockSize : Infinity);
}

const isQuantized = ({ skipped }: LayerRule, { dtype }: WorldShape): boolean => dtype !== 'f32' && !skipped;

/** The groups of the layers, in their order, then that of the residuals. */
export function rulesOf(shape: WorldShape): GroupRule[] {
  const { blockSize, chunk, residual } = shape;
  const rules: (GroupRule & { layers: number[] })[] = [];
  const add = (rule: Omit<GroupRule, 'layers'>, layer: number): void => {
    const there = rules.find((own) => Object.entries(rule).every(([name, value]) => own[name as keyof typeof rule] === value));
    if (there) there.layers.push(layer);
    else rules.push({ ...rule, layers: [layer] });
  };
  const all = { kind: 'all', blockSize, window: Infinity, capacity: Infinity, sinkTokens: 0 } as const;
  for (const [index, layer] of shape.layers.entries()) {
    const late = residual !== undefined && isQuantized(layer, shape);
    const { slidingWindow, sinkTokens = 0 } = layer;
    if (slidingWindow === undefined) add({ ...all, late }, index);
    else add({ kind: 'ring', blockSize, window: slidingWindow, capacity: Math.min(longestOf(shape) - sinkTokens, slidingWindow + chunk - 1), sinkTokens, late }, index);
  }
  if (residual === undefined) return rules;
  for (const [index, layer] of shape.layers.entries()) if (isQuantized(layer, shape)) add({ ...all, kind: 'residual', late: false }, index);
  return rules;
}

/** Tokens that are quantized, and whether the rest are to be with the next step. */
export interface Quantized {
  readonly quantized: number;
  readonly due: boolean;
}

/** What a step of some tokens, one at least, makes of a sequence with so many. */
export function quantizedNext(shape: WorldShape, before: Quantized, length: number, added: number): Quantized {
  const { quantized, due } = quantizedByRule(shape, before, length, added);
  // First tokens that a quantized layer keeps beside its ring never are in the residual.
  const first = Math.max(...shape.layers.map((layer) => (isQuantized(layer, shape) ? layer.sinkTokens ?? 0 : 0)));
  return { quantized: Math.max(quantized, Math.min(first, length + added)), due };
}

function quantizedByRule({ residual = 0, residualRule, blockSize }: WorldShape, { quantized, due }: Quantized, length: number, added: number): Quantized {
  if (residualRule === 'huggingface') {
    if (length === 0) return { quantized: added, due: false };
    const from = due ? length : quantized;
    const kept = length - from;
    return { quantized: from, due: kept > 0 && kept >= residual - 1 };
  }
  let next = quantized;
  // A page of tokens, all of them older than the most recent ones.
  while (next + blockSize <= length + added - residual) next += blockSize;
  return { quantized: next, due: false };
}

/** Which of a sequence's pages a token is in, and at which place. `first`: the token that a residual begins with. */
export function locate({ kind, blockSize, capacity, sinkTokens }: GroupRule, first: number, token: number): readonly [page: number, place: number] {
  if (kind !== 'ring') return [Math.floor((token - first) / blockSize), (token - first) % blockSize];
  if (token < sinkTokens) return [Math.floor(token / blockSize), token % blockSize];
  const turn = (token - sinkTokens) % (Math.ceil(capacity / blockSize) * blockSize);
  return [Math.ceil(sinkTokens / blockSize) + Math.floor(turn / blockSize), turn % blockSize];
}
