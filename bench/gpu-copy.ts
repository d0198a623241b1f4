/** What does memory give: to a copy, which other benches take as their measure, and to a plain kernel that reads, or reads and writes? */
import { gbPerSecond, median, openBench, openCopy, raceOnGpu, reportGpu, timeValues, type GpuBench } from './gpu/bench.js';
import { emptyBuffer, noiseBuffer } from './gpu/buffers.js';
import { copyBytes } from './gpu/shapes.js';
import type { TimedWork } from '../src/webgpu/timing.js';

const WORKGROUP = 256;
/** How often an invocation takes 16 bytes. */
const EACH = 16;

/** What is done in each of these times, and at the end: what is read must be of use, or a compiler may leave it out. */
const kernels = {
  reads: { each: 'sum += input[at];', end: 'if (all(sum == vec4<u32>(0x9e3779b9u))) { output[0] = sum; }', moved: 1 },
  'reads and writes': { each: 'output[at] = input[at];', end: '', moved: 2 },
} as const;

type KernelName = keyof typeof kernels;

const source = (name: KernelName): string => `
  @group(0) @binding(0) var<storage, read> input: array<vec4<u32>>;
  @group(0) @binding(1) var<storage, read_write> output: array<vec4<u32>>;
  @compute @workgroup_size(${WORKGROUP}) fn stream(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = vec4<u32>(0u);
    for (var i = 0u; i < ${EACH}u; i++) {
      let at = ((group.y * groups.x + group.x) * ${EACH}u + i) * ${WORKGROUP}u + lane;
      ${kernels[name].each}
    }
    ${kernels[name].end}
  }`;

async function stream({ device, timer }: GpuBench, name: KernelName, bytes: number): Promise<TimedWork> {
  const module = device.createShaderModule({ code: source(name) });
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'stream' } });
  const buffers = [noiseBuffer(device, bytes), emptyBuffer(device, bytes)];
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })) });
  const workgroups = bytes / 16 / EACH / WORKGROUP;
  const most = device.limits.maxComputeWorkgroupsPerDimension;
  return timer.prepare((encoder) => {
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(Math.min(workgroups, most), Math.ceil(workgroups / most));
    pass.end();
  });
}

const bench = await openBench();
/** A power of two, so that every dispatch is full. */
const bytes = Math.min(copyBytes[bench.size], 2 ** Math.floor(Math.log2(bench.device.limits.maxStorageBufferBindingSize)));
const copy = await openCopy(bench);
const racers: { readonly name: KernelName; readonly work: TimedWork }[] = [];
for (const name of ['reads', 'reads and writes'] as const) racers.push({ name, work: await stream(bench, name, bytes) });
const [copyTimes, ...times] = await raceOnGpu([copy.work, ...racers.map(({ work }) => work)], bench.size);
const figures = racers.map(({ name, work }, i) => {
  const speed = gbPerSecond(kernels[name].moved * bytes, median(times[i]));
  return { name: `kernel that ${name}`, values: { 'GB/s': speed, 'of copy, %': (100 * speed) / copy.gbPerSecond(copyTimes), ...timeValues(times[i], work) } };
});
reportGpu(bench, 'GPU copy: bandwidth, bytes read and bytes written', [{ title: `${bytes / 2 ** 20} MiB`, figures: [copy.figure(copyTimes), ...figures] }]);
