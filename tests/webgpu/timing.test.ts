/** The timer on devices with and without timestamps. How long things take is for benches to say. */
import { equal, is, ok } from 'uvu/assert';
import { usage } from '../../src/webgpu/constants.js';
import { GpuTimer } from '../../src/webgpu/timing.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { suite } from '../suite.js';

const test = suite(`timing, ${adapterName}`, { skip: noAdapter });
const BYTES = 2 ** 20;

/** @param timestamps asked for where the adapter has them */
async function openDevice(timestamps: boolean): Promise<GPUDevice> {
  const adapter = (await gpu!.requestAdapter())!;
  return adapter.requestDevice({ requiredFeatures: timestamps && adapter.features.has('timestamp-query') ? ['timestamp-query'] : [] });
}

function copyOn(device: GPUDevice): (encoder: GPUCommandEncoder) => void {
  const [from, to] = [1, 2].map(() => device.createBuffer({ size: BYTES, usage: usage.copySrc | usage.copyDst }));
  return (encoder) => encoder.copyBufferToBuffer(from, 0, to, 0, BYTES);
}

for (const timestamps of [true, false]) {
  test(`samples of a device ${timestamps ? 'as it comes' : 'without timestamps'} are milliseconds of one run, ascending`, async () => {
    const device = await openDevice(timestamps);
    const timer = await GpuTimer.open(device);
    if (!timestamps) is(timer.source, 'submits');
    const times = await timer.time(copyOn(device), { samples: 3, sampleMs: 5 });
    is(times.length, 3);
    ok(times.every((time) => time > 0), `${times}`);
    equal(times, [...times].sort((a, b) => a - b));
    timer.destroy();
    is(timer.source, 'submits');
    device.destroy();
  });
}

test('a sample takes as many runs as it says', async () => {
  const device = await openDevice(true);
  const timer = await GpuTimer.open(device);
  let runs = 0;
  const copy = copyOn(device);
  const work = await timer.prepare((encoder) => {
    runs++;
    copy(encoder);
  }, { sampleMs: 5 });
  runs = 0;
  await work.sample();
  // One goes before those that are timed, between timestamps.
  is(runs, work.repeats + (timer.source === 'timestamps' ? 1 : 0));
  device.destroy();
});

test('what WebGPU refuses has no time', async () => {
  const device = await openDevice(true);
  const timer = await GpuTimer.open(device);
  const copy = copyOn(device);
  device.pushErrorScope('validation');
  const refusal = await timer.time((encoder) => {
    copy(encoder);
    encoder.beginComputePass();
  }).then(() => undefined, (error: Error) => error.message);
  await device.popErrorScope();
  ok(refusal?.startsWith('WebGPU refused what was to be timed'), refusal);
  device.destroy();
});
