/** The scales of a checkpoint, as a `KvCache` takes them. */
import type { FloatDtype, QuantizedFormat } from '../formats.js';
import type { GivenGranularity, KvScales, LayerScales } from '../kv-scales.js';
import { warn } from '../warn.js';
import { MAX_LAYERS } from './config.js';
import { gather, type Gathered } from './files.js';
import { whyUnmatched } from './names.js';
import { examine, foundScale, warnOf, type ScaleReport, type UnmatchedScale } from './report.js';
import { agreedScheme, type CacheScheme } from './scheme.js';
import { nameOf, readSides, reduceQueries, type LayerSides, type SideScales } from './sides.js';
import { openPlace, type CheckpointPlace, type SignalLike } from './source.js';
import type { ScaleTensor } from './tensors.js';

/** Of a checkpoint whose cache is to be quantized: `new KvCache(backend, { layers: scales.layers, … })`. */
export interface CheckpointScales extends KvScales {
  /**
   * The scales of keys were measured before rotary position embedding (Quark, unless it says otherwise, AutoFP8's single scale
   * and early compressed-tensors), while the cache holds keys after it, which may be larger.
   */
  readonly beforeRope: boolean;
  /** What was found where, and what is missing or odd. */
  readonly report: ScaleReport;
}

/** Of a checkpoint that does not quantize its cache, so it has no scales: its layers keep keys and values as they come. */
export interface UnquantizedCheckpoint {
  /** Keys and values stay as the model has them. */
  readonly dtype: 'auto';
  /** There are no scales. */
  readonly granularity: undefined;
  /** As a `KvCache` takes them, too. None where the checkpoint does not say how many there are. */
  readonly layers: readonly { readonly dtype: 'auto'; readonly modelDtype?: FloatDtype }[];
  /** There are no scales. */
  readonly beforeRope: false;
  /** What was found where, and what is missing or odd. */
  readonly report: ScaleReport;
}

/** How `readScales` may be ended. */
export interface ReadScalesOptions {
  /** An AbortSignal: ends what a server is asked for. A server has no time limit else. */
  readonly signal?: SignalLike;
}

/**
 * Reads what a checkpoint says about its KV cache: config.json (or params.json), hf_quant_config.json, kv_cache_scales.json, and
 * of .safetensors files the headers and the scales, not a byte of the weights but what lies between two scales.
 *
 * Layers and sides without a scale get 1, or the other side's. What is missing, unmatched or odd is told by `onWarning`, and in
 * full by `report`. Scales of queries are in the shape of the keys', the largest of all heads that share a KV head.
 *
 * @returns scales; or, where there are none and nothing says that the cache is quantized, layers of dtype `auto`
 * @throws FormatError for a malformed file; RangeError or TypeError naming the field or the tensor that does not fit, a scale that
 *   is 0, negative, infinite or NaN, layers of different granularities, and quantization that is not done here, such as NVFP4;
 *   Error for a server that does not answer, or where there is no checkpoint; what `signal` was aborted with
 */
export async function readScales(source: CheckpointPlace, options: ReadScalesOptions = {}): Promise<CheckpointScales | UnquantizedCheckpoint> {
  const place = await openPlace(source, options.signal);
  return resolve(await gather(place), place.name);
}

