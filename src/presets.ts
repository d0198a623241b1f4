/** The caches of the systems people come from, as options of ours. */
import { describe, type CacheDtype } from './formats.js';
import type { Granularity } from './layout.js';
import type { RecipeName } from './recipe.js';

/** Options that go together; what a cache's own options state wins over them. Where scales are given, `scale` says them: 1 unless stated. */
export interface Preset {
  /** Of keys and values. */
  readonly dtype: CacheDtype;
  /** What shares a scale. */
  readonly granularity: Granularity;
  /** Absent where the system computes no scales. */
  readonly recipe?: RecipeName;
  /** Whether sequences lie in pages, or each in one piece. */
  readonly layout: 'paged' | 'contiguous';
  /** Only with pages. */
  readonly blockSize?: number;
  /** Where the system says so. */
  readonly source: string;
}

const row = (preset: Preset): Preset => Object.freeze(preset);

/** The settings of other systems, by name: what `preset` of a `KvCache` begins with. */
export const presets = Object.freeze({
  vllm: row({
    dtype: 'fp8_e4m3', granularity: 'tensor', layout: 'paged', blockSize: 16,
    source: "vLLM's `kv_cache_dtype=\"fp8\"` without calibration: docs/features/quantization/quantized_kvcache.md, CacheConfig.DEFAULT_BLOCK_SIZE",
  }),
  'vllm-token-head': row({
    dtype: 'fp8_e4m3', granularity: 'token-head', recipe: 'vllm-token-head', layout: 'paged', blockSize: 16,
    source: "vLLM's `kv_cache_dtype=\"fp8_per_token_head\"`; `dtype: 'int8'` makes it `int8_per_token_head`",
  }),
  mila: row({
    dtype: 'fp8_e4m3', granularity: 'token-head', recipe: 'amax', layout: 'contiguous',
    source: "Mila's `PerTokenKvFp8`: Gqa.Cache.Fp8.cu, a cache of [batch, kvHeads, capacity, headDim]",
  }),
  ferrum: row({
    dtype: 'int8', granularity: 'token-head', recipe: 'ferrum-int8', layout: 'paged', blockSize: 16,
    source: "ferrum's `KvCacheQuant<B, KvInt8>`: int8_kv.rs; `layout: 'contiguous'` is the `block_size == 0` of the `KvCache` beside it",
  }),
  'compressed-tensors': row({
    dtype: 'fp8_e4m3', granularity: 'tensor', recipe: 'compressed-tensors', layout: 'paged', blockSize: 16,
    source: "llm-compressor's `kv_cache_scheme` of 8-bit floats; strategy `attn_head` is `granularity: 'head'`, and `dynamic: true` one of the computed ones",
  }),
  xpu: row({
    dtype: 'fp8_e4m3', granularity: 'tensor', layout: 'paged', blockSize: 64,
    source: "vLLM on Intel GPUs: vllm-xpu-kernels has one scale for keys and one for values, and prefers blocks of multiples of 64; also with `dtype: 'fp8_e5m2'`",
  }),
} as const);

/** Whose settings a cache begins with. */
export type PresetName = keyof typeof presets;

/** @throws TypeError for a name that there is not */
export function resolvePreset(name: PresetName): Preset {
  if (!Object.hasOwn(presets, name)) throw new TypeError(`"preset" expected one of ${Object.keys(presets).join(', ')}, got ${describe(name)}`);
  return presets[name];
}
