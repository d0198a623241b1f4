/** Attention's parameters, checked once for every backend, and the plan: which rows are computed with which keys. */
import type { AttendCall, AttentionOptions, OutDtype, Pages } from './backend.js';
import { describe, floatDtypeOf, type FloatDtype } from './formats.js';
import { checkInteger, MAX_CONTEXT, WORK_WORDS, type PageLayout } from './layout.js';
import { checkOptions, type OptionNames } from './options.js';
import { checkDescale, type GivenScales } from './scale.js';

/** A checked call. */
export interface AttendPlan {
  readonly dtype: FloatDtype;
  readonly totalQ: number;
  readonly queryHeads: number;
  readonly maxBlocks: number;
  readonly blockTable: Int32Array;
  readonly kScale: GivenScales;
  readonly vScale: GivenScales;
  readonly softmaxScale: number;
  readonly softcap: number;
  readonly causal: boolean;
  readonly windowLeft: number;
  readonly windowRight: number;
  readonly sinks: Float32Array | undefined;
  readonly alibiSlopes: Float32Array | undefined;
  readonly outDtype: OutDtype;
  /** Work items of {@link WORK_WORDS} words, in the order of the rows in q. */
  readonly work: Int32Array;
}

/** The array, or a copy that no other thread can change once it has been checked. */
export function int32(array: Int32Array, argument: string): Int32Array {
  if (!(array instanceof Int32Array)) throw new TypeError(`"${argument}" expected an Int32Array, got ${describe(array)}`);
  return array.buffer instanceof ArrayBuffer ? array : new Int32Array(array);
}

function checkWindow(value: number | undefined, argument: string): number {
  return value === undefined ? -1 : checkInteger(value, argument, -1, 0x7fffffff);
}

function checkNumber(value: unknown, argument: string): void {
  if (typeof value !== 'number') throw new TypeError(`"${argument}" expected a number, got ${describe(value)}`);
}

type CheckedOptions = Pick<AttendPlan, 'causal' | 'windowLeft' | 'windowRight' | 'softcap' | 'sinks' | 'alibiSlopes' | 'softmaxScale'>;

/** @throws TypeError or RangeError unless the array, where given, has an f32 for each query head */
function checkPerHead(values: Float32Array | undefined, queryHeads: number, argument: string): void {
  if (values === undefined) return;
  if (!(values instanceof Float32Array)) throw new TypeError(`"${argument}" expected a Float32Array, got ${describe(values)}`);
  if (values.length !== queryHeads) throw new RangeError(`"${argument}" expected one number per query head (${queryHeads}), got ${values.length}`);
}

/** @throws TypeError or RangeError for an option out of its range */
export function checkAttentionOptions(options: AttentionOptions, queryHeads: number, headDim: number): CheckedOptions {
  const { causal = true, softcap = 0, sinks, alibiSlopes, softmaxScale = 1 / Math.sqrt(headDim) } = options;
  checkNumber(softcap, 'softcap');
  checkNumber(softmaxScale, 'softmaxScale');
  if (typeof causal !== 'boolean') throw new TypeError(`"causal" expected true or false, got ${describe(causal)}`);
  const cap = Math.fround(softcap);
  if (!(softcap === 0 || (cap > 0 && cap < Infinity))) throw new RangeError(`"softcap" expected 0, or a finite f32 greater than 0, got ${describe(softcap)}`);
  if (!Number.isFinite(Math.fround(softmaxScale))) throw new RangeError(`"softmaxScale" expected a finite number, got ${describe(softmaxScale)}`);
  checkPerHead(sinks, queryHeads, 'sinks');
  checkPerHead(alibiSlopes, queryHeads, 'alibiSlopes');
  const windowLeft = checkWindow(options.windowLeft, 'windowLeft');
  const windowRight = checkWindow(options.windowRight, 'windowRight');
  return { causal, softcap, sinks, alibiSlopes, softmaxScale, windowLeft, windowRight };
}

/** Rows of each sequence; the last entry of `cuSeqlensQ` is the number of all. */
function checkRows(cuSeqlensQ: Int32Array): number {
  if (cuSeqlensQ.length < 1) throw new RangeError('"cuSeqlensQ" expected at least one entry, got none');
  if (cuSeqlensQ[0] !== 0) throw new RangeError(`"cuSeqlensQ" expected to begin with 0, got ${cuSeqlensQ[0]}`);
  for (let s = 1; s < cuSeqlensQ.length; s++) {
    if (cuSeqlensQ[s] < cuSeqlensQ[s - 1]) throw new RangeError(`"cuSeqlensQ" expected entries that do not fall, got ${cuSeqlensQ[s - 1]}, ${cuSeqlensQ[s]} at ${s}`);
  }
  return cuSeqlensQ[cuSeqlensQ.length - 1];
}

