/**
 * Shapes, strides and byte offsets: the one place that knows where anything lies.
 *
 * A page is one record of `blockSize` tokens of one layer:
 *
 * ```
 * K codes   (head, dim, token)   on WebAssembly, where blockSize is a multiple of 8; else (head, token, dim), as V
 * V codes   (head, token, dim)   each token's row padded to 16 bytes; both (token, head, dim) with order NHD
 * K scales  (head, group, token)  f32   each group's run padded to 16 bytes; with granularity token-head a head is one group,
 * V scales  (head, group, token)  f32   and with given scales there are none
 * ```
 *
 * On WebAssembly keys lie dim-major so that attention multiplies one element of q by several keys at a time: their codes are
 * decoded in registers, and no sum goes across lanes. On WebGPU an invocation takes whole rows, 16 bytes at a time, and keys
 * lie as values do. Values are added up row by row, and stay rows.
 *
 * Order NHD is for pages whose tokens go elsewhere in one piece: those of f16 and f32, whose rows have no padding, are
 * [blockSize, kvHeads, headDim] as append takes them. Attention reads HND faster.
 */
import { describe, formats, resolveFormat, type Format, type FormatName } from './formats.js';
import { checkObject } from './options.js';
import { checkPolicy, isGiven } from './policies.js';


/** Largest head dimension the kernels have room for. */
const MAX_HEAD_DIM = 256;
/** Largest page, in tokens: a whole sequence where a cache is contiguous. */
export const MAX_BLOCK_SIZE = 2 ** 20;
/** Tokens that a sequence may have whose length is stated apart from its keys: far enough from the largest i32 for kernels to add a window to a position. */
export const MAX_CONTEXT = 2 ** 30 - 1;
/** Rows whose scales are computed before any is encoded: 3 to 9 % faster than one row after the other. */
export const ROWS_AT_ONCE = 8;
/** Tokens of a dim-major side that append writes together, where their places are one after the other and the first is a multiple of this. */
export const PANEL_TOKENS = 8;
/** From one row to the next of those that append turns into a panel: constant, so that loads of 8 rows differ in their offset only. */
export const PANEL_ROW_BYTES = 4 * MAX_HEAD_DIM + 16;

/**
 * What shares a scale. Given to each call: `tensor` one number, `head` [kvHeads], `channel` [kvHeads, headDim].
 * Computed on write, and kept in the page: `token-head` one per token and KV head, `group` one per `groupSize` dims of these.
 */
export type Granularity = 'tensor' | 'head' | 'channel' | 'token-head' | 'group';

/** How keys or values are stored. */
export interface SideOptions {
  /** Default e4m3fn. */
  readonly dtype?: FormatName;
  /** Default token-head for 8-bit formats; f16 and f32 carry no scales and take `tensor` only. */
  readonly granularity?: Granularity;
  /** Dims that share a scale with granularity `group`, and only there: a multiple of 8 that divides headDim. */
  readonly groupSize?: number;
}

/** How the keys of a page lie, for each head: as (dim, token) or as (token, dim). */
export type KeyOrder = 'dim-major' | 'token-major';

/** How heads and tokens of a page's codes follow each other, in the names of vLLM and FlashInfer: (head, token, dim) or (token, head, dim). */
export type PageOrder = 'HND' | 'NHD';

/** What pages are to hold. */
export interface PageShape {
  /** Heads of keys and values. */
  readonly kvHeads: number;
  /** A multiple of 8, at most 256; the same for K and V. */
  readonly headDim: number;
  /** Tokens per page. Any positive integer; multiples of 16 are fastest, and those of 8 next. A contiguous cache is one of pages that hold a sequence each. */
  readonly blockSize: number;
  /** How keys are stored. */
  readonly k?: SideOptions;
  /** How values are stored. */
  readonly v?: SideOptions;
  /** Default HND, which attention reads fastest. With NHD keys are never dim-major. */
  readonly order?: PageOrder;
}

/** What is stated for each side. */
const sideNames: readonly (keyof SideOptions)[] = ['dtype', 'granularity', 'groupSize'];

