/** What a cache is made of: one checked configuration per layer. */
import { checkAppendScale, isPerSide, recipeOf, sideOf } from '../append.js';
import { checkAttentionOptions } from '../attention.js';
import type { AttentionOptions, PerSide } from '../backend.js';
import { describe, formats, resolveCacheDtype, type CacheDtype, type FloatDtype } from '../formats.js';
import { checkInteger, MAX_BLOCK_SIZE, pageLayout, type Granularity, type PageLayout } from '../layout.js';
import { resolvePreset, type PresetName } from '../presets.js';
import type { Recipe, RecipeName, ScalePrecision } from '../recipe.js';
import type { GivenScale } from '../scale.js';
import { resolveSkipped, type SkipLayers } from './skip.js';

/**
 * One layer. What is absent is taken from the cache's options.
 *
 * Granularity, groupSize, recipe, scale and scalePrecision are for quantized keys and values: a setting for both sides, or for
 * all layers, passes by those that are stored as they are.
 */
export interface LayerConfig extends AttentionOptions {
  /** A multiple of kvHeads. */
  readonly queryHeads?: number;
  readonly kvHeads?: number;
  /** A multiple of 8, at most 256. */
  readonly headDim?: number;
  /** Default e4m3fn. `auto` keeps keys and values as the model has them: see `modelDtype`. */
  readonly dtype?: PerSide<CacheDtype>;
  /** What `auto` stands for: f32 (default) and f16 are stored as such, bf16 as f32, which has all its values, as there is no format of bf16. */
  readonly modelDtype?: FloatDtype;
  /** What shares a scale. Default token-head for 8-bit formats. */
  readonly granularity?: PerSide<Granularity | undefined>;
  /** Dims that share a scale: needed with granularity `group`, and only there. A multiple of 8 that divides headDim. */
  readonly groupSize?: PerSide<number | undefined>;
  /** How computed scales come about (granularities token-head, group). Default `amax`. */
  readonly recipe?: PerSide<RecipeName | Recipe>;
  /** In place of the recipe's: `f16` rounds computed scales to f16, kept as f32 words. Default: what the recipe says. */
  readonly scalePrecision?: PerSide<ScalePrecision | undefined>;
  /** Given scales (granularities tensor, head, channel): one number, or as many as the granularity has. Default 1. */
  readonly scale?: PerSide<GivenScale | undefined>;
}

export interface KvCacheOptions extends LayerConfig {
  /** How many layers, all alike; or each layer's own configuration. */
  readonly layers: number | readonly LayerConfig[];
  /**
   * Layers that stay unquantized, as with `dtype: 'auto'`: their numbers, or a function that says of a number whether it is one
   * of them. vLLM's kv_cache_dtype_skip_layers.
   */
  readonly skipLayers?: SkipLayers;
  /** The settings of another system; what is stated beside it wins. */
  readonly preset?: PresetName;
  /**
   * `paged` (default): sequences take pages of `blockSize` tokens as they grow. `contiguous`: each has one run of `capacity`
   * slots from its first token on, as in caches without a page table: a page of that size. A fork shares it until one of the
   * two writes, and then needs one of its own.
   */
  readonly layout?: 'paged' | 'contiguous';
  /** Tokens per page. Default 16. A contiguous cache has none to state. */
  readonly blockSize?: number;
  /** Tokens of all sequences together, rounded up to whole pages; in a contiguous cache, of each sequence, at most 2^20. */
  readonly capacity: number;
  /** Of a contiguous cache: how many sequences have tokens at a time, at most. Default 1. */
  readonly sequences?: number;
}

/** A checked layer. */
export interface Layer {
  readonly layout: PageLayout;
  readonly queryHeads: number;
  /** With the layer's scalePrecision. */
  readonly recipe: { readonly k: Recipe; readonly v: Recipe };
  /** Absent where the pages hold the scales. */
  readonly kScale: Float32Array | undefined;
  readonly vScale: Float32Array | undefined;
  readonly attention: AttentionOptions;
}

