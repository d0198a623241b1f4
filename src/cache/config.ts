/** What a cache is made of: one checked configuration per layer. */
import { checkAppendScale, isPerSide, recipeOf, sideOf } from '../append.js';
import { checkAttentionOptions } from '../attention.js';
import type { AttentionOptions, PerSide } from '../backend.js';
import { describe, formats, resolveCacheDtype, type CacheDtype, type FloatDtype } from '../formats.js';
import { checkInteger, pageLayout, type Granularity, type PageLayout } from '../layout.js';
import { checkObject, checkOptions, type OptionNames } from '../options.js';
import { resolvePreset, type PresetName } from '../presets.js';
import type { LayerScales } from '../kv-scales.js';
import type { Recipe, RecipeName, ScalePrecision } from '../recipe.js';
import type { GivenScale } from '../scale.js';
import { checkPrefix, type PrefixOptions } from './prefix.js';
import { checkResidualRule, type Residual, type ResidualRule } from './residual.js';
import { resolveRoom, ringCapacity, type Room, type RoomOptions } from './room.js';
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
  /** Heads of keys and values; `headDim` elements each. */
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
  /**
   * A row sees this many keys, itself included, and the layer keeps no more than that needs: of each sequence a ring of
   * min(context, slidingWindow + chunk − 1) tokens, in which new ones overwrite the oldest. Hugging Face's `sliding_window`.
   * In place of windowLeft, which only hides what is there. Positions stay the original ones.
   */
  readonly slidingWindow?: number;
  /** With slidingWindow: the first so many tokens of a sequence stay, and are seen by all rows that come later (StreamingLLM). Default 0. */
  readonly sinkTokens?: number;
}

export interface KvCacheOptions extends LayerConfig, RoomOptions {
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
   * The most recent tokens of a sequence stay as they came, at least so many, and are quantized when they are older: see
   * `residualRule`. The first `sinkTokens` are quantized at once. Layers that are not quantized pass it by. KIVI's and Hugging
   * Face's `residual_length`.
   */
  readonly residual?: number;
  /** When tokens leave the residual. Default `page`. */
  readonly residualRule?: ResidualRule;
  /**
   * Full pages whose tokens' ids are known are found again by `matchPrefix`, as long as they are not needed for others. Not with
   * rings, residuals, or in a contiguous cache.
   */
  readonly prefix?: PrefixOptions;
  /** What the residual keeps. Default f32, which holds all that f16 and bf16 do; f16 takes half the room. */
  readonly residualDtype?: 'f32' | 'f16';
}

const layerNames: OptionNames<LayerConfig> = {
  queryHeads: true, kvHeads: true, headDim: true, dtype: true, modelDtype: true, granularity: true, groupSize: true, recipe: true, scalePrecision: true, scale: true,
  slidingWindow: true, sinkTokens: true, causal: true, windowLeft: true, windowRight: true, softcap: true, sinks: true, alibiSlopes: true, softmaxScale: true,
};

const cacheNames: OptionNames<KvCacheOptions> = {
  ...layerNames,
  layers: true, skipLayers: true, preset: true, residual: true, residualRule: true, residualDtype: true, prefix: true,
  layout: true, blockSize: true, capacity: true, sequences: true, context: true, chunk: true,
};

/** What `readScales` says of a layer may stand in a list: scales of queries are for others. */
const listedNames: OptionNames<LayerConfig & LayerScales> = { ...layerNames, qScale: true };

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
  /** Tokens that a row sees, and the first ones that stay; absent where the layer keeps all. */
  readonly ring: Ring | undefined;
  /** The pages of tokens that are not quantized yet, where the layer has such. */
  readonly residual: PageLayout | undefined;
}

/** What a layer keeps of a sequence that does not keep all. */
interface Ring {
  readonly window: number;
  readonly sinkTokens: number;
  readonly capacity: number;
}

function stated<T>(value: T | undefined, argument: string): T {
  if (value === undefined) throw new TypeError(`"${argument}" expected a value, got undefined`);
  return value;
}

