/**
 * What a backend can do. It knows pages and slots, not sequences: those are the cache's. Every operation checks all
 * that the host can see before it writes anything; a call that throws has changed nothing.
 *
 * Results may come at once or as a promise. `WasmBackend` narrows every method to the synchronous form; `ThreadedBackend`
 * says which give promises. Operations take effect in the order of their calls.
 */
import type { FloatArray, FloatDtype } from './formats.js';
import type { PageLayout } from './layout.js';
import type { Recipe, RecipeName, ScalePrecision } from './recipe.js';
import type { GivenScale } from './scale.js';

type Awaitable<T> = T | Promise<T>;

/** Where keys and values are kept and attention is computed: pages, and what is done with them. */
export interface Backend {
  /** Which it is. */
  readonly kind: 'wasm' | 'webgpu';
  /** True when every method returns its result at once. */
  readonly synchronous: boolean;

  /**
   * Memory for `count` pages, filled with zeros.
   * @throws RangeError when the pool is larger than this backend can hold
   */
  createPages(layout: PageLayout, count: number): Pages;

  /**
   * Tables that calls to come will name: for a backend that has to bring them elsewhere, and then does so once. Those calls
   * say what they say all the same.
   */
  expectTables?(tables: readonly Int32Array[]): void;

  /** Quantizes keys and values and writes them into their slots. */
  append(call: AppendCall): Awaitable<AppendStatus>;

  /** Quantizes tokens that lie in pages of f16 or f32 into slots of other pages: the same bytes as `append` of the same values. */
  requantize(call: RequantizeCall): Awaitable<AppendStatus>;

  /**
   * Attention of query rows over the pages of their sequences. Where it gives a promise, the arrays of the call must stay
   * as they are until that settles.
   */
  attend<D extends OutDtype = 'f32'>(call: AttendCall<D>): Awaitable<AttendResult<D>>;

  /** Ends the backend and all pages created from it: later calls throw. WebAssembly memory goes back once nothing refers to them. */
  dispose(): void;
  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void;
}

/** The pages of one layer: an opaque handle over WASM memory or a GPU buffer. */
export interface Pages {
  /** Where everything lies in a page. */
  readonly layout: PageLayout;
  /** How many pages there are. */
  readonly count: number;
  /** Bytes of all pages. */
  readonly byteLength: number;

  /**
   * Copies whole pages, codes and scales: page `from[i]` to page `to[i]`, in order. Returns at once on every backend:
   * what is called later sees the copies.
   * @throws RangeError for a page that is not there
   */
  copyPages(from: ArrayLike<number>, to: ArrayLike<number>): void;

  /**
   * Takes in the tensors of another system, bit for bit, beginning at page `firstPage` (default 0). Pages are written whole:
   * where the tensors end within one, the rest of it becomes 0.
   * @throws TypeError or RangeError naming the tensor, or the part of its layout, that does not fit; nothing was written
   */
  import(tensors: CacheTensors, firstPage?: number): Awaitable<void>;

  /** Gives out `count` pages from `firstPage` (default: all) as plain NHD tensors. */
  export(firstPage?: number, count?: number): Awaitable<NhdTensors>;

  /**
   * The reverse of `import`: fills the tensors of another system from the pages, beginning at page `firstPage` (default 0).
   * What the layout does not name stays as it is: other layers, for instance, and what comes after the last token. Where this
   * gives a promise, the arrays must be left alone until it settles.
   * @throws as `import`; RangeError also where keys and values begin at the same place. Other overlaps of a layout are the caller's
   */
  exportInto(tensors: CacheTensors, firstPage?: number): Awaitable<void>;

  /** Gives their memory back: later calls with these pages throw. */
  dispose(): void;
  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void;
}

/** One setting for keys and values, or one for each. */
export type PerSide<T> = T | { readonly k: T; readonly v: T };

/** Codes as they are stored: FP8 in a Uint8Array, int8 in an Int8Array, f16 bits in a Uint16Array, f32 in a Float32Array. */
export type CodeArray = Uint8Array | Int8Array | Uint16Array | Float32Array;

/** A cache as the ecosystem writes it: token-major, keys and values apart. */
export interface NhdTensors {
  /** [blocks, blockSize, kvHeads, headDim] */
  readonly keyCache: CodeArray;
  /** [blocks, blockSize, kvHeads, headDim] */
  readonly valueCache: CodeArray;
  /** [blocks, blockSize, kvHeads] with granularity token-head, [blocks, blockSize, kvHeads, groups] with group, else absent */
  readonly keyScale?: Float32Array;
  /** The same. */
  readonly valueScale?: Float32Array;
}

