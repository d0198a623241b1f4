/** Buffers as an engine has them. */
import { usage } from '../../src/webgpu/constants.js';
import { normals, SEED } from '../inputs.js';

const NOISE_FLOATS = 2 ** 22;

export function emptyBuffer(device: GPUDevice, size: number): GPUBuffer {
  return device.createBuffer({ size, usage: usage.storage | usage.copySrc | usage.copyDst });
}

export function bufferOf(device: GPUDevice, data: ArrayBufferView<ArrayBuffer>): GPUBuffer {
  const buffer = emptyBuffer(device, data.byteLength);
  device.queue.writeBuffer(buffer, 0, data);
  return buffer;
}

/** Full of numbers: memory may be faster where it holds zeros. */
export function noiseBuffer(device: GPUDevice, size: number): GPUBuffer {
  const noise = bufferOf(device, normals(SEED, NOISE_FLOATS) as Float32Array<ArrayBuffer>);
  const buffer = emptyBuffer(device, size);
  const encoder = device.createCommandEncoder();
  for (let at = 0; at < size; at += noise.size) encoder.copyBufferToBuffer(noise, 0, buffer, at, Math.min(noise.size, size - at));
  device.queue.submit([encoder.finish()]);
  noise.destroy();
  return buffer;
}

export async function readFloats(device: GPUDevice, buffer: GPUBuffer, first: number, length: number): Promise<Float32Array> {
  const result = device.createBuffer({ size: length * 4, usage: usage.mapRead | usage.copyDst });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, first * 4, result, 0, length * 4);
  device.queue.submit([encoder.finish()]);
  await result.mapAsync(1);
  const values = new Float32Array(result.getMappedRange().slice(0));
  result.destroy();
  return values;
}
