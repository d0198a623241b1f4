/** The cache on a GPU: the same tokens as on the CPU, recorded or not. */
import { equal, is, ok, throws } from 'uvu/assert';
import { attentionError } from '../../src/files/compare.js';
import { KvCache, wasmBackend, type AttendResult, type KvCacheOptions } from '../../src/index.js';
import { usage } from '../../src/webgpu/constants.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { webgpuBackend } from '../../src/webgpu/open.js';
import { assertSameBits } from '../bits.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { counted } from '../gpu/counted.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`cache, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const options: KvCacheOptions = {
  layers: [{ windowLeft: 9 }, { dtype: { k: 'e5m2', v: 'f16' }, sinks: Float32Array.of(0.5, -1, 2, 0) }], queryHeads: 4, kvHeads: 2, headDim: 16, blockSize: 4, capacity: 200,
};
const [kvFloats, qFloats] = [32, 64];

/** Prefills, decodes, forks, and decodes both: the results of every step and layer. */
async function run(cache: KvCache): Promise<AttendResult[]> {
  const numbers = random(1);
  const results: AttendResult[] = [];
  const sequences = [cache.createSequence()];
  const advance = async (tokens: readonly number[]): Promise<void> => {
    const all = tokens.reduce((a, b) => a + b, 0);
    const step = cache.begin(sequences.map((sequence, i) => ({ sequence, tokens: tokens[i] })));
    for (let layer = 0; layer < cache.layers; layer++) {
      await step.append(layer, numbers.normals(all * kvFloats), numbers.normals(all * kvFloats));
      results.push(await step.attend(layer, numbers.normals(all * qFloats)));
    }
    step.commit();
  };
  await advance([21]);
  for (let i = 0; i < 3; i++) await advance([1]);
  sequences.push(sequences[0].fork());
  for (let i = 0; i < 3; i++) await advance([1, 2]);
  sequences[1].truncate(10);
  await advance([1, 18]);
  return results;
}

test('gives what the CPU gives, and holds the same bytes', async () => {
  const [cpu, gpu] = [new KvCache(wasmBackend(), options), new KvCache(backend, options)];
  const [expected, actual] = [await run(cpu), await run(gpu)];
  for (const [i, result] of actual.entries()) {
    const error = attentionError(result, expected[i], 16);
    ok(error.out < 1e-4 && error.lse < 1e-4, `result ${i}: ${error.out}, ${error.lse}`);
  }
  for (let layer = 0; layer < 2; layer++) equal(await gpu.pages(layer).export(), await cpu.pages(layer).export());
  gpu.dispose();
});

test('steps recorded into an encoder give the same bits', async () => {
  const own = await openVariant([]);
  const { device } = own;
  const [plain, recorded] = [new KvCache(own, options), new KvCache(own, options)];
  const numbers = random(2);
  const buffers: GPUBuffer[] = [];
  const bufferOf = (data: Float32Array<ArrayBuffer>): GPUBuffer => {
    const buffer = device.createBuffer({ size: data.byteLength, usage: usage.storage | usage.copyDst | usage.copySrc });
    device.queue.writeBuffer(buffer, 0, data);
    buffers.push(buffer);
    return buffer;
  };
  await recorded.warm();
  const sequences = [plain, recorded].map((cache) => cache.createSequence());
  for (const tokens of [18, 1, 1]) {
    const step = plain.begin([{ sequence: sequences[0], tokens }]);
    const other = recorded.begin([{ sequence: sequences[1], tokens }]);
    const encoder = device.createCommandEncoder();
    const pairs: [AttendResult, GPUBuffer][] = [];
    throws(() => other.recordAttend(encoder, 0, buffers[0], { out: buffers[0] }), /"recordAttend" expected layer 0 to have been appended to in this step/);
    for (let layer = 0; layer < 2; layer++) {
      const [key, value, q] = [kvFloats, kvFloats, qFloats].map((floats) => numbers.normals(tokens * floats) as Float32Array<ArrayBuffer>);
      await step.append(layer, key, value);
      const out = bufferOf(new Float32Array(tokens * qFloats));
      pairs.push([await step.attend(layer, q), out]);
      other.recordAppend(encoder, layer, bufferOf(key), bufferOf(value));
      other.recordAttend(encoder, layer, bufferOf(q), { out });
    }
    const result = device.createBuffer({ size: tokens * qFloats * 4 * 2, usage: usage.mapRead | usage.copyDst });
    for (const [i, [, out]] of pairs.entries()) encoder.copyBufferToBuffer(out, 0, result, i * out.size, out.size);
    device.queue.submit([encoder.finish()]);
    await result.mapAsync(1);
    for (const [i, [{ out }]] of pairs.entries()) assertSameBits(new Float32Array(result.getMappedRange(i * out.byteLength, out.byteLength).slice(0)), out, `layer ${i}`);
    step.commit();
    other.commit();
  }
  is(sequences[1].length, 20);
  for (let layer = 0; layer < 2; layer++) equal(await recorded.pages(layer).export(), await plain.pages(layer).export());
  own.dispose();
});

test('recording is for WebGPU, and warming for whoever has something to compile', async () => {
  const cache = new KvCache(wasmBackend(), options);
  await cache.warm();
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  throws(() => step.recordAppend(undefined as never, 0, undefined as never, undefined as never), /a step expected a WebGPU backend to record with, got one of kind wasm/);
});

test('a call of a step that is refused takes nothing back of those before it', async () => {
  const cache = new KvCache(backend, options);
  await cache.warm();
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  const x = new Float32Array(kvFloats).fill(1);
  for (let layer = 0; layer < 2; layer++) {
    await step.append(layer, x, x);
    const refused = await Promise.resolve(step.append(layer, x.subarray(1), x)).then(() => '', (error: Error) => error.message);
    ok(refused.startsWith('"key" expected 1 tokens'), refused);
  }
  const encoder = backend.device.createCommandEncoder();
  const tensor = (floats: number) => backend.device.createBuffer({ size: 4 * floats, usage: 0x80 });
  throws(() => step.recordAttend(encoder, 0, tensor(qFloats), undefined as never), /"options" expected \{ out \}, got undefined/);
  throws(() => step.recordAppend(encoder, 0, tensor(kvFloats), tensor(kvFloats), 'f16' as never), /"options" expected an object, got "f16"/);
  throws(() => step.recordAppend({} as never, 0, tensor(kvFloats), tensor(kvFloats)), /"encoder" expected a GPUCommandEncoder, got Object/);
  await step.attend(0, new Float32Array(qFloats));
  step.commit();
  cache.dispose();
});

test('what WebGPU refuses is an error, and not what lay there before', async () => {
  const own = await openVariant([]);
  const cache = new KvCache(own, { ...options, layers: 1 });
  await run(cache);
  const pages = cache.pages(0) as ReturnType<WebgpuBackend['createPages']>;
  const tensors = await pages.export();
  const q = new Float32Array(qFloats);
  const [out, lse] = [new Float32Array(qFloats).fill(9), new Float32Array(4).fill(9)];
  const x = new Float32Array(kvFloats);
  const calls: { readonly [name: string]: () => Promise<unknown> } = {
    export: () => pages.export(),
    import: () => pages.import(tensors),
    append: () => own.append({ pages, key: x, value: x, slotMapping: Int32Array.of(0) }),
    attend: () => own.attend({ pages, q, blockTable: Int32Array.of(0), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(1), out, lse }),
  };
  for (const call of Object.values(calls)) await call();
  out.fill(9);
  lse.fill(9);
  pages.buffer.destroy();
  for (const [name, call] of Object.entries(calls)) {
    let message = '';
    await call().catch((error: Error) => (message = error.message));
    ok(/WebGPU refused the call/.test(message), `${name}: ${message}`);
  }
  ok(out.every((value) => value === 9) && lse.every((value) => value === 9), 'results that were refused');
  own.dispose();
});

test('a checkpoint of scattered pages goes through few buffers', async () => {
  const { device, counts } = counted(backend.device);
  const few = await webgpuBackend({ device, optionalFeatures: [] });
  const cache = new KvCache(few, { layers: 1, kvHeads: 1, headDim: 8, blockSize: 1, capacity: 200 });
  const sequences = [cache.createSequence(), cache.createSequence()];
  for (let i = 0; i < 100; i++) {
    for (const sequence of sequences) {
      const step = cache.begin([{ sequence, tokens: 1 }]);
      await step.append(0, random(i).normals(8), random(i).normals(8));
      step.commit();
    }
  }
  sequences[0].free();
  const before = counts.buffers;
  is((await cache.checkpoint()).sequences[0].state.length, 100);
  ok(counts.buffers - before <= 8, `${counts.buffers - before} buffers`);
  few.dispose();
});