function stated<T>(value: T | undefined, argument: string): T {
  if (value === undefined) throw new TypeError(`"${argument}" expected a value, got undefined`);
  return value;
}

/** `own` over `base`: what is undefined is not stated. */
function override<T extends object, O extends object>(base: T, own: O): T & O {
  return { ...base, ...Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)) } as T & O;
}

type Side = 'k' | 'v';
type Dtypes = Pick<LayerConfig, 'dtype' | 'modelDtype'>;

const formatOf = ({ dtype = 'e4m3fn', modelDtype = 'f32' }: Dtypes, side: Side) => resolveCacheDtype(sideOf(dtype, side) ?? 'e4m3fn', modelDtype, `${side}.dtype`);

/**
 * A setting that only a quantized side can have. One that was made for both sides, or for all layers, passes an unquantized
 * side by; one that was made for this very side, or for a layer without any other, is left to be refused.
 */
function scaleSetting<T>(setting: PerSide<T> | undefined, own: PerSide<T> | undefined, side: Side, dtypes: Dtypes): T | undefined {
  const isQuantized = (name: Side): boolean => formats[formatOf(dtypes, name)].quantized;
  if (isQuantized(side)) return setting === undefined ? undefined : sideOf(setting, side);
  if (own === undefined || (!isPerSide(own) && (isQuantized('k') || isQuantized('v')))) return undefined;
  return sideOf(own, side);
}

/** @param own what the layer itself states; `config` has it over what the cache's options state */
function resolveLayer(config: LayerConfig, own: LayerConfig, blockSize: number): Layer {
  const kvHeads = stated(config.kvHeads, 'kvHeads');
  const headDim = stated(config.headDim, 'headDim');
  const side = (name: Side) => ({
    dtype: formatOf(config, name),
    granularity: scaleSetting(config.granularity, own.granularity, name, config),
    groupSize: scaleSetting(config.groupSize, own.groupSize, name, config),
  });
  const layout = pageLayout({ kvHeads, headDim, blockSize, k: side('k'), v: side('v') });
  const queryHeads = checkInteger(config.queryHeads ?? kvHeads, 'queryHeads', 1);
  if (queryHeads % kvHeads !== 0) throw new RangeError(`"queryHeads" expected a multiple of kvHeads (${kvHeads}), got ${queryHeads}`);
  const { causal, windowLeft, windowRight, softcap, sinks, alibiSlopes, softmaxScale } = config;
  checkAttentionOptions({ causal, windowLeft, windowRight, softcap, sinks, alibiSlopes, softmaxScale }, queryHeads, headDim);
  const attention = { causal, windowLeft, windowRight, softcap, sinks: sinks?.slice(), alibiSlopes: alibiSlopes?.slice(), softmaxScale };
  // Copies, as of sinks and slopes: what a cache is made of stays so.
  const given = (name: Side): Float32Array | undefined => {
    const value = scaleSetting(config.scale, own.scale, name, config);
    const { values } = checkAppendScale(value, layout[name], layout, 'scale');
    return value === undefined ? undefined : values.slice();
  };
  const kScale = given('k');
  const vScale = given('v');
  return { layout, queryHeads, recipe: { k: recipeOf(config, layout.k, 'k'), v: recipeOf(config, layout.v, 'v') }, kScale, vScale, attention };
}

/** What goes wrong in `body` is said of this layer. */
function inLayer<T>(index: number, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof Error) error.message = `layers[${index}]: ${error.message}`;
    throw error;
  }
}

/** A layer that is skipped: it keeps what it states itself, but for a dtype, which would say the contrary. */
function resolveSkippedLayer(config: LayerConfig, own: LayerConfig, blockSize: number): Layer {
  if (own.dtype !== undefined) throw new TypeError(`"dtype" expected to be absent where "skipLayers" names the layer, got ${describe(own.dtype)}`);
  return resolveLayer({ ...config, dtype: 'auto' }, own, blockSize);
}

