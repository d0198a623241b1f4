/** Calls that are recorded into a caller's encoder: everything lies in GPU buffers, but for tables that the host knows. */
import { planQuantize } from '../append.js';
import { checkAttentionOptions, checkOutDtype, checkTables, int32, pageEach } from '../attention.js';
import type { AttentionOptions, OutDtype, Pages, PerSide } from '../backend.js';
import { describe, type FloatDtype } from '../formats.js';
import { checkInteger } from '../layout.js';
import type { Recipe, RecipeName, ScalePrecision } from '../recipe.js';
import { checkDescale, type GivenScale } from '../scale.js';
import type { GpuAppendCall } from './append.js';
import { measureTables, saysMoreOfHeads, writeLengths, type GpuAttendCall } from './attend.js';
import { usage } from './constants.js';
import type { Gpu } from './gpu.js';
import { DECODE_TOKENS } from './kernels.js';
import type { Region } from './memory.js';
import type { WebgpuPages } from './pages.js';
import { checkDtype, isGpuTensor, regionOf, tensorBytes, type GpuTensor } from './tensor.js';

/** Keys and values in GPU buffers, on their way into pages. */
export interface RecordAppendCall {
  /** Where they go: pages of this backend. */
  readonly pages: Pages;
  /** [tokens, kvHeads, headDim] */
  readonly key: GpuTensor;
  /** [tokens, kvHeads, headDim] */
  readonly value: GpuTensor;
  /** Of key and value. Default f32. */
  readonly dtype?: FloatDtype;
  /**
   * [tokens] of i32: page · blockSize + place in the page; negative = skip. From the host they are checked here; in a GPU
   * buffer one beyond the pages is left out, and `readStatus` says so. No slot twice: that goes unnoticed there.
   */
  readonly slotMapping: Int32Array | GpuTensor;
  /** How many; needed where the slots lie in a GPU buffer. */
  readonly tokens?: number;
  /** How computed scales come about (granularities token-head, group). Default `amax`. */
  readonly recipe?: PerSide<RecipeName | Recipe>;
  /** In place of the recipe's: `f16` rounds computed scales to f16, kept as f32 words. Default: what the recipe says. */
  readonly scalePrecision?: PerSide<ScalePrecision | undefined>;
  /** Given scales: one number, or as many as the granularity (tensor, head, channel) has. Default 1. */
  readonly kScale?: GivenScale;
  /** The same for values. */
  readonly vScale?: GivenScale;
}

interface RecordedTables {
  /** [sequences, maxBlocks] of i32. Default, for contiguous caches: sequence s has page s. */
  readonly blockTable?: Int32Array | GpuTensor;
  /** [sequences + 1] of i32 */
  readonly cuSeqlensQ: Int32Array | GpuTensor;
  /** [sequences] of i32 */
  readonly seqUsedK: Int32Array | GpuTensor;
  /**
   * [sequences] of i32: tokens of each sequence where not all of its keys lie in these pages, as in `AttendCall`. In a GPU
   * buffer it needs the usage COPY_SRC, and so does `seqUsedK` then.
   */
  readonly contextLens?: Int32Array | GpuTensor;
}

