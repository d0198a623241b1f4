/** Attention on the GPU: which kernels a call takes, with which parameters, in which passes. */
import type { AttentionOptions, OutDtype } from '../backend.js';
import { floatDtypes, type FloatDtype } from '../formats.js';
import { GPU_CUT_KEYS, gpuAttendParams, MAX_CONTEXT, paramWriter, type PageLayout } from '../layout.js';
import type { BindGroups } from './bindings.js';
import type { Gpu } from './gpu.js';
import { attentionKernels, checkKernel, DECODE_TOKENS, decodeRows, prefillRows, type Kernel } from './kernels.js';
import { FloatList, paramBlock, type Region } from './memory.js';
import { splitChannels, type GivenScales } from '../scale.js';

const writer = paramWriter(gpuAttendParams);
const paramsBlock = paramBlock(writer.bytes);
const extrasList = new FloatList();

const NAN_BITS = 0x7fc00000;
/** Partial results that are kept at a time: a call with more goes in passes. */
const PARTIAL_BYTES = 2 ** 26;
/** Lengths in buffers of the caller's, which kernels have no binding for: they are copied into one. */
interface LengthTables {
  readonly seqUsedK: Region;
  readonly contextLens: Region;
}

/** A checked call, with all its data in buffers. */
export interface GpuAttendCall extends Required<Omit<AttentionOptions, 'sinks' | 'alibiSlopes'>>, Pick<AttentionOptions, 'alibiSlopes'> {
  readonly layout: PageLayout;
  readonly pageCount: number;
  readonly pages: Region;
  /** Bind groups of calls on these pages. */
  readonly groups: BindGroups;
  readonly dtype: FloatDtype;
  readonly q: Region;
  readonly blockTable: Region;
  readonly cuSeqlensQ: Region;
  /** (sequences); where `contextLens` is there, that behind it. */
  readonly seqUsedK: Region;
  /** Whether a sequence may have more tokens than keys, and where the lengths are that `seqUsedK` is yet to be made of. */
  readonly contextLens: 'behind seqUsedK' | LengthTables | undefined;
  /** In a buffer only where nothing else is stated of single heads: see {@link saysMoreOfHeads}. */
  readonly sinks: Float32Array | Region | undefined;
  readonly out: Region;
  readonly lse: Region;
  readonly totalQ: number;
  readonly queryHeads: number;
  readonly sequences: number;
  readonly maxBlocks: number;
  /** New tokens and keys of the sequence that has most, at least. */
  readonly maxSeqlenQ: number;
  readonly maxSeqlenK: number;
  readonly kScale: GivenScales;
  readonly vScale: GivenScales;
  readonly outDtype: OutDtype;
  /** Whether some sequence has few, and some many new tokens. */
  readonly decodes: boolean;
  readonly prefills: boolean;
  /** Whether the tables have not been looked through. */
  readonly unchecked: boolean;
}

/** What a call's tables say of its size, where the host has them. */
export function measureTables(cuSeqlensQ: Int32Array, seqUsedK: Int32Array): Pick<GpuAttendCall, 'maxSeqlenQ' | 'maxSeqlenK' | 'decodes' | 'prefills'> {
  let [maxSeqlenQ, maxSeqlenK, decodes] = [0, 0, false];
  for (const [s, keys] of seqUsedK.entries()) {
    const rows = cuSeqlensQ[s + 1] - cuSeqlensQ[s];
    maxSeqlenQ = Math.max(maxSeqlenQ, rows);
    maxSeqlenK = Math.max(maxSeqlenK, keys);
    decodes ||= rows > 0 && rows <= DECODE_TOKENS;
  }
  return { maxSeqlenQ, maxSeqlenK, decodes, prefills: maxSeqlenQ > DECODE_TOKENS };
}

/** Lengths from the host where kernels find them. */
export function writeLengths({ arena }: Gpu, seqUsedK: Int32Array, contextLens: Int32Array): Pick<GpuAttendCall, 'seqUsedK' | 'contextLens'> {
  if (contextLens === seqUsedK) return { seqUsedK: arena.write(seqUsedK), contextLens: undefined };
  const both = new Int32Array(2 * seqUsedK.length);
  both.set(seqUsedK);
  both.set(contextLens, seqUsedK.length);
  return { seqUsedK: arena.write(both), contextLens: 'behind seqUsedK' };
}