/** @throws TypeError or RangeError naming the field, and the layer where there is a list of them */
function resolveLayers(options: KvCacheOptions, { granularity, recipe, dtype }: Partial<LayerConfig>, blockSize: number): Layer[] {
  const { layers, skipLayers } = options;
  const config: LayerConfig = override({ granularity, recipe, dtype }, options);
  if (!Array.isArray(layers)) {
    const count = checkInteger(layers as number, 'layers', 1, 65536);
    const layer = resolveLayer(config, options, blockSize);
    const skipped = resolveSkipped(skipLayers, count);
    const unquantized = skipped.size > 0 ? resolveSkippedLayer(config, {}, blockSize) : layer;
    return Array.from({ length: count }, (_, index) => (skipped.has(index) ? unquantized : layer));
  }
  if (layers.length === 0) throw new RangeError('"layers" expected at least one layer, got none');
  const skipped = resolveSkipped(skipLayers, layers.length);
  return layers.map((own: LayerConfig, index) => {
    if (typeof own !== 'object' || own === null) throw new TypeError(`"layers[${index}]" expected an object, got ${describe(own)}`);
    const resolve = skipped.has(index) ? resolveSkippedLayer : resolveLayer;
    return inLayer(index, () => resolve(override(config, own), own, blockSize));
  });
}

/** A slot is an int32. */
const MAX_SLOTS = 2 ** 31 - 1;

/** How tokens are laid out, checked. */
interface Room {
  readonly contiguous: boolean;
  readonly blockSize: number;
  readonly pageCount: number;
}

function contiguousRoom({ capacity, blockSize, sequences = 1 }: KvCacheOptions): Room {
  if (blockSize !== undefined) throw new TypeError(`"blockSize" expected to be absent with layout contiguous, where "capacity" says how long a sequence may be, got ${describe(blockSize)}`);
  checkInteger(capacity, 'capacity', 1, MAX_BLOCK_SIZE);
  return { contiguous: true, blockSize: capacity, pageCount: checkInteger(sequences, 'sequences', 1, Math.floor(MAX_SLOTS / capacity)) };
}

function pagedRoom({ capacity, sequences, blockSize = 16 }: KvCacheOptions): Room {
  if (sequences !== undefined) throw new TypeError(`"sequences" expected to be absent with layout paged, where "capacity" is that of all sequences, got ${describe(sequences)}`);
  checkInteger(blockSize, 'blockSize', 1, 65536);
  const most = MAX_SLOTS - (MAX_SLOTS % blockSize);
  return { contiguous: false, blockSize, pageCount: Math.ceil(checkInteger(capacity, 'capacity', 1, most) / blockSize) };
}

/** A cache's options, checked. */
export interface ResolvedCache extends Room {
  readonly layers: readonly Layer[];
}

/**
 * The layers of a cache, and how many pages each has.
 * @throws TypeError or RangeError naming the option that does not fit
 */
export function resolveCache(options: KvCacheOptions): ResolvedCache {
  if (typeof options !== 'object' || options === null) throw new TypeError(`"options" expected an object, got ${describe(options)}`);
  const preset: Partial<ReturnType<typeof resolvePreset>> = options.preset === undefined ? {} : resolvePreset(options.preset);
  const layout = options.layout ?? preset.layout ?? 'paged';
  if (layout !== 'paged' && layout !== 'contiguous') throw new TypeError(`"layout" expected paged or contiguous, got ${describe(layout)}`);
  const room = layout === 'contiguous' ? contiguousRoom(options) : pagedRoom({ ...options, blockSize: options.blockSize ?? preset.blockSize });
  try {
    return { ...room, layers: resolveLayers(options, preset, room.blockSize) };
  } catch (error) {
    // What a page cannot be is said of the option that its size comes from.
    if (room.contiguous && error instanceof Error) error.message = error.message.replace('"blockSize"', '"capacity"');
    throw error;
  }
}