/** Attention whose queries and results lie in GPU buffers. */
export interface RecordAttendCall extends Omit<AttentionOptions, 'sinks'>, RecordedTables {
  /** Keys and values: pages of this backend. */
  readonly pages: Pages;
  /** [totalQ, queryHeads, headDim] */
  readonly q: GpuTensor;
  /** Of q. Default f32. */
  readonly dtype?: FloatDtype;
  /** Rows of q; needed where the tables lie in GPU buffers: then none has more. */
  readonly totalQ?: number;
  /** Heads of q: any multiple of the pages' kvHeads. */
  readonly queryHeads: number;
  /**
   * How many sequences, and how many pages each row of the block table has; needed where the tables lie in GPU buffers, the
   * pages only where there is a block table. All tables that are given lie there, or none.
   */
  readonly sequences?: number;
  /** Entries of a row of the block table. */
  readonly maxBlocks?: number;
  /**
   * New tokens and keys of a sequence, at most: they say how much is dispatched, and a sequence that has more is left out.
   * Default: what the tables from the host say; else totalQ, and as many keys as a row of the block table has room for.
   */
  readonly maxSeqlenQ?: number;
  /** Keys of a sequence, at most. */
  readonly maxSeqlenK?: number;
  /** [queryHeads] of f32; in a GPU buffer only where no ALiBi slopes, and no scales per sequence, head or channel go with them. */
  readonly sinks?: Float32Array | GpuTensor;
  /** Given scales: one number, or as many as the granularity (tensor, head, channel) has. Default 1. */
  readonly kScale?: GivenScale;
  /** The same for values. */
  readonly vScale?: GivenScale;
  /** In place of given scales (tensor, head), this call's own: one number for all, or [sequences, kvHeads]. */
  readonly kDescale?: GivenScale;
  /** The same for values. */
  readonly vDescale?: GivenScale;
  /** Of out. Default f32. */
  readonly outDtype?: OutDtype;
  /** [totalQ, queryHeads, headDim] of `outDtype`: written for all rows of the sequences; never q itself. */
  readonly out: GpuTensor;
  /** [totalQ, queryHeads] of f32. Default: not kept. */
  readonly lse?: GpuTensor;
}

function stated(value: number | undefined, argument: string): number {
  if (value === undefined) throw new TypeError(`"${argument}" expected a number, as the tables lie in GPU buffers, got undefined`);
  return checkInteger(value, argument, 0, 0x7fffffff);
}

/** @internal @throws TypeError for what records no passes; whether one is finished, or another device's, only WebGPU knows */
export function checkEncoder(encoder: GPUCommandEncoder): void {
  if (typeof encoder?.beginComputePass !== 'function') throw new TypeError(`"encoder" expected a GPUCommandEncoder, got ${describe(encoder)}`);
}

/** @throws RangeError where a number is stated that the tables from the host say otherwise */
function checkSaid(stated: number | undefined, said: number, argument: string, table: string): void {
  if (stated !== undefined && stated !== said) throw new RangeError(`"${argument}" expected ${said}, as "${table}" says, got ${describe(stated)}`);
}

/** @internal @throws TypeError or RangeError naming the argument that does not fit */
export function planRecordedAppend(gpu: Gpu, pages: WebgpuPages, call: RecordAppendCall): GpuAppendCall {
  const { layout, count, groups } = pages;
  const dtype = checkDtype(call.dtype);
  const onHost = !isGpuTensor(call.slotMapping);
  const slotMapping = onHost ? int32(call.slotMapping as Int32Array, 'slotMapping') : undefined;
  if (slotMapping) checkSaid(call.tokens, slotMapping.length, 'tokens', 'slotMapping');
  const tokens = slotMapping?.length ?? stated(call.tokens, 'tokens');
  const bytes = tensorBytes(tokens * layout.kvHeads, layout.headDim, dtype);
  const key = regionOf(call.key, bytes, 'key', gpu.limits);
  const value = regionOf(call.value, bytes, 'value', gpu.limits);
  const { kRecipe, vRecipe, kScale, vScale } = planQuantize(call, layout);
  if (slotMapping) pages.marks.check(slotMapping);
  const slots = slotMapping ? gpu.arena.write(slotMapping) : regionOf(call.slotMapping as GpuTensor, tokens * 4, 'slotMapping', gpu.limits);
  return { kRecipe, vRecipe, kScale, vScale, layout, dtype, pages: pages.region, groups, slots: count * layout.blockSize, tokens, key, value, slotMapping: slots };
}

const tableNames = ['blockTable', 'cuSeqlensQ', 'seqUsedK', 'contextLens'] as const;

type Tables = Pick<GpuAttendCall, 'blockTable' | 'cuSeqlensQ' | 'seqUsedK' | 'contextLens' | 'sequences' | 'maxBlocks' | 'maxSeqlenQ' | 'maxSeqlenK' | 'totalQ' | 'decodes' | 'prefills' | 'unchecked'>;

/** A call whose tables all are of one kind. */
type CallWith<T> = RecordAttendCall & { readonly [name in keyof RecordedTables]: T };

