/** The names under which systems write scales of the KV cache. */

/** A side of a layer; `kv` stands for both. */
export type ScaleSide = 'k' | 'v' | 'q' | 'kv';

/** What a tensor's name says. */
export interface ScaleName {
  readonly layer: number;
  readonly side: ScaleSide;
  /** The tensor holds 1 / scale. */
  readonly reciprocal: boolean;
  /** Measured on the projection's output, before rotary position embedding. */
  readonly beforeRope: boolean;
  /** Who writes this form. */
  readonly system: string;
}

interface NameForm {
  /** Of what follows the layer's number. The group `side` is absent where both sides share the scale. */
  readonly rest: RegExp;
  readonly system: string;
  readonly reciprocal?: boolean;
  readonly beforeRope?: boolean;
}

/** vLLM's loader (`maybe_remap_kv_scale_name`, `get_cache_scale_mapper`) reads all but the last two, which are TensorRT-LLM's. */
const forms: readonly NameForm[] = [
  { rest: /^(?:self_attn|mixer)\.(?<side>[kvq])_scale$/, system: 'llm-compressor' },
  { rest: /^(?:self_attn|mixer)\.attn\.(?<side>[kvq]|kv)_scale$/, system: 'vLLM' },
  { rest: /^(?:self_attn|mixer)\.(?<side>[kvq])_proj\.\k<side>_scale$/, system: 'ModelOpt' },
  { rest: /^(?:self_attn|mixer)\.(?<side>[kvq])_proj\.output_scale$/, system: 'Quark, compressed-tensors', beforeRope: true },
  // What becomes of ModelOpt's names where projections are fused, the second by fusing twice.
  { rest: /^(?:self_attn|mixer)\.(?:qkv|qkqkv)_proj\.(?<side>[kvq])_scale$/, system: 'ModelOpt, fused' },
  // Both make it of what the two projections put out.
  { rest: /^self_attn\.kv_scale$/, system: 'AutoFP8, Quark', beforeRope: true },
  { rest: /^attention\.(?<side>[kvq]|kv)_fake_quantizer\.qscale_act$/, system: 'Mistral' },
  // Hunyuan's models, Hy3-FP8 the first.
  { rest: /^self_attn\.(?<side>[kvq])_cache\.scale$/, system: 'AngelSlim' },
  { rest: /^self_attn\.(?<side>q)\.scale$/, system: 'AngelSlim' },
  { rest: /^(?:(?:self_attn|attention|attn)\.)?kv_cache_scaling_factor$/, system: 'TensorRT-LLM' },
  { rest: /^(?:(?:self_attn|attention|attn)\.)?kv_cache_rcp_scaling_factor$/, system: 'TensorRT-LLM', reciprocal: true },
];

/**
 * What stands before the number of a language model's layer. Layers of other parts (vision, drafts) have their own numbers,
 * which must not be taken for these.
 */
const layer = /^(?:(?:(?:model|language_model|text_model|llm|thinker|backbone|transformer|decoder)\.){0,4}layers|transformer\.h)\.(?<layer>0|[1-9]\d{0,5})\.(?<rest>.+)$/;

/** @returns undefined for what is not the name of a scale */
export function readScaleName(name: string): ScaleName | undefined {
  const place = layer.exec(name)?.groups;
  if (place === undefined) return undefined;
  for (const { rest, system, reciprocal = false, beforeRope = false } of forms) {
    const match = rest.exec(place.rest);
    if (match) return { layer: Number(place.layer), side: (match.groups?.side ?? 'kv') as ScaleSide, reciprocal, beforeRope, system };
  }
  return undefined;
}

/** The end of names that say something about quantized keys, values or queries; not about weights or inputs of projections. */
const ends = [
  /(?:^|[._])(?:[kvq]|kv|key|value|query)(?:_cache)?_(?:scales?|scaling_factor|zero_points?)(?:_inv)?$/,
  /(?:^|\.)kv_cache\w*scal\w*$/,
  /(?:^|\.)(?:[kvq]|kv)_(?:fake|bmm)_quantizer\.\w+$/,
  /(?:^|\.)[kvq]_proj\.output_(?:scale|zero_point)s?$/,
  /(?:^|\.)(?:[kvq]_proj\.output_quantizer\.\w+|prob_output_scale)$/,
  /(?:attn|attention)\.(?:fa_)?(?:[kvq]|kv|key|value|query)(?:_cache)?\.(?:scale|zero_point)s?$/,
];

/** As far as the ends are looked for: some of them take the square of a hostile name's length. */
const LONGEST_END = 100;

/** Whether a name that has none of the known forms looks as if it were one. */
export function looksLikeScale(name: string): boolean {
  const tail = name.slice(-LONGEST_END);
  return ends.some((end) => end.test(tail));
}

/** Why a tensor whose name looks like a scale's is none of those that are read. */
export function whyUnmatched(name: string): string {
  if (name.endsWith('prob_output_scale')) return 'a scale of attention probabilities, which are not quantized here';
  if (/zero_point/.test(name)) return 'a zero point: quantization here is symmetric';
  return layer.test(name) ? 'a name of no known form' : 'not of a layer of the language model, by its name';
}
