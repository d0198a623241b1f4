/** From what observers have seen to scales that a cache takes. */
import type { LayerShape } from '../cache/observer.js';
import type { GivenGranularity } from '../kv-scales.js';
import type { Observer } from './observer.js';
import type { ScaleRule } from './scale-rule.js';

/**
 * @param whose keys, values or queries, and the layer, for errors
 * @returns [groups]
 * @throws RangeError where a group has no scale that a cache could use
 */
export function scalesOf(observer: Observer, rule: ScaleRule, whose: string): Float32Array {
  if (observer.infinite) throw new RangeError(`"scales" expected finite ${whose}, got an infinity among them`);
  const amax = observer.amax();
  const nothing = amax.findIndex(Number.isNaN);
  if (nothing >= 0) throw new RangeError(`"scales" expected numbers in every group of the ${whose}, got nothing but NaN in group ${nothing}`);
  const scales = rule.scales(amax, amax.length);
  const bad = scales.findIndex((scale) => !(scale > 0 && scale < Infinity));
  if (bad >= 0) throw new RangeError(`"scales" expected ${whose} that have a scale, got ${scales[bad]} for group ${bad}, whose largest magnitude is ${amax[bad]}`);
  return scales;
}

/** [queryHeads …] to [kvHeads …]: the largest of the query heads that share a KV head, as engines that quantize queries do with a checkpoint's scales. */
export function maxOfQueryGroups(scales: Float32Array, granularity: GivenGranularity, { kvHeads, queryHeads, headDim }: LayerShape): Float32Array {
  if (granularity === 'tensor') return scales;
  const width = granularity === 'head' ? 1 : headDim;
  const perGroup = queryHeads! / kvHeads;
  const largest = new Float32Array(kvHeads * width);
  for (const [i, scale] of scales.entries()) {
    const at = Math.floor(i / (perGroup * width)) * width + (i % width);
    largest[at] = Math.max(largest[at], scale);
  }
  return largest;
}