/** Where rows (the dims of one token and head, one after the other) lie in an array, in its elements: that of block b, token t of the block, head h begins at `offset + b · block + t · token + h · head`. */
export interface TensorStrides {
  /** Of block 0, token 0, head 0. */
  readonly offset: number;
  /** From a block to the next. */
  readonly block: number;
  /** From a token to the next. */
  readonly token: number;
  /** From a head to the next. */
  readonly head: number;
}

/** The same for scales, in f32: that of group g (0 with granularity token-head) is `g · group` further on. */
export interface ScaleStrides extends TensorStrides {
  /** From a group of dims to the next. */
  readonly group: number;
}

/** Keys or values of another system. */
export interface SideTensor {
  /** Where the codes lie, in elements. */
  readonly codes: TensorStrides;
  /** Absent where pages hold no scales. */
  readonly scales?: ScaleStrides;
}

/**
 * How the tensors of another system lie. `vllmLayout`, `flashinferLayout`, `milaLayout` and `ferrumLayout` make those of the
 * systems of these names; blocks are as large as pages, and others can be written down by hand:
 *
 * ```ts
 * // keys [tokens, kvHeads, 2, headDim] of which values are the second half, 100 tokens, no scales in the pages
 * const codes = { offset: 0, block: 2 * blockSize * kvHeads * headDim, token: 2 * kvHeads * headDim, head: 2 * headDim };
 * const layout = { tokens: 100, k: { codes }, v: { codes: { ...codes, offset: headDim } } };
 * pages.import({ keyCache: kv, valueCache: kv, layout });
 * ```
 */
export interface TensorLayout {
  /** Tokens that there are: the last block may be partial. */
  readonly tokens: number;
  /** Where the keys lie. */
  readonly k: SideTensor;
  /** Where the values lie. */
  readonly v: SideTensor;
}

/** The cache of another system. Keys and values may be parts of one array; so may codes and scales be of one buffer. */
export interface CacheTensors {
  /** The array that keys lie in. */
  readonly keyCache: CodeArray;
  /** The array that values lie in; it may be the same. */
  readonly valueCache: CodeArray;
  /** Scales of the keys, with granularity token-head or group; else absent. */
  readonly keyScale?: Float32Array;
  /** The same of the values. */
  readonly valueScale?: Float32Array;
  /** Default: as {@link NhdTensors} says, of as many blocks as there are. */
  readonly layout?: TensorLayout;
}

/** Keys and values of new tokens, on their way into pages. */
export interface AppendCall {
  /** Where they go. */
  readonly pages: Pages;
  /** [tokens, kvHeads, headDim] */
  readonly key: FloatArray;
  /** [tokens, kvHeads, headDim] */
  readonly value: FloatArray;
  /** Dtype of `key` and `value`; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
  /** `[tokens]`: page · blockSize + place in the page. Negative = skip this token; no slot twice. */
  readonly slotMapping: Int32Array;
  /** How computed scales come about (granularities token-head, group). Default `amax`. */
  readonly recipe?: PerSide<RecipeName | Recipe>;
  /** In place of the recipe's: `f16` rounds computed scales to f16, kept as f32 words. Default: what the recipe says. */
  readonly scalePrecision?: PerSide<ScalePrecision | undefined>;
  /** Given scales: one number, or as many as the granularity (tensor, head, channel) has. Default 1. */
  readonly kScale?: GivenScale;
  /** The same for values. */
  readonly vScale?: GivenScale;
}

/** Tokens that lie unquantized in pages of f16 or f32, on their way into others. */
export interface RequantizeCall extends Pick<AppendCall, 'recipe' | 'scalePrecision' | 'kScale' | 'vScale'> {
  /** Where they are: pages of f16 or of f32, keys and values alike, of order NHD. */
  readonly from: Pages;
  /** `[n]`: which of these, all of their tokens, one page after the other. */
  readonly fromPages: ArrayLike<number>;
  /** Where they go, and how: as in {@link AppendCall}. Not `from` itself. */
  readonly pages: Pages;
  /** `[n · from.layout.blockSize]`: page · blockSize + place in the page. Negative = skip this token; no slot twice. */
  readonly slotMapping: Int32Array;
}

