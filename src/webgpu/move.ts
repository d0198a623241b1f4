/** Tensors [batch, kvHeads, positions, headDim] on the GPU: tokens out of them, and pages into them. */
import { formats } from '../formats.js';
import { gpuDequantizeParams, gpuGatherParams, paramWriter, type PageLayout } from '../layout.js';
import type { GivenScales } from '../scale.js';
import type { Gpu } from './gpu.js';
import { dequantizeKernel, gatherKernel, MOVE_WORKGROUP } from './kernels.js';
import { paramBlock, type Region } from './memory.js';
import type { BindGroups } from './bindings.js';

const gatherWriter = paramWriter(gpuGatherParams);
const gatherBlock = paramBlock(gatherWriter.bytes);
const dequantizeWriter = paramWriter(gpuDequantizeParams);
const dequantizeBlock = paramBlock(dequantizeWriter.bytes);

export interface Gathering {
  readonly groups: BindGroups;
  readonly kvHeads: number;
  readonly positions: number;
  /** Bytes of a row of one head: a multiple of 16. */
  readonly rowBytes: number;
  /** [count]: each token's row of its first head in the tensor. */
  readonly tokens: Int32Array;
}

/** Adds to a pass what copies tokens from a tensor into rows: [count, kvHeads, headDim]. */
export function recordGather(gpu: Gpu, pass: GPUComputePassEncoder, { groups, kvHeads, positions, rowBytes, tokens }: Gathering, tensor: Region, rows: Region): void {
  const units = rowBytes / 16;
  gatherWriter.write(gatherBlock.view, 0, { count: tokens.length, kvHeads, positions, units });
  const regions = [gpu.arena.write(gatherBlock.words), gpu.arena.write(tokens), tensor, rows];
  gpu.dispatch(pass, groups, gatherKernel, regions, Math.ceil((tokens.length * kvHeads * units) / MOVE_WORKGROUP));
}

export interface Dequantizing {
  readonly groups: BindGroups;
  readonly layout: PageLayout;
  readonly pages: Region;
  /** Given scales of this side. */
  readonly scale: GivenScales;
  /** [batch, positions]: page · blockSize + place; negative: nothing, which reads as 0. Each was checked to be there. */
  readonly slots: Int32Array;
  readonly positions: number;
  readonly to: 'f32' | 'f16';
}

/** Adds to a pass what writes keys, or values, from pages into a tensor. */
export function recordDequantize(gpu: Gpu, pass: GPUComputePassEncoder, { groups, layout, pages, scale, slots, positions, to }: Dequantizing, side: 'k' | 'v', tensor: Region): void {
  const { kvHeads, headDim, blockSize, bytes } = layout;
  const { format, codes, headStride, tokenStride, groupSize, scales, scaleHeadStride, scaleGroupStride } = layout[side];
  const rows = slots.length * kvHeads;
  dequantizeWriter.write(dequantizeBlock.view, 0, {
    rows, positions, kvHeads, headDim, blockSize, pageWords: bytes / 4, codes: codes / 4, headStride: headStride / 4, tokenStride: tokenStride / 4,
    // Not 0, though nothing is divided by it then.
    groupSize: groupSize || headDim,
    scales: scales / 4, scaleHeadStride: scaleHeadStride / 4, scaleGroupStride: scaleGroupStride / 4,
    givenHeadStride: scale.headStride, givenDimStride: scale.dimStride,
  });
  const given = new Int32Array(scale.values.buffer, scale.values.byteOffset, scale.values.length);
  const regions = [gpu.arena.write(dequantizeBlock.words), gpu.arena.write(slots), pages, gpu.arena.write(given), tensor];
  gpu.dispatch(pass, groups, dequantizeKernel(format, to), regions, Math.ceil((rows * headDim) / 4 / MOVE_WORKGROUP));
}

/** Bytes of such a tensor. */
export const bnshBytes = ({ kvHeads, headDim }: PageLayout, rows: number, dtype: 'f32' | 'f16'): number => rows * kvHeads * headDim * formats[dtype].bytes;
