/** What `openBackend` takes, from adapters and devices of all kinds. */
import { equal, is, match, ok } from 'uvu/assert';
import { openBackend, pageLayout, requestWebgpuBackend, tuneWebgpu, webgpuBackend, type BackendChoice, type OpenOptions } from '../../src/index.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { suite } from '../suite.js';

const test = suite('openBackend');

async function choose(options: OpenOptions): Promise<BackendChoice> {
  const choices: BackendChoice[] = [];
  const backend = await openBackend({ ...options, onChoice: (choice) => choices.push(choice) });
  is(choices.length, 1);
  is(backend.kind, choices[0].backend);
  const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1 }), 1);
  equal(((await pages.export()).keyCache as Uint8Array).length, 8, 'it works');
  backend.dispose();
  return choices[0];
}

const never = new Promise<never>(() => {});
const info = { vendor: 'acme', architecture: 'anvil', device: '', description: '', isFallbackAdapter: false } as GPUAdapterInfo;
const withAdapter = (adapter: unknown): GPU => ({ requestAdapter: async () => adapter }) as unknown as GPU;
const limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27 };
const withDevice = (requestDevice: () => unknown): GPU => withAdapter({ info, limits, features: new Set(), requestDevice });

/** A device that can do nothing but be destroyed. */
function fakeDevice(): { destroyed: number; destroy(): void } {
  return {
    destroyed: 0,
    destroy() {
      this.destroyed++;
    },
  };
}

test('without an adapter it is WebAssembly', async () => {
  equal(await choose({ gpu: withAdapter(null) }), { backend: 'wasm', reason: 'WebGPU has no adapter for this machine' });
});

test('an adapter, or a device, that throws or never comes is a reason', async () => {
  const throws = (): never => {
    throw new Error('out of order\nsince noon');
  };
  const fails = async (): Promise<never> => throws();
  const fake = (requestAdapter: () => unknown): GPU => ({ requestAdapter }) as unknown as GPU;
  for (const gpu of [fake(throws), fake(fails)]) equal(await choose({ gpu }), { backend: 'wasm', reason: 'the GPU cannot be used: out of order' });
  equal(await choose({ gpu: fake(() => never), gpuTimeLimit: 50 }), { backend: 'wasm', reason: 'the GPU cannot be used: finding an adapter took longer than 0.05 s' });
  for (const gpu of [withDevice(throws), withDevice(fails)]) equal(await choose({ gpu }), { backend: 'wasm', reason: 'the GPU (acme anvil) cannot be used: out of order' });
  equal(await choose({ gpu: withDevice(() => never), gpuTimeLimit: 50 }), { backend: 'wasm', reason: 'the GPU (acme anvil) cannot be used: making a device took longer than 0.05 s' });
});

test('a device that comes too late, or lacks something, is destroyed', async () => {
  const late = fakeDevice();
  let arrives: (device: unknown) => void;
  await choose({ gpu: withDevice(() => new Promise((resolve) => (arrives = resolve))), gpuTimeLimit: 50 });
  arrives!(late);
  await Promise.resolve();
  await Promise.resolve();
  is(late.destroyed, 1);
  const small = Object.assign(fakeDevice(), { limits: { maxStorageBuffersPerShaderStage: 4 }, features: new Set() });
  const { backend, reason } = await choose({ gpu: withDevice(async () => small) });
  is(backend, 'wasm');
  match(reason, /^the GPU \(acme anvil\) cannot be used: the GPU device lacks .*maxStorageBuffersPerShaderStage \(need 8, have 4\)/);
  ok(small.destroyed > 0);
});

test('adapters on the CPU are passed over', async () => {
  const software = [{ isFallbackAdapter: true }, { vendor: 'google', architecture: 'swiftshader' }, { vendor: 'mesa', description: 'llvmpipe (LLVM 15.0.6)' }, { vendor: 'microsoft', architecture: 'warp' }];
  for (const facts of software) {
    const asked = (): never => {
      throw new Error('a device was asked for');
    };
    const { backend, reason } = await choose({ gpu: withAdapter({ info: { ...info, ...facts }, limits, features: new Set(), requestDevice: asked }) });
    is(backend, 'wasm');
    match(reason, / computes on the CPU, where WebAssembly is faster$/);
  }
});

test('where WebAssembly is preferred the GPU is left alone', async () => {
  const untouchable = new Proxy({}, { get: (_, name) => ok(false, `gpu.${String(name)} was read`) }) as GPU;
  equal(await choose({ gpu: untouchable, prefer: 'wasm' }), { backend: 'wasm', reason: 'it was asked for' });
});

