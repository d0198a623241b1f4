import { formats, type Format } from '../formats.js';
import type { Granularity } from '../layout.js';
import { quotients, type Recipe } from '../recipe.js';

/** The fields of the kernels' quantizeParams that say how, not where. */
export type QuantizeRule = ReturnType<typeof quantizeRule>;

/** @param givenScale what to divide by where the granularity is `tensor`: as vLLM's reshape_and_cache_flash does */
export function quantizeRule(side: { readonly format: Format; readonly granularity: Granularity }, recipe: Recipe, givenScale: number) {
  return {
    format: formats[side.format].id,
    givenScale,
    max: formats[side.format].max,
    amaxFloor: recipe.amaxFloor,
    scaleFloor: recipe.scaleFloor,
    scaleIfZero: recipe.scaleIfZero,
    quotient: side.granularity === 'tensor' ? quotients.divide : quotients[recipe.quotient],
  };
}
