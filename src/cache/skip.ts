/** Which layers stay unquantized. */
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';

/** Numbers of layers, or a function that says of each number whether it is one of them. */
export type SkipLayers = readonly number[] | ((layer: number) => boolean);

function askedOf(says: (layer: number) => boolean, layer: number): boolean {
  const skipped: unknown = says(layer);
  if (typeof skipped !== 'boolean') throw new TypeError(`"skipLayers" expected true or false for layer ${layer}, got ${describe(skipped)}`);
  return skipped;
}

/** @throws TypeError or RangeError for what is no such list, and for a layer that there is not, or that is there twice */
export function resolveSkipped(skipLayers: SkipLayers | undefined, layers: number): ReadonlySet<number> {
  const skipped = new Set<number>();
  if (skipLayers === undefined) return skipped;
  if (typeof skipLayers === 'function') {
    for (let layer = 0; layer < layers; layer++) if (askedOf(skipLayers, layer)) skipped.add(layer);
    return skipped;
  }
  if (!Array.isArray(skipLayers)) throw new TypeError(`"skipLayers" expected an array of layer numbers, or a function, got ${describe(skipLayers)}`);
  for (const [index, layer] of (skipLayers as readonly number[]).entries()) {
    checkInteger(layer, `skipLayers[${index}]`, 0, layers - 1);
    if (skipped.has(layer)) throw new RangeError(`"skipLayers[${index}]" expected each layer once, got ${layer} again`);
    skipped.add(layer);
  }
  return skipped;
}