function tablesFromHost(gpu: Gpu, pages: WebgpuPages, call: CallWith<Int32Array>): Tables {
  const { totalQ, sequences, maxBlocks, blockTable, cuSeqlensQ, seqUsedK, contextLens } = checkTables(pages, call, call.windowLeft ?? -1);
  checkSaid(call.totalQ, totalQ, 'totalQ', 'cuSeqlensQ');
  checkSaid(call.sequences, sequences, 'sequences', 'cuSeqlensQ');
  if (call.blockTable) checkSaid(call.maxBlocks, maxBlocks, 'maxBlocks', 'blockTable');
  const { maxSeqlenQ, maxSeqlenK, decodes, prefills } = measureTables(cuSeqlensQ, seqUsedK);
  return {
    blockTable: gpu.arena.write(blockTable), cuSeqlensQ: gpu.arena.write(cuSeqlensQ), ...writeLengths(gpu, seqUsedK, contextLens),
    sequences, maxBlocks, totalQ, maxSeqlenQ, maxSeqlenK, decodes, prefills,
    unchecked: false,
  };
}

/** A table that is copied from. */
function copiedTable(tensor: GpuTensor, sequences: number, name: keyof RecordedTables, gpu: Gpu): Region {
  const region = regionOf(tensor, sequences * 4, name, gpu.limits);
  if ((region.buffer.usage & usage.copySrc) === 0) throw new TypeError(`"${name}" expected a buffer with the usage COPY_SRC where "contextLens" is given, got usage ${region.buffer.usage}`);
  return region;
}

/** Where the lengths lie, or will once they have been copied: kernels find both in one buffer. */
function lengthsFromGpu(gpu: Gpu, { seqUsedK, contextLens }: CallWith<GpuTensor>, sequences: number): Pick<GpuAttendCall, 'seqUsedK' | 'contextLens'> {
  if (contextLens === undefined) return { seqUsedK: regionOf(seqUsedK, sequences * 4, 'seqUsedK', gpu.limits), contextLens };
  const lengths = { seqUsedK: copiedTable(seqUsedK, sequences, 'seqUsedK', gpu), contextLens: copiedTable(contextLens, sequences, 'contextLens', gpu) };
  return { seqUsedK: gpu.reserve('lengths', sequences * 8, 'contextLens'), contextLens: lengths };
}

function tablesFromGpu(gpu: Gpu, { layout }: WebgpuPages, call: CallWith<GpuTensor>): Tables {
  const sequences = stated(call.sequences, 'sequences');
  const maxBlocks = call.blockTable ? stated(call.maxBlocks, 'maxBlocks') : checkInteger(call.maxBlocks ?? 1, 'maxBlocks', 1, 1);
  const totalQ = stated(call.totalQ, 'totalQ');
  const maxSeqlenQ = checkInteger(call.maxSeqlenQ ?? totalQ, 'maxSeqlenQ', 0, totalQ);
  const maxSeqlenK = checkInteger(call.maxSeqlenK ?? maxBlocks * layout.blockSize, 'maxSeqlenK', 0, maxBlocks * layout.blockSize);
  const table = (tensor: GpuTensor, entries: number, name: keyof RecordedTables): Region => regionOf(tensor, entries * 4, name, gpu.limits);
  return {
    blockTable: call.blockTable ? table(call.blockTable, sequences * maxBlocks, 'blockTable') : gpu.arena.write(pageEach(sequences)),
    cuSeqlensQ: table(call.cuSeqlensQ, sequences + 1, 'cuSeqlensQ'), ...lengthsFromGpu(gpu, call, sequences),
    sequences, maxBlocks, totalQ, maxSeqlenQ, maxSeqlenK,
    decodes: totalQ > 0,
    prefills: maxSeqlenQ > DECODE_TOKENS,
    unchecked: true,
  };
}

/** Where the tables lie: all in GPU buffers, or none. */
function tablesOf(gpu: Gpu, pages: WebgpuPages, call: RecordAttendCall): Tables {
  const given = tableNames.filter((name) => call[name] !== undefined);
  const onHost = given.find((name) => !isGpuTensor(call[name]));
  if (onHost === undefined && given.length > 0) return tablesFromGpu(gpu, pages, call as CallWith<GpuTensor>);
  const onGpu = given.find((name) => isGpuTensor(call[name]));
  if (onGpu === undefined) return tablesFromHost(gpu, pages, call as CallWith<Int32Array>);
  throw new TypeError(`"${onHost}" expected a GPUBuffer, or { buffer, offset }, as "${onGpu}" is: all tables lie in GPU buffers, or none; got ${describe(call[onHost!])}`);
}

