/** What all other GPU tests stand on: a device that computes. */
import { equal } from 'uvu/assert';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { suite } from '../suite.js';

const test = suite(`WebGPU on ${adapterName}`, { skip: noAdapter });

// Node has no global GPUBufferUsage and GPUMapMode.
const MAP_READ = 0x1;
const COPY_SRC = 0x4;
const COPY_DST = 0x8;
const STORAGE = 0x80;
const MODE_READ = 0x1;

test('a shader computes in u32', async () => {
  const device = await (await gpu!.requestAdapter())!.requestDevice();
  const code = `
    @group(0) @binding(0) var<storage, read_write> words: array<u32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
      words[id.x] = words[id.x] * 2654435761u + (id.x << 28u);
    }`;
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module: device.createShaderModule({ code }) } });
  const words = Uint32Array.from({ length: 256 }, (_, i) => i * i + 1);
  const buffer = device.createBuffer({ size: words.byteLength, usage: STORAGE | COPY_SRC | COPY_DST });
  const result = device.createBuffer({ size: words.byteLength, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(buffer, 0, words);
  const bindGroup = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer } }] });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup);
  pass.dispatchWorkgroups(words.length / 64);
  pass.end();
  encoder.copyBufferToBuffer(buffer, 0, result, 0, words.byteLength);
  device.queue.submit([encoder.finish()]);
  await result.mapAsync(MODE_READ);
  equal(new Uint32Array(result.getMappedRange().slice(0)), words.map((word, i) => Math.imul(word, 2654435761) + (i << 28)));
  device.destroy();
});