/** The first key that any row of a sequence can see. The last row stands at the last key, or behind it, so all from here on are seen. */
function firstVisible(qLen: number, contextLen: number, windowLeft: number): number {
  return windowLeft < 0 ? 0 : Math.max(0, contextLen - qLen - windowLeft);
}

/**
 * Blocks that no row can see (before the window) need no page: an engine may have given them back.
 * @param firstBlock where the sequence begins in the table
 */
function checkBlocks({ layout, count }: Pages, blockTable: Int32Array, firstBlock: number, sequence: number, firstKey: number, kvLen: number): void {
  const end = Math.ceil(kvLen / layout.blockSize);
  for (let block = Math.floor(firstKey / layout.blockSize); block < end; block++) {
    const page = blockTable[firstBlock + block];
    if (page < 0 || page >= count) {
      throw new RangeError(`"blockTable" expected a page from 0 to ${count - 1} for sequence ${sequence}, block ${block}, got ${page}`);
    }
  }
}

/** Without rows q does not tell; then what there is for each head may. */
function queryHeadsOf({ q, sinks, alibiSlopes }: AttendCall<OutDtype>, totalQ: number, { headDim, kvHeads }: PageLayout): number {
  if (totalQ === 0) {
    if (q.length !== 0) throw new RangeError(`"q" expected no rows, as "cuSeqlensQ" says, got length ${q.length}`);
    return sinks?.length ?? alibiSlopes?.length ?? kvHeads;
  }
  const heads = q.length / (totalQ * headDim);
  if (!Number.isInteger(heads) || heads < 1 || heads % kvHeads !== 0) {
    throw new RangeError(`"q" expected ${totalQ} rows × a multiple of ${kvHeads} heads × ${headDim}, got length ${q.length}`);
  }
  return heads;
}

const outArrays = { f32: Float32Array, f16: Uint16Array } as const;

/** @throws TypeError unless it is one */
export function checkOutDtype(dtype: OutDtype = 'f32'): OutDtype {
  if (!Object.hasOwn(outArrays, dtype)) throw new TypeError(`"outDtype" expected f32 or f16, got ${describe(dtype)}`);
  return dtype;
}

/** A place for results of a dtype. */
export const newResult = (dtype: OutDtype, length: number): Float32Array | Uint16Array => new outArrays[dtype](length);

/** @throws TypeError or RangeError unless the array, where given, is of this dtype and length */
function checkResult(array: Float32Array | Uint16Array | undefined, dtype: OutDtype, length: number, argument: string): void {
  if (array === undefined) return;
  const kind = outArrays[dtype];
  if (!(array instanceof kind)) throw new TypeError(`"${argument}" expected a ${kind.name}${dtype === 'f16' ? ' (f16)' : ''}, got ${describe(array)}`);
  if (array.length !== length) throw new RangeError(`"${argument}" expected length ${length}, got ${array.length}`);
}

/** The tables of a call, checked. */
interface CheckedTables {
  readonly totalQ: number;
  readonly sequences: number;
  readonly maxBlocks: number;
  readonly blockTable: Int32Array;
  readonly cuSeqlensQ: Int32Array;
  readonly seqUsedK: Int32Array;
  /** seqUsedK itself where a call states no other lengths. */
  readonly contextLens: Int32Array;
}

/** The table of a contiguous cache: a sequence's keys are in the page of its own number. */
export const pageEach = (sequences: number): Int32Array => Int32Array.from({ length: sequences }, (_, page) => page);

/** @throws TypeError or RangeError unless the lengths, where given, are one for each sequence, of at least its keys */
function checkContextLens(lengths: Int32Array | undefined, seqUsedK: Int32Array): Int32Array {
  if (lengths === undefined) return seqUsedK;
  const contextLens = int32(lengths, 'contextLens');
  if (contextLens.length !== seqUsedK.length) throw new RangeError(`"contextLens" expected one number per sequence (${seqUsedK.length}), got ${contextLens.length}`);
  for (let s = 0; s < seqUsedK.length; s++) checkInteger(contextLens[s], `contextLens[${s}]`, seqUsedK[s], MAX_CONTEXT);
  return contextLens;
}

