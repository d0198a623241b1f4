import { describe } from './formats.js';

/** How a value is divided by its scale. The three differ in real cases: the rounding happens in other places. */
export type Quotient =
  /** encode(fround(x / scale)) */
  | 'divide'
  /** encode(fround(x · fround(1 / scale))) */
  | 'reciprocal'
  /** encode(fround(x · fround(max / amax))) */
  | 'max-over-amax';

/**
 * How a group's scale is computed and used: data, read by one kernel. Every step is one IEEE f32 operation, denormals kept.
 *
 * ```
 * amax  = max(|x| of the group, NaN left out)      amax  = max(amax, amaxFloor)
 * scale = max(amax / max, scaleFloor)              scale = scale = 0 ? scaleIfZero : scale
 * code  = encode(quotient(x, scale))               x ≈ decode(code) · scale
 * ```
 */
export interface Recipe {
  readonly name: string;
  /** Lower bound of amax; 0 for none. */
  readonly amaxFloor: number;
  /** Lower bound of the scale; 0 for none. */
  readonly scaleFloor: number;
  /** The scale to use where it came out as 0, also by underflow; 0 keeps the 0. With `max-over-amax` the factor then is 1. */
  readonly scaleIfZero: number;
  readonly quotient: Quotient;
}

/** The quotient rules' numbers in the kernels. */
export const quotients: { readonly [Q in Quotient]: number } = { divide: 0, reciprocal: 1, 'max-over-amax': 2 };

const row = (name: string, amaxFloor: number, scaleFloor: number, scaleIfZero: number, quotient: Quotient): Recipe =>
  Object.freeze({ name, amaxFloor, scaleFloor, scaleIfZero, quotient });

/** The recipes of the systems people come from; the last column says which. */
export const recipes = {
  /** The default. One f32 scale per KV head and token: the policy of Mila's cache. */
  amax: row('amax', 0, 0, 1, 'divide'),
  /** vLLM's per-token-head kernel. */
  'vllm-token-head': row('vllm-token-head', 0, 1e-6, 0, 'reciprocal'),
  /** llm-compressor's compressed-tensors. */
  'compressed-tensors': row('compressed-tensors', 0, 0, 2 ** -23, 'divide'),
  /** Mila's activation kernels. */
  'mila-activation': row('mila-activation', 1e-12, 0, 0, 'reciprocal'),
  /** Transformer Engine's style: the factor is computed, not the scale's reciprocal. */
  'max-over-amax': row('max-over-amax', 0, 0, 1, 'max-over-amax'),
} as const;

export type RecipeName = keyof typeof recipes;

/**
 * A recipe by name, or the given one checked.
 * @throws TypeError for an unknown name or quotient; RangeError for a bound that is negative, NaN or infinite
 */
export function resolveRecipe(recipe: RecipeName | Recipe = 'amax'): Recipe {
  if (typeof recipe === 'string') {
    if (Object.hasOwn(recipes, recipe)) return recipes[recipe];
    throw new TypeError(`"recipe" expected one of ${Object.keys(recipes).join(', ')}, or a recipe of your own, got ${describe(recipe)}`);
  }
  if (typeof recipe !== 'object' || recipe === null) throw new TypeError(`"recipe" expected a name or an object, got ${describe(recipe)}`);
  for (const field of ['amaxFloor', 'scaleFloor', 'scaleIfZero'] as const) {
    const value = recipe[field];
    if (!(Number.isFinite(value) && value >= 0)) throw new RangeError(`"recipe.${field}" expected a finite number of at least 0, got ${describe(value)}`);
  }
  if (!Object.hasOwn(quotients, recipe.quotient)) {
    throw new TypeError(`"recipe.quotient" expected one of ${Object.keys(quotients).join(', ')}, got ${describe(recipe.quotient)}`);
  }
  return recipe;
}
