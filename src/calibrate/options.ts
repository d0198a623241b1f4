/** What a calibration is asked for, checked. */
import { inLayer } from '../cache/config.js';
import { describe, resolveQuantizedFormat, type FormatName, type QuantizedFormat } from '../formats.js';
import type { GivenGranularity } from '../kv-scales.js';
import { checkInteger, pageLayout } from '../layout.js';
import { checkObject, checkOptions, type OptionNames } from '../options.js';
import { checkPolicy, granularities, isGiven } from '../policies.js';
import { resolveRecipe, type Recipe, type RecipeName } from '../recipe.js';
import type { LayerShape } from '../cache/observer.js';
import type { SearchSettings } from './grid-search.js';
import type { ObserverName } from './observer.js';

/** One layer. What is absent is taken from the calibration's options. A `LayerConfig` may stand here. */
export interface CalibrationLayer {
  /** Heads of keys and values. */
  readonly kvHeads?: number;
  /** A multiple of 8, at most 256. */
  readonly headDim?: number;
  /** A multiple of kvHeads; of use with `queries` alone. Default kvHeads. */
  readonly queryHeads?: number;
}

export interface CalibrationOptions extends CalibrationLayer {
  /** How many layers, all alike; or each layer's own shape. */
  readonly layers: number | readonly CalibrationLayer[];
  /** Also finds scales of queries. Default false. */
  readonly queries?: boolean;
  /** What the scales are for. Default e4m3fn. */
  readonly dtype?: Exclude<FormatName, 'f16' | 'f32'>;
  /** What shares a scale. Default `tensor`. `head` is llm-compressor's `attn_head`. */
  readonly granularity?: GivenGranularity;
  /** Default `minmax`. */
  readonly observer?: ObserverName;
  /** Whose rule makes a scale of the largest magnitude; the quotient is `divide`, as of all given scales. Default `compressed-tensors`. */
  readonly recipe?: RecipeName | Recipe;
  /** Weight of a call in the average of `minmax` and `mse`: greater than 0, at most 1. Default 0.01. */
  readonly averagingConstant?: number;
  /** How much `mse` shrinks a range at most: from 0 to 1. Default 0.2. */
  readonly maxshrink?: number;
  /** `mse` ends a search after so many ranges that were no better. Default 5. */
  readonly patience?: number;
  /** `mse` shrinks in steps of 1 / grid. Default 100. */
  readonly grid?: number;
  /** Exponent of the errors that `mse` sums: greater than 0, at most 8. Default 2.4. */
  readonly norm?: number;
}

const optionNames: OptionNames<CalibrationOptions> = {
  layers: true, kvHeads: true, headDim: true, queryHeads: true, queries: true, dtype: true, granularity: true, observer: true, recipe: true,
  averagingConstant: true, maxshrink: true, patience: true, grid: true, norm: true,
};

export interface ResolvedCalibration {
  readonly shapes: readonly LayerShape[];
  readonly format: QuantizedFormat;
  readonly granularity: GivenGranularity;
  readonly recipe: Recipe;
  readonly observer: ObserverName;
  readonly averagingConstant: number;
  /** Of observer `mse`. */
  readonly search: SearchSettings | undefined;
}

/** Which options an observer has a use for. */
const settings: { readonly [O in ObserverName]: readonly string[] } = {
  'memoryless-minmax': [],
  'static-minmax': [],
  minmax: ['averagingConstant'],
  mse: ['averagingConstant', 'maxshrink', 'patience', 'grid', 'norm'],
};

export const observerNames = Object.keys(settings) as readonly ObserverName[];

function checkNumber(value: number, argument: string, isFine: boolean, expected: string): number {
  if (typeof value !== 'number' || !isFine) throw new RangeError(`"${argument}" expected ${expected}, got ${describe(value)}`);
  return value;
}