/** @param needed the option that cannot do without */
function chunkOf({ chunk }: Room, needed: keyof KvCacheOptions): number {
  if (chunk === undefined) throw new TypeError(`"chunk" expected the most new tokens of a step, which "${needed}" has to know, got undefined`);
  return chunk;
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

/** What layers are told of the cache. */
interface Place extends Room {
  readonly residual: Residual | undefined;
}

const hiding = ['windowLeft', 'windowRight', 'causal'] as const;

/**
 * What a ring hides is gone: a window of another size would show what took its place.
 * @throws TypeError where options say themselves what rows see
 */
export function checkRingShows(options: Pick<AttentionOptions, (typeof hiding)[number]>): void {
  for (const name of hiding) {
    if (options[name] !== undefined) throw new TypeError(`"${name}" expected to be absent with "slidingWindow", which is causal and says what rows see, got ${describe(options[name])}`);
  }
}

/** @throws TypeError or RangeError naming the option that does not fit */
function resolveRing(config: LayerConfig, room: Room): Ring | undefined {
  const { slidingWindow, sinkTokens = 0 } = config;
  if (slidingWindow === undefined) {
    if (sinkTokens !== 0) throw new TypeError(`"sinkTokens" expected to be absent without "slidingWindow", got ${describe(sinkTokens)}`);
    return undefined;
  }
  const window = checkInteger(slidingWindow, 'slidingWindow', 1, 0x7fffffff);
  checkRingShows(config);
  checkInteger(sinkTokens, 'sinkTokens', 0, room.context - 1);
  if (sinkTokens > 0 && room.contiguous) throw new TypeError('"sinkTokens" expected to be absent with layout contiguous, where a ring is one page: use layout paged');
  return { window, sinkTokens, capacity: ringCapacity(window, sinkTokens, room, chunkOf(room, 'slidingWindow')) };
}

/** @throws TypeError where a side that is not quantized would be rounded */
function residualLayout({ kvHeads, headDim, k, v }: PageLayout, residual: Residual | undefined): PageLayout | undefined {
  const sides = [k, v];
  if (residual === undefined || !sides.some(({ format }) => formats[format].quantized)) return undefined;
  const { blockSize, dtype } = residual;
  if (dtype === 'f16' && sides.some(({ format }) => format === 'f32')) throw new TypeError('"residualDtype" expected f32 where keys or values are f32, which f16 would round, got f16');
  return pageLayout({ kvHeads, headDim, blockSize, order: 'NHD', k: { dtype }, v: { dtype } });
}

/** @param own what the layer itself states; `config` has it over what the cache's options state */
function resolveLayer(config: LayerConfig, own: LayerConfig, place: Place): Layer {
  const ring = resolveRing(config, place);
  const blockSize = ring && place.contiguous ? ring.capacity : place.blockSize;
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
  const { causal, windowLeft = ring && ring.window - 1, windowRight, softcap, sinks, alibiSlopes, softmaxScale } = config;
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
  const recipe = { k: recipeOf(config, layout.k, 'k'), v: recipeOf(config, layout.v, 'v') };
  return { layout, queryHeads, recipe, kScale, vScale, attention, ring, residual: residualLayout(layout, place.residual) };
}

/** What goes wrong in `body` is said of this layer. */
export function inLayer<T>(index: number, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof Error) error.message = `layers[${index}]: ${error.message}`;
    throw error;
  }
}

/** A layer that is skipped: it keeps what it states itself, but for a dtype, which would say the contrary. */
function resolveSkippedLayer(config: LayerConfig, own: LayerConfig, place: Place): Layer {
  if (own.dtype !== undefined) throw new TypeError(`"dtype" expected to be absent where "skipLayers" names the layer, got ${describe(own.dtype)}`);
  return resolveLayer({ ...config, dtype: 'auto' }, own, place);
}

