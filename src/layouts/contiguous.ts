/** Contiguous caches: a sequence's tokens one after the other, as many as it has. */
import type { SideTensor, TensorLayout, TensorStrides } from '../backend.js';
import { checkInteger, checkPageLayout, type PageLayout } from '../layout.js';
import { checkOptions, type OptionNames } from '../options.js';
import { groupsOf } from './row-major.js';

/** The room that Mila's tensors have, and what is in it. */
export interface MilaLayoutOptions {
  /** Tokens that the tensors have room for. */
  readonly maxSeqLen: number;
  /** Tokens that are there. Default maxSeqLen. */
  readonly tokens?: number;
}

const milaNames: OptionNames<MilaLayoutOptions> = { maxSeqLen: true, tokens: true };

/** Strides of rows of `width` elements, dims or scales, of which the next token's and the next head's are so many further on. */
const rows = ({ blockSize }: PageLayout, token: number, head: number, width: number): TensorStrides => ({
  offset: 0, block: blockSize * token * width, token: token * width, head: head * width,
});

function contiguousLayout(page: PageLayout, tokens: number, token: number, head: number): TensorLayout {
  const side = (name: 'k' | 'v'): SideTensor => {
    const codes = rows(page, token, head, page.headDim);
    const groups = groupsOf(page, page[name]);
    return groups === 0 ? { codes } : { codes, scales: { ...rows(page, token, head, groups), group: 1 } };
  };
  return { tokens, k: side('k'), v: side('v') };
}

/**
 * How a sequence lies in the cache of Mila: codes [kvHeads, maxSeqLen, headDim], scales [kvHeads, maxSeqLen]. Pages may be of
 * any size; one of `blockSize: maxSeqLen` takes all of it. Of several sequences, each is a subarray and an import of its own.
 *
 * ```ts
 * pages.import({ keyCache, valueCache, keyScale, valueScale, layout: milaLayout(pages.layout, { maxSeqLen: 4096, tokens: 1000 }) });
 * ```
 *
 * @throws RangeError naming the option that does not fit
 */
export function milaLayout(page: PageLayout, options: MilaLayoutOptions): TensorLayout {
  checkPageLayout(page, 'page');
  checkOptions(options, 'options', milaNames);
  const { maxSeqLen, tokens = maxSeqLen } = options;
  checkInteger(maxSeqLen, 'maxSeqLen', 0);
  return contiguousLayout(page, checkInteger(tokens, 'tokens', 0, maxSeqLen), 1, maxSeqLen);
}

/** The room that ferrum's tensors have, and what is in it. */
export interface FerrumLayoutOptions {
  /** `len` of a contiguous cache, or blocks · block_size of a pool of blocks. */
  readonly tokens: number;
}

const ferrumNames: OptionNames<FerrumLayoutOptions> = { tokens: true };

/**
 * How ferrum's `KvCacheQuant` lies: codes [tokens, kvHeads, headDim], scales [tokens, kvHeads]. A pool of blocks is the
 * same, its block b the tokens from b · block_size on (ferrum-infer-rs, int8_paged_decode_attention.cu). Its scales are f16:
 * {@link ferrumScales} widens them and {@link ferrumScaleBits} narrows them again, both exact.
 *
 * ```ts
 * const layout = ferrumLayout(pages.layout, { tokens: cache.len });
 * pages.import({ keyCache, valueCache, keyScale: ferrumScales(kScales), valueScale: ferrumScales(vScales), layout });
 * ```
 *
 * @throws RangeError naming the option that does not fit
 */
export function ferrumLayout(page: PageLayout, options: FerrumLayoutOptions): TensorLayout {
  checkPageLayout(page, 'page');
  checkOptions(options, 'options', ferrumNames);
  return contiguousLayout(page, checkInteger(options.tokens, 'tokens', 0), page.kvHeads, 1);
}