function resolveObserver(options: CalibrationOptions): Pick<ResolvedCalibration, 'observer' | 'averagingConstant' | 'search'> {
  const { observer = 'minmax', averagingConstant = 0.01, maxshrink = 0.2, patience = 5, grid = 100, norm = 2.4 } = options;
  if (!observerNames.includes(observer)) throw new TypeError(`"observer" expected one of ${observerNames.join(', ')}, got ${describe(observer)}`);
  for (const name of settings.mse) {
    const value = options[name as keyof CalibrationOptions];
    if (value !== undefined && !settings[observer].includes(name)) throw new TypeError(`"${name}" expected to be absent with observer ${observer}, which has no use for it, got ${describe(value)}`);
  }
  checkNumber(averagingConstant, 'averagingConstant', averagingConstant > 0 && averagingConstant <= 1, 'a number greater than 0, at most 1');
  checkNumber(maxshrink, 'maxshrink', maxshrink >= 0 && maxshrink <= 1, 'a number from 0 to 1');
  checkInteger(patience, 'patience', 1);
  checkInteger(grid, 'grid', 1, 2 ** 20);
  checkNumber(norm, 'norm', norm > 0 && norm <= 8, 'a number greater than 0, at most 8');
  return { observer, averagingConstant, search: observer === 'mse' ? { maxshrink, patience, grid, norm } : undefined };
}

function resolveShape({ kvHeads, headDim, queryHeads = kvHeads }: CalibrationLayer, queries: boolean): LayerShape {
  for (const [name, value] of Object.entries({ kvHeads, headDim })) if (value === undefined) throw new TypeError(`"${name}" expected a value, got undefined`);
  pageLayout({ kvHeads: kvHeads!, headDim: headDim!, blockSize: 1 });
  checkInteger(queryHeads!, 'queryHeads', 1);
  if (queryHeads! % kvHeads! !== 0) throw new RangeError(`"queryHeads" expected a multiple of kvHeads (${kvHeads}), got ${queryHeads}`);
  return { kvHeads: kvHeads!, headDim: headDim!, queryHeads: queries ? queryHeads! : undefined };
}

function resolveShapes(options: CalibrationOptions): LayerShape[] {
  const { layers, kvHeads, headDim, queryHeads, queries = false } = options;
  if (typeof queries !== 'boolean') throw new TypeError(`"queries" expected true or false, got ${describe(queries)}`);
  if (!Array.isArray(layers)) {
    const count = checkInteger(layers as number, 'layers', 1, 65536);
    const shape = resolveShape({ kvHeads, headDim, queryHeads }, queries);
    return Array.from({ length: count }, () => shape);
  }
  if (layers.length === 0) throw new RangeError('"layers" expected at least one layer, got none');
  return Array.from(layers as readonly CalibrationLayer[], (own, index) => {
    checkObject(own, `layers[${index}]`);
    return inLayer(index, () => resolveShape({ kvHeads: own.kvHeads ?? kvHeads, headDim: own.headDim ?? headDim, queryHeads: own.queryHeads ?? queryHeads }, queries));
  });
}

/** @throws TypeError or RangeError naming the option that does not fit */
export function resolveCalibration(options: CalibrationOptions): ResolvedCalibration {
  checkOptions(options, 'options', optionNames);
  const { dtype = 'e4m3fn', granularity = 'tensor' } = options;
  const format = resolveQuantizedFormat(dtype, 'dtype');
  if (typeof granularity !== 'string' || !Object.hasOwn(granularities, granularity) || !isGiven(granularity)) throw new TypeError(`"granularity" expected tensor, head or channel, got ${describe(granularity)}`);
  const recipe = resolveRecipe(options.recipe ?? 'compressed-tensors');
  // Asked as of computed scales, since that is what the recipe does here.
  checkPolicy({ format, granularity: 'token-head' }, 'k', recipe);
  return { shapes: resolveShapes(options), format, granularity, recipe, ...resolveObserver(options) };
}
