/** What a cache is made of: one checked configuration per layer. */
import { checkUnscaled, sideOf } from '../append.js';
import { checkAttentionOptions } from '../attention.js';
import type { AttentionOptions, PerSide } from '../backend.js';
import { describe, type FormatName } from '../formats.js';
import { checkInteger, pageLayout, type Granularity, type PageLayout } from '../layout.js';
import { resolveRecipe, type Recipe, type RecipeName } from '../recipe.js';
import { checkGivenScale } from '../scale.js';

/** One layer. What is absent is taken from the cache's options. */
export interface LayerConfig extends AttentionOptions {
  /** A multiple of kvHeads. */
  readonly queryHeads?: number;
  readonly kvHeads?: number;
  /** A multiple of 8, at most 256. */
  readonly headDim?: number;
  /** Default e4m3fn. */
  readonly dtype?: PerSide<FormatName>;
  /** Default token-head for 8-bit formats, tensor for f16 and f32. */
  readonly granularity?: PerSide<Granularity | undefined>;
  /** How computed scales come about. Default `amax`. */
  readonly recipe?: PerSide<RecipeName | Recipe>;
  /** The given scale of granularity `tensor`. Default 1. */
  readonly scale?: PerSide<number | undefined>;
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
  readonly kScale: number | undefined;
  readonly vScale: number | undefined;
  readonly attention: AttentionOptions;
}

function stated<T>(value: T | undefined, argument: string): T {
  if (value === undefined) throw new TypeError(`"${argument}" expected a value, got undefined`);
  return value;
}

/** `own` over `base`: what is undefined is not stated. */
export function override<T extends object>(base: T, own: T): T {
  return { ...base, ...Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)) };
}

function resolveLayer(config: LayerConfig, blockSize: number): Layer {
  const kvHeads = stated(config.kvHeads, 'kvHeads');
  const headDim = stated(config.headDim, 'headDim');
  const { dtype = 'e4m3fn', granularity, recipe = 'amax', scale } = config;
  const side = (name: 'k' | 'v') => ({ dtype: sideOf(dtype, name), granularity: granularity && sideOf(granularity, name) });
  const layout = pageLayout({ kvHeads, headDim, blockSize, k: side('k'), v: side('v') });
  const queryHeads = checkInteger(config.queryHeads ?? kvHeads, 'queryHeads', 1);
  if (queryHeads % kvHeads !== 0) throw new RangeError(`"queryHeads" expected a multiple of kvHeads (${kvHeads}), got ${queryHeads}`);
  const { causal, windowLeft, windowRight, softcap, sinks, softmaxScale } = config;
  const attention = { causal, windowLeft, windowRight, softcap, sinks, softmaxScale };
  checkAttentionOptions(attention, queryHeads, headDim);
  const given = (name: 'k' | 'v'): number | undefined => {
    const own = scale && sideOf(scale, name);
    checkUnscaled(layout[name], checkGivenScale(own, layout[name], 'scale'), 'scale');
    return own;
  };
  const kScale = given('k');
  const vScale = given('v');
  return { layout, queryHeads, recipe: { k: resolveRecipe(sideOf(recipe, 'k')), v: resolveRecipe(sideOf(recipe, 'v')) }, kScale, vScale, attention };
}

/** @throws TypeError or RangeError naming the field, and the layer where there is a list of them */
export function resolveLayers(options: KvCacheOptions): Layer[] {
  const { layers, blockSize = 16 } = options;
  checkInteger(blockSize, 'blockSize', 1, 65536);
  if (!Array.isArray(layers)) {
    const count = checkInteger(layers as number, 'layers', 1, 65536);
    const layer = resolveLayer(options, blockSize);
    return Array.from({ length: count }, () => layer);
  }
  if (layers.length === 0) throw new RangeError('"layers" expected at least one layer, got none');
  return layers.map((own: LayerConfig, index) => {
    if (typeof own !== 'object' || own === null) throw new TypeError(`"layers[${index}]" expected an object, got ${describe(own)}`);
    try {
      return resolveLayer(override<LayerConfig>(options, own), blockSize);
    } catch (error) {
      if (error instanceof Error) error.message = `layers[${index}]: ${error.message}`;
      throw error;
    }
  });
}
