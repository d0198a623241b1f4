/** A recipe in one format, as numbers: what kernels of both backends are told of it. */
import { formats, type Format } from './formats.js';
import type { Granularity } from './layout.js';
import { isGiven } from './policies.js';
import { quotients, scalePrecisions, type Recipe } from './recipe.js';

/** The fields of the kernels' quantizeParams that say how, not where. */
export type QuantizeRule = ReturnType<typeof quantizeRule>;

/** Where scales are given, the quotient is x / scale, as in vLLM's reshape_and_cache_flash. */
export function quantizeRule(side: { readonly format: Format; readonly granularity: Granularity }, recipe: Recipe) {
  return {
    format: formats[side.format].id,
    max: side.format === 'int8' ? (recipe.int8?.divisor ?? formats.int8.max) : formats[side.format].max,
    amaxFloor: recipe.amaxFloor,
    scaleFloor: recipe.scaleFloor,
    scaleIfZero: recipe.scaleIfZero,
    quotient: isGiven(side.granularity) ? quotients.divide : quotients[recipe.quotient],
    scalePrecision: scalePrecisions[recipe.scalePrecision ?? 'f32'],
    // Given scales are no recipe's: there int8 goes from -127 to 127.
    least: isGiven(side.granularity) ? -127 : (recipe.int8?.least ?? -127),
  };
}
