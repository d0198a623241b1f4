/**
 * FlashInfer's paged KV caches and its page tables, as docs.flashinfer.ai describes them under `append_paged_kv_cache` and
 * "page table layout".
 */
import { int32 } from '../attention.js';
import type { TensorLayout } from '../backend.js';
import { describe } from '../formats.js';
import { checkInteger, checkPageLayout, type PageLayout } from '../layout.js';
import { checkObject, checkOptions, type OptionNames } from '../options.js';
import { rowMajorLayout, type Axis } from './row-major.js';

/** Which of FlashInfer's tensors it is. */
export interface FlashinferLayoutOptions {
  /** max_num_pages. */
  readonly pages: number;
  /** kv_layout. Default NHD. */
  readonly kvLayout?: 'NHD' | 'HND';
  /** Whether the cache is a tuple of two tensors, and not one. Default false. */
  readonly tuple?: boolean;
}

const optionNames: OptionNames<FlashinferLayoutOptions> = { pages: true, kvLayout: true, tuple: true };

const orders: { readonly [order: string]: readonly Axis[] } = { NHD: ['token', 'head'], HND: ['head', 'token'] };

/**
 * How a cache of FlashInfer lies: one tensor [pages, 2, page, heads, headDim] (NHD) or [pages, 2, heads, page, headDim] (HND),
 * or a tuple of two without the 2. Scales, where pages hold any, have the shape of the codes without headDim.
 *
 * ```ts
 * const layout = flashinferLayout(pages.layout, { pages: 512, kvLayout: 'HND' });
 * pages.import({ keyCache: pagedKvCache, valueCache: pagedKvCache, layout });
 * ```
 *
 * @throws TypeError or RangeError naming the option that does not fit
 */
export function flashinferLayout(page: PageLayout, options: FlashinferLayoutOptions): TensorLayout {
  checkPageLayout(page, 'page');
  checkOptions(options, 'options', optionNames);
  const { pages, kvLayout = 'NHD', tuple = false } = options;
  if (!Object.hasOwn(orders, kvLayout)) throw new TypeError(`"kvLayout" expected NHD or HND, got ${describe(kvLayout)}`);
  checkInteger(pages, 'pages', 0);
  return rowMajorLayout(page, { axes: [...(tuple ? (['block'] as const) : (['block', 'side'] as const)), ...orders[kvLayout]], blocks: pages });
}

/** The tables of `attend`. */
export interface BlockTables {
  /** `[sequences, maxBlocks]`: page of each block; unused entries are −1. */
  readonly blockTable: Int32Array;
  /** `[sequences]`: keys of each sequence. */
  readonly seqUsedK: Int32Array;
}

/** The tables of FlashInfer. */
export interface FlashinferTables {
  /** `[sequences + 1]`: the pages of sequence s are those from kvIndptr[s] to kvIndptr[s + 1] − 1 in kvIndices. */
  readonly kvIndptr: Int32Array;
  /** [kvIndptr[sequences]]: the pages of all sequences. */
  readonly kvIndices: Int32Array;
  /** `[sequences]`: keys in the last page of each: from 1 to the page's size, and 0 where a sequence has no page. */
  readonly kvLastPageLen: Int32Array;
}

/**
 * FlashInfer's tables of ours.
 * @throws TypeError or RangeError naming the table that does not fit; also for a key in a block that has no page: FlashInfer knows
 * no blocks that were given back
 */
export function toFlashinferTables(tables: BlockTables, blockSize: number): FlashinferTables {
  checkObject(tables, 'tables');
  const { blockTable, seqUsedK } = tables;
  const sequences = int32(seqUsedK, 'seqUsedK').length;
  checkInteger(blockSize, 'blockSize', 1);
  const maxBlocks = sequences === 0 ? 0 : int32(blockTable, 'blockTable').length / sequences;
  if (!Number.isInteger(maxBlocks)) throw new RangeError(`"blockTable" expected ${sequences} rows of equal length, got length ${blockTable.length}`);
  const kvIndptr = new Int32Array(sequences + 1);
  const kvLastPageLen = new Int32Array(sequences);
  const indices: number[] = [];
  for (let s = 0; s < sequences; s++) {
    const keys = checkInteger(seqUsedK[s], `seqUsedK[${s}]`, 0, maxBlocks * blockSize);
    const blocks = Math.ceil(keys / blockSize);
    for (let block = 0; block < blocks; block++) indices.push(checkInteger(blockTable[s * maxBlocks + block], `blockTable[${s * maxBlocks + block}]`, 0));
    kvIndptr[s + 1] = indices.length;
    kvLastPageLen[s] = blocks === 0 ? 0 : keys - (blocks - 1) * blockSize;
  }
  return { kvIndptr, kvIndices: Int32Array.from(indices), kvLastPageLen };
}

/**
 * Our tables of FlashInfer's.
 * @throws TypeError or RangeError naming the table that does not fit
 */
export function fromFlashinferTables(tables: FlashinferTables, pageSize: number): BlockTables {
  checkObject(tables, 'tables');
  const { kvIndptr, kvIndices, kvLastPageLen } = tables;
  const sequences = int32(kvLastPageLen, 'kvLastPageLen').length;
  checkInteger(pageSize, 'pageSize', 1);
  if (int32(kvIndptr, 'kvIndptr').length !== sequences + 1) throw new RangeError(`"kvIndptr" expected ${sequences + 1} entries, got ${kvIndptr.length}`);
  checkInteger(kvIndptr[0], 'kvIndptr[0]', 0, 0);
  for (let s = 0; s < sequences; s++) checkInteger(kvIndptr[s + 1], `kvIndptr[${s + 1}]`, kvIndptr[s], int32(kvIndices, 'kvIndices').length);
  const blocksOf = Int32Array.from({ length: sequences }, (_, s) => kvIndptr[s + 1] - kvIndptr[s]);
  const maxBlocks = blocksOf.reduce((a, b) => Math.max(a, b), 0);
  const blockTable = new Int32Array(sequences * maxBlocks).fill(-1);
  const seqUsedK = new Int32Array(sequences);
  for (const [s, blocks] of blocksOf.entries()) {
    for (let block = 0; block < blocks; block++) blockTable[s * maxBlocks + block] = checkInteger(kvIndices[kvIndptr[s] + block], `kvIndices[${kvIndptr[s] + block}]`, 0);
    const last = checkInteger(kvLastPageLen[s], `kvLastPageLen[${s}]`, blocks === 0 ? 0 : 1, blocks === 0 ? 0 : pageSize);
    seqUsedK[s] = Math.max(0, blocks - 1) * pageSize + last;
  }
  return { blockTable, seqUsedK };
}