type Shape = Pick<GpuAttendCall, 'layout' | 'queryHeads' | 'decodes' | 'prefills' | 'unchecked'>;

const groupOf = ({ layout, queryHeads }: Shape): number => queryHeads / layout.kvHeads;

/** Decode looks through its tables itself. */
const needsCheck = ({ unchecked, decodes, prefills }: Shape): boolean => unchecked && (prefills || !decodes);

/** The kernels that a call needs. */
export function attendKernels(call: Shape, { variant }: Gpu): Kernel[] {
  const { decode, merge, prefill } = attentionKernels(call.layout, groupOf(call), variant);
  const kernels: Kernel[] = [];
  if (call.decodes) kernels.push(decode, merge);
  if (call.prefills) kernels.push(prefill);
  if (needsCheck(call)) kernels.push(checkKernel);
  return kernels;
}

const isPerHead = ({ sequenceStride, headStride }: GivenScales): boolean => sequenceStride > 0 || headStride > 0;

/** Whether a call states anything of single heads beside sinks: then all lies in one buffer of ours, as kernels have no more bindings. */
export const saysMoreOfHeads = ({ alibiSlopes, kScale, vScale }: Pick<GpuAttendCall, 'alibiSlopes' | 'kScale' | 'vScale'>): boolean => alibiSlopes !== undefined || isPerHead(kScale) || isPerHead(vScale);

/** Where the given scales of one side lie among the extras; 0: none does. */
interface ScalePlaces {
  readonly scale: number;
  readonly given: number;
  readonly sequenceStride: number;
  readonly headStride: number;
  readonly channels: number;
}

function placeScales(scales: GivenScales, layout: PageLayout): ScalePlaces {
  const { values, sequenceStride, headStride, dimStride } = scales;
  if (!isPerHead(scales)) return { scale: values[0], given: 0, sequenceStride, headStride, channels: 0 };
  if (dimStride === 0) return { scale: 1, given: extrasList.add(values), sequenceStride, headStride, channels: 0 };
  const { heads, channels } = splitChannels(scales, layout);
  return { scale: 1, given: extrasList.add(heads), sequenceStride: 0, headStride: 1, channels: extrasList.add(channels) };
}

/** What a call says of single heads, {@link gpuAttendParams} says where. */
interface Extras {
  /** Absent: there are none. */
  readonly region: Region | undefined;
  readonly alibi: number;
  readonly k: ScalePlaces;
  readonly v: ScalePlaces;
}

/** Stands where sinks would: nothing else then begins at 0. */
const noSinks = new Float32Array(1);

function writeExtras({ arena }: Gpu, call: GpuAttendCall): Extras {
  const { sinks, alibiSlopes, kScale, vScale, layout } = call;
  extrasList.clear();
  const onHost = sinks instanceof Float32Array;
  extrasList.add(onHost ? sinks : noSinks);
  const alibi = alibiSlopes ? extrasList.add(alibiSlopes) : 0;
  const [k, v] = [placeScales(kScale, layout), placeScales(vScale, layout)];
  const region = onHost || saysMoreOfHeads(call) ? arena.write(extrasList.words) : sinks;
  return { region, alibi, k, v };
}

/** What differs between the kernels of one call, and between passes. */
interface Pass {
  readonly rowBlocks: number;
  readonly firstBlock: number;
  readonly blocks: number;
  readonly cuts: number;
  readonly cutsEach: number;
  readonly leastRows: number;
  readonly mostRows: number;
}

