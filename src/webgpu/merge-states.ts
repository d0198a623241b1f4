/** States merged on the GPU: see src/merge-states.ts. */
import { checkInteger } from '../layout.js';
import type { Gpu } from './gpu.js';
import { MERGE_STATES_WORKGROUP, mergeStatesKernel } from './kernels.js';
import type { Region } from './memory.js';
import { checkApart, checkNotRead } from './record.js';
import { regionOf, type GpuTensor } from './tensor.js';

/** Attention over two parts of the keys, to be joined in GPU buffers. */
export interface RecordMergeStatesCall {
  /** rows · queryHeads: rows as lse has them. */
  readonly rows: number;
  /** Elements of a row. */
  readonly headDim: number;
  /** [rows, headDim] of f32, and [rows] of f32: what attention over some keys gave. */
  readonly outA: GpuTensor;
  /** [rows] of f32. */
  readonly lseA: GpuTensor;
  /** The same over other keys. */
  readonly outB: GpuTensor;
  /** [rows] of f32. */
  readonly lseB: GpuTensor;
  /** [rows, headDim] of f32: in no buffer that is read. */
  readonly out: GpuTensor;
  /** [rows] of f32. Default: not kept. */
  readonly lse?: GpuTensor;
}

const names = ['outA', 'lseA', 'outB', 'lseB'] as const;

/** @internal A checked call. */
export interface GpuMergeStates {
  readonly rows: number;
  readonly quads: number;
  readonly read: readonly Region[];
  readonly out: Region;
  readonly lse: Region;
}

/** @internal @throws TypeError or RangeError naming the argument that does not fit */
export function planMergeStates(gpu: Gpu, call: RecordMergeStatesCall): GpuMergeStates {
  const rows = checkInteger(call.rows, 'rows', 0, 0x7fffffff);
  const quads = checkInteger(call.headDim / 4, 'headDim / 4', 2, 64);
  const bytes = (name: string): number => rows * (name.startsWith('out') ? 16 * quads : 4);
  const read = names.map((name) => regionOf(call[name], bytes(name), name, gpu.limits));
  const out = regionOf(call.out, bytes('out'), 'out', gpu.limits);
  const lse = call.lse ? regionOf(call.lse, bytes('lse'), 'lse', gpu.limits) : gpu.reserve('lse', bytes('lse'), 'lse');
  checkNotRead(out, read, 'out');
  checkNotRead(lse, read, 'lse');
  checkApart(lse, out);
  return { rows, quads, read, out, lse };
}

/** @internal Records a call whose kernel has been compiled. */
export function recordMerge(gpu: Gpu, encoder: GPUCommandEncoder, { rows, quads, read, out, lse }: GpuMergeStates): void {
  const params = gpu.arena.write(Int32Array.of(rows, quads));
  const pass = encoder.beginComputePass({ label: 'fp8-kv merge states' });
  gpu.dispatch(pass, gpu.groups, mergeStatesKernel, [params, ...read, out, lse], Math.ceil((rows * quads) / MERGE_STATES_WORKGROUP));
  pass.end();
  gpu.arena.flush();
}