/** Keys or values inside a page: all in bytes, from the page's first. */
export interface SideLayout {
  /** How an element is stored. */
  readonly format: Format;
  /** What shares a scale. */
  readonly granularity: Granularity;
  /** The code of head h, token t, dim d is at `codes + h · headStride + t · tokenStride + d · dimStride`. */
  readonly codes: number;
  /** From a head to the next. */
  readonly headStride: number;
  /** From a token to the next. */
  readonly tokenStride: number;
  /** From a dim to the next. */
  readonly dimStride: number;
  /** Dims that share a scale of the page: headDim with granularity token-head, 0 where the page holds no scales. */
  readonly groupSize: number;
  /** The scale of head h, token t, dim d is at `scales + h · scaleHeadStride + ⌊d / groupSize⌋ · scaleGroupStride + 4 · t`. All are 0 where the page holds no scales. */
  readonly scales: number;
  /** From the scales of a head to those of the next. */
  readonly scaleHeadStride: number;
  /** From the scales of a group of dims to those of the next. */
  readonly scaleGroupStride: number;
}

/** Where everything lies in a page. Made by `pageLayout`. */
export interface PageLayout {
  /** Heads of keys and values. */
  readonly kvHeads: number;
  /** Elements of a head. */
  readonly headDim: number;
  /** Tokens of a page. */
  readonly blockSize: number;
  /** How heads and tokens follow each other. */
  readonly order: PageOrder;
  /** Where the keys lie. */
  readonly k: SideLayout;
  /** Where the values lie. */
  readonly v: SideLayout;
  /** Size of one page, a multiple of 16. */
  readonly bytes: number;
}

export const align16 = (bytes: number): number => Math.ceil(bytes / 16) * 16;

/** @throws RangeError unless `value` is an integer in [min, max] */
export function checkInteger(value: number, argument: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    const range = max === Number.MAX_SAFE_INTEGER ? `an integer of at least ${min}` : `an integer from ${min} to ${max}`;
    throw new RangeError(`"${argument}" expected ${range}, got ${describe(value)}`);
  }
  return value;
}

/** @throws TypeError unless it is a list of pages */
function checkPageList(pages: ArrayLike<number>, argument: string): void {
  if (!Array.isArray(pages) && !ArrayBuffer.isView(pages)) throw new TypeError(`"${argument}" expected an array of pages, got ${describe(pages)}`);
}

/** @throws TypeError or RangeError for what is no list, lists of different lengths, or a page that is not there */
export function checkPageCopies(from: ArrayLike<number>, to: ArrayLike<number>, count: number): void {
  checkPageList(from, 'from');
  checkPageList(to, 'to');
  if (from.length !== to.length) throw new RangeError(`"to" expected ${from.length} pages, as "from", got ${to.length}`);
  for (let i = 0; i < from.length; i++) {
    checkInteger(from[i], `from[${i}]`, 0, count - 1);
    checkInteger(to[i], `to[${i}]`, 0, count - 1);
  }
}

/** @throws RangeError unless headDim is a multiple of 8 up to {@link MAX_HEAD_DIM} */
function checkHeadDim(headDim: number): number {
  if (!Number.isSafeInteger(headDim) || headDim < 8 || headDim > MAX_HEAD_DIM || headDim % 8 !== 0) {
    throw new RangeError(`"headDim" expected a multiple of 8 from 8 to ${MAX_HEAD_DIM}, got ${describe(headDim)}`);
  }
  return headDim;
}

function checkGroupSize(groupSize: number | undefined, granularity: Granularity, headDim: number, argument: string): number {
  if (granularity !== 'group') {
    if (groupSize !== undefined) throw new TypeError(`"${argument}" expected to be absent with granularity ${granularity}, got ${describe(groupSize)}`);
    return isGiven(granularity) ? 0 : headDim;
  }
  if (groupSize === undefined || !Number.isSafeInteger(groupSize) || groupSize < 8 || groupSize % 8 !== 0 || headDim % groupSize !== 0) {
    throw new RangeError(`"${argument}" expected a multiple of 8 that divides headDim (${headDim}), got ${describe(groupSize)}`);
  }
  return groupSize;
}

