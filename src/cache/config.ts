/** What a cache is made of: one checked configuration per layer. */
import { checkUnscaled, isPerSide, sideOf } from '../append.js';
import { checkAttentionOptions } from '../attention.js';
import type { AttentionOptions, PerSide } from '../backend.js';
import { describe, formats, resolveFormat, type FormatName } from '../formats.js';
import { checkInteger, pageLayout, type Granularity, type PageLayout } from '../layout.js';
import { resolveRecipe, type Recipe, type RecipeName } from '../recipe.js';
import { checkGivenScale, type GivenScale } from '../scale.js';

/** One layer. What is absent is taken from the cache's options. */
export interface LayerConfig extends AttentionOptions {
  /** A multiple of kvHeads. */
  readonly queryHeads?: number;
  readonly kvHeads?: number;
  /** A multiple of 8, at most 256. */
  readonly headDim?: number;
  /** Default e4m3fn. */
  readonly dtype?: PerSide<FormatName>;
  /** Default token-head for 8-bit formats. f16 and f32 carry no scales: a setting for both sides or all layers passes them by. */
  readonly granularity?: PerSide<Granularity | undefined>;
  /** How computed scales come about. Default `amax`. */
  readonly recipe?: PerSide<RecipeName | Recipe>;
  /** Given scales (granularities tensor, head, channel): one number, or as many as the granularity has. Default 1. */
  readonly scale?: PerSide<GivenScale | undefined>;
}

export interface KvCacheOptions extends LayerConfig {
  /** How many layers, all alike; or each layer's own configuration. */
  readonly layers: number | readonly LayerConfig[];
  /** Tokens per page. Default 16. */
  readonly blockSize?: number;
  /** Tokens of all sequences together; rounded up to whole pages. */
  readonly capacity: number;
}

/** A checked layer. */
export interface Layer {
  readonly layout: PageLayout;
  readonly queryHeads: number;
  readonly recipe: { readonly k: Recipe; readonly v: Recipe };
  /** Absent where the pages hold the scales. */
  readonly kScale: GivenScale | undefined;
  readonly vScale: GivenScale | undefined;
  readonly attention: AttentionOptions;
}

function stated<T>(value: T | undefined, argument: string): T {
  if (value === undefined) throw new TypeError(`"${argument}" expected a value, got undefined`);
  return value;
}

/** `own` over `base`: what is undefined is not stated. */
function override<T extends object>(base: T, own: T): T {
  return { ...base, ...Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)) };
}

/**
 * A setting that only a quantized side can have. One that was made for both sides, or for all layers, passes an unquantized
 * side by; one that was made for this very side, or for a layer without any other, is left to be refused.
 */
function scaleSetting<T>(setting: PerSide<T> | undefined, own: PerSide<T> | undefined, side: 'k' | 'v', dtype: PerSide<FormatName>): T | undefined {
  const isQuantized = (name: 'k' | 'v'): boolean => formats[resolveFormat(sideOf(dtype, name) ?? 'e4m3fn', `${name}.dtype`)].quantized;
  if (isQuantized(side)) return setting === undefined ? undefined : sideOf(setting, side);
  if (own === undefined || (!isPerSide(own) && (isQuantized('k') || isQuantized('v')))) return undefined;
  return sideOf(own, side);
}

/** @param own what the layer itself states; `config` has it over what the cache's options state */
function resolveLayer(config: LayerConfig, own: LayerConfig, blockSize: number): Layer {
  const kvHeads = stated(config.kvHeads, 'kvHeads');
  const headDim = stated(config.headDim, 'headDim');
  const { dtype = 'e4m3fn', granularity, recipe = 'amax', scale } = config;
  const side = (name: 'k' | 'v') => ({ dtype: sideOf(dtype, name), granularity: scaleSetting(granularity, own.granularity, name, dtype) });
  const layout = pageLayout({ kvHeads, headDim, blockSize, k: side('k'), v: side('v') });
  const queryHeads = checkInteger(config.queryHeads ?? kvHeads, 'queryHeads', 1);
  if (queryHeads % kvHeads !== 0) throw new RangeError(`"queryHeads" expected a multiple of kvHeads (${kvHeads}), got ${queryHeads}`);
  const { causal, windowLeft, windowRight, softcap, sinks, softmaxScale } = config;
  const attention = { causal, windowLeft, windowRight, softcap, sinks, softmaxScale };
  checkAttentionOptions(attention, queryHeads, headDim);
  const given = (name: 'k' | 'v'): GivenScale | undefined => {
    const value = scaleSetting(scale, own.scale, name, dtype);
    checkUnscaled(layout[name], checkGivenScale(value, layout[name], layout, 'scale'), 'scale');
    return value;
  };
  const kScale = given('k');
  const vScale = given('v');
  return { layout, queryHeads, recipe: { k: resolveRecipe(sideOf(recipe, 'k')), v: resolveRecipe(sideOf(recipe, 'v')) }, kScale, vScale, attention };
}

/** @throws TypeError or RangeError naming the field, and the layer where there is a list of them */
function resolveLayers(options: KvCacheOptions): Layer[] {
  if (typeof options !== 'object' || options === null) throw new TypeError(`"options" expected an object, got ${describe(options)}`);
  const { layers, blockSize = 16 } = options;
  checkInteger(blockSize, 'blockSize', 1, 65536);
  if (!Array.isArray(layers)) {
    const count = checkInteger(layers as number, 'layers', 1, 65536);
    const layer = resolveLayer(options, options, blockSize);
    return Array.from({ length: count }, () => layer);
  }
  if (layers.length === 0) throw new RangeError('"layers" expected at least one layer, got none');
  return layers.map((own: LayerConfig, index) => {
    if (typeof own !== 'object' || own === null) throw new TypeError(`"layers[${index}]" expected an object, got ${describe(own)}`);
    try {
      return resolveLayer(override<LayerConfig>(options, own), own, blockSize);
    } catch (error) {
      if (error instanceof Error) error.message = `layers[${index}]: ${error.message}`;
      throw error;
    }
  });
}

/** A slot is an int32. */
const MAX_SLOTS = 2 ** 31 - 1;

/**
 * The layers of a cache, and how many pages each has.
 * @throws TypeError or RangeError naming the option that does not fit
 */
export function resolveCache(options: KvCacheOptions): { readonly layers: readonly Layer[]; readonly pageCount: number } {
  const layers = resolveLayers(options);
  const { blockSize } = layers[0].layout;
  const most = MAX_SLOTS - (MAX_SLOTS % blockSize);
  return { layers, pageCount: Math.ceil(checkInteger(options.capacity, 'capacity', 1, most) / blockSize) };
}
