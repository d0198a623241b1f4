/** `fp8-kv/ort` with tensors that are made here: tests/adapters has those of onnxruntime. */
import { equal, is, match } from 'uvu/assert';
import { hardRows } from '../../src/align/inputs.js';
import { readSpans } from '../../src/cache/rows.js';
import { allowedPolicies, pageLayout, wasmBackend, type FloatArray, type Policy } from '../../src/index.js';
import { roundHalves } from '../../src/layouts/half-scales.js';
import { appendPresent, readPast, sharedDeviceDescriptor, type AppendPresentCall, type OrtTensor, type ReadPastCall } from '../../src/ort/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { assertSameBits } from '../bits.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`ort on ${adapterName}`, { skip: noAdapter });
const wasm = wasmBackend();
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const [MAP_READ, COPY_SRC, COPY_DST, STORAGE] = [1, 4, 8, 128];
const types = { float32: 'f32', float16: 'f16' } as const;
type Type = keyof typeof types;

interface FakeTensor extends OrtTensor {
  readonly gpuBuffer: GPUBuffer;
  readonly type: Type;
  dispose(): void;
}

const Tensor = {
  fromGpuBuffer: (gpuBuffer: GPUBuffer, { dataType, dims, dispose }: { dataType: Type; dims: readonly number[]; dispose: () => void }): FakeTensor => ({ type: dataType, dims, location: 'gpu-buffer', gpuBuffer, dispose }),
};

/** As onnxruntime leaves outputs: in a buffer from its pool, larger than the tensor, with what was there before behind it. */
function present(data: FloatArray, dims: readonly number[], type: Type = data instanceof Float32Array ? 'float32' : 'float16'): FakeTensor {
  const gpuBuffer = backend.device.createBuffer({ size: 2 * data.byteLength + 256, usage: STORAGE | COPY_SRC | COPY_DST });
  backend.device.queue.writeBuffer(gpuBuffer, 0, data as FloatArray & ArrayBufferView<ArrayBuffer>);
  backend.device.queue.writeBuffer(gpuBuffer, data.byteLength, new Uint8Array(data.byteLength + 256).fill(0xff));
  return Tensor.fromGpuBuffer(gpuBuffer, { dataType: type, dims, dispose: () => gpuBuffer.destroy() });
}

async function valuesOf({ gpuBuffer, dims, type }: FakeTensor): Promise<FloatArray> {
  const size = dims.reduce((a, b) => a * b, 1) * (type === 'float32' ? 4 : 2);
  const result = backend.device.createBuffer({ size, usage: MAP_READ | COPY_DST });
  const encoder = backend.device.createCommandEncoder();
  encoder.copyBufferToBuffer(gpuBuffer, 0, result, 0, size);
  backend.device.queue.submit([encoder.finish()]);
  await result.mapAsync(1);
  const bytes = result.getMappedRange().slice(0);
  result.destroy();
  return type === 'float32' ? new Float32Array(bytes) : new Uint16Array(bytes);
}

const [kvHeads, headDim, blockSize, count] = [3, 24, 8, 7];
const [batch, positions] = [2, 21];
const scaleCounts = { tensor: 1, head: kvHeads, channel: kvHeads * headDim } as const;

function scalesOf({ granularity, scales }: Policy, seed: number): Float32Array | undefined {
  if (scales !== 'given') return undefined;
  return Float32Array.from(random(seed).normals(scaleCounts[granularity as keyof typeof scaleCounts]), (x) => Math.abs(x) + 2 ** -20);
}

/** Tokens of a tensor, as append takes them: the last `last` of each row that have a slot. */
function tokensOf(x: FloatArray, slots: Int32Array, last: number): FloatArray {
  const taken = [...slots.keys()].filter((i) => slots[i] >= 0);
  const out = x instanceof Float32Array ? new Float32Array(taken.length * kvHeads * headDim) : new Uint16Array(taken.length * kvHeads * headDim);
  for (const [t, i] of taken.entries()) {
    for (let head = 0; head < kvHeads; head++) {
      const from = ((Math.floor(i / last) * kvHeads + head) * positions + positions - last + (i % last)) * headDim;
      out.set(x.subarray(from, from + headDim), (t * kvHeads + head) * headDim);
    }
  }
  return out;
}

/** Which NaN a product is depends on the processor. */
const canonical = (x: Float32Array): Float32Array => x.map((value) => (Number.isNaN(value) ? NaN : value));