function resolveSide(options: SideOptions | undefined, side: 'k' | 'v', headDim: number): Pick<SideLayout, 'format' | 'granularity' | 'groupSize'> {
  if (options !== undefined) {
    checkObject(options, side);
    if (options.dtype === undefined && 'format' in options) throw new TypeError(`"${side}.dtype" expected a format, got undefined: "${side}.format" is not looked at`);
  }
  const format = resolveFormat(options?.dtype ?? 'e4m3fn', `${side}.dtype`);
  const granularity = options?.granularity ?? (formats[format].quantized ? 'token-head' : 'tensor');
  checkPolicy({ format, granularity }, side);
  return { format, granularity, groupSize: checkGroupSize(options?.groupSize, granularity, headDim, `${side}.groupSize`) };
}

/** @throws TypeError unless it is one */
function checkOrder(order: PageOrder = 'HND'): PageOrder {
  if (order !== 'HND' && order !== 'NHD') throw new TypeError(`"order" expected HND or NHD, got ${describe(order)}`);
  return order;
}

/**
 * Where everything lies in a page of this shape.
 * @param keys the order of keys: dim-major, which is WebAssembly's, holds only where blockSize is a multiple of 8 and the order HND
 * @throws TypeError or RangeError naming the field that does not fit
 */
export function pageLayout(shape: PageShape, keys: KeyOrder = 'dim-major'): PageLayout {
  checkObject(shape, 'shape');
  for (const name of sideNames) {
    if (name in shape) throw new TypeError(`"${name}" expected to be stated for each side, as in { k: { ${name} }, v: { ${name} } }`);
  }
  const kvHeads = checkInteger(shape.kvHeads, 'kvHeads', 1, 65536);
  const headDim = checkHeadDim(shape.headDim);
  const blockSize = checkInteger(shape.blockSize, 'blockSize', 1, MAX_BLOCK_SIZE);
  const order = checkOrder(shape.order);
  let end = 0;
  const place = (bytes: number): number => (end += bytes) - bytes;
  const codes = (side: { format: Format }, dimMajor: boolean): Pick<SideLayout, 'codes' | 'headStride' | 'tokenStride' | 'dimStride'> => {
    const { bytes } = formats[side.format];
    const row = align16(headDim * bytes);
    if (order === 'NHD') return { codes: place(blockSize * kvHeads * row), headStride: row, tokenStride: kvHeads * row, dimStride: bytes };
    const dimStride = dimMajor ? blockSize * bytes : bytes;
    const tokenStride = dimMajor ? bytes : row;
    const headStride = dimMajor ? headDim * dimStride : blockSize * tokenStride;
    return { codes: place(headStride * kvHeads), headStride, tokenStride, dimStride };
  };
  const scales = ({ groupSize }: { groupSize: number }): Pick<SideLayout, 'scales' | 'scaleHeadStride' | 'scaleGroupStride'> => {
    if (groupSize === 0) return { scales: 0, scaleHeadStride: 0, scaleGroupStride: 0 };
    const scaleGroupStride = align16(blockSize * 4);
    const scaleHeadStride = (headDim / groupSize) * scaleGroupStride;
    return { scales: place(scaleHeadStride * kvHeads), scaleHeadStride, scaleGroupStride };
  };
  const k = resolveSide(shape.k, 'k', headDim);
  const v = resolveSide(shape.v, 'v', headDim);
  const kCodes = codes(k, keys === 'dim-major' && blockSize % PANEL_TOKENS === 0);
  const vCodes = codes(v, false);
  const kScales = scales(k);
  const vScales = scales(v);
  // Kernels address a page in 31 bits.
  if (end > 0x7fffffff) throw new RangeError(`"blockSize" expected pages of at most 2 GiB, got ${end} bytes for ${blockSize} tokens`);
  return { kvHeads, headDim, blockSize, order, k: { ...k, ...kCodes, ...kScales }, v: { ...v, ...vCodes, ...vScales }, bytes: end };
}

/** @throws TypeError for what `pageLayout` has not made: without strides, there is no place for anything */
export function checkPageLayout(layout: PageLayout, argument = 'layout'): void {
  checkObject(layout, argument, 'what pageLayout() gives');
  if (!Number.isSafeInteger(layout.bytes) || !layout.k || !layout.v) throw new TypeError(`"${argument}" expected what pageLayout() gives, got ${describe(layout)} without offsets`);
}