function resolve(gathered: Gathered, source: string): CheckpointScales | UnquantizedCheckpoint {
  const { shape, own, files } = gathered;
  const scheme: CacheScheme | undefined = own ?? agreedScheme(gathered.schemes);
  const { used, layerCount, unmatched } = sortOut(gathered);
  const sides = readSides(used, shape, scheme?.granularity);
  const layers = Array.from({ length: layerCount }, (_, layer) => sides.get(layer) ?? {});
  const stated = { source, files, stated: scheme?.granularity, found: used.map(foundScale), unmatched };

  if (used.length === 0 && (scheme === undefined || scheme.dtype === 'none')) {
    const report: ScaleReport = { ...stated, dtypeFrom: scheme?.where, missing: [], duplicated: [], large: [], allOne: false };
    warnOf(report, false);
    const layer = { dtype: 'auto', ...(shape.modelDtype && { modelDtype: shape.modelDtype }) } as const;
    return { dtype: 'auto', granularity: undefined, layers: layers.map(() => layer), beforeRope: false, report };
  }

  const dtype = quantizedDtype(scheme, source);
  const granularity = commonGranularity(layers, scheme);
  const keysBeforeRope = layers.some(({ k }) => k?.source.beforeRope);
  const beforeRope = layers.some(({ k }) => k) && (scheme?.beforeRope ?? keysBeforeRope);
  const report: ScaleReport = { ...stated, dtypeFrom: scheme?.dtype === 'none' ? undefined : scheme?.where, ...examine(layers, shape.hasCache) };
  warnOf(report, beforeRope);
  return { dtype, granularity, layers: toLayers(layers, dtype, granularity), beforeRope, report };
}

/** Scales of layers that the model has, and all others. */
function sortOut({ shape, scales, unmatched }: Gathered): { used: ScaleTensor[]; layerCount: number; unmatched: UnmatchedScale[] } {
  const limit = shape.layers ?? MAX_LAYERS;
  const used = scales.filter(({ layer }) => layer < limit);
  const beyond = scales.filter(({ layer }) => layer >= limit);
  return {
    used,
    layerCount: shape.layers ?? used.reduce((count, { layer }) => Math.max(count, layer + 1), 0),
    unmatched: [
      ...unmatched.map(({ tensor, file }) => ({ tensor, file, why: whyUnmatched(tensor) })),
      ...beyond.map(({ tensor, file }) => ({ tensor, file, why: `the model has ${limit} layers${shape.layers === undefined ? ' at most' : ''}` })),
    ],
  };
}

/** FP8, e4m3fn, is what all systems take scales for where nothing is said. */
function quantizedDtype(scheme: CacheScheme | undefined, source: string): QuantizedFormat {
  if (scheme?.dtype !== 'none') return scheme?.dtype ?? 'e4m3fn';
  warn(`${source}: there are scales of the KV cache, though "${scheme.where}" says that it is not quantized: they are taken for those of e4m3fn`);
  return 'e4m3fn';
}

/** @throws RangeError naming two tensors of different granularities, or one that is not of the stated */
function commonGranularity(layers: readonly LayerSides[], stated: CacheScheme | undefined): GivenGranularity {
  const scales = layers.flatMap(({ k, v }) => [k, v].filter((side) => side !== undefined));
  if (scales.length === 0) return 'tensor';
  const [first] = scales;
  const other = scales.find(({ granularity }) => granularity !== first.granularity);
  if (other) throw new RangeError(`"${nameOf(other.source)}" expected a scale per ${first.granularity}, as "${nameOf(first.source)}" is, got one per ${other.granularity}`);
  if (stated?.granularity && stated.granularity !== first.granularity) {
    throw new RangeError(`"${nameOf(first.source)}" expected a scale per ${stated.granularity}, as "${stated.where}" says, got one per ${first.granularity}`);
  }
  return first.granularity;
}

function toLayers(layers: readonly LayerSides[], dtype: QuantizedFormat, granularity: GivenGranularity): LayerScales[] {
  const found = layers.flatMap(({ k, v }) => k ?? v ?? []).at(0);
  const missing = { heads: found?.heads ?? 1, dims: found?.dims ?? 1, values: new Float32Array(found?.values.length ?? 1).fill(1) };
  const values = ({ values }: Pick<SideScales, 'values'>): Float32Array => values.slice();
  return layers.map(({ k, v, q }) => {
    const key = k ?? v ?? missing;
    const scale = { k: values(key), v: values(v ?? key) };
    return { dtype, granularity, scale, ...(q && { qScale: reduceQueries(q, key) }) };
  });
}
