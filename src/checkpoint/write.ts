/** Scales as a checkpoint holds them: tensors, and the words of its configuration. */
import { serializeSafetensors } from '../files/safetensors.js';
import type { Tensor } from '../files/tensor.js';
import { bytesOf, describe, resolveQuantizedFormat } from '../formats.js';
import { givenGranularities, type KvScales, type LayerScales } from '../kv-scales.js';
import { checkInteger } from '../layout.js';
import { checkScale } from '../scale.js';

/** What scales alone do not tell. */
export interface SerializeScalesOptions {
  /** Needed with granularity `channel`. */
  readonly headDim?: number;
  /** Needed where there are `qScale`s of granularity `head` or `channel`: they are written for each query head, as readers expect. */
  readonly queryHeads?: number;
}

/** The name of a scale, as llm-compressor writes it and vLLM reads it. */
const nameOf = (layer: number, side: 'k' | 'v' | 'q'): string => `model.layers.${layer}.self_attn.${side}_scale`;

/**
 * A .safetensors file of scales, which `readScales` reads to the same bits: `model.layers.N.self_attn.k_scale`, `v_scale` and, where
 * there are such, `q_scale`, F32, [1] with `tensor`, [heads, 1, 1] with `head`, [heads, 1, headDim] with `channel`. Its metadata say
 * dtype and granularity.
 * @throws TypeError or RangeError naming what does not fit
 */
export function serializeScales(scales: KvScales, options: SerializeScalesOptions = {}): Uint8Array {
  const { granularity, layers } = scales;
  const dtype = resolveQuantizedFormat(scales.dtype, 'dtype');
  if (!givenGranularities.includes(granularity)) throw new TypeError(`"granularity" expected ${givenGranularities.join(', ')}, got ${describe(granularity)}`);
  const tensors = new Map<string, Tensor>();
  for (const [index, layer] of layers.entries()) {
    if (layer.dtype !== scales.dtype || layer.granularity !== granularity) {
      throw new RangeError(`"layers[${index}]" expected ${scales.dtype} and ${granularity}, as all scales, got ${layer.dtype} and ${layer.granularity}`);
    }
    for (const [side, tensor] of tensorsOf(layer, `layers[${index}]`, options)) tensors.set(nameOf(index, side), tensor);
  }
  return serializeSafetensors(tensors, new Map(Object.entries({ format: 'pt', fp8_kv_scales: '1', dtype, granularity })));
}

function tensorsOf(layer: LayerScales, argument: string, options: SerializeScalesOptions): ['k' | 'v' | 'q', Tensor][] {
  const { granularity, scale: { k, v }, qScale } = layer;
  const dims = granularity === 'channel' ? checkInteger(options.headDim!, 'headDim', 1) : 1;
  const heads = k.length / dims;
  checkScales(k, `${argument}.scale.k`, k.length);
  if (granularity === 'tensor' ? heads !== 1 : !Number.isInteger(heads)) throw new RangeError(`"${argument}.scale.k" expected ${granularity === 'tensor' ? '1 scale' : `a multiple of ${dims} scales`}, got ${k.length}`);
  checkScales(v, `${argument}.scale.v`, k.length);
  const tensor = (values: Float32Array): Tensor => ({ dtype: 'F32', shape: granularity === 'tensor' ? [1] : [values.length / dims, 1, dims], data: bytesOf(values) });
  if (qScale === undefined) return [['k', tensor(k)], ['v', tensor(v)]];
  checkScales(qScale, `${argument}.qScale`, k.length);
  const q = granularity === 'tensor' ? qScale : ofQueryHeads(qScale, heads, dims, options.queryHeads!);
  return [['k', tensor(k)], ['v', tensor(v)], ['q', tensor(q)]];
}

function checkScales(scales: Float32Array, argument: string, count: number): void {
  if (!(scales instanceof Float32Array)) throw new TypeError(`"${argument}" expected a Float32Array, got ${describe(scales)}`);
  if (scales.length === 0 || scales.length !== count) throw new RangeError(`"${argument}" expected ${count || 'some'} scales, got ${scales.length}`);
  for (const [i, scale] of scales.entries()) checkScale(scale, `${argument}[${i}]`);
}