/** The same page with its keys dim-major, where it can have them so, or token-major. */
export function arrangeKeys({ kvHeads, headDim, blockSize, order, k, v }: PageLayout, keys: KeyOrder): PageLayout {
  const side = ({ format, granularity, groupSize }: SideLayout): SideOptions =>
    granularity === 'group' ? { dtype: format, granularity, groupSize } : { dtype: format, granularity };
  return pageLayout({ kvHeads, headDim, blockSize, order, k: side(k), v: side(v) }, keys);
}

/** A record of 4-byte words that a kernel reads its arguments from; field i lies at byte 4 · i. */
export type ParamRecord = { readonly [field: string]: 'pointer' | 'i32' | 'u32' | 'f32' };

/** Arguments of the kernel that quantizes rows: `quantizeRows` in assembly/quantize.ts. */
export const quantizeParams = {
  /** x: (rows, dim), f32 | f16 | bf16. */
  x: 'pointer',
  dtype: 'i32',
  dim: 'i32',
  /** Dims that share a scale: dim, or with granularity group a part of it. */
  groupSize: 'i32',
  format: 'i32',
  /** codes: (rows, dim), rows `codesStride` bytes apart. */
  codes: 'pointer',
  codesStride: 'i32',
  /** scales: (rows) f32, written; where they are given, read. */
  scales: 'pointer',
  /** 1: scales are given. */
  given: 'i32',
  max: 'f32',
  amaxFloor: 'f32',
  scaleFloor: 'f32',
  scaleIfZero: 'f32',
  quotient: 'i32',
  /** {@link scalePrecisions} */
  scalePrecision: 'i32',
  /** The lowest code of int8. */
  least: 'i32',
  /** Working memory for what rows are divided by or multiplied with: (ROWS_AT_ONCE) f32. Append has a row's quotients behind them: (dim) f32. */
  operands: 'pointer',
} as const satisfies ParamRecord;

/**
 * What the append kernel needs beside {@link quantizeParams}: assembly/append.ts. There x is (tokens, kvHeads, dim),
 * `codes` is where rows lie that cannot be written where they belong, as those of a dim-major side: (PANEL_TOKENS) rows,
 * PANEL_ROW_BYTES apart; and `scales` are given ones: (kvHeads) or (kvHeads, dim), or one for all.
 */
export const appendParams = {
  ...quantizeParams,
  /** slotMapping: (tokens) i32; negative = skip. */
  slotMapping: 'pointer',
  kvHeads: 'i32',
  blockSize: 'i32',
  /** First byte of page 0. */
  pages: 'pointer',
  pageBytes: 'i32',
  codesOffset: 'i32',
  headStride: 'i32',
  tokenStride: 'i32',
  dimStride: 'i32',
  /** Where a page's scales begin. */
  scalesOffset: 'i32',
  /** Bytes from a head's scales, given or in the page, to the next head's, and from a group's to the next group's. */
  scaleHeadStride: 'i32',
  scaleGroupStride: 'i32',
  /** 1: each dim has a given scale of its own. */
  perChannel: 'i32',
} as const satisfies ParamRecord;

/**
 * One piece of attention work: `rows` query rows of one sequence that follow each other. 32-bit words:
 * first row in q, rows, position of the first row, keys of the sequence, row of the block table.
 */
export const WORK_WORDS = 5;

/** Keys or values as the attention kernel finds them in a page: {@link SideLayout}, and the given scales. */
export const sideParams = {
  format: 'i32',
  codes: 'i32',
  headStride: 'i32',
  tokenStride: 'i32',
  dimStride: 'i32',
  /** 0: no scales in the page. */
  scales: 'i32',
  scaleHeadStride: 'i32',
  /** Where a head has several groups: the dims of each, else 0. */
  groupSize: 'i32',
  scaleGroupStride: 'i32',
  /** given: f32, at so many bytes from those of a sequence and head to the next's; 1 where the page holds scales. */
  given: 'pointer',
  givenSequenceStride: 'i32',
  givenHeadStride: 'i32',
  /** 1: (dim) f32 for each head, else one. */
  perChannel: 'i32',
} as const satisfies ParamRecord;

