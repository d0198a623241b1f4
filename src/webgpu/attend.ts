/** Attention on the GPU: which kernels a call takes, with which parameters, in which passes. */
import type { AttentionOptions, OutDtype } from '../backend.js';
import { floatDtypes, type FloatDtype } from '../formats.js';
import { GPU_CUT_KEYS, gpuAttendParams, paramWriter, type PageLayout } from '../layout.js';
import type { BindGroups } from './bindings.js';
import type { Gpu } from './gpu.js';
import { attentionKernels, checkKernel, DECODE_TOKENS, decodeRows, prefillRows, type Kernel } from './kernels.js';
import { paramBlock, type Region } from './memory.js';
import type { GivenScales } from '../scale.js';

const writer = paramWriter(gpuAttendParams);
const paramsBlock = paramBlock(writer.bytes);

const NAN_BITS = 0x7fc00000;
/** Partial results that are kept at a time: a call with more goes in passes. */
const PARTIAL_BYTES = 2 ** 26;
/** Beyond all keys, and far enough from the largest i32 for kernels to add a position to it. */
const FAR = 2 ** 30 - 1;

/** A checked call, with all its data in buffers. */
export interface GpuAttendCall extends Required<Omit<AttentionOptions, 'sinks' | 'alibiSlopes'>> {
  readonly layout: PageLayout;
  readonly pageCount: number;
  readonly pages: Region;
  /** Bind groups of calls on these pages. */
  readonly groups: BindGroups;
  readonly dtype: FloatDtype;
  readonly q: Region;
  readonly blockTable: Region;
  readonly cuSeqlensQ: Region;
  readonly seqUsedK: Region;
  readonly sinks: Region | undefined;
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

function writeParams({ arena }: Gpu, call: GpuAttendCall, pass: Pass): Region {
  const { queryHeads, sequences, totalQ, maxBlocks, pageCount, layout, windowLeft, windowRight, softmaxScale, softcap, kScale, vScale } = call;
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
    vCodes: v.codes / 16,
    vHeadStride: v.headStride / 16,
    vTokenStride: v.tokenStride / 16,
    vScales: v.scales / 16,
    vScaleHeadStride: v.scaleHeadStride / 16,
    dtype: floatDtypes[call.dtype].id,
    queryHeads,
    group: groupOf(call),
    sequences,
    totalQ,
    maxBlocks,
    pageCount,
    maxRows: call.maxSeqlenQ,
    // Lengths that the host has checked are not stated again: the next step's parameters are then the same.
    maxKeys: Math.min(call.unchecked ? call.maxSeqlenK : FAR, maxBlocks * layout.blockSize, FAR),
    ...pass,
    causal: call.causal ? 1 : 0,
    windowLeft: Math.min(windowLeft, FAR),
    windowRight: Math.min(windowRight, FAR),
    scoreScale: softmaxScale * Math.LOG2E * kScale.values[0],
    // Neither denormal, which many devices take for 0, nor so large that scores divided by it are.
    softcap: softcap === 0 ? 0 : Math.min(Math.max(softcap * Math.LOG2E, 2 ** -100), 2 ** 100),
    valueScale: vScale.values[0],
    hasSinks: call.sinks ? 1 : 0,
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

function recordDecode(gpu: Gpu, pass: GPUComputePassEncoder, call: GpuAttendCall, { rows, rowBlocks, cuts, all, atOnce, partials }: DecodePlan): void {
  const { layout, cuSeqlensQ, seqUsedK } = call;
  const { cutsPerWorkgroup, leastWorkgroups } = gpu.variant.tuning.decode;
  const { decode, merge } = attentionKernels(layout, groupOf(call), gpu.variant);
  for (let firstBlock = 0; firstBlock < all; firstBlock += atOnce) {
    const blocks = Math.min(atOnce, all - firstBlock);
    const cutsEach = Math.min(cutsPerWorkgroup, Math.max(1, Math.floor((blocks * cuts) / leastWorkgroups)));
    const params = writeParams(gpu, call, { rowBlocks, firstBlock, blocks, cuts, cutsEach, leastRows: 1, mostRows: DECODE_TOKENS });
    gpu.dispatch(pass, call.groups, decode, [params, cuSeqlensQ, seqUsedK, call.q, call.blockTable, call.pages, partials, gpu.statusRegion], blocks * Math.ceil(cuts / cutsEach));
    gpu.dispatch(pass, call.groups, merge, [params, cuSeqlensQ, seqUsedK, partials, call.sinks ?? gpu.statusRegion, call.out, call.lse], blocks * rows);
  }
}

function recordPrefill(gpu: Gpu, pass: GPUComputePassEncoder, call: GpuAttendCall): void {
  const { layout, cuSeqlensQ, seqUsedK } = call;
  const rows = prefillRows(layout, gpu.variant);
  const rowBlocks = Math.ceil((call.maxSeqlenQ * groupOf(call)) / rows);
  const blocks = call.sequences * rowBlocks * layout.kvHeads;
  const params = writeParams(gpu, call, { rowBlocks, firstBlock: 0, blocks, cuts: 1, cutsEach: 1, leastRows: DECODE_TOKENS + 1, mostRows: 0x7fffffff });
  const regions = [params, cuSeqlensQ, seqUsedK, call.q, call.blockTable, call.pages, call.out, call.lse, call.sinks ?? gpu.statusRegion];
  gpu.dispatch(pass, call.groups, attentionKernels(layout, groupOf(call), gpu.variant).prefill, regions, blocks);
}

/** Records a call whose kernels have been compiled. */
export function recordAttention(gpu: Gpu, encoder: GPUCommandEncoder, call: GpuAttendCall): void {
  // What may be refused goes first: the caller's encoder is not to be left inside a pass.
  const decodePlan = call.decodes ? planDecode(gpu, call) : undefined;
  const pass = encoder.beginComputePass({ label: 'fp8-kv attend' });
  if (needsCheck(call)) {
    const params = writeParams(gpu, call, { rowBlocks: 0, firstBlock: 0, blocks: 0, cuts: 0, cutsEach: 1, leastRows: 0, mostRows: 0 });
    gpu.dispatch(pass, call.groups, checkKernel, [params, call.cuSeqlensQ, call.seqUsedK, call.blockTable, gpu.statusRegion], call.sequences);
  }
  if (decodePlan) recordDecode(gpu, pass, call, decodePlan);
  if (call.prefills) recordPrefill(gpu, pass, call);
  pass.end();
  gpu.arena.flush();
}