/** What is read through a mapping, when `rows` are [kvHeads, slots, headDim]. */
function expectedPast(rows: Float32Array, slots: Int32Array, width: number): Float32Array {
  const out = new Float32Array(slots.length * kvHeads * headDim);
  for (const [i, slot] of slots.entries()) {
    if (slot < 0) continue;
    for (let head = 0; head < kvHeads; head++) {
      const from = (head * count * blockSize + slot) * headDim;
      out.set(rows.subarray(from, from + headDim), ((Math.floor(i / width) * kvHeads + head) * width + (i % width)) * headDim);
    }
  }
  return canonical(out);
}

/** A shuffled mapping of some positions, with gaps. */
function mapping(seed: number, length: number): Int32Array {
  const numbers = random(seed);
  const slots = Array.from({ length: count * blockSize }, (_, i) => i);
  for (let i = slots.length - 1; i > 0; i--) {
    const j = numbers.integer(i + 1);
    [slots[i], slots[j]] = [slots[j], slots[i]];
  }
  return Int32Array.from({ length }, (_, i) => (numbers.integer(6) === 0 ? -1 : slots[i]));
}

async function assertSamePages(ours: { export(): unknown }, theirs: { export(): unknown }, what: string): Promise<void> {
  const [a, b] = [await ours.export(), await theirs.export()] as Record<string, Uint8Array | undefined>[];
  for (const name of ['keyCache', 'valueCache', 'keyScale', 'valueScale']) {
    is(a[name] === undefined, b[name] === undefined);
    if (a[name]) assertSameBits(a[name], b[name]!, `${what}, ${name}`);
  }
}

const policies = allowedPolicies();
const half = Math.ceil(policies.length / 2);
const nameOf = ({ format, granularity }: Policy): string => `${format} ${granularity}`;

// Keys and values have different ones: kernels are compiled for both.
for (const [i, ofKeys] of policies.slice(0, half).entries()) {
  const ofValues = policies[(i + half) % policies.length];
  test(`keys ${nameOf(ofKeys)}, values ${nameOf(ofValues)}: the CPU's bytes in the pages, and its values out of them`, async () => {
    const side = ({ format, granularity }: Policy) => ({ dtype: format, granularity, groupSize: granularity === 'group' ? 8 : undefined });
    const layout = pageLayout({ kvHeads, headDim, blockSize, k: side(ofKeys), v: side(ofValues) });
    const [kScale, vScale] = [scalesOf(ofKeys, 7), scalesOf(ofValues, 8)];
    for (const type of ['float32', 'float16'] as const) {
      const dtype = types[type];
      const numbers = random(type.length);
      const [pages, theirs] = [backend.createPages(layout, count), wasm.createPages(layout, count)];
      for (const last of [positions, 1, 4]) {
        const slotMapping = mapping(last, batch * last);
        const [key, value] = [0, 1].map(() => hardRows(numbers, dtype, batch * kvHeads * positions, headDim));
        const status = wasm.append({ pages: theirs, key: tokensOf(key, slotMapping, last), value: tokensOf(value, slotMapping, last), dtype, slotMapping: slotMapping.filter((slot) => slot >= 0), kScale, vScale });
        const tensors = [key, value].map((x) => present(x, [batch, kvHeads, positions, headDim]));
        const { written, skipped } = await appendPresent(backend, { pages, key: tensors[0], value: tensors[1], slotMapping, kScale, vScale });
        is(written, status.written);
        is(skipped, slotMapping.length - written);
        // The session's pool has them again.
        for (const tensor of tensors) tensor.dispose();
        await assertSamePages(pages, theirs, `${type}, the last ${last}`);
      }
      const rows = readSpans([{ pages: theirs, list: Array.from({ length: count }, (_, i) => i), tokens: count * blockSize, kScale, vScale }]);
      const slots = mapping(3, batch * positions);
      const past = await readPast<FakeTensor>(backend, { Tensor, pages, slotMapping: slots, batch, type, kScale, vScale });
      for (const [name, expected] of [['key', rows.k], ['value', rows.v]] as const) {
        const tensor = past[name];
        equal([tensor.type, tensor.dims], [type, [batch, kvHeads, positions, headDim]]);
        const [actual, wanted] = [await valuesOf(tensor), expectedPast(expected, slots, positions)];
        if (actual instanceof Float32Array) assertSameBits(canonical(actual), wanted, name);
        else assertSameBits(actual, roundHalves(wanted), name);
        tensor.dispose();
      }
      pages.dispose();
      theirs.dispose();
    }
  });
}

