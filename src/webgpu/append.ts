/** Append on the GPU: one dispatch for keys and values. */
import type { QuantizePlan, RequantizePlan } from '../append.js';
import { floatDtypes, type FloatDtype } from '../formats.js';
import { gpuAppendParams, paramWriter, type PageLayout, type SideLayout } from '../layout.js';
import { quantizeRule } from '../rule.js';
import type { BindGroups } from './bindings.js';
import type { Gpu } from './gpu.js';
import { appendKernel, appendRowsAtOnce, type Kernel } from './kernels.js';
import { FloatList, paramBlock, type Region } from './memory.js';
import type { WebgpuPages } from './pages.js';

const writer = paramWriter(gpuAppendParams);
const paramsBlock = paramBlock(writer.bytes);

/** A checked call, with all its data in buffers. */
export interface GpuAppendCall extends QuantizePlan {
  readonly layout: PageLayout;
  readonly dtype: FloatDtype;
  readonly pages: Region;
  /** Bind groups of calls on these pages. */
  readonly groups: BindGroups;
  /** Slots of the pages, and new tokens. */
  readonly slots: number;
  readonly tokens: number;
  readonly key: Region;
  readonly value: Region;
  readonly slotMapping: Region;
}

/** The kernels that a call needs. */
export const appendKernels = (layout: PageLayout): Kernel[] => [appendKernel(layout)];

const word = new DataView(new ArrayBuffer(4));
function bitsOf(value: number): number {
  word.setFloat32(0, value);
  return word.getUint32(0);
}

/** Given scales of keys, then of values. */
const given = new FloatList();

interface Tables {
  readonly params: Region;
  readonly scales: Region;
}

function writeTables({ arena }: Gpu, call: GpuAppendCall, sideWorkgroups: number): Tables {
  const { layout, kRecipe, vRecipe, kScale, vScale } = call;
  given.clear();
  const kGiven = given.add(kScale.values);
  const vGiven = given.add(vScale.values);
  const { k, v, kvHeads, headDim, blockSize } = layout;
  const kRule = quantizeRule(k, kRecipe);
  const vRule = quantizeRule(v, vRecipe);
  writer.write(paramsBlock.view, 0, {
    tokens: call.tokens,
    kvHeads,
    headDim,
    dtype: floatDtypes[call.dtype].id,
    slots: call.slots,
    blockSize,
    pageWords: layout.bytes / 4,
    sideWorkgroups,
    kCodes: k.codes / 4,
    kHeadStride: k.headStride / 4,
    kTokenStride: k.tokenStride / 4,
    kScales: k.scales / 4,
    kScaleHeadStride: k.scaleHeadStride / 4,
    kScaleGroupStride: k.scaleGroupStride / 4,
    kGiven,
    kGivenHeadStride: kScale.headStride,
    kGivenDimStride: kScale.dimStride,
    kQuotient: kRule.quotient,
    kAmaxFloor: bitsOf(kRule.amaxFloor),
    kScaleFloor: bitsOf(kRule.scaleFloor),
    kScaleIfZero: bitsOf(kRule.scaleIfZero),
    kMax: bitsOf(kRule.max),
    kPrecision: kRule.scalePrecision,
    kLeast: -kRule.least,
    vCodes: v.codes / 4,
    vHeadStride: v.headStride / 4,
    vTokenStride: v.tokenStride / 4,
    vScales: v.scales / 4,
    vScaleHeadStride: v.scaleHeadStride / 4,
    vScaleGroupStride: v.scaleGroupStride / 4,
    vGiven,
    vGivenHeadStride: vScale.headStride,
    vGivenDimStride: vScale.dimStride,
    vQuotient: vRule.quotient,
    vAmaxFloor: bitsOf(vRule.amaxFloor),
    vScaleFloor: bitsOf(vRule.scaleFloor),
    vScaleIfZero: bitsOf(vRule.scaleIfZero),
    vMax: bitsOf(vRule.max),
    vPrecision: vRule.scalePrecision,
    vLeast: -vRule.least,
  });
  return { params: arena.write(paramsBlock.words), scales: arena.write(given.words) };
}

/** Records a call whose kernels have been compiled. */
export function recordQuantize(gpu: Gpu, encoder: GPUCommandEncoder, call: GpuAppendCall): void {
  const { layout, key, value, slotMapping, pages } = call;
  const sideWorkgroups = Math.ceil((call.tokens * layout.kvHeads) / appendRowsAtOnce(layout.headDim));
  const { params, scales } = writeTables(gpu, call, sideWorkgroups);
  const pass = encoder.beginComputePass({ label: 'fp8-kv append' });
  gpu.dispatch(pass, call.groups, appendKernel(layout), [params, key, value, slotMapping, pages, gpu.statusRegion, scales], 2 * sideWorkgroups);
  pass.end();
  gpu.arena.flush();
}

/** A checked call whose tokens come from pages, and a place for their keys and values in between: kernels take them in rows. */
export interface GpuRequantizeCall extends Omit<GpuAppendCall, 'slotMapping'> {
  readonly from: Region;
  readonly fromLayout: PageLayout;
  readonly fromPages: Int32Array;
  readonly slotMapping: Int32Array;
}

const sideBytes = ({ blockSize }: PageLayout, { tokenStride }: SideLayout): number => blockSize * tokenStride;

/** @throws RangeError where the device cannot bind as many tokens */
export function planGpuRequantize(gpu: Gpu, pages: WebgpuPages, { layout: fromLayout, region: from }: WebgpuPages, plan: RequantizePlan): GpuRequantizeCall {
  const { layout, region, groups, count } = pages;
  const { fromPages, slotMapping, dtype, kRecipe, vRecipe, kScale, vScale } = plan;
  const place = (name: 'key' | 'value', side: SideLayout): Region => gpu.reserve(name, fromPages.length * sideBytes(fromLayout, side), 'fromPages');
  return {
    kRecipe, vRecipe, kScale, vScale, layout, dtype, pages: region, groups, slots: count * layout.blockSize, tokens: slotMapping.length,
    key: place('key', fromLayout.k), value: place('value', fromLayout.v), slotMapping, from, fromLayout, fromPages,
  };
}

/** Records a call whose kernels have been compiled. */
export function recordRequantize(gpu: Gpu, encoder: GPUCommandEncoder, call: GpuRequantizeCall): void {
  const { from, fromLayout, fromPages, key, value } = call;
  for (const [side, to] of [[fromLayout.k, key], [fromLayout.v, value]] as const) {
    const bytes = sideBytes(fromLayout, side);
    for (const [i, page] of fromPages.entries()) encoder.copyBufferToBuffer(from.buffer, page * fromLayout.bytes + side.codes, to.buffer, i * bytes, bytes);
  }
  recordQuantize(gpu, encoder, { ...call, slotMapping: gpu.arena.write(call.slotMapping) });
}