test('bad options are refused', async () => {
  const refused = (options: object): Promise<string> => openBackend(options).then(() => 'taken', (error: Error) => error.message);
  match(await refused({ prefer: 'cuda' }), /^"prefer" expected webgpu or wasm, got "cuda"/);
  match(await refused({ gpuTimeLimit: 0 }), /^"gpuTimeLimit" expected an integer of at least 1, got number 0/);
  match(await refused('wasm' as never), /^"options" expected an object, got "wasm"/);
  match(await refused({ backend: 'wasm' }), /^"backend" expected the name of an option, got an unknown one: there are threads, .*/);
  match(await refused({ prefer: 'wasm', onChoice: 1 }), /^"onChoice" expected a function, got number 1/);
  match(await refused({ gpu: {} }), /^"gpu" expected a GPU, as navigator\.gpu is, got Object/);
  match(await refused({ powerPreference: 'high' }), /^"powerPreference" expected low-power or high-performance, got "high"/);
});

test('what is no device, and no feature, is said so', async () => {
  const refused = (promise: Promise<unknown>): Promise<string> => promise.then(() => 'taken', (error: Error) => error.message);
  match(await refused(webgpuBackend(undefined as never)), /^"options" expected an object, got undefined/);
  match(await refused(webgpuBackend({} as never)), /^"device" expected a GPUDevice, got undefined/);
  match(await refused(webgpuBackend({ device: { limits: {}, features: new Set() } as never })), /^"device" expected a GPUDevice, got Object/);
  match(await refused(requestWebgpuBackend({ tunning: [] } as never)), /^"tunning" .* is "tuning" meant\?/);
  match(await refused(requestWebgpuBackend({ optionalFeatures: ['f16'] as never })), /^"optionalFeatures\[0\]" expected one of subgroups, shader-f16, .*, got "f16"/);
  match(await refused(requestWebgpuBackend({ requiredFeatures: 'subgroups' as never })), /^"requiredFeatures" expected an array of subgroups, .*, got "subgroups"/);
  match(await refused(tuneWebgpu({ gpu: 3 as never })), /^"gpu" expected a GPU/);
});

const onGpu = suite(`openBackend on ${adapterName}`, { skip: noAdapter });

/** The adapter of this machine under another name, and the devices that it made. */
async function disguised(spoil: (device: GPUDevice) => void = () => {}): Promise<{ gpu: GPU; devices: GPUDevice[] }> {
  const devices: GPUDevice[] = [];
  const { limits, features, ...adapter } = await realAdapter();
  const requestDevice = async (descriptor: GPUDeviceDescriptor): Promise<GPUDevice> => {
    const device = await adapter.requestDevice(descriptor);
    devices.push(device);
    spoil(device);
    return device;
  };
  return { gpu: withAdapter({ info, limits, features, requestDevice }), devices };
}

async function realAdapter() {
  const adapter = (await gpu!.requestAdapter())!;
  return { limits: adapter.limits, features: adapter.features, requestDevice: adapter.requestDevice.bind(adapter) };
}

onGpu('a GPU that gives the known answers is taken', async () => {
  const { gpu: good, devices } = await disguised();
  equal(await choose({ gpu: good }), { backend: 'webgpu', reason: 'the GPU (acme anvil) gives the known answers' });
  // It went with the backend.
  is((await devices[0].lost).reason, 'destroyed');
});

onGpu('one on the CPU is taken where WebGPU is preferred', async () => {
  is((await choose({ gpu, prefer: 'webgpu' })).backend, 'webgpu');
});

/** Makes every `nth` result that comes back from the device wrong by one bit. */
const lyingFrom = (nth: number) => (device: GPUDevice): void => {
  const create = device.createBuffer.bind(device);
  let read = 0;
  device.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    if (descriptor.label !== 'fp8-kv results') return buffer;
    const map = buffer.getMappedRange.bind(buffer);
    buffer.getMappedRange = (...range) => {
      const bytes = map(...range).slice(0);
      if (++read >= nth) new Uint8Array(bytes)[3] ^= 0x40;
      return bytes;
    };
    return buffer;
  };
};

onGpu('a GPU whose bytes or results are wrong is not taken, and its device destroyed', async () => {
  for (const [nth, wrong] of [[1, /^the GPU \(acme anvil\) computes wrongly: append f32, .*: 1 codes and 0 scales differ, first the k code at /], [2, /^the GPU \(acme anvil\) computes wrongly: attend decode, .* first out at row 0, head 0, dim 0: /]] as const) {
    const { gpu: liar, devices } = await disguised(lyingFrom(nth));
    const { backend, reason } = await choose({ gpu: liar });
    is(backend, 'wasm');
    match(reason, wrong);
    is((await devices[0].lost).reason, 'destroyed');
  }
});

onGpu('a GPU that never answers, or is lost, is not taken', async () => {
  const silent = await disguised((device) => {
    device.createComputePipelineAsync = () => never;
  });
  equal(await choose({ gpu: silent.gpu, gpuTimeLimit: 200 }), { backend: 'wasm', reason: 'the GPU (acme anvil) cannot be used: trying out the device took longer than 0.2 s' });
  is((await silent.devices[0].lost).reason, 'destroyed');
  const lost = await disguised((device) => device.destroy());
  const { backend, reason } = await choose({ gpu: lost.gpu });
  is(backend, 'wasm');
  match(reason, /^the GPU \(acme anvil\) cannot be used: /);
});
