/// <reference lib="esnext.disposable" preserve="true" />
/**
 * `fp8-kv/ort`: keys and values between the sessions of onnxruntime-web and pages, on a GPU that both share. Nothing goes through
 * the host: what is called here is recorded and submitted to the device's one queue, and so are the runs of a session; each sees
 * what was submitted before it.
 */
import { checkAppendScale, ownPlan, planAppend } from '../append.js';
import { int32 } from '../attention.js';
import type { AppendCall, AppendStatus, Pages } from '../backend.js';
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';
import type { GivenScale, GivenScales } from '../scale.js';
import { appendKernels, recordQuantize } from '../webgpu/append.js';
import type { WebgpuBackend } from '../webgpu/backend.js';
import { dequantizeKernel, gatherKernel } from '../webgpu/kernels.js';
import { bnshBytes, recordDequantize, recordGather } from '../webgpu/move.js';
import type { WebgpuPages } from '../webgpu/pages.js';
import { regionOf } from '../webgpu/tensor.js';
import { checkPresent, dtypeOf, newBuffer, type OrtFloat, type OrtTensor, type OrtTensorClass } from './tensors.js';

export type { AppendStatus } from '../backend.js';
export type { WebgpuBackend } from '../webgpu/backend.js';
export type { OrtTensor, OrtTensorClass } from './tensors.js';

/** What onnxruntime 1.30 asks for when it makes a device by itself, and what kernels of ours want. */
const limits = [
  'maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupSizeY', 'maxComputeWorkgroupSizeZ', 'maxComputeWorkgroupsPerDimension', 'maxBindGroups', 'maxBindingsPerBindGroup',
] as const;
const features = ['shader-f16', 'subgroups'] as const;

/**
 * What to ask an adapter for so that a device serves both: the largest buffers and workgroups that it has, and where it has them
 * `shader-f16`, without which onnxruntime runs no f16 model, and `subgroups`.
 *
 * ```ts
 * const device = await adapter.requestDevice(sharedDeviceDescriptor(adapter));
 * const session = await ort.InferenceSession.create(model, { executionProviders: [{ name: 'webgpu', device }], preferredOutputLocation });
 * const backend = await webgpuBackend({ device });
 * ```
 */
export function sharedDeviceDescriptor(adapter: GPUAdapter): GPUDeviceDescriptor {
  const requiredLimits = Object.fromEntries(limits.map((name) => [name, adapter.limits[name]]));
  return { label: 'onnxruntime and fp8-kv', requiredFeatures: features.filter((name) => adapter.features.has(name)), requiredLimits };
}

/** As `AppendCall`, of tensors that a session has left on the GPU. */
export interface AppendPresentCall extends Omit<AppendCall, 'key' | 'value' | 'dtype'> {
  /** [batch, kvHeads, positions, headDim] of float32 or float16, in a GPU buffer of the backend's device. */
  readonly key: OrtTensor;
  /** The same. */
  readonly value: OrtTensor;
  /**
   * [batch, n], where n is at most `positions`: the slots of each row's last n positions; negative = skip. With n = 1 a decode
   * step stores its token, with n = positions a prompt all of its own but the padding.
   */
  readonly slotMapping: Int32Array;
}

function ownPages(backend: WebgpuBackend, pages: Pages): WebgpuPages {
  if (backend?.kind !== 'webgpu') throw new TypeError(`"backend" expected one on a GPU (webgpuBackend({ device })), got ${describe(backend?.kind)}`);
  return backend.own(pages);
}

/** Positions that each row of a batch has in a mapping. @throws RangeError where they do not come out even */
function positionsOf(slotMapping: Int32Array, batch: number): number {
  const each = batch === 0 ? 0 : slotMapping.length / batch;
  if (!Number.isInteger(each)) throw new RangeError(`"slotMapping" expected as many slots for each of ${batch} rows, got ${slotMapping.length}`);
  return each;
}

/**
 * Quantizes keys and values that a session has left on the GPU, `present.N.key` and `present.N.value`, into pages: the same
 * bytes as `backend.append` of the same values from the host. Nothing is read back.
 * @param backend on the device of the session
 * @returns settles once the work is submitted: the tensors may be disposed of then, and the session may run again
 * @throws TypeError or RangeError naming what does not fit: nothing is written then
 */
export async function appendPresent(backend: WebgpuBackend, call: AppendPresentCall): Promise<AppendStatus> {
  const pages = ownPages(backend, call.pages);
  const { layout, region, groups } = pages;
  const { kvHeads } = layout;
  const { batch, positions, dtype, ...tensors } = checkPresent(call, layout);
  const slots = int32(call.slotMapping, 'slotMapping');
  const last = positionsOf(slots, batch);
  if (last > positions) throw new RangeError(`"slotMapping" expected at most ${positions} slots for each row, as "key" has positions, got ${last}`);
  const bytes = bnshBytes(layout, batch * positions, dtype);
  const [key, value] = (['key', 'value'] as const).map((side) => regionOf(tensors[side], bytes, side, backend.device.limits));
  const plan = ownPlan(planAppend({ ...call, key: tensors.key as never, value: tensors.value as never }, pages.marks, () => ({ dtype })));
  if (plan.status.written === 0) return plan.status;
  const taken = [...slots.keys()].filter((i) => slots[i] >= 0);
  // A token's row of its first head: (batch, head 0, position).
  const tokens = Int32Array.from(taken, (i) => Math.floor(i / last) * kvHeads * positions + positions - last + (i % last));
  const slotMapping = Int32Array.from(taken, (i) => slots[i]);
  const rowBytes = bnshBytes(layout, 1, dtype) / kvHeads;
  return backend.run(
    async (gpu) => {
      const [keys, values] = (['key', 'value'] as const).map((name) => gpu.reserve(name, bnshBytes(layout, tokens.length, dtype), name));
      await gpu.submit('append present', (encoder) => {
        const pass = encoder.beginComputePass({ label: 'fp8-kv gather' });
        const gathering = { groups, kvHeads, positions, rowBytes, tokens };
        recordGather(gpu, pass, gathering, key, keys);
        recordGather(gpu, pass, gathering, value, values);
        pass.end();
        recordQuantize(gpu, encoder, {
          ...plan, layout, dtype, pages: region, groups, slots: pages.count * layout.blockSize, tokens: tokens.length,
          key: keys, value: values, slotMapping: gpu.arena.write(slotMapping),
        });
      });
      return plan.status;
    },
    [gatherKernel, ...appendKernels(layout)],
  );
}

