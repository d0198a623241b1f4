/**
 * vLLM's KV caches. Its backends state a logical shape and an order of axes in memory (`get_kv_cache_shape` and
 * `get_kv_cache_stride_order` in vllm/v1/attention/backends/); below are the tensors as they lie, with D = headDim:
 *
 * ```
 * shape         NHD                            HND                            of
 * separate      [blocks, block, heads, D]      [blocks, heads, block, D]      a keyCache and a valueCache, as kernels see them
 * stacked       [2, blocks, block, heads, D]   [2, blocks, heads, block, D]   FlashAttention, ROCm
 * interleaved   [blocks, 2, block, heads, D]   [blocks, 2, heads, block, D]   FlashInfer, Triton: the first is [blocks, 2·block, heads, D]
 * packed        [blocks, block, heads, 2·D]    [blocks, heads, block, 2·D]    FlashAttention and Triton since 2026
 *
 * with `layer`, one tensor of all layers ("cross-layer KV blocks", pull request 27743; include_num_layers_dimension):
 * stacked       [blocks, layers, 2, block, heads, D]   [blocks, heads, layers, 2, block, D]
 * interleaved   [blocks, layers, 2, block, heads, D]   [blocks, 2, heads, layers, block, D]
 * packed        [blocks, layers, block, heads, 2·D]    [blocks, heads, layers, block, 2·D]
 * ```
 *
 * Scales per token and head (`int8_per_token_head`, `fp8_per_token_head`: `_ensure_scale_caches` in triton_attn.py) are
 * f32 [blocks, block, heads]; by default they lie inline, each behind the codes of its row, so that rows have D + 4 bytes.
 */
import type { TensorLayout } from '../backend.js';
import { describe } from '../formats.js';
import { checkPageLayout, type PageLayout } from '../layout.js';
import { checkOptions, type OptionNames } from '../options.js';
import { rowMajorLayout, type Axis, type LayerOf } from './row-major.js';

/** Which of vLLM's tensors it is. */
export interface VllmLayoutOptions {
  /** Blocks of the tensors, each of `blockSize` tokens. */
  readonly blocks: number;
  /** Default separate. */
  readonly shape?: 'separate' | 'stacked' | 'interleaved' | 'packed';
  /** VLLM_KV_CACHE_LAYOUT. Default NHD. */
  readonly order?: 'NHD' | 'HND';
  /** Which layer of how many, where one tensor holds them all. */
  readonly layer?: LayerOf;
  /**
   * Scales lie behind the codes of their row. `keyScale` and `valueScale` then are f32 views of the same bytes as the
   * codes'. Default false: they are [blocks, block, heads] each.
   */
  readonly inlineScales?: boolean;
}

const optionNames: OptionNames<VllmLayoutOptions> = { blocks: true, shape: true, order: true, layer: true, inlineScales: true };

type Orders = { readonly NHD: readonly Axis[]; readonly HND: readonly Axis[] };

const oneLayer: { readonly [shape: string]: Orders } = {
  separate: { NHD: ['block', 'token', 'head'], HND: ['block', 'head', 'token'] },
  stacked: { NHD: ['side', 'block', 'token', 'head'], HND: ['side', 'block', 'head', 'token'] },
  interleaved: { NHD: ['block', 'side', 'token', 'head'], HND: ['block', 'side', 'head', 'token'] },
  packed: { NHD: ['block', 'token', 'head', 'side'], HND: ['block', 'head', 'token', 'side'] },
};

const allLayers: { readonly [shape: string]: Orders } = {
  stacked: { NHD: ['block', 'layer', 'side', 'token', 'head'], HND: ['block', 'head', 'layer', 'side', 'token'] },
  interleaved: { NHD: ['block', 'layer', 'side', 'token', 'head'], HND: ['block', 'side', 'head', 'layer', 'token'] },
  packed: { NHD: ['block', 'layer', 'token', 'head', 'side'], HND: ['block', 'head', 'layer', 'token', 'side'] },
};

/**
 * How a cache of vLLM lies. `keyCache` and `valueCache` are the whole tensor, one and the same for all shapes but separate:
 *
 * ```ts
 * const layout = vllmLayout(pages.layout, { blocks, shape: 'interleaved' });
 * pages.import({ keyCache: kv, valueCache: kv, keyScale, valueScale, layout });
 * ```
 *
 * @param page the layout of the pages: as many tokens in a block, heads and dims as vLLM's
 * @throws TypeError or RangeError naming the option that does not fit
 */
export function vllmLayout(page: PageLayout, options: VllmLayoutOptions): TensorLayout {
  checkPageLayout(page, 'page');
  checkOptions(options, 'options', optionNames);
  const { blocks, shape = 'separate', order = 'NHD', layer, inlineScales } = options;
  const shapes = layer ? allLayers : oneLayer;
  if (!Object.hasOwn(shapes, shape)) throw new TypeError(`"shape" expected one of ${Object.keys(shapes).join(', ')}${layer ? ' for a tensor of all layers' : ''}, got ${describe(shape)}`);
  const axes = shapes[shape][order];
  if (!axes) throw new TypeError(`"order" expected NHD or HND, got ${describe(order)}`);
  return rowMajorLayout(page, { axes, scaleAxes: ['block', 'token', 'head'], blocks, layer, inlineScales });
}
