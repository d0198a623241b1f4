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

export interface Backend {
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

  /**
   * Attention of query rows over the pages of their sequences. Where it gives a promise, the arrays of the call must stay
   * as they are until that settles.
   */
  attend<D extends OutDtype = 'f32'>(call: AttendCall<D>): Awaitable<AttendResult<D>>;

  /** Ends the backend and all pages created from it: later calls throw. WebAssembly memory goes back once nothing refers to them. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/** The pages of one layer: an opaque handle over WASM memory or a GPU buffer. */
export interface Pages {
  readonly layout: PageLayout;
  readonly count: number;
  readonly byteLength: number;

  /**
   * Copies whole pages, codes and scales: page `from[i]` to page `to[i]`, in order. Returns at once on every backend:
   * what is called later sees the copies.
   * @throws RangeError for a page that is not there
   */
  copyPages(from: ArrayLike<number>, to: ArrayLike<number>): void;

  /** Takes in foreign tensors (separate K and V, NHD), beginning at page `firstPage` (default 0). */
  import(tensors: NhdTensors, firstPage?: number): Awaitable<void>;

  /** Gives out `count` pages from `firstPage` (default: all) as plain NHD tensors. */
  export(firstPage?: number, count?: number): Awaitable<NhdTensors>;

  dispose(): void;
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

export interface AppendCall {
  readonly pages: Pages;
  /** [tokens, kvHeads, headDim] */
  readonly key: FloatArray;
  /** [tokens, kvHeads, headDim] */
  readonly value: FloatArray;
  /** Dtype of `key` and `value`; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
  /** [tokens]: page · blockSize + place in the page. Negative = skip this token; no slot twice. */
  readonly slotMapping: Int32Array;
  /** How computed scales come about (granularities token-head, group). Default `amax`. */
  readonly recipe?: PerSide<RecipeName | Recipe>;
  /** In place of the recipe's: `f16` rounds computed scales to f16, kept as f32 words. Default: what the recipe says. */
  readonly scalePrecision?: PerSide<ScalePrecision | undefined>;
  /** Given scales: one number, or as many as the granularity (tensor, head, channel) has. Default 1. */
  readonly kScale?: GivenScale;
  readonly vScale?: GivenScale;
}

export interface AppendStatus {
  /** Tokens stored. */
  readonly written: number;
  /** Tokens whose slot was negative. */
  readonly skipped: number;
  /** NaN among the elements that were stored as int8, which has none: they are 0. Absent where nothing is int8, or keys or values lie in GPU buffers. */
  readonly nan?: number;
}

/** What shapes attention beside q, keys and values. The defaults are plain causal attention. */
export interface AttentionOptions {
  /** Row i of a sequence stands at kvLen − qLen + i and sees keys up to itself. Default true. */
  readonly causal?: boolean;
  /** A row sees keys j ≥ pos − windowLeft. −1 = unlimited (default). */
  readonly windowLeft?: number;
  /** A row sees keys j ≤ pos + windowRight. −1 = unlimited (default). */
  readonly windowRight?: number;
  /** s becomes softcap · tanh(s / softcap). 0 = none (default). */
  readonly softcap?: number;
  /** [queryHeads]: one more logit per head, not scaled, that joins the denominator only. */
  readonly sinks?: Float32Array;
  /** [queryHeads]: slope · (j − pos) is added to the score of key j, before softcap (ALiBi). */
  readonly alibiSlopes?: Float32Array;
  /** Default 1/√headDim. */
  readonly softmaxScale?: number;
}

/** What attention's output is rounded to. */
export type OutDtype = 'f32' | 'f16';

/** Output of a dtype: f16 as bits in a Uint16Array. */
export type OutArray<D extends OutDtype> = D extends 'f16' ? Uint16Array : Float32Array;

export interface AttendCall<D extends OutDtype = 'f32'> extends AttentionOptions {
  readonly pages: Pages;
  /** [totalQ, queryHeads, headDim]; queryHeads is any multiple of kvHeads. */
  readonly q: FloatArray;
  /** Dtype of `q`; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
  /** [sequences, maxBlocks]: page of each block; unused entries are negative. Default, for contiguous caches: sequence s has page s. */
  readonly blockTable?: Int32Array;
  /** [sequences + 1]: rows of sequence s are cuSeqlensQ[s] … cuSeqlensQ[s + 1] − 1. */
  readonly cuSeqlensQ: Int32Array;
  /** [sequences]: keys of each sequence, the new ones included. */
  readonly seqUsedK: Int32Array;
  /** Given scales, of any format: one number, or as many as the granularity (tensor, head, channel) has. Default 1. */
  readonly kScale?: GivenScale;
  readonly vScale?: GivenScale;
  /** In place of given scales (tensor, head), this call's own: one number for all, or [sequences, kvHeads]. vLLM's k_descale and v_descale. */
  readonly kDescale?: GivenScale;
  readonly vDescale?: GivenScale;
  /** Default f32. f16 is rounded to the nearest, ties to even. */
  readonly outDtype?: D;
  /** [totalQ, queryHeads, headDim] of `outDtype`: where to put the result; made when absent. May be q itself, or overlap it. */
  readonly out?: OutArray<D>;
  /** [totalQ, queryHeads]: natural log of the softmax denominator; made when absent. */
  readonly lse?: Float32Array;
}

export interface AttendResult<D extends OutDtype = 'f32'> {
  /** [totalQ, queryHeads, headDim] */
  readonly out: OutArray<D>;
  /** [totalQ, queryHeads]; −∞ for a row that sees nothing (the sink where there is one) */
  readonly lse: Float32Array;
}