/** @internal @throws RangeError where a result lies in a buffer that is read */
export function checkNotRead(result: Region, read: readonly (Region | undefined)[], argument: string): void {
  for (const region of read) {
    if (region?.buffer === result.buffer) throw new RangeError(`"${argument}" expected a buffer that is not read: WebGPU lets a kernel write no part of one that it reads`);
  }
}

/** @internal @throws RangeError where two results would be written over each other */
export function checkApart(lse: Region, out: Region): void {
  if (lse.buffer === out.buffer && lse.offset < out.offset + out.size && out.offset < lse.offset + lse.size) {
    throw new RangeError('"lse" expected a place of its own, got one that overlaps that of "out"');
  }
}

/** @internal @throws TypeError or RangeError naming the argument that does not fit */
export function planRecordedAttend(gpu: Gpu, pages: WebgpuPages, call: RecordAttendCall): GpuAttendCall {
  const { layout, count, groups, region } = pages;
  const dtype = checkDtype(call.dtype);
  const queryHeads = checkInteger(call.queryHeads, 'queryHeads', 1);
  if (queryHeads % layout.kvHeads !== 0) throw new RangeError(`"queryHeads" expected a multiple of kvHeads (${layout.kvHeads}), got ${queryHeads}`);
  const sinksOnHost = isGpuTensor(call.sinks) ? undefined : call.sinks;
  const given = { sinks: sinksOnHost, alibiSlopes: call.alibiSlopes, causal: call.causal, windowLeft: call.windowLeft, windowRight: call.windowRight, softcap: call.softcap, softmaxScale: call.softmaxScale };
  const { causal, windowLeft, windowRight, softcap, alibiSlopes, softmaxScale } = checkAttentionOptions(given, queryHeads, layout.headDim);
  const outDtype = checkOutDtype(call.outDtype);
  const { blockTable, cuSeqlensQ, seqUsedK, contextLens, sequences, maxBlocks, totalQ, maxSeqlenQ, maxSeqlenK, decodes, prefills, unchecked } = tablesOf(gpu, pages, call);
  const kScale = checkDescale({ scale: call.kScale, descale: call.kDescale }, layout.k, layout, sequences, 'k');
  const vScale = checkDescale({ scale: call.vScale, descale: call.vDescale }, layout.v, layout, sequences, 'v');
  const rows = totalQ * queryHeads;
  const q = regionOf(call.q, tensorBytes(rows, layout.headDim, dtype), 'q', gpu.limits);
  const out = regionOf(call.out, tensorBytes(rows, layout.headDim, outDtype), 'out', gpu.limits);
  const lse = call.lse ? regionOf(call.lse, rows * 4, 'lse', gpu.limits) : gpu.reserve('lse', rows * 4, 'lse');
  const sinks = isGpuTensor(call.sinks) ? regionOf(call.sinks, queryHeads * 4, 'sinks', gpu.limits) : undefined;
  if (sinks && saysMoreOfHeads({ alibiSlopes, kScale, vScale })) {
    throw new TypeError('"sinks" expected a Float32Array where ALiBi slopes, or scales per sequence, head or channel go with them: kernels find all of these in one buffer, which is the backend\'s');
  }
  const read = [region, q, blockTable, cuSeqlensQ, seqUsedK, sinks];
  checkNotRead(out, read, 'out');
  checkNotRead(lse, read, 'lse');
  checkApart(lse, out);
  // Each field by its name: spreads made 16 KB of garbage in every call.
  return {
    layout, pageCount: count, pages: region, groups, dtype, q, out, lse, sinks: sinks ?? sinksOnHost, alibiSlopes, queryHeads, kScale, vScale, outDtype,
    causal, windowLeft, windowRight, softcap, softmaxScale,
    blockTable, cuSeqlensQ, seqUsedK, contextLens, sequences, maxBlocks, totalQ, maxSeqlenQ, maxSeqlenK, decodes, prefills, unchecked,
  };
}