function writeParams({ arena }: Gpu, call: GpuAttendCall, extras: Extras, pass: Pass): Region {
  const { queryHeads, sequences, totalQ, maxBlocks, pageCount, layout, windowLeft, windowRight, softmaxScale, softcap } = call;
  const { k, v } = layout;
  writer.write(paramsBlock.view, 0, {
    kvHeads: layout.kvHeads,
    blockSize: layout.blockSize,
    pageUnits: layout.bytes / 16,
    kCodes: k.codes / 16,
    kHeadStride: k.headStride / 16,
    kTokenStride: k.tokenStride / 16,
    kScales: k.scales / 16,
    kScaleHeadStride: k.scaleHeadStride / 16,
    kScaleGroupStride: k.scaleGroupStride / 16,
    vCodes: v.codes / 16,
    vHeadStride: v.headStride / 16,
    vTokenStride: v.tokenStride / 16,
    vScales: v.scales / 16,
    vScaleHeadStride: v.scaleHeadStride / 16,
    vScaleGroupStride: v.scaleGroupStride / 16,
    dtype: floatDtypes[call.dtype].id,
    queryHeads,
    group: groupOf(call),
    sequences,
    contexts: call.contextLens ? sequences : 0,
    totalQ,
    maxBlocks,
    pageCount,
    maxRows: call.maxSeqlenQ,
    // Lengths that the host has checked are not stated again: the next step's parameters are then the same.
    maxKeys: Math.min(call.unchecked ? call.maxSeqlenK : MAX_CONTEXT, maxBlocks * layout.blockSize, MAX_CONTEXT),
    ...pass,
    causal: call.causal ? 1 : 0,
    windowLeft: Math.min(windowLeft, MAX_CONTEXT),
    windowRight: Math.min(windowRight, MAX_CONTEXT),
    scoreScale: softmaxScale * Math.LOG2E,
    // Neither denormal, which many devices take for 0, nor so large that scores divided by it are.
    softcap: softcap === 0 ? 0 : Math.min(Math.max(softcap * Math.LOG2E, 2 ** -100), 2 ** 100),
    hasSinks: call.sinks ? 1 : 0,
    alibi: extras.alibi,
    kScale: extras.k.scale,
    kGiven: extras.k.given,
    kGivenSequenceStride: extras.k.sequenceStride,
    kGivenHeadStride: extras.k.headStride,
    kChannels: extras.k.channels,
    vScale: extras.v.scale,
    vGiven: extras.v.given,
    vGivenSequenceStride: extras.v.sequenceStride,
    vGivenHeadStride: extras.v.headStride,
    vChannels: extras.v.channels,
    outHalves: call.outDtype === 'f16' ? 1 : 0,
    nan: NAN_BITS,
  });
  return arena.write(paramsBlock.words);
}

/** The most cuts that the keys which a block of rows sees can lie in. */
function mostCuts({ causal, windowLeft, windowRight, maxSeqlenK }: GpuAttendCall, tokens: number): number {
  const all = Math.max(1, Math.ceil(maxSeqlenK / GPU_CUT_KEYS));
  const right = causal ? 0 : windowRight;
  if (windowLeft < 0 || right < 0) return all;
  return Math.min(all, Math.ceil((windowLeft + right + tokens) / GPU_CUT_KEYS) + 1);
}

/** How rows are decoded: all blocks of them, and those that are taken at once. */
interface DecodePlan {
  readonly rows: number;
  readonly rowBlocks: number;
  readonly cuts: number;
  readonly all: number;
  readonly atOnce: number;
  readonly partials: Region;
}

/** @throws RangeError where the device cannot bind the partial results of one block */
function planDecode(gpu: Gpu, call: GpuAttendCall): DecodePlan {
  const { layout } = call;
  const group = groupOf(call);
  const rows = decodeRows(group);
  const rowBlocks = Math.ceil((Math.min(call.maxSeqlenQ, DECODE_TOKENS) * group) / rows);
  const cuts = mostCuts(call, Math.ceil(rows / group) + 1);
  const blockBytes = cuts * rows * (16 + 4 * layout.headDim);
  const all = call.sequences * rowBlocks * layout.kvHeads;
  const most = Math.max(1, Math.floor(Math.min(PARTIAL_BYTES, gpu.limits.maxStorageBufferBindingSize) / blockBytes));
  // Passes of one size: a small one would leave most of the GPU idle.
  const atOnce = Math.ceil(all / Math.max(1, Math.ceil(all / most)));
  return { rows, rowBlocks, cuts, all, atOnce, partials: gpu.reserve('partials', atOnce * blockBytes, 'seqUsedK') };
}