/** @throws TypeError or RangeError naming the field, and the layer where there is a list of them */
function resolveLayers(options: KvCacheOptions, { granularity, recipe, dtype }: Partial<LayerConfig>, place: Place): Layer[] {
  const { layers, skipLayers } = options;
  const config: LayerConfig = override({ granularity, recipe, dtype }, options);
  if (!Array.isArray(layers)) {
    const count = checkInteger(layers as number, 'layers', 1, 65536);
    const layer = resolveLayer(config, options, place);
    const skipped = resolveSkipped(skipLayers, count);
    const unquantized = skipped.size > 0 ? resolveSkippedLayer(config, {}, place) : layer;
    return Array.from({ length: count }, (_, index) => (skipped.has(index) ? unquantized : layer));
  }
  if (layers.length === 0) throw new RangeError('"layers" expected at least one layer, got none');
  const skipped = resolveSkipped(skipLayers, layers.length);
  // Not by `map`, which passes by what an array lacks.
  return Array.from(layers as readonly LayerConfig[], (own, index) => {
    checkObject(own, `layers[${index}]`);
    const resolve = skipped.has(index) ? resolveSkippedLayer : resolveLayer;
    return inLayer(index, () => {
      checkOptions(own, `layers[${index}]`, listedNames);
      return resolve(override(config, own), own, place);
    });
  });
}

/** A cache's options, checked. */
export interface ResolvedCache extends Room {
  readonly layers: readonly Layer[];
  readonly residual: Residual | undefined;
  readonly prefix: PrefixOptions | undefined;
  /** Whether no sequence may get longer than the context, whatever room there is. */
  readonly limited: boolean;
}

/** @throws TypeError or RangeError naming the option that does not fit */
function resolveResidual({ residual, residualRule, residualDtype }: KvCacheOptions, blockSize: number): Residual | undefined {
  if (residual === undefined) {
    for (const [name, value] of Object.entries({ residualRule, residualDtype })) if (value !== undefined) throw new TypeError(`"${name}" expected to be absent without "residual", got ${describe(value)}`);
    return undefined;
  }
  const dtype = residualDtype ?? 'f32';
  if (dtype !== 'f32' && dtype !== 'f16') throw new TypeError(`"residualDtype" expected f32 or f16, got ${describe(dtype)}`);
  return { rule: checkResidualRule(residualRule), tokens: checkInteger(residual, 'residual', 1, 2 ** 20), blockSize, dtype, sinkTokens: 0 };
}

/** @throws TypeError where there would be nothing to have room for */
function checkSequences({ sequences }: KvCacheOptions, { contiguous }: Room, layers: readonly Layer[]): void {
  if (sequences === undefined || contiguous || layers.some(({ ring, residual }) => ring || residual)) return;
  throw new TypeError(`"sequences" expected to be absent with layout paged, where "capacity" is that of all sequences, got ${describe(sequences)}`);
}

/** Tokens of a page of the residual in a contiguous cache, whose own pages are as long as a sequence gets. */
const RESIDUAL_BLOCK = 16;

/**
 * The layers of a cache, and how many pages each has.
 * @throws TypeError or RangeError naming the option that does not fit
 */
export function resolveCache(options: KvCacheOptions): ResolvedCache {
  checkOptions(options, 'options', cacheNames);
  const preset: Partial<ReturnType<typeof resolvePreset>> = options.preset === undefined ? {} : resolvePreset(options.preset);
  const layout = options.layout ?? preset.layout;
  const room = resolveRoom({ ...options, layout, blockSize: options.blockSize ?? (layout === 'contiguous' ? undefined : preset.blockSize) });
  const residual = resolveResidual(options, room.contiguous ? RESIDUAL_BLOCK : room.blockSize);
  if (residual?.rule === 'huggingface') chunkOf(room, 'residualRule');
  try {
    const layers = resolveLayers(options, preset, { ...room, residual });
    const limited = options.context !== undefined || layers.some(({ ring }) => ring);
    checkSequences(options, room, layers);
    if (options.prefix !== undefined) checkPrefix(options.prefix, { contiguous: room.contiguous, layers, residual });
    const sinkTokens = Math.max(...layers.map((layer) => (layer.residual && layer.ring ? layer.ring.sinkTokens : 0)));
    return { ...room, residual: residual && { ...residual, sinkTokens }, layers, limited, prefix: options.prefix };
  } catch (error) {
    // What a page cannot be is said of the option that its size comes from.
    if (room.contiguous && error instanceof Error) error.message = error.message.replace('"blockSize"', '"capacity"');
    throw error;
  }
}
