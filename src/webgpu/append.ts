/** Append on the GPU: one dispatch for the keys and one for the values. */
import type { QuantizePlan } from '../append.js';
import { floatDtypes, formats, type FloatDtype } from '../formats.js';
import { gpuAppendParams, paramWriter, type PageLayout, type SideLayout } from '../layout.js';
import { quotients, type Recipe } from '../recipe.js';
import type { BindGroups } from './bindings.js';
import type { Gpu } from './gpu.js';
import { appendKernel, appendRowsAtOnce, type Kernel } from './kernels.js';
import type { Region } from './memory.js';

const writer = paramWriter(gpuAppendParams);

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

/** The kernels that a call needs: one, where keys and values are stored alike. */
export const appendKernels = ({ headDim, k, v }: PageLayout): Kernel[] => [...new Set([k.format, v.format])].map((format) => appendKernel(format, headDim));

const word = new DataView(new ArrayBuffer(4));
function bitsOf(value: number): number {
  word.setFloat32(0, value);
  return word.getUint32(0);
}

function writeParams({ arena }: Gpu, call: GpuAppendCall, side: SideLayout, recipe: Recipe, givenScale: number): Region {
  const bytes = new Uint8Array(writer.bytes);
  const { kvHeads, headDim, blockSize } = call.layout;
  writer.write(new DataView(bytes.buffer), 0, {
    tokens: call.tokens,
    kvHeads,
    headDim,
    dtype: floatDtypes[call.dtype].id,
    slots: call.slots,
    blockSize,
    pageWords: call.layout.bytes / 4,
    codes: side.codes / 4,
    headStride: side.headStride / 4,
    tokenStride: side.tokenStride / 4,
    scales: side.scales / 4,
    scaleHeadStride: side.scaleHeadStride / 4,
    quotient: side.granularity === 'tensor' ? quotients.divide : quotients[recipe.quotient],
    givenScale: bitsOf(givenScale),
    amaxFloor: bitsOf(recipe.amaxFloor),
    scaleFloor: bitsOf(recipe.scaleFloor),
    scaleIfZero: bitsOf(recipe.scaleIfZero),
    formatMax: bitsOf(formats[side.format].max),
  });
  return arena.write(bytes);
}

/** Records a call whose kernels have been compiled. */
export function recordQuantize(gpu: Gpu, encoder: GPUCommandEncoder, call: GpuAppendCall): void {
  const { layout, slotMapping, pages } = call;
  const pass = encoder.beginComputePass({ label: 'fp8-kv append' });
  const workgroups = Math.ceil((call.tokens * layout.kvHeads) / appendRowsAtOnce(layout.headDim));
  const write = (side: 'k' | 'v', values: Region, recipe: Recipe, scale: number): void => {
    const params = writeParams(gpu, call, layout[side], recipe, scale);
    gpu.dispatch(pass, call.groups, appendKernel(layout[side].format, layout.headDim), [params, values, slotMapping, pages, gpu.statusRegion], workgroups);
  };
  write('k', call.key, call.kRecipe, call.kScale);
  write('v', call.value, call.vRecipe, call.vScale);
  pass.end();
}
