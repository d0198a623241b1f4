/** What was found where, and what was not: plain data, and the warnings that are made of it. */
import type { GivenGranularity } from '../kv-scales.js';
import { warn } from '../warn.js';
import type { ScaleSide } from './names.js';
import type { LayerSides, Side } from './sides.js';
import type { ScaleTensor } from './tensors.js';

/** A scale tensor that was read. */
export interface FoundScale {
  /** Its name; of a JSON file the path of the number. */
  readonly tensor: string;
  /** The file that it is in. */
  readonly file: string;
  /** From 0. */
  readonly layer: number;
  /** `kv`: one scale for both. */
  readonly side: ScaleSide;
  /** Who writes this form of a name. */
  readonly system: string;
  /** As the file has it. */
  readonly shape: readonly number[];
  /** Of the numbers in the file: of 1 / scale where the name says so. */
  readonly smallest: number;
  /** The largest of the same numbers. */
  readonly largest: number;
}

/** A tensor whose name looks like that of a scale of the KV cache, and that is none which is read. */
export interface UnmatchedScale {
  /** Its name. */
  readonly tensor: string;
  /** The file that it is in. */
  readonly file: string;
  /** Why it is not read. */
  readonly why: string;
}

/** Where a layer lacks something, or has something odd. */
export interface LayerSide {
  /** From 0. */
  readonly layer: number;
  /** Keys or values. */
  readonly side: 'k' | 'v';
}

/** What a checkpoint says about its KV cache, as data. */
export interface ScaleReport {
  /** What the place is called. */
  readonly source: string;
  /** Files that were read, if only their headers. */
  readonly files: readonly string[];
  /** File and field that state the dtype; undefined where it is what all systems assume. */
  readonly dtypeFrom: string | undefined;
  /** The granularity that is stated beside the tensors, if there is one. */
  readonly stated: GivenGranularity | undefined;
  /** The scales that were read. */
  readonly found: readonly FoundScale[];
  /** Tensors that look like scales, and are none that is read. */
  readonly unmatched: readonly UnmatchedScale[];
  /** No scale: 1 is taken. */
  readonly missing: readonly LayerSide[];
  /** No scale, but the other side has one, which is taken. */
  readonly duplicated: readonly LayerSide[];
  /** Scales over 0.5: with FP8, e4m3fn, of values over 224. */
  readonly large: readonly (LayerSide & { readonly largest: number })[];
  /** All that were found are exactly 1: none was measured, most likely. */
  readonly allOne: boolean;
}

/** Scales over this are reported. */
const LARGE = 0.5;

const smallestOf = (values: Float32Array): number => values.reduce((a, b) => Math.min(a, b), Infinity);
const largestOf = (values: Float32Array): number => values.reduce((a, b) => Math.max(a, b), -Infinity);

export const foundScale = ({ tensor, file, layer, side, system, shape, values }: ScaleTensor): FoundScale => ({
  tensor, file, layer, side, system, shape: [...shape], smallest: smallestOf(values), largest: largestOf(values),
});

/**
 * What is missing and what is odd among the scales of layers.
 * @param hasCache whether a layer has keys and values at all
 */
export function examine(layers: readonly LayerSides[], hasCache: (layer: number) => boolean): Pick<ScaleReport, 'missing' | 'duplicated' | 'large' | 'allOne'> {
  const sides = layers.flatMap((layer, index) => (['k', 'v'] as const).map((side) => ({ at: { layer: index, side }, own: layer[side], other: layer[side === 'k' ? 'v' : 'k'] })));
  const found = sides.flatMap(({ at, own }) => (own ? [{ at, values: own.values }] : []));
  const allOne = found.length > 0 && found.every(({ values }) => values.every((value) => value === 1));
  return {
    missing: sides.filter(({ at, own, other }) => !own && !other && hasCache(at.layer)).map(({ at }) => at),
    duplicated: sides.filter(({ own, other }) => !own && other).map(({ at }) => at),
    large: allOne ? [] : found.map(({ at, values }) => ({ ...at, largest: largestOf(values) })).filter(({ largest }) => largest > LARGE),
    allOne,
  };
}

/** A few of many, for a warning. */
function listed(items: readonly string[]): string {
  const few = items.slice(0, 8).join(', ');
  return items.length > 8 ? `${few} and ${items.length - 8} more` : few;
}

const places = (sides: readonly { readonly layer: number; readonly side: Side }[]): string => listed(sides.map(({ layer, side }) => `${layer}.${side}`));

/** One warning for each kind of thing that is not as it should be. */
export function warnOf({ source, unmatched, missing, duplicated, large, allOne }: ScaleReport, beforeRope: boolean): void {
  const say = (message: string): void => warn(`${source}: ${message}`);
  if (unmatched.length > 0) say(`${unmatched.length} tensors look like scales of the KV cache and are not used: ${listed(unmatched.map(({ tensor, why }) => `${tensor.slice(0, 200)} (${why})`))}`);
  if (missing.length > 0) say(`no scale for layer and side ${places(missing)}: 1 is taken`);
  if (duplicated.length > 0) say(`no scale for layer and side ${places(duplicated)}: that of the other side is taken`);
  if (allOne) say('all scales are exactly 1: most likely none was measured (ModelOpt recommends 1 for FP8)');
  if (large.length > 0) say(`scales over ${LARGE} for layer and side ${places(large)}: small values may be lost`);
  if (beforeRope) say('the scales of keys were measured before rotary position embedding, and the cache holds keys after it: those may be larger');
}
