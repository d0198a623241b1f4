import { formats, type Format } from '../formats.js';
import { quotients, type Recipe } from '../recipe.js';

/** The fields of the kernels' quantizeParams that say how, not where. */
export function quantizeRule(format: Format, recipe: Recipe, givenScale: number) {
  return {
    format: formats[format].id,
    givenScale,
    max: formats[format].max,
    amaxFloor: recipe.amaxFloor,
    scaleFloor: recipe.scaleFloor,
    scaleIfZero: recipe.scaleIfZero,
    quotient: quotients[recipe.quotient],
  };
}