/** What is taken out of pages, as a session takes it in. */
export interface ReadPastCall<T> {
  /** onnxruntime's, whose `fromGpuBuffer` makes the results. */
  readonly Tensor: OrtTensorClass<T>;
  /** Where keys and values are: pages of the backend. */
  readonly pages: Pages;
  /** `[batch, positions]`: the slot of each position; negative = nothing, which reads as 0. The same slot may stand in several places. */
  readonly slotMapping: Int32Array;
  /** Default 1. */
  readonly batch?: number;
  /** Of the results. Default float32. */
  readonly type?: OrtFloat;
  /** Given scales, of granularities tensor, head and channel: as those of the appends. Default 1. */
  readonly kScale?: GivenScale;
  /** The same for values. */
  readonly vScale?: GivenScale;
}

/**
 * Dequantizes tokens from pages into new tensors on the GPU, for the inputs `past_key_values.N.key` and `.value` of a session:
 * decode(code) · scale in f32, rounded once more for float16; exact. Nothing is read back.
 * @param backend on the device of the session
 * @returns [batch, kvHeads, positions, headDim] each, once the work is submitted. `dispose()` of a tensor destroys its buffer
 * @throws TypeError or RangeError naming what does not fit
 */
export async function readPast<T>(backend: WebgpuBackend, call: ReadPastCall<T>): Promise<{ readonly key: T; readonly value: T }> {
  const pages = ownPages(backend, call.pages);
  const { Tensor, batch = 1, type = 'float32' } = call;
  const { layout, region, groups } = pages;
  const { kvHeads, headDim } = layout;
  if (typeof Tensor?.fromGpuBuffer !== 'function') throw new TypeError(`"Tensor" expected onnxruntime's class, got ${describe(Tensor)}`);
  if (!Object.hasOwn(dtypeOf, type)) throw new TypeError(`"type" expected float32 or float16, got ${describe(type)}`);
  checkInteger(batch, 'batch', 1);
  const slots = int32(call.slotMapping, 'slotMapping').slice();
  const positions = positionsOf(slots, batch);
  const most = pages.count * layout.blockSize;
  slots.forEach((slot, i) => {
    if (slot >= most) throw new RangeError(`"slotMapping[${i}]" expected a slot below ${most}, got ${slot}`);
  });
  // As appends check them, whose scales they are. Copies: what waits for its kernels must not see what the caller does meanwhile.
  const scaleOf = (scale: GivenScale | undefined, side: 'k' | 'v'): GivenScales => {
    const given = checkAppendScale(scale, layout[side], layout, `${side}Scale`);
    return { ...given, values: given.values.slice() };
  };
  const scales = { k: scaleOf(call.kScale, 'k'), v: scaleOf(call.vScale, 'v') };
  const to = dtypeOf[type];
  const bytes = bnshBytes(layout, slots.length, to);
  const { maxStorageBufferBindingSize } = backend.device.limits;
  if (bytes > maxStorageBufferBindingSize) throw new RangeError(`"slotMapping" expected tensors of at most ${maxStorageBufferBindingSize} bytes, which is what this device can bind, got ${bytes}`);
  const dims = [batch, kvHeads, positions, headDim];
  return backend.run(
    async (gpu) => {
      const buffers = { k: newBuffer(gpu.device, bytes), v: newBuffer(gpu.device, bytes) };
      await gpu.submit('read past', (encoder) => {
        const pass = encoder.beginComputePass({ label: 'fp8-kv dequantize' });
        for (const side of ['k', 'v'] as const) {
          const tensor = { buffer: buffers[side], offset: 0, size: Math.max(bytes, 4) };
          recordDequantize(gpu, pass, { groups, layout, pages: region, scale: scales[side], slots, positions, to }, side, tensor);
        }
        pass.end();
        gpu.arena.flush();
      });
      const tensor = (buffer: GPUBuffer): T => Tensor.fromGpuBuffer(buffer, { dataType: type, dims, dispose: () => buffer.destroy() });
      return { key: tensor(buffers.k), value: tensor(buffers.v) };
    },
    [layout.k, layout.v].map(({ format }) => dequantizeKernel(format, to)),
  );
}

/** As in the package's main entry: WebGPU's names, for programs whose TypeScript has none. */
declare global {
  interface GPU {}
  interface GPUAdapter {}
  interface GPUBuffer {}
  interface GPUBufferBinding {}
  interface GPUCommandEncoder {}
  interface GPUDevice {}
  interface GPUDeviceDescriptor {}
}