function recordDecode(gpu: Gpu, pass: GPUComputePassEncoder, call: GpuAttendCall, extras: Extras, { rows, rowBlocks, cuts, all, atOnce, partials }: DecodePlan): void {
  const { layout, cuSeqlensQ, seqUsedK } = call;
  const { cutsPerWorkgroup, leastWorkgroups } = gpu.variant.tuning.decode;
  const { decode, merge } = attentionKernels(layout, groupOf(call), gpu.variant);
  for (let firstBlock = 0; firstBlock < all; firstBlock += atOnce) {
    const blocks = Math.min(atOnce, all - firstBlock);
    const cutsEach = Math.min(cutsPerWorkgroup, Math.max(1, Math.floor((blocks * cuts) / leastWorkgroups)));
    const params = writeParams(gpu, call, extras, { rowBlocks, firstBlock, blocks, cuts, cutsEach, leastRows: 1, mostRows: DECODE_TOKENS });
    const extra = extras.region ?? params;
    gpu.dispatch(pass, call.groups, decode, [params, cuSeqlensQ, seqUsedK, call.q, call.blockTable, call.pages, partials, gpu.statusRegion, extra], blocks * Math.ceil(cuts / cutsEach));
    gpu.dispatch(pass, call.groups, merge, [params, cuSeqlensQ, seqUsedK, partials, extra, call.out, call.lse], blocks * rows);
  }
}

function recordPrefill(gpu: Gpu, pass: GPUComputePassEncoder, call: GpuAttendCall, extras: Extras): void {
  const { layout, cuSeqlensQ, seqUsedK } = call;
  const rows = prefillRows(layout, gpu.variant);
  const rowBlocks = Math.ceil((call.maxSeqlenQ * groupOf(call)) / rows);
  const blocks = call.sequences * rowBlocks * layout.kvHeads;
  const params = writeParams(gpu, call, extras, { rowBlocks, firstBlock: 0, blocks, cuts: 1, cutsEach: 1, leastRows: DECODE_TOKENS + 1, mostRows: 0x7fffffff });
  const regions = [params, cuSeqlensQ, seqUsedK, call.q, call.blockTable, call.pages, call.out, call.lse, extras.region ?? params];
  gpu.dispatch(pass, call.groups, attentionKernels(layout, groupOf(call), gpu.variant).prefill, regions, blocks);
}

function copyLengths(encoder: GPUCommandEncoder, { sequences, seqUsedK: { buffer } }: GpuAttendCall, { seqUsedK, contextLens }: LengthTables): void {
  const bytes = 4 * sequences;
  encoder.copyBufferToBuffer(seqUsedK.buffer, seqUsedK.offset, buffer, 0, bytes);
  encoder.copyBufferToBuffer(contextLens.buffer, contextLens.offset, buffer, bytes, bytes);
}

/** Records a call whose kernels have been compiled. */
export function recordAttention(gpu: Gpu, encoder: GPUCommandEncoder, call: GpuAttendCall): void {
  // What may be refused goes first: the caller's encoder is not to be left inside a pass.
  const decodePlan = call.decodes ? planDecode(gpu, call) : undefined;
  const extras = writeExtras(gpu, call);
  if (typeof call.contextLens === 'object') copyLengths(encoder, call, call.contextLens);
  const pass = encoder.beginComputePass({ label: 'fp8-kv attend' });
  if (needsCheck(call)) {
    const params = writeParams(gpu, call, extras, { rowBlocks: 0, firstBlock: 0, blocks: 0, cuts: 0, cutsEach: 1, leastRows: 0, mostRows: 0 });
    gpu.dispatch(pass, call.groups, checkKernel, [params, call.cuSeqlensQ, call.seqUsedK, call.blockTable, gpu.statusRegion], call.sequences);
  }
  if (decodePlan) recordDecode(gpu, pass, call, extras, decodePlan);
  if (call.prefills) recordPrefill(gpu, pass, call, extras);
  pass.end();
  gpu.arena.flush();
}