/**
 * What one thread does at a time: a block of at most {@link BLOCK_ROWS} rows (query row × head of the group), over all
 * their keys or over one cut. 32-bit words: work item, first KV head, KV heads, the block's first row, first key of the cut,
 * cuts (0: all keys at once), offset of the cut's partials in bytes, index of the split that it is a piece of. A split has
 * the same words: its first cut, how many, and the offset of the first one's partials.
 */
export const UNIT_WORDS = 8;
/** Which of them is the number of cuts. */
export const UNIT_CUTS = 5;
/** Words that go before a row's value sums in a partial: largest score, sum, and two unused, so that sums are aligned. */
export const PARTIAL_WORDS = 4;

/** Arguments of the attention kernel: assembly/attend/attend.ts. */
export const attendParams = {
  /** (items, WORK_WORDS) i32. */
  work: 'pointer',
  items: 'i32',
  /** q: (rows, queryHeads, dim) f32. */
  q: 'pointer',
  /** out: (rows, queryHeads, dim) f32. */
  out: 'pointer',
  /** lse: (rows, queryHeads) f32. */
  lse: 'pointer',
  queryHeads: 'i32',
  kvHeads: 'i32',
  dim: 'i32',
  /** blockTable: (sequences, maxBlocks) i32. */
  blockTable: 'pointer',
  maxBlocks: 'i32',
  pages: 'pointer',
  pageBytes: 'i32',
  blockSize: 'i32',
  /** {@link sideParams} of each side. */
  k: 'pointer',
  v: 'pointer',
  softmaxScale: 'f32',
  /** 0: none. */
  softcap: 'f32',
  causal: 'i32',
  /** -1: unlimited. */
  windowLeft: 'i32',
  windowRight: 'i32',
  /** sinks: (queryHeads) f32; 0: none. */
  sinks: 'pointer',
  /** alibiSlopes: (queryHeads) f32; 0: none. */
  alibiSlopes: 'pointer',
  /** Working memory, see {@link attendScratch}: each thread has its own. */
  scratch: 'pointer',
  /** What threads take, (units, UNIT_WORDS) i32, and what is to be merged of it, (splits, UNIT_WORDS) i32. */
  units: 'pointer',
  splits: 'pointer',
  /** What cuts hand to the merging thread: PARTIAL_WORDS and `dim` f32 for each row of each cut of each split. */
  partials: 'pointer',
} as const satisfies ParamRecord;

/**
 * Arguments of the GPU's append kernel, wgsl/append.wgsl, for both sides. Places and strides in a page are in 4-byte words;
 * floors and what follows them are the bits of f32.
 */
export const gpuAppendParams = {
  tokens: 'u32',
  kvHeads: 'u32',
  headDim: 'u32',
  /** Dtype of keys and values. */
  dtype: 'u32',
  /** Slots of the pages. */
  slots: 'u32',
  blockSize: 'u32',
  pageWords: 'u32',
  /** Workgroups that take keys; as many take values. */
  sideWorkgroups: 'u32',
  kCodes: 'u32',
  kHeadStride: 'u32',
  kTokenStride: 'u32',
  /** 0: no scales in the page, given ones are used. */
  kScales: 'u32',
  kScaleHeadStride: 'u32',
  kScaleGroupStride: 'u32',
  /** The first of the given scales, in the buffer of these, and from one head's or dim's to the next one's: 0 where one holds for all. */
  kGiven: 'u32',
  kGivenHeadStride: 'u32',
  kGivenDimStride: 'u32',
  kQuotient: 'u32',
  kAmaxFloor: 'u32',
  kScaleFloor: 'u32',
  kScaleIfZero: 'u32',
  kMax: 'u32',
  kPrecision: 'u32',
  kLeast: 'u32',
  vCodes: 'u32',
  vHeadStride: 'u32',
  vTokenStride: 'u32',
  vScales: 'u32',
  vScaleHeadStride: 'u32',
  vScaleGroupStride: 'u32',
  vGiven: 'u32',
  vGivenHeadStride: 'u32',
  vGivenDimStride: 'u32',
  vQuotient: 'u32',
  vAmaxFloor: 'u32',
  vScaleFloor: 'u32',
  vScaleIfZero: 'u32',
  vMax: 'u32',
  vPrecision: 'u32',
  vLeast: 'u32',
} as const satisfies ParamRecord;

