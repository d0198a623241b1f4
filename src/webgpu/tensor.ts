import { describe, floatDtypes, type FloatDtype } from '../formats.js';
import { usage } from './constants.js';
import type { Region } from './memory.js';

/** A GPU buffer, or a range of one whose offset is a multiple of the device's `minStorageBufferOffsetAlignment` (256 by default). */
export type GpuTensor = GPUBuffer | GPUBufferBinding;

const isRange = (tensor: GpuTensor): tensor is GPUBufferBinding => 'buffer' in tensor;

/** Whether a value is a tensor on a GPU, and not a typed array. */
export function isGpuTensor(value: unknown): value is GpuTensor {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return false;
  return 'usage' in value || ('buffer' in value && typeof value.buffer === 'object');
}

/** Bytes of so many rows, token × head, of keys, values or queries. */
export const tensorBytes = (rows: number, headDim: number, dtype: FloatDtype): number => rows * headDim * floatDtypes[dtype].bytes;

/** @throws TypeError unless it is a dtype; f32 where none is stated, as a buffer does not tell */
export function checkDtype(dtype: FloatDtype = 'f32'): FloatDtype {
  if (!Object.hasOwn(floatDtypes, dtype)) throw new TypeError(`"dtype" expected f32, f16 or bf16, got ${describe(dtype)}`);
  return dtype;
}

/**
 * @internal The range of a tensor that a kernel binds: as many bytes as it needs.
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function regionOf(tensor: GpuTensor, bytes: number, argument: string, { minStorageBufferOffsetAlignment, maxStorageBufferBindingSize }: GPUSupportedLimits): Region {
  if (!isGpuTensor(tensor)) throw new TypeError(`"${argument}" expected a GPUBuffer, or { buffer, offset }, got ${describe(tensor)}`);
  const { buffer, offset = 0, size = buffer.size - offset } = isRange(tensor) ? tensor : { buffer: tensor };
  if ((buffer.usage & usage.storage) === 0) throw new TypeError(`"${argument}" expected a buffer with the usage STORAGE, got usage ${buffer.usage}`);
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % minStorageBufferOffsetAlignment !== 0) {
    throw new RangeError(`"${argument}" expected an offset that is a multiple of ${minStorageBufferOffsetAlignment}, got ${describe(offset)}`);
  }
  if (size < bytes || offset + bytes > buffer.size) throw new RangeError(`"${argument}" expected at least ${bytes} bytes, got ${Math.min(size, Math.max(0, buffer.size - offset))}`);
  if (bytes > maxStorageBufferBindingSize) {
    throw new RangeError(`"${argument}" expected at most ${maxStorageBufferBindingSize} bytes, which is what this device can bind, got ${bytes}: take fewer tokens at a time`);
  }
  // A binding is never empty.
  return { buffer, offset, size: Math.max(bytes, 4) };
}
