/** Scales that a call is given. */
import { describe } from './formats.js';
import type { PageLayout, SideLayout } from './layout.js';
import { isGiven } from './policies.js';

/** One number for all, or as many as the granularity has: `head` [kvHeads], `channel` [kvHeads, headDim]. */
export type GivenScale = number | Float32Array;

/** Given scales as kernels find them: that of sequence s, KV head h, dim d is `values[s · sequenceStride + h · headStride + d · dimStride]`. */
export interface GivenScales {
  readonly values: Float32Array;
  readonly sequenceStride: number;
  readonly headStride: number;
  readonly dimStride: number;
}

const broadcast = (values: Float32Array): GivenScales => ({ values, sequenceStride: 0, headStride: 0, dimStride: 0 });

const one = broadcast(Float32Array.of(1));

const isScale = (scale: number): boolean => scale > 0 && scale < Infinity;

/**
 * A given scale as f32.
 * @throws TypeError for what is no number; RangeError for 0 (also by underflow), negative, infinite or NaN
 */
export function checkScale(scale: number, argument: string): number {
  if (typeof scale !== 'number') throw new TypeError(`"${argument}" expected a number or a Float32Array, got ${describe(scale)}`);
  const rounded = Math.fround(scale);
  if (!isScale(rounded)) throw new RangeError(`"${argument}" expected a finite scale greater than 0, got ${describe(scale)}`);
  return rounded;
}

function checkScales(scales: Float32Array, argument: string): void {
  for (let i = 0; i < scales.length; i++) if (!isScale(scales[i])) checkScale(scales[i], `${argument}[${i}]`);
}

/**
 * The given scales of one side: 1 where none are stated.
 * @throws TypeError where the pages hold scales of their own; RangeError for a scale that is none, or for another number of them
 */
export function checkGivenScale(scale: GivenScale | undefined, side: SideLayout, { kvHeads, headDim }: PageLayout, argument: string): GivenScales {
  if (scale === undefined) return one;
  if (!isGiven(side.granularity)) {
    throw new TypeError(`"${argument}" expected to be absent: the pages hold a scale per token and head${side.granularity === 'group' ? ' and group' : ''}`);
  }
  if (!(scale instanceof Float32Array)) return broadcast(Float32Array.of(checkScale(scale, argument)));
  const shapes = { tensor: [0, 0, 1], head: [1, 0, kvHeads], channel: [headDim, 1, kvHeads * headDim] } as const;
  const [headStride, dimStride, length] = shapes[side.granularity as keyof typeof shapes];
  if (scale.length !== 1 && scale.length !== length) {
    const expected = length === 1 ? '1 scale' : `1 scale or ${length}`;
    throw new RangeError(`"${argument}" expected ${expected} for granularity ${side.granularity}, got ${scale.length}`);
  }
  checkScales(scale, argument);
  return scale.length === 1 ? broadcast(scale) : { values: scale, sequenceStride: 0, headStride, dimStride };
}

/**
 * The scales of one side in an attention call: those given, or the call's own for each sequence and head.
 * @param descale one number for all, or [sequences, kvHeads]
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function checkDescale(
  { scale, descale }: { readonly scale: GivenScale | undefined; readonly descale: GivenScale | undefined },
  side: SideLayout,
  layout: PageLayout,
  sequences: number,
  name: 'k' | 'v',
): GivenScales {
  const argument = `${name}Descale`;
  if (descale === undefined) return checkGivenScale(scale, side, layout, `${name}Scale`);
  if (scale !== undefined) throw new TypeError(`"${argument}" expected to be absent where "${name}Scale" is given: it stands in its place`);
  if (side.granularity !== 'tensor' && side.granularity !== 'head') {
    throw new TypeError(`"${argument}" expected granularity tensor or head, got ${side.granularity}: ${isGiven(side.granularity) ? `use "${name}Scale"` : 'the pages hold their scales'}`);
  }
  if (!(descale instanceof Float32Array)) return broadcast(Float32Array.of(checkScale(descale, argument)));
  const { kvHeads } = layout;
  if (descale.length !== 1 && descale.length !== sequences * kvHeads) {
    throw new RangeError(`"${argument}" expected 1 scale or [${sequences} sequences, ${kvHeads} kvHeads], got ${descale.length}`);
  }
  checkScales(descale, argument);
  return descale.length === 1 ? broadcast(descale) : { values: descale, sequenceStride: kvHeads, headStride: 1, dimStride: 0 };
}

/** Given scales of granularity channel in two factors: a power of two for each head, and for each dim what is at most 1. */
export interface ChannelScales {
  /** [kvHeads] */
  readonly heads: Float32Array;
  /** [kvHeads, headDim] */
  readonly channels: Float32Array;
}

/**
 * Attention multiplies q, or out, with a head's channels: by numbers of at most 1, so that no q or sum of values overflows
 * on the way to a result that would not. The factors are exact but for scales 2^-126 as large as their head's largest.
 */
export function splitChannels({ values }: GivenScales, { kvHeads, headDim }: PageLayout): ChannelScales {
  const heads = new Float32Array(kvHeads);
  const channels = new Float32Array(kvHeads * headDim);
  for (let head = 0; head < kvHeads; head++) {
    const scales = values.subarray(head * headDim, (head + 1) * headDim);
    const largest = scales.reduce((a, b) => Math.max(a, b), 0);
    const exponent = Math.min(127, Math.max(-126, Math.ceil(Math.log2(largest))));
    heads[head] = 2 ** exponent;
    for (let d = 0; d < headDim; d++) channels[head * headDim + d] = scales[d] / heads[head];
  }
  return { heads, channels };
}
