/** What does a layer of a decode step cost beside its keys, on the host and on the GPU; and how long does a fresh device take to its first step? */
import type { WebgpuBackend } from '../src/webgpu/backend.js';
import { webgpuBackend } from '../src/webgpu/open.js';
import { median, openBench, reportGpu, type GpuBench, type GpuSection } from './gpu/bench.js';
import { bufferOf, emptyBuffer } from './gpu/buffers.js';
import { layoutOf } from './gpu/cache.js';
import { openDevice } from './gpu/device.js';
import type { BenchedVariant } from './gpu/variants.js';
import { normals, SEED } from './inputs.js';
import { BLOCK } from './pages.js';
import { llama3 } from './shapes.js';

const LAYERS = 32;
/** So few that reading them takes no time. */
const KEYS = 2 * BLOCK;
const STEPS = 30;
/** How often a device is opened afresh. */
const DEVICES = 3;

const { queryHeads, kvHeads, headDim } = llama3;
const layout = layoutOf(llama3, 'e4m3fn');

const tables = {
  slotMapping: Int32Array.of(KEYS - 1),
  blockTable: Int32Array.from({ length: KEYS / BLOCK }, (_, page) => page),
  cuSeqlensQ: Int32Array.of(0, 1),
  seqUsedK: Int32Array.of(KEYS),
};
const places = ['host', 'GPU'] as const;
type Place = (typeof places)[number];

/** Records a token's way through all layers: each appends it to its cache and attends. */
function decodeStep(backend: WebgpuBackend, place: Place): (encoder: GPUCommandEncoder) => void {
  const { device } = backend;
  const floats = (length: number): GPUBuffer => bufferOf(device, normals(SEED, length) as Float32Array<ArrayBuffer>);
  const [key, value, q] = [floats(kvHeads * headDim), floats(kvHeads * headDim), floats(queryHeads * headDim)];
  const out = emptyBuffer(device, queryHeads * headDim * 4);
  const table = (name: keyof typeof tables): Int32Array | GPUBuffer => (place === 'GPU' ? bufferOf(device, tables[name]) : tables[name]);
  const [slotMapping, blockTable, cuSeqlensQ, seqUsedK] = [table('slotMapping'), table('blockTable'), table('cuSeqlensQ'), table('seqUsedK')];
  const layers = Array.from({ length: LAYERS }, () => backend.createPages(layout, KEYS / BLOCK));
  return (encoder) => {
    for (const pages of layers) {
      backend.recordAppend(encoder, { pages, key, value, slotMapping, tokens: 1 });
      backend.recordAttend(encoder, { pages, q, queryHeads, out, blockTable, cuSeqlensQ, seqUsedK, totalQ: 1, sequences: 1, maxBlocks: KEYS / BLOCK, maxSeqlenQ: 1 });
    }
  };
}

interface StepTimes {
  readonly record: number;
  readonly submit: number;
  readonly all: number;
}

/** Milliseconds of one step: until it is recorded, what its submit takes, and until the GPU has done it. */
async function stepTimes(device: GPUDevice, record: (encoder: GPUCommandEncoder) => void): Promise<StepTimes> {
  const start = performance.now();
  const encoder = device.createCommandEncoder();
  record(encoder);
  const commands = encoder.finish();
  const recorded = performance.now();
  device.queue.submit([commands]);
  const submitted = performance.now();
  await device.queue.onSubmittedWorkDone();
  return { record: recorded - start, submit: submitted - recorded, all: performance.now() - start };
}

async function layerCost({ device, timer }: GpuBench, { name, backend }: BenchedVariant): Promise<GpuSection['figures']> {
  await backend.warm(layout, { queryHeads, maxSeqlenQ: 1 });
  const figures = [];
  for (const place of places) {
    const step = decodeStep(backend, place);
    const onGpu = median(await timer.time(step));
    const steps: StepTimes[] = [];
    for (let i = 0; i < STEPS; i++) steps.push(await stepTimes(device, step));
    const perLayer = (milliseconds: number): number => (1000 * milliseconds) / LAYERS;
    const middle = (time: keyof StepTimes): number => median(steps.map((each) => each[time]).sort((a, b) => a - b));
    figures.push({
      name: `${name}, tables from the ${place}`,
      values: { 'record, µs': perLayer(middle('record')), 'submit, µs': perLayer(middle('submit')), 'on the GPU, µs': perLayer(onGpu), 'a step on its own, µs': perLayer(middle('all')) },
    });
  }
  return figures;
}

/** From nothing to the first step. Kernels of an append, of decode and of prefill, each for all layers. */
async function firstStep({ features }: BenchedVariant): Promise<Record<string, number>> {
  let last = performance.now();
  const lap = (): number => -last + (last = performance.now());
  const { device } = await openDevice(features);
  const opened = lap();
  const backend = await webgpuBackend({ device, optionalFeatures: features });
  const probed = lap();
  await backend.warm(layout, { queryHeads, maxSeqlenQ: 1 });
  const decode = lap();
  await backend.warm(layout, { queryHeads });
  const prefill = lap();
  const step = decodeStep(backend, 'host');
  lap();
  const { all } = await stepTimes(device, step);
  backend.dispose();
  device.destroy();
  return { 'device, ms': opened, 'backend, ms': probed, 'decode kernels, ms': decode, 'prefill kernels, ms': prefill, 'warm, ms': decode + prefill, 'first step, ms': all };
}

const bench = await openBench();
const layers: GpuSection['figures'][number][] = [];
for (const variant of bench.variants) layers.push(...(await layerCost(bench, variant)));
const first: GpuSection['figures'][number][] = [];
for (const variant of bench.variants) {
  for (let i = 1; i <= DEVICES; i++) first.push({ name: `${variant.name}, device ${i}`, values: await firstStep(variant) });
}
reportGpu(bench, 'GPU layers: what a decode step costs beside its keys', [
  { title: `Per layer, ${LAYERS} of ${llama3.name} in one encoder, 1 token on ${KEYS} keys`, figures: layers },
  { title: 'A fresh device: kernels of append and decode, those of prefill, and the first step of all layers', figures: first },
]);