/** Arguments of wgsl/gather.wgsl. */
export const gpuGatherParams = {
  /** Tokens. */
  count: 'u32',
  kvHeads: 'u32',
  /** Of the tensor. */
  positions: 'u32',
  /** Of 16 bytes, in a row. */
  units: 'u32',
} as const satisfies ParamRecord;

/** Arguments of wgsl/dequantize.wgsl, for one side. Places and strides in a page are in 4-byte words. */
export const gpuDequantizeParams = {
  /** batch · kvHeads · positions */
  rows: 'u32',
  positions: 'u32',
  kvHeads: 'u32',
  headDim: 'u32',
  blockSize: 'u32',
  pageWords: 'u32',
  codes: 'u32',
  headStride: 'u32',
  tokenStride: 'u32',
  groupSize: 'u32',
  /** 0: no scales in the page, given ones are used. */
  scales: 'u32',
  scaleHeadStride: 'u32',
  scaleGroupStride: 'u32',
  /** From one head's or dim's given scale to the next one's: 0 where one holds for all. */
  givenHeadStride: 'u32',
  givenDimStride: 'u32',
} as const satisfies ParamRecord;

/**
 * Arguments of the GPU's attention kernels: wgsl/attend. What a page looks like is among them, so that a kernel serves
 * every layout with its head dimension and formats. Places and strides are in units of 16 bytes.
 */
export const gpuAttendParams = {
  kvHeads: 'u32',
  blockSize: 'u32',
  pageUnits: 'u32',
  kCodes: 'u32',
  kHeadStride: 'u32',
  kTokenStride: 'u32',
  /** 0: no scales in the page. */
  kScales: 'u32',
  kScaleHeadStride: 'u32',
  kScaleGroupStride: 'u32',
  vCodes: 'u32',
  vHeadStride: 'u32',
  vTokenStride: 'u32',
  vScales: 'u32',
  vScaleHeadStride: 'u32',
  vScaleGroupStride: 'u32',
  /** Dtype of q. */
  dtype: 'u32',
  queryHeads: 'u32',
  /** Query heads that share a KV head. */
  group: 'u32',
  sequences: 'u32',
  /** Where contextLens begins in the table of seqUsedK; 0: no lengths are stated but those. */
  contexts: 'u32',
  totalQ: 'u32',
  maxBlocks: 'u32',
  pageCount: 'u32',
  /** Rows and keys that a sequence may have: one that has more is left out. */
  maxRows: 'i32',
  maxKeys: 'i32',
  /** Blocks of rows that each sequence and KV head has at most. */
  rowBlocks: 'u32',
  /** The pass: its first block of rows, how many, and how many cuts each has at most. */
  firstBlock: 'u32',
  blocks: 'u32',
  cuts: 'u32',
  /** Cuts that a workgroup takes. */
  cutsEach: 'u32',
  /** Sequences with fewer new tokens than this, and with more than that, are another kernel's. */
  leastRows: 'i32',
  mostRows: 'i32',
  causal: 'u32',
  /** -1: unlimited. */
  windowLeft: 'i32',
  windowRight: 'i32',
  /** softmaxScale · log2(e). */
  scoreScale: 'f32',
  /** softcap · log2(e); 0: none. */
  softcap: 'f32',
  /** Whether the extras, f32 words of what a call says of single heads, begin with sinks. Where in them the others begin follows; 0: there are none. */
  hasSinks: 'u32',
  /** ALiBi's slopes, by query head. */
  alibi: 'u32',
  /** The given scale of K; where there is one for each sequence or KV head, their place and strides. */
  kScale: 'f32',
  kGiven: 'u32',
  kGivenSequenceStride: 'u32',
  kGivenHeadStride: 'u32',
  /** Factors by (KV head, dim), which are a part of the given scales. */
  kChannels: 'u32',
  vScale: 'f32',
  vGiven: 'u32',
  vGivenSequenceStride: 'u32',
  vGivenHeadStride: 'u32',
  vChannels: 'u32',
  /** 1: out is f16. */
  outHalves: 'u32',
  /** The bits of a NaN: WGSL refuses one that is written down. */
  nan: 'u32',
} as const satisfies ParamRecord;

