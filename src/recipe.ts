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
  /** What messages and snapshots call it. */
  readonly name: string;
  /** Lower bound of amax; 0 for none. */
  readonly amaxFloor: number;
  /** Lower bound of the scale; 0 for none. */
  readonly scaleFloor: number;
  /** The scale to use where it came out as 0, also by underflow; 0 keeps the 0. With `max-over-amax` the factor then is 1. */
  readonly scaleIfZero: number;
  /** How a value is divided by its scale. */
  readonly quotient: Quotient;
  /** How int8 codes come about; absent: the recipe is for FP8 only. */
  readonly int8?: {
    /** What amax is divided by: 127, or 127.5. */
    readonly divisor: number;
    /** The lowest code; the highest is 127. Codes are rounded half to even. */
    readonly least: -127 | -128;
  };
  /** Only for int8. */
  readonly int8Only?: boolean;
  /**
   * `f16`: scales are rounded to f16, and kept as f32 words. `f16-stored`: so are those that are stored, while what is computed
   * is what values are divided by. Default `f32`.
   */
  readonly scalePrecision?: ScalePrecision;
}

/** See {@link Recipe.scalePrecision}. */
export type ScalePrecision = 'f32' | 'f16' | 'f16-stored';

/** Their numbers in the kernels. */
export const scalePrecisions: { readonly [P in ScalePrecision]: number } = { f32: 0, f16: 1, 'f16-stored': 2 };

/** The quotient rules' numbers in the kernels. */
export const quotients: { readonly [Q in Quotient]: number } = { divide: 0, reciprocal: 1, 'max-over-amax': 2 };

const row = (name: string, amaxFloor: number, scaleFloor: number, scaleIfZero: number, quotient: Quotient, more: Pick<Recipe, 'int8' | 'int8Only' | 'scalePrecision'> = {}): Recipe =>
  Object.freeze({ name, amaxFloor, scaleFloor, scaleIfZero, quotient, ...more });

/** The recipes of the systems people come from; the last column says which. */
export const recipes = {
  /** The default. One f32 scale per KV head and token: the policy of Mila's cache. */
  amax: row('amax', 0, 0, 1, 'divide', { int8: { divisor: 127, least: -127 } }),
  /** vLLM's per-token-head kernel. */
  'vllm-token-head': row('vllm-token-head', 0, 1e-6, 0, 'reciprocal', { int8: { divisor: 127, least: -128 } }),
  /** llm-compressor's compressed-tensors. */
  'compressed-tensors': row('compressed-tensors', 0, 0, 2 ** -23, 'divide', { int8: { divisor: 127.5, least: -128 } }),
  /** Mila's activation kernels. */
  'mila-activation': row('mila-activation', 1e-12, 0, 0, 'reciprocal'),
  /** The Rust `KvCacheQuant`: an f16 scale beside codes that were computed with the f32 one. */
  'ferrum-int8': row('ferrum-int8', 1e-8, 0, 0, 'reciprocal', { int8: { divisor: 127, least: -127 }, int8Only: true, scalePrecision: 'f16-stored' }),
  /** Transformer Engine's style: the factor is computed, not the scale's reciprocal. */
  'max-over-amax': row('max-over-amax', 0, 0, 1, 'max-over-amax'),
} as const;

/** The recipes that have a name here. */
export type RecipeName = keyof typeof recipes;

/** A number that as f32, which kernels take, is finite. */
const isNumber = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(Math.fround(value));

/**
 * A recipe by name, or the given one checked.
 * @throws TypeError for an unknown name or quotient; RangeError for a bound that is negative, NaN or, as f32, infinite
 */
export function resolveRecipe(recipe: RecipeName | Recipe = 'amax'): Recipe {
  if (typeof recipe === 'string') {
    if (Object.hasOwn(recipes, recipe)) return recipes[recipe];
    throw new TypeError(`"recipe" expected one of ${Object.keys(recipes).join(', ')}, or a recipe of your own, got ${describe(recipe)}`);
  }
  if (typeof recipe !== 'object' || recipe === null) throw new TypeError(`"recipe" expected a name or an object, got ${describe(recipe)}`);
  for (const field of ['amaxFloor', 'scaleFloor', 'scaleIfZero'] as const) {
    const value = recipe[field];
    if (!(isNumber(value) && value >= 0)) throw new RangeError(`"recipe.${field}" expected a finite number of at least 0, got ${describe(value)}`);
  }
  if (!Object.hasOwn(quotients, recipe.quotient)) {
    throw new TypeError(`"recipe.quotient" expected one of ${Object.keys(quotients).join(', ')}, got ${describe(recipe.quotient)}`);
  }
  const { int8, scalePrecision } = recipe;
  if (int8 !== undefined) {
    if (typeof int8 !== 'object' || int8 === null) throw new TypeError(`"recipe.int8" expected an object, or to be absent, got ${describe(int8)}`);
    if (!(isNumber(int8.divisor) && Math.fround(int8.divisor) > 0)) throw new RangeError(`"recipe.int8.divisor" expected a finite number greater than 0, got ${describe(int8.divisor)}`);
    if (int8.least !== -127 && int8.least !== -128) throw new RangeError(`"recipe.int8.least" expected -127 or -128, got ${describe(int8.least)}`);
  }
  if (scalePrecision !== undefined) checkScalePrecision(scalePrecision, 'recipe.scalePrecision');
  return recipe;
}

function checkScalePrecision(precision: ScalePrecision, argument: string): void {
  if (!Object.hasOwn(scalePrecisions, precision)) throw new TypeError(`"${argument}" expected one of ${Object.keys(scalePrecisions).join(', ')}, got ${describe(precision)}`);
}

/**
 * The recipe with another precision of its scales.
 * @throws TypeError for a precision that there is not
 */
export function withScalePrecision(recipe: Recipe, scalePrecision: ScalePrecision | undefined): Recipe {
  if (scalePrecision === undefined) return recipe;
  checkScalePrecision(scalePrecision, 'scalePrecision');
  return { ...recipe, scalePrecision };
}
