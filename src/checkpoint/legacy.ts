/**
 * The JSON of scales that vLLM's `--quantization-param-path` took and SGLang's takes:
 * `{ "kv_cache": { "dtype": "float8_e4m3fn", "scaling_factor": { rank: { layer: scale } } } }`.
 */
import type { QuantizedFormat } from '../formats.js';
import { MAX_LAYERS, show } from './config.js';
import { isObject, type JsonObject, type JsonValue } from './json.js';
import type { ScaleTensor } from './tensors.js';

const dtypes: { readonly [name: string]: QuantizedFormat } = { float8_e4m3fn: 'e4m3fn', float8_e5m2: 'e5m2', int8: 'int8' };

export interface LegacyScales {
  readonly dtype: QuantizedFormat;
  readonly scales: readonly ScaleTensor[];
}

function objectAt(parent: JsonObject, name: string, where: string): JsonObject {
  const value = parent.get(name);
  if (!isObject(value)) throw new RangeError(`"${where}" expected an object, got ${show(value)}`);
  return value;
}

/**
 * Ranks of tensor parallelism must have the same scales: the heads are together here.
 * @throws RangeError naming the field that is missing, malformed or contradicts another
 */
export function readLegacy(json: JsonObject, file: string): LegacyScales {
  const cache = objectAt(json, 'kv_cache', `${file}: kv_cache`);
  const dtype = cache.get('dtype');
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypes, dtype)) throw new RangeError(`"${file}: kv_cache.dtype" expected ${Object.keys(dtypes).join(', ')}, got ${show(dtype)}`);
  const where = 'kv_cache.scaling_factor';
  const ranks = objectAt(cache, 'scaling_factor', `${file}: ${where}`);
  const scales = [...ranks.keys()].flatMap((rank) => {
    const path = `${where}.${rank.slice(0, 80)}`;
    return [...objectAt(ranks, rank, `${file}: ${path}`)].map(([layer, scale]) => scaleOf(file, path, layer, scale));
  });
  return { dtype: dtypes[dtype], scales };
}

function scaleOf(file: string, path: string, layer: string, scale: JsonValue): ScaleTensor {
  if (!/^\d{1,6}$/.test(layer) || Number(layer) >= MAX_LAYERS) throw new RangeError(`"${file}: ${path}" expected layers from 0 to ${MAX_LAYERS - 1}, got ${show(layer)}`);
  const tensor = `${path}.${layer}`;
  if (typeof scale !== 'number') throw new RangeError(`"${file}: ${tensor}" expected a number, got ${show(scale)}`);
  return { tensor, file, layer: Number(layer), side: 'kv', reciprocal: false, beforeRope: false, system: 'vLLM, SGLang (JSON)', shape: [], values: Float32Array.of(scale) };
}