/** Writes a kernel's arguments into memory. */
export interface ParamWriter<R extends ParamRecord> {
  /** Room that the record takes. */
  readonly bytes: number;
  /** Writes every field of the record, which the type makes the caller state, at byte `at`. */
  write(view: DataView, at: number, values: { readonly [F in keyof R]: number }): void;
}

/** The names are listed once here: listing them in every call took longer than a short decode step. */
export function paramWriter<R extends ParamRecord>(record: R): ParamWriter<R> {
  const fields = Object.keys(record);
  const isFloat = fields.map((field) => record[field] === 'f32');
  return {
    bytes: align16(fields.length * 4),
    write(view, at, values) {
      for (let i = 0; i < fields.length; i++) {
        if (isFloat[i]) view.setFloat32(at + 4 * i, values[fields[i]], true);
        else view.setInt32(at + 4 * i, values[fields[i]], true);
      }
    },
  };
}

/**
 * Keys of one tile: what is gathered from the pages at a time, and after how many keys the softmax is renormalized. It is
 * part of what fixes the results' bits. At headDim 128 a tile's values, as FP8, are half of a 32 KiB L1 cache; tiles of 32
 * keys were 3 % slower, of 64 one.
 */
export const TILE_KEYS = 128;
/** Keys per cut. Cuts are computed each from nothing and merged in order; a multiple of {@link TILE_KEYS}, and as fixed. */
export const CUT_KEYS = 2048;
/** The same on the GPU, where one workgroup takes a cut at a time. */
export const GPU_CUT_KEYS = 256;
/** Query rows (token × head of the group) that are computed together; a multiple of 4. Changes no bit. */
export const BLOCK_ROWS = 64;
/**
 * Floats from one row of the kernel's working memory to the next, for any headDim: a constant, so that loads of
 * neighbouring rows differ in their immediate offset only (15 % faster), and not a power of two, so that they fall into
 * different cache sets.
 */
export const ROW_FLOATS = MAX_HEAD_DIM + 16;
/** Words of the kernel's record of a block of rows. */
const BLOCK_WORDS = 7;
/** Words per row of the kernel's row records. */
export const ROW_WORDS = 16;

/** Working memory of the attention kernel: where each part begins, in bytes. */
export const attendScratch = (() => {
  let end = 0;
  const place = (floats: number): number => (end += 4 * floats) - 4 * floats;
  return {
    /** K or V of one tile as it is stored: K as (dim, TILE_KEYS), V as (TILE_KEYS, dim padded to 16). */
    codes: place(TILE_KEYS * MAX_HEAD_DIM),
    /** The same, decoded. */
    tile: place(TILE_KEYS * MAX_HEAD_DIM),
    /** The tile's scales: (TILE_KEYS) each. */
    kScales: place(TILE_KEYS),
    vScales: place(TILE_KEYS),
    /** Those of one group of dims. */
    groupScales: place(TILE_KEYS),
    /** V scales times a power of two: what probabilities are multiplied with. */
    weights: place(TILE_KEYS),
    /** Queries times a power of two each: (BLOCK_ROWS) rows. */
    queries: place(BLOCK_ROWS * ROW_FLOATS),
    /** Scores, then probabilities: (BLOCK_ROWS) rows, of which TILE_KEYS floats are used. */
    scores: place(BLOCK_ROWS * ROW_FLOATS),
    /** Sums of p · v in this cut, and over all cuts: (BLOCK_ROWS) rows each. */
    cutSums: place(BLOCK_ROWS * ROW_FLOATS),
    sums: place(BLOCK_ROWS * ROW_FLOATS),
    /** What else each row carries: (BLOCK_ROWS) records of ROW_WORDS, see assembly/attend/rows.ts. */
    rows: place(BLOCK_ROWS * ROW_WORDS),
    /** Which rows those are: see assembly/attend/rows.ts. */
    block: place(BLOCK_WORDS),
    bytes: end,
  };
})();
