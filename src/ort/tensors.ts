/** What of onnxruntime's tensors is used here. */
import { describe } from '../formats.js';
import type { PageLayout } from '../layout.js';
import { usage } from '../webgpu/constants.js';

/** As much of a `Tensor` of onnxruntime as is needed: one whose data lies in a GPU buffer. */
export interface OrtTensor {
  /** float32 or float16. */
  readonly type: string;
  /** Of keys and values: [batch, kvHeads, positions, headDim]. */
  readonly dims: readonly number[];
  /** Where its data lie: here `gpu-buffer`. */
  readonly location: string;
  /** May be larger than `dims` say. */
  readonly gpuBuffer: unknown;
}

export type OrtFloat = 'float32' | 'float16';

/** `Tensor` of onnxruntime, as far as it makes tensors of buffers. */
export interface OrtTensorClass<T> {
  /** A tensor of what lies in a buffer, which is still the caller's. */
  fromGpuBuffer(buffer: any, options: { readonly dataType: OrtFloat; readonly dims: readonly number[]; readonly dispose: () => void }): T;
}

export const dtypeOf = { float32: 'f32', float16: 'f16' } as const;

/** Keys and values that follow `dims`: [batch, kvHeads, positions, headDim]. */
export interface Present {
  readonly batch: number;
  readonly positions: number;
  readonly dtype: 'f32' | 'f16';
  readonly key: GPUBuffer;
  readonly value: GPUBuffer;
}

/** @throws TypeError or RangeError naming the tensor unless it holds keys or values of such pages on the GPU */
function checkTensor(tensor: OrtTensor, { kvHeads, headDim }: PageLayout, argument: string): GPUBuffer {
  if (typeof tensor !== 'object' || tensor === null) throw new TypeError(`"${argument}" expected a tensor of onnxruntime, got ${describe(tensor)}`);
  const { type, dims, location } = tensor;
  if (location !== 'gpu-buffer') throw new TypeError(`"${argument}" expected a tensor in a GPU buffer, got one whose location is ${location}: "preferredOutputLocation" of a session says where outputs are left`);
  if (!Object.hasOwn(dtypeOf, type)) throw new TypeError(`"${argument}" expected a tensor of float32 or float16, got ${type}`);
  if (dims.length !== 4 || dims[1] !== kvHeads || dims[3] !== headDim) throw new RangeError(`"${argument}" expected dims [batch, ${kvHeads}, positions, ${headDim}], as the pages, got [${dims.join(', ')}]`);
  return tensor.gpuBuffer as GPUBuffer;
}

/** @throws TypeError or RangeError naming the tensor that does not fit */
export function checkPresent({ key, value }: { readonly key: OrtTensor; readonly value: OrtTensor }, layout: PageLayout): Present {
  const buffers = { key: checkTensor(key, layout, 'key'), value: checkTensor(value, layout, 'value') };
  if (value.type !== key.type || value.dims.some((dim, i) => dim !== key.dims[i])) {
    throw new RangeError(`"value" expected ${key.type} [${key.dims.join(', ')}], as "key", got ${value.type} [${value.dims.join(', ')}]`);
  }
  return { batch: key.dims[0], positions: key.dims[2], dtype: dtypeOf[key.type as OrtFloat], ...buffers };
}

/** A buffer as onnxruntime makes its own. */
export const newBuffer = (device: GPUDevice, bytes: number): GPUBuffer =>
  device.createBuffer({ label: 'fp8-kv past', size: Math.max(16, Math.ceil(bytes / 16) * 16), usage: usage.storage | usage.copySrc | usage.copyDst });
