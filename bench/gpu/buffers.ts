/** Buffers as an engine has them. */
import { usage } from '../../src/webgpu/constants.js';

export function emptyBuffer(device: GPUDevice, size: number): GPUBuffer {
  return device.createBuffer({ size, usage: usage.storage | usage.copySrc | usage.copyDst });
}

export function bufferOf(device: GPUDevice, data: ArrayBufferView<ArrayBuffer>): GPUBuffer {
  const buffer = emptyBuffer(device, data.byteLength);
  device.queue.writeBuffer(buffer, 0, data);
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
