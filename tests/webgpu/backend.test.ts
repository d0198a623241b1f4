/** Devices: what is asked of them, whose they are, and pools that do not fit. */
import { equal, is, ok, throws } from 'uvu/assert';
import { KvCache, pageLayout } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { usage } from '../../src/webgpu/constants.js';
import { requestWebgpuBackend, requiredLimits, webgpuBackend } from '../../src/webgpu/open.js';
import { assertSameBits } from '../bits.js';
import { callOf, fixture } from '../fixture.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { counted } from '../gpu/counted.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`backend, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const layout = pageLayout({ kvHeads: 2, headDim: 64, blockSize: 16 });

const tensorNames = ['keyCache', 'valueCache', 'keyScale', 'valueScale'] as const;

/** A device with limits or features of one's own choosing, as far as one can see. */
function pretend(device: GPUDevice, limits: object, features: readonly string[] = []): GPUDevice {
  return new Proxy(device, {
    get(target, name) {
      if (name === 'limits') return new Proxy(target.limits, { get: (own, limit) => Reflect.get(limit in limits ? limits : own, limit) as unknown });
      if (name === 'features') return new Set(features);
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

const failure = async (action: Promise<unknown>): Promise<Error & { readonly unmet?: unknown }> =>
  action.then(() => ok(false, 'expected to be refused') as never, (error: Error) => error);

test('a device that lacks something is refused with all of it', async () => {
  const device = pretend(backend.device, { maxStorageBuffersPerShaderStage: 4, maxComputeWorkgroupStorageSize: 8192 });
  const error = await failure(webgpuBackend({ device, requiredFeatures: ['subgroups'] }));
  is(error.name, 'UnsupportedDeviceError');
  equal(error.unmet, [
    { name: 'maxStorageBuffersPerShaderStage', need: 8, have: 4 },
    { name: 'maxComputeWorkgroupStorageSize', need: 16384, have: 8192 },
    { name: 'subgroups', need: 'present', have: 'absent' },
  ]);
  ok(/maxStorageBuffersPerShaderStage \(need 8, have 4\), .*, subgroups \(need present, have absent\)/.test(error.message));
});

test('WebGPU\'s default limits are enough', async () => {
  const device = await (await gpu!.requestAdapter())!.requestDevice();
  is(device.limits.maxStorageBuffersPerShaderStage, 8);
  is(device.limits.maxComputeWorkgroupStorageSize, 16384);
  device.pushErrorScope('validation');
  const small = await webgpuBackend({ device });
  for (const [headDim, group] of [[256, 8], [256, 1]]) {
    const cache = await fixture(small, random(1), { kvHeads: 1, headDim, blockSize: 16, kvLens: [300, 20] });
    const { out } = await small.attend(callOf(cache, [1, 20], random(2).normals(21 * group * headDim)));
    ok(out.every(Number.isFinite));
  }
  is(await device.popErrorScope(), null);
  small.dispose();
  device.destroy();
});

test('a pool that no buffer holds is refused with the largest that fits', async () => {
  const small = await webgpuBackend({ device: pretend(backend.device, { maxStorageBufferBindingSize: 2 ** 20, maxBufferSize: 2 ** 21 }) });
  const { bytes } = pageLayout({ kvHeads: 2, headDim: 64, blockSize: 16 }, 'token-major');
  const fits = Math.floor(2 ** 20 / bytes);
  small.createPages(layout, fits).dispose();
  throws(() => small.createPages(layout, fits + 1), new RegExp(`"count" expected at most ${fits} pages of ${bytes} bytes \\(a capacity of ${fits * 16} tokens\\).* maxStorageBufferBindingSize is 1048576; got ${fits + 1}`));
  throws(() => new KvCache(small, { layers: 2, kvHeads: 2, headDim: 64, capacity: 100_000 }), /a capacity of \d+ tokens/);
  const other = await webgpuBackend({ device: pretend(backend.device, { maxBufferSize: 2 ** 19 }) });
  throws(() => other.createPages(layout, fits), /maxBufferSize is 524288/);
  const limits = requiredLimits({ layers: [{ headDim: 64 }, { headDim: 256 }], kvHeads: 8, capacity: 200_000 });
  const largest = pageLayout({ kvHeads: 8, headDim: 256, blockSize: 16 }, 'token-major').bytes * 12_500;
  equal(limits, { maxBufferSize: largest, maxStorageBufferBindingSize: largest });
  equal(requiredLimits({ layers: 1, kvHeads: 1, headDim: 64, capacity: 100 }), { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27 });
});

test('dispose gives back all buffers; a device of its own goes, a borrowed one stays', async () => {
  const own = await (await gpu!.requestAdapter())!.requestDevice();
  const { device, counts } = counted(own);
  const borrowed = await webgpuBackend({ device });
  const cache = await fixture(borrowed, random(3), { kvHeads: 1, headDim: 64, blockSize: 16, kvLens: [40] });
  const pending = Promise.all([borrowed.attend(callOf(cache, [1], new Float32Array(64))), borrowed.attend(callOf(cache, [30], new Float32Array(30 * 64)))]);
  borrowed.createPages(layout, 4).dispose();
  borrowed.createPages(layout, 4);
  await pending;
  ok(counts.buffers > 5);
  borrowed.dispose();
  borrowed.dispose();
  is(counts.buffers, 0);
  throws(() => borrowed.createPages(layout, 1), /"backend" expected to be in use, got one that was disposed of/);
  ok(/disposed of/.test((await failure(borrowed.attend(callOf(cache, [1], new Float32Array(64))))).message));
  cache.pages.dispose();
  let lost = false;
  void own.lost.then(() => (lost = true));
  own.queue.submit([]);
  await own.queue.onSubmittedWorkDone();
  ok(!lost);
  const requested = await requestWebgpuBackend({ gpu });
  const { lost: ended } = requested.device;
  requested.dispose();
  is((await ended).reason, 'destroyed');
});

test('calls on their way at once do not disturb each other', async () => {
  const cache = await fixture(backend, random(4), { kvHeads: 2, headDim: 64, blockSize: 16, kvLens: [50, 60] });
  const queries = Array.from({ length: 6 }, (_, i) => random(10 + i).normals(2 * 4 * 64));
  const alone = [];
  for (const q of queries) alone.push(await backend.attend(callOf(cache, [1, 1], q)));
  const together = await Promise.all(queries.map((q) => backend.attend(callOf(cache, [1, 1], q))));
  for (const [i, { out, lse }] of together.entries()) {
    assertSameBits(out, alone[i].out);
    assertSameBits(lse, alone[i].lse);
  }
  cache.pages.dispose();
});

test('copies of pages take effect in order', async () => {
  const pages = backend.createPages(layout, 4);
  const x = random(5).normals(64 * 128);
  await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 64 }, (_, i) => i) });
  const before = await pages.export();
  pages.copyPages([0, 1, 2], [1, 2, 3]);
  const after = await pages.export();
  for (const name of tensorNames) {
    const page = before[name]!.length / 4;
    for (let i = 0; i < 4; i++) assertSameBits(after[name]!.slice(i * page, (i + 1) * page), before[name]!.slice(0, page), `${name}, page ${i}`);
  }
  pages.dispose();
});

test('calls that go in passes, and in workgroups of two dimensions, give the same bits', async () => {
  // As large calls do on any device.
  const narrow = await webgpuBackend({ device: pretend(backend.device, { maxComputeWorkgroupsPerDimension: 5, maxStorageBufferBindingSize: 2 ** 18 }), optionalFeatures: [] });
  const qLens = [1, 30, 3, 1];
  const q = random(7).normals(35 * 8 * 64);
  const results = [];
  const stored = [];
  for (const each of [backend, narrow]) {
    const cache = await fixture(each, random(8), { kvHeads: 2, headDim: 64, blockSize: 16, kvLens: [350, 60, 1, 300] });
    results.push(await each.attend(callOf(cache, qLens, q)));
    stored.push(cache.stored);
    cache.pages.dispose();
  }
  for (const name of tensorNames) assertSameBits(stored[1][name]!, stored[0][name]!, name);
  assertSameBits(results[1].out, results[0].out);
  assertSameBits(results[1].lse, results[0].lse);
  narrow.dispose();
});

test('all pages are given out on a device that allows no buffer larger than they are', async () => {
  const limit = 3 * 2 ** 27;
  const adapter = (await gpu!.requestAdapter())!;
  if (adapter.limits.maxBufferSize < limit) return;
  const device = await adapter.requestDevice({ requiredLimits: { maxBufferSize: limit, maxStorageBufferBindingSize: limit } });
  const exact = await webgpuBackend({ device, optionalFeatures: [] });
  const large = pageLayout({ kvHeads: 16, headDim: 256, blockSize: 1024 });
  const pages = exact.createPages(large, Math.floor(limit / pageLayout({ kvHeads: 16, headDim: 256, blockSize: 1024 }, 'token-major').bytes));
  is((await pages.export()).keyCache.length, pages.count * 16 * 256 * 1024);
  exact.dispose();
  device.destroy();
});

test('a call that no buffer holds is refused by name', async () => {
  const small = await webgpuBackend({ device: pretend(backend.device, { maxStorageBufferBindingSize: 2 ** 16 }), optionalFeatures: [] });
  const cache = await fixture(small, random(9), { kvHeads: 1, headDim: 64, blockSize: 16, kvLens: [40] });
  ok(/"q" expected at most 65536 bytes, which is what this device can bind, got 76800: take fewer tokens at a time/.test((await failure(small.attend(callOf(cache, [30], new Float32Array(30 * 10 * 64))))).message));
  small.dispose();
});

test('recording what no buffer holds is refused, and the encoder can be submitted', async () => {
  const { device } = backend;
  const small = await webgpuBackend({ device: pretend(device, { maxStorageBufferBindingSize: 2 ** 16 }), optionalFeatures: [] });
  await small.warm(layout, { queryHeads: 16 });
  const pages = small.createPages(layout, 2);
  const buffer = (): GPUBuffer => device.createBuffer({ size: 8192, usage: usage.storage });
  const call = { pages, q: buffer(), out: buffer(), queryHeads: 16, totalQ: 1, sequences: 1, blockTable: buffer(), cuSeqlensQ: buffer(), seqUsedK: buffer() };
  const encoder = device.createCommandEncoder();
  throws(() => small.recordAttend(encoder, { ...call, maxBlocks: 1024 }), /"seqUsedK" expected at most 65536 bytes/);
  small.recordAttend(encoder, { ...call, maxBlocks: 2 });
  device.pushErrorScope('validation');
  device.queue.submit([encoder.finish()]);
  is(await device.popErrorScope(), null);
  small.dispose();
});
