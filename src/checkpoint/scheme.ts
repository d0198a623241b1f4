/** How a checkpoint says that its KV cache is quantized: the forms of compressed-tensors, AutoFP8, ModelOpt and Quark. */
import type { QuantizedFormat } from '../formats.js';
import type { GivenGranularity } from '../kv-scales.js';
import { scopesOf, show } from './config.js';
import { isObject, type JsonObject, type JsonValue } from './json.js';

/** One statement of a configuration. */
export interface CacheScheme {
  /** File and field, for messages. */
  readonly where: string;
  /** `none`: the cache is not quantized. */
  readonly dtype: QuantizedFormat | 'none';
  /** Where it is stated. */
  readonly granularity?: GivenGranularity;
  /** Whether keys were measured before rotary position embedding, where it is stated. */
  readonly beforeRope?: boolean;
}

const refuse = (where: string, expected: string, got: JsonValue | undefined): never => {
  throw new RangeError(`"${where}" expected ${expected}, got ${show(got)}`);
};

/** ModelOpt's, and what vLLM makes of them. `static` is AutoFP8's word for FP8 whose scales are in the checkpoint. */
const algorithms: { readonly [name: string]: QuantizedFormat | 'none' } = { FP8: 'e4m3fn', FP8_E4M3: 'e4m3fn', FP8_E5M2: 'e5m2', INT8: 'int8', STATIC: 'e4m3fn', NONE: 'none' };

/** A name of ModelOpt or AutoFP8, or null. */
function byName(value: JsonValue, where: string): CacheScheme {
  if (value === null) return { where, dtype: 'none' };
  if (typeof value === 'string' && /FP4/i.test(value)) return refuse(where, 'a cache of 8 bits (its codes are of 4 bits, in blocks of 16 with scales of their own, which is no format here)', value);
  const name = typeof value === 'string' ? value.toUpperCase() : '';
  return { where, dtype: Object.hasOwn(algorithms, name) ? algorithms[name] : refuse(where, '"FP8", "INT8", "static" or null', value) };
}

const strategies: { readonly [name: string]: GivenGranularity } = { tensor: 'tensor', attn_head: 'head', channel: 'channel' };

/** compressed-tensors' `kv_cache_scheme` as an object; ModelOpt writes one of three fields. */
function byScheme(scheme: JsonObject, where: string): CacheScheme {
  const field = (name: string): [JsonValue | undefined, string] => [scheme.get(name) ?? undefined, `${where}.${name}`];
  const [bits, ofBits] = field('num_bits');
  if (bits !== 8) refuse(ofBits, '8', bits);
  const [type, ofType] = field('type');
  if (type !== 'float' && type !== 'int') refuse(ofType, '"float" or "int"', type);
  const [dynamic, ofDynamic] = field('dynamic');
  if (dynamic !== undefined && dynamic !== false) refuse(ofDynamic, 'false (dynamic scales are in no checkpoint: granularity token-head computes them)', dynamic);
  const [symmetric, ofSymmetric] = field('symmetric');
  if (symmetric !== undefined && symmetric !== true) refuse(ofSymmetric, 'true (there are no zero points here)', symmetric);
  const [strategy, ofStrategy] = field('strategy');
  if (strategy !== undefined && (typeof strategy !== 'string' || !Object.hasOwn(strategies, strategy))) refuse(ofStrategy, '"tensor", "attn_head" or "channel"', strategy);
  return { where, dtype: type === 'float' ? 'e4m3fn' : 'int8', granularity: strategy === undefined ? undefined : strategies[strategy as string] };
}

const quarkDtypes: { readonly [name: string]: QuantizedFormat } = { fp8_e4m3: 'e4m3fn', fp8_e5m2: 'e5m2', int8: 'int8' };

/** Quark: `{ "*k_proj": { "output_tensors": { "dtype": "fp8_e4m3", … } }, … }`; older ones say so among the layers' settings. */
function byQuark(quantization: JsonObject, where: string): CacheScheme[] {
  const own = quantization.get('kv_cache_quant_config');
  const field = isObject(own) && own.size > 0 ? 'kv_cache_quant_config' : 'layer_quant_config';
  const settings = quantization.get(field);
  const projections = isObject(settings) ? [...settings].filter(([name]) => /[kv]_proj$/.test(name)) : [];
  return projections.flatMap(([name, setting]): CacheScheme[] => {
    const output = isObject(setting) ? setting.get('output_tensors') : undefined;
    if (!isObject(output)) return [];
    const at = `${where}.${field}.${name.slice(0, 80)}.output_tensors`;
    const dtype = output.get('dtype');
    if (typeof dtype !== 'string' || !Object.hasOwn(quarkDtypes, dtype)) return [refuse(`${at}.dtype`, Object.keys(quarkDtypes).join(', '), dtype)];
    if (output.get('is_dynamic') === true) refuse(`${at}.is_dynamic`, 'false (dynamic scales are in no checkpoint: granularity token-head computes them)', true);
    return [{ where: at, dtype: quarkDtypes[dtype], beforeRope: quantization.get('kv_cache_post_rope') !== true }];
  });
}

/** Names of blocks; `quantization` is that of hf_quant_config.json, and of TensorRT-LLM's config.json. */
const blocks = ['quantization_config', 'compression_config', 'quantization'];

/** All that one block of settings says, and what is in it where hf_quant_config.json was copied as a whole. */
function inBlock(quantization: JsonValue | undefined, where: string): CacheScheme[] {
  if (!isObject(quantization)) return [];
  const schemes = inBlock(quantization.get('quantization'), `${where}.quantization`);
  for (const name of ['kv_cache_scheme', 'kv_cache_quant_algo']) {
    const value = quantization.get(name);
    if (value === undefined) continue;
    schemes.push(isObject(value) ? byScheme(value, `${where}.${name}`) : byName(value, `${where}.${name}`));
  }
  return [...schemes, ...byQuark(quantization, where)];
}

/**
 * All that a configuration says about the KV cache.
 * @throws RangeError naming the field that asks for what is not done here, and why
 */
export function readSchemes(config: JsonObject, file: string): CacheScheme[] {
  return scopesOf(config).flatMap(({ settings, path }) => blocks.flatMap((name) => inBlock(settings.get(name), `${file}: ${path}${name}`)));
}

/**
 * The one scheme that all statements agree upon.
 * @throws RangeError naming two that do not
 */
export function agreedScheme(schemes: readonly CacheScheme[]): CacheScheme | undefined {
  if (schemes.length === 0) return undefined;
  const [first, ...others] = schemes;
  for (const other of others) {
    if (other.dtype !== first.dtype) throw new RangeError(`"${other.where}" expected ${first.dtype}, as "${first.where}" says, got ${other.dtype}`);
  }
  return { ...first, granularity: schemes.find(({ granularity }) => granularity)?.granularity, beforeRope: schemes.find(({ beforeRope }) => beforeRope !== undefined)?.beforeRope };
}