test('all codes with all kinds of scales: as the CPU multiplies them, denormals and what overflows too', async () => {
  const layout = (dtype: Policy['format']) => pageLayout({ kvHeads: 1, headDim: 256, blockSize: 8, k: { dtype }, v: { dtype } });
  const scales = Float32Array.from([2 ** -149, 1e-44, 2 ** -130, 1.1e-38, 3e-39, 2 ** -126, 0.1, 1 / 448, 1, 1e30, 3.4e38, Infinity, NaN, 0, 7e-43, 1.9e37]);
  const codes = Uint8Array.from({ length: 256 * scales.length }, (_, i) => i % 256);
  for (const format of ['e4m3fn', 'e5m2', 'int8'] as const) {
    const [pages, theirs] = [backend.createPages(layout(format), 2), wasm.createPages(layout(format), 2)];
    const cache = format === 'int8' ? new Int8Array(codes.buffer) : codes;
    const tensors = { keyCache: cache, valueCache: cache, keyScale: scales, valueScale: scales };
    await pages.import(tensors);
    theirs.import(tensors);
    const { k } = readSpans([{ pages: theirs, list: [0, 1], tokens: 16 }]);
    const { key } = await readPast<FakeTensor>(backend, { Tensor, pages, slotMapping: Int32Array.from({ length: 16 }, (_, i) => i) });
    assertSameBits(canonical((await valuesOf(key)) as Float32Array), canonical(k), format);
    pages.dispose();
    theirs.dispose();
  }
});

test('a device for both is one that the adapter gives', async () => {
  const adapter = (await gpu!.requestAdapter())!;
  const device = await adapter.requestDevice(sharedDeviceDescriptor(adapter));
  is(device.limits.maxBufferSize, adapter.limits.maxBufferSize);
  is(device.features.has('subgroups'), adapter.features.has('subgroups'));
  device.destroy();
});

test('what does not fit is refused, and nothing is written', async () => {
  const layout = pageLayout({ kvHeads: 1, headDim: 8, blockSize: 4 });
  const pages = backend.createPages(layout, 2);
  const x = present(new Float32Array(16), [1, 1, 2, 8]);
  const append = async (change: object, expected: RegExp, on: WebgpuBackend = backend) => {
    const call: AppendPresentCall = { pages, key: x, value: x, slotMapping: Int32Array.of(0, 1), ...change };
    match(String(await appendPresent(on, call).then(() => undefined, (error: Error) => error)), expected);
  };
  await append({ key: { ...x, location: 'cpu' } }, /TypeError: "key" expected a tensor in a GPU buffer, got one whose location is cpu/);
  await append({ value: { ...x, type: 'int64' } }, /TypeError: "value" expected a tensor of float32 or float16, got int64/);
  await append({ value: { ...x, type: 'float16' } }, /"value" expected float32 \[1, 1, 2, 8\], as "key", got float16/);
  await append({ key: { ...x, dims: [1, 2, 2, 8] } }, /"key" expected dims \[batch, 1, positions, 8\], as the pages, got \[1, 2, 2, 8\]/);
  await append({ key: { ...x, dims: [9, 1, 2, 8] }, value: { ...x, dims: [9, 1, 2, 8] }, slotMapping: new Int32Array(9) }, /"key" expected at least 576 bytes, got 384/);
  await append({ slotMapping: Int32Array.of(0, 1, 2) }, /"slotMapping" expected at most 2 slots for each row/);
  await append({ slotMapping: Int32Array.of(0, 8) }, /"slotMapping\[1\]" expected a slot below 8, got 8/);
  await append({ slotMapping: Int32Array.of(3, 3) }, /expected a slot that no other token has/);
  await append({ pages: wasm.createPages(layout, 2) }, /"pages" expected pages that this backend created/);
  await append({}, /"backend" expected one on a GPU/, wasm as unknown as WebgpuBackend);
  const read = async (change: object, expected: RegExp) => {
    const call: ReadPastCall<FakeTensor> = { Tensor, pages, slotMapping: Int32Array.of(0, 1), ...change };
    match(String(await readPast(backend, call).then(() => undefined, (error: Error) => error)), expected);
  };
  await read({ Tensor: {} }, /"Tensor" expected onnxruntime's class/);
  await read({ type: 'int8' }, /"type" expected float32 or float16/);
  await read({ batch: 3 }, /"slotMapping" expected as many slots for each of 3 rows, got 2/);
  await read({ slotMapping: Int32Array.of(0, 8) }, /"slotMapping\[1\]" expected a slot below 8, got 8/);
  await read({ kScale: 2 }, /"kScale" expected to be absent/);
  const halves = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 4, k: { dtype: 'f16' } }), 2);
  await read({ pages: halves, kScale: 2 }, /"kScale" expected 1 for f16, which is stored unscaled, got 2/);
  halves.dispose();
  is((await pages.export()).keyCache.every((code) => code === 0), true);
  pages.dispose();
});