/** @throws TypeError or RangeError naming the table that does not fit */
export function checkTables(pages: Pages, call: Pick<AttendCall, 'blockTable' | 'cuSeqlensQ' | 'seqUsedK' | 'contextLens'>, windowLeft: number): CheckedTables {
  const cuSeqlensQ = int32(call.cuSeqlensQ, 'cuSeqlensQ');
  const seqUsedK = int32(call.seqUsedK, 'seqUsedK');
  const totalQ = checkRows(cuSeqlensQ);
  const sequences = cuSeqlensQ.length - 1;
  if (seqUsedK.length !== sequences) throw new RangeError(`"seqUsedK" expected one number per sequence (${sequences}), got ${seqUsedK.length}`);
  const contextLens = checkContextLens(call.contextLens, seqUsedK);
  const blockTable = call.blockTable === undefined ? pageEach(sequences) : int32(call.blockTable, 'blockTable');
  const maxBlocks = sequences === 0 ? 0 : blockTable.length / sequences;
  if (!Number.isInteger(maxBlocks)) throw new RangeError(`"blockTable" expected ${sequences} rows of equal length, got length ${blockTable.length}`);
  for (let s = 0; s < sequences; s++) {
    const kvLen = checkInteger(seqUsedK[s], `seqUsedK[${s}]`, 0, maxBlocks * pages.layout.blockSize);
    const qLen = cuSeqlensQ[s + 1] - cuSeqlensQ[s];
    if (qLen > 0) checkBlocks(pages, blockTable, s * maxBlocks, s, firstVisible(qLen, contextLens[s], windowLeft), kvLen);
  }
  return { totalQ, sequences, maxBlocks, blockTable, cuSeqlensQ, seqUsedK, contextLens };
}

export const attentionNames: OptionNames<AttentionOptions> = { causal: true, windowLeft: true, windowRight: true, softcap: true, sinks: true, alibiSlopes: true, softmaxScale: true };

const callNames: OptionNames<AttendCall<OutDtype>> = {
  ...attentionNames,
  pages: true, q: true, dtype: true, blockTable: true, cuSeqlensQ: true, seqUsedK: true, contextLens: true,
  kScale: true, vScale: true, kDescale: true, vDescale: true, outDtype: true, out: true, lse: true,
};

/**
 * Checks a call and lays out its work.
 * @param rowsAtOnce how many rows of q one work item may have at most; changes no bit of the result
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function planAttention(call: AttendCall<OutDtype>, rowsAtOnce: (queryHeads: number) => number): AttendPlan {
  checkOptions(call, 'call', callNames);
  const { layout } = call.pages;
  const dtype = floatDtypeOf(call.q, call.dtype, 'q');
  const windowLeft = checkWindow(call.windowLeft, 'windowLeft');
  const { totalQ, sequences, maxBlocks, blockTable, cuSeqlensQ, seqUsedK, contextLens } = checkTables(call.pages, call, windowLeft);
  const queryHeads = queryHeadsOf(call, totalQ, layout);
  const { causal, windowRight, softcap, sinks, alibiSlopes, softmaxScale } = checkAttentionOptions(call, queryHeads, layout.headDim);
  const outDtype = checkOutDtype(call.outDtype);
  checkResult(call.out, outDtype, totalQ * queryHeads * layout.headDim, 'out');
  checkResult(call.lse, 'f32', totalQ * queryHeads, 'lse');
  const step = rowsAtOnce(queryHeads);
  let items = 0;
  for (let s = 0; s < sequences; s++) items += Math.ceil((cuSeqlensQ[s + 1] - cuSeqlensQ[s]) / step);
  const kScale = checkDescale({ scale: call.kScale, descale: call.kDescale }, layout.k, layout, sequences, 'k');
  const vScale = checkDescale({ scale: call.vScale, descale: call.vDescale }, layout.v, layout, sequences, 'v');
  const work = layOutWork(cuSeqlensQ, seqUsedK, contextLens, step, items);
  // Each field by its name: with a spread V8 makes 4 KB of garbage in every call.
  return { dtype, totalQ, queryHeads, maxBlocks, blockTable, kScale, vScale, causal, windowLeft, windowRight, softcap, sinks, alibiSlopes, softmaxScale, outDtype, work };
}

function layOutWork(cuSeqlensQ: Int32Array, seqUsedK: Int32Array, contextLens: Int32Array, step: number, items: number): Int32Array {
  const work = new Int32Array(items * WORK_WORDS);
  let at = 0;
  for (let s = 0; s < seqUsedK.length; s++) {
    const qLen = cuSeqlensQ[s + 1] - cuSeqlensQ[s];
    for (let row = 0; row < qLen; row += step) {
      work[at++] = cuSeqlensQ[s] + row;
      work[at++] = Math.min(step, qLen - row);
      work[at++] = contextLens[s] - qLen + row;
      work[at++] = seqUsedK[s];
      work[at++] = s;
    }
  }
  return work;
}

/** Work items that are taken together. */
export interface WorkPart {
  readonly first: number;
  readonly items: number;
  readonly rows: number;
}

/** All work, in parts of at most `most` rows; an item is never cut. */
export function partsOf(work: Int32Array, most: number): WorkPart[] {
  const parts: WorkPart[] = [];
  let [first, rows] = [0, 0];
  const count = work.length / WORK_WORDS;
  for (let item = 0; item < count; item++) {
    const more = work[item * WORK_WORDS + 1];
    if (rows + more > most) {
      parts.push({ first, items: item - first, rows });
      [first, rows] = [item, 0];
    }
    rows += more;
  }
  if (count > 0) parts.push({ first, items: count - first, rows });
  return parts;
}