/** What an append did. */
export interface AppendStatus {
  /** Tokens stored. */
  readonly written: number;
  /** Tokens whose slot was negative. */
  readonly skipped: number;
  /** NaN among the elements that were stored as int8, which has none: they are 0. Absent where nothing is int8, or keys and values come from GPU buffers or pages. */
  readonly nan?: number;
}

/** What shapes attention beside q, keys and values. The defaults are plain causal attention. */
export interface AttentionOptions {
  /** Row i of a sequence stands at kvLen − qLen + i, before all keys where that is negative, and sees keys up to itself. Default true. */
  readonly causal?: boolean;
  /** A row sees keys j ≥ pos − windowLeft. −1 = unlimited (default). */
  readonly windowLeft?: number;
  /** A row sees keys j ≤ pos + windowRight. −1 = unlimited (default). */
  readonly windowRight?: number;
  /** s becomes softcap · tanh(s / softcap). 0 = none (default). */
  readonly softcap?: number;
  /** `[queryHeads]`: one more logit per head, not scaled, that joins the denominator only. */
  readonly sinks?: Float32Array;
  /** `[queryHeads]`: slope · (j − pos) is added to the score of key j, before softcap (ALiBi). */
  readonly alibiSlopes?: Float32Array;
  /** Default 1/√headDim. */
  readonly softmaxScale?: number;
}

/** What attention's output is rounded to. */
export type OutDtype = 'f32' | 'f16';

/** Output of a dtype: f16 as bits in a Uint16Array. */
export type OutArray<D extends OutDtype> = D extends 'f16' ? Uint16Array : Float32Array;

/** Queries, and the pages that they look at. */
export interface AttendCall<D extends OutDtype = 'f32'> extends AttentionOptions {
  /** Keys and values. */
  readonly pages: Pages;
  /** [totalQ, queryHeads, headDim]; queryHeads is any multiple of kvHeads. */
  readonly q: FloatArray;
  /** Dtype of `q`; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
  /**
   * `[sequences, maxBlocks]`: page of each block; unused entries are negative. Default, for contiguous caches: sequence s has
   * page s, all of it.
   *
   * ```ts
   * const layout = pageLayout({ kvHeads, headDim, blockSize: capacity }); // a page holds a sequence
   * const pages = backend.createPages(layout, sequences);
   * backend.append({ pages, key, value, slotMapping }); // s * capacity + position, for each token
   * backend.attend({ pages, q, cuSeqlensQ, seqUsedK });
   * ```
   */
  readonly blockTable?: Int32Array;
  /** `[sequences + 1]`: rows of sequence s are cuSeqlensQ[s] … cuSeqlensQ[s + 1] − 1. */
  readonly cuSeqlensQ: Int32Array;
  /** `[sequences]`: keys of each sequence, the new ones included. */
  readonly seqUsedK: Int32Array;
  /**
   * `[sequences]`: tokens of each sequence, where `seqUsedK` says only how many of its first keys lie in these pages: row i
   * stands at contextLens − qLen + i, and keys from seqUsedK on are not seen here. At least seqUsedK, which is the default.
   */
  readonly contextLens?: Int32Array;
  /** Given scales, of any format: one number, or as many as the granularity (tensor, head, channel) has. Default 1. */
  readonly kScale?: GivenScale;
  /** The same for values. */
  readonly vScale?: GivenScale;
  /** In place of given scales (tensor, head), this call's own: one number for all, or [sequences, kvHeads]. vLLM's k_descale and v_descale. */
  readonly kDescale?: GivenScale;
  /** The same for values. */
  readonly vDescale?: GivenScale;
  /** Default f32. f16 is rounded to the nearest, ties to even. */
  readonly outDtype?: D;
  /** [totalQ, queryHeads, headDim] of `outDtype`: where to put the result; made when absent. May be q itself, or overlap it. */
  readonly out?: OutArray<D>;
  /** `[totalQ, queryHeads]`: natural log of the softmax denominator; made when absent. */
  readonly lse?: Float32Array;
}

/** Attention's output and the logarithm of its denominator. */
export interface AttendResult<D extends OutDtype = 'f32'> {
  /** [totalQ, queryHeads, headDim] */
  readonly out: OutArray<D>;
  /** [totalQ, queryHeads]; −∞ for a row that sees nothing (the sink where there is one) */
  readonly lse: Float32Array;
}