/**
 * [heads, dims] to [queryHeads, dims]: each scale for all query heads that share it. Readers take the largest of those, which is it again.
 * @throws RangeError where query heads are not shared out evenly
 */
function ofQueryHeads(q: Float32Array, heads: number, dims: number, queryHeads: number): Float32Array {
  checkInteger(queryHeads, 'queryHeads', 1);
  if (queryHeads % heads !== 0) throw new RangeError(`"queryHeads" expected a multiple of ${heads} KV heads, got ${queryHeads}`);
  const shared = queryHeads / heads;
  return Float32Array.from({ length: queryHeads * dims }, (_, i) => q[Math.floor(i / (shared * dims)) * dims + (i % dims)]);
}

/** compressed-tensors' words for a quantized KV cache. */
export interface KvCacheScheme {
  /** Bits of a code. */
  readonly num_bits: 8;
  /** `float` is e4m3fn, `int` is int8. */
  readonly type: 'float' | 'int';
  /** What shares a scale: `attn_head` is our `head`. */
  readonly strategy: 'tensor' | 'attn_head';
  /** Scales are given, and not computed on write. */
  readonly dynamic: false;
  /** There are no zero points. */
  readonly symmetric: true;
}

/**
 * The block `kv_cache_scheme` of a model's `quantization_config`.
 * @throws RangeError for e5m2 and `channel`, for which it has no words
 */
export function kvCacheScheme({ dtype, granularity }: Pick<KvScales, 'dtype' | 'granularity'>): KvCacheScheme {
  const format = resolveQuantizedFormat(dtype, 'dtype');
  if (format === 'e5m2') throw new RangeError('"dtype" expected e4m3fn or int8, got e5m2: a kv_cache_scheme says "float" of 8 bits, which all readers take for e4m3fn');
  if (granularity !== 'tensor' && granularity !== 'head') {
    throw new RangeError(`"granularity" expected tensor or head, got ${describe(granularity)}: readers of a kv_cache_scheme, vLLM among them, know the strategies "tensor" and "attn_head" alone`);
  }
  return { num_bits: 8, type: format === 'int8' ? 'int' : 'float', strategy: granularity === 'head' ? 'attn_head' : 'tensor', dynamic: false, symmetric: true };
}

/** A JSON object. */
type Json = { readonly [field: string]: unknown };

const isJson = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

const METHOD = 'compressed-tensors';

/** What compressed-tensors writes for a model of which nothing but the KV cache is quantized: `dense` are weights as they were. */
const cacheAlone = { quant_method: METHOD, format: 'dense', quantization_status: 'frozen', config_groups: {}, ignore: [], global_compression_ratio: null };

/**
 * A model's config.json with the scheme of these scales in its `quantization_config`. What compressed-tensors says there already is kept.
 * @param config the object in config.json; it is left as it is
 * @throws RangeError for a model that another method quantizes, and what `kvCacheScheme` throws
 */
export function withKvCacheScheme(config: Json, scales: Pick<KvScales, 'dtype' | 'granularity'>): Json {
  const kv_cache_scheme = kvCacheScheme(scales);
  if (!isJson(config)) throw new TypeError(`"config" expected an object, got ${describe(config)}`);
  if (config.compression_config != null) throw new RangeError('"compression_config" expected to be absent, as quantization_config would stand above it');
  const present = config.quantization_config ?? cacheAlone;
  const method = isJson(present) ? present.quant_method : present;
  if (method !== METHOD) throw new RangeError(`"quantization_config.quant_method" expected ${METHOD}, whose kv_cache_scheme this is, got ${describe(method)}`);
  return { ...config, quantization_config: { ...(present as Json), kv_cache_scheme } };
}

/**
 * A model's model.safetensors.index.json that also names the file of scales: beside an index, vLLM reads no file that it does not name.
 * @throws RangeError for what is no index
 */
export function withScalesFile(index: Json, file: string, { layers }: KvScales): Json {
  const { weight_map: map } = index;
  if (!isJson(map)) throw new RangeError(`"weight_map" expected an object, got ${describe(map)}`);
  const names = layers.flatMap(({ qScale }, layer) => [nameOf(layer, 'k'), nameOf(layer, 'v'), ...(qScale ? [nameOf(layer, 'q')] : [])]);
  return { ...index, weight_map: { ...map, ...Object.fromEntries(names.map((name) => [name, file])) } };
}
