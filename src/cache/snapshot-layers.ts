/** What a snapshot says of a cache's layers, and whether they are another's. */
import type { Pages } from '../backend.js';
import { describe } from '../formats.js';
import type { SnapshotLayer, SnapshotSide } from '../files/snapshot-head.js';
import type { SideLayout } from '../layout.js';
import { isGiven } from '../policies.js';
import type { Recipe } from '../recipe.js';
import type { ResolvedCache } from './config.js';
import type { PageGroup } from './groups.js';
import { storeNumber, type StorePlans } from './stores.js';

/** What a cache is made of. */
export interface CacheParts {
  readonly options: ResolvedCache;
  readonly plans: StorePlans;
  readonly groups: readonly PageGroup[];
  /** By number of the store. */
  readonly pages: readonly Pages[];
}

/** What is one recipe looks as one: without what is as it is by default, or no part of it. */
function plainRecipe({ name, amaxFloor, scaleFloor, scaleIfZero, quotient, int8, int8Only, scalePrecision = 'f32' }: Recipe): Recipe {
  return {
    name, amaxFloor, scaleFloor, scaleIfZero, quotient,
    ...(int8 && { int8: { divisor: int8.divisor, least: int8.least } }),
    ...(int8Only && { int8Only }),
    ...(scalePrecision !== 'f32' && { scalePrecision }),
  };
}

function sideOf({ format, granularity, groupSize }: SideLayout, recipe: Recipe, given: Float32Array | undefined): SnapshotSide {
  return {
    format, granularity,
    ...(granularity === 'group' && { groupSize }),
    ...(!isGiven(granularity) && { recipe: plainRecipe(recipe) }),
    ...(given && { givenScales: given.length }),
  };
}

/** The layers of a cache, each with the numbers of its groups in it. */
export function snapshotLayers({ options, plans }: CacheParts): SnapshotLayer[] {
  const { residual } = options;
  return options.layers.map(({ layout, recipe, kScale, vScale, ring }, index): SnapshotLayer => {
    const codes = storeNumber(plans, index, 'codes')!;
    const recent = storeNumber(plans, index, 'residual');
    return {
      group: plans.stores[codes].group, kvHeads: layout.kvHeads, headDim: layout.headDim, k: sideOf(layout.k, recipe.k, kScale), v: sideOf(layout.v, recipe.v, vScale),
      ...(ring && { window: ring.window, sinkTokens: ring.sinkTokens }),
      ...(residual && recent !== undefined && { residual: { group: plans.stores[recent].group, tokens: residual.tokens, dtype: residual.dtype, rule: residual.rule } }),
    };
  });
}

/** All fields, those of objects within by their paths. */
function fieldsOf(value: object, path = ''): [string, unknown][] {
  return Object.entries(value).flatMap(([name, field]): [string, unknown][] => (typeof field === 'object' && field !== null ? fieldsOf(field as object, `${path}${name}.`) : [[path + name, field]]));
}

/** What must be the same: not the groups, which are numbered as they come, nor how many numbers say which scales are given. */
function comparable({ kvHeads, headDim, k, v, window, sinkTokens = 0, residual }: SnapshotLayer): Map<string, unknown> {
  const side = ({ format, granularity, groupSize, recipe }: SnapshotSide): object => ({ format, granularity, groupSize, ...(recipe && { recipe: plainRecipe(recipe) }) });
  return new Map(fieldsOf({ kvHeads, headDim, k: side(k), v: side(v), window, sinkTokens, ...(residual && { residual: { ...residual, group: undefined } }) }));
}

const show = (value: unknown): string => (value === undefined ? 'none' : typeof value === 'string' ? value : describe(value).replace(/^\w+ /, ''));

/** @throws TypeError naming what differs */
export function checkSameLayers(theirs: readonly SnapshotLayer[], own: readonly SnapshotLayer[]): void {
  if (theirs.length !== own.length) throw new TypeError(`"snapshot" expected ${own.length} layers, as the cache has, got ${theirs.length}`);
  for (const [index, layer] of own.entries()) {
    const [expected, got] = [comparable(layer), comparable(theirs[index])];
    for (const field of new Set([...expected.keys(), ...got.keys()])) {
      if (expected.get(field) !== got.get(field)) throw new TypeError(`"snapshot" expected ${field} ${show(expected.get(field))} in layer ${index}, as the cache has, got ${show(got.get(field))}`);
    }
  }
}

/** What each of given scales stands for: 1 where there are none. */
const scaleAt = (scales: Float32Array | undefined, index: number): number => (scales === undefined ? 1 : scales[scales.length === 1 ? 0 : index]);

/** @throws TypeError where the given scales are not the same, bit for bit, each where it counts */
export function checkSameScales(theirs: Float32Array | undefined, own: Float32Array | undefined, what: string): void {
  const most = Math.max(theirs?.length ?? 1, own?.length ?? 1);
  for (let i = 0; i < most; i++) {
    const [expected, got] = [scaleAt(own, i), scaleAt(theirs, i)];
    // Those of a cache are greater than 0: numbers that are equal have the same bits.
    if (expected !== got) throw new TypeError(`"snapshot" expected the scale ${expected} at ${i} of ${what}, as the cache has, got ${got}`);
  }
}
