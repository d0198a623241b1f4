import { ok, throws } from 'uvu/assert';
import { mergeStates, pageLayout, type RecordMergeStatesCall } from '../../src/index.js';
import { attentionError } from '../../src/files/compare.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { usage } from '../../src/webgpu/constants.js';
import { assertSameBits } from '../bits.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`merge states, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
  await backend.warm(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 8 }), { maxSeqlenQ: 1, mergeStates: true });
});
test.after(() => backend.dispose());

function bufferOf(data: Float32Array): GPUBuffer {
  const buffer = backend.device.createBuffer({ size: data.byteLength, usage: usage.storage | usage.copyDst | usage.copySrc });
  backend.device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>);
  return buffer;
}

type State = { readonly out: Float32Array; readonly lse: Float32Array };

function callOf(a: State, b: State, headDim: number): RecordMergeStatesCall & { out: GPUBuffer; lse: GPUBuffer } {
  const [outA, lseA, outB, lseB, out, lse] = [a.out, a.lse, b.out, b.lse, new Float32Array(a.out.length), new Float32Array(a.lse.length)].map(bufferOf);
  return { outA, lseA, outB, lseB, out, lse, rows: a.lse.length, headDim };
}

async function merged(a: State, b: State, headDim: number): Promise<State> {
  const { device } = backend;
  const call = callOf(a, b, headDim);
  const results = device.createBuffer({ size: a.out.byteLength + a.lse.byteLength, usage: usage.mapRead | usage.copyDst });
  const encoder = device.createCommandEncoder();
  backend.recordMergeStates(encoder, call);
  encoder.copyBufferToBuffer(call.out, 0, results, 0, a.out.byteLength);
  encoder.copyBufferToBuffer(call.lse, 0, results, a.out.byteLength, a.lse.byteLength);
  device.queue.submit([encoder.finish()]);
  await results.mapAsync(1);
  const values = new Float32Array(results.getMappedRange().slice(0));
  return { out: values.subarray(0, a.out.length), lse: values.subarray(a.out.length) };
}

test('as on the CPU', async () => {
  const numbers = random(1);
  const state = (): State => ({ out: numbers.normals(300 * 24), lse: numbers.normals(300, 20) });
  const [a, b] = [state(), state()];
  const error = attentionError(await merged(a, b, 24), mergeStates(a.out, a.lse, b.out, b.lse), 24);
  ok(error.out < 1e-5 && error.lse < 1e-6, `out ${error.out}, lse ${error.lse}`);
});

test('a part that saw nothing leaves the other as it is, and NaN stays NaN', async () => {
  const nothing = { out: new Float32Array(24), lse: new Float32Array(3).fill(-Infinity) };
  const some = { out: random(2).normals(24), lse: Float32Array.of(700, -700, 12) };
  for (const { out, lse } of [await merged(nothing, some, 8), await merged(some, nothing, 8)]) {
    assertSameBits(out, some.out);
    assertSameBits(lse, some.lse);
  }
  const broken = { out: new Float32Array(24).fill(NaN), lse: Float32Array.of(NaN, 0, Infinity) };
  const { out, lse } = await merged(broken, { ...some, lse: Float32Array.of(0, 0, 0) }, 8);
  ok(out.subarray(0, 8).every(Number.isNaN) && Number.isNaN(lse[0]) && out.subarray(16).every(Number.isNaN) && !Number.isNaN(lse[1]));
});

test('bad arguments are refused by name', () => {
  const state = { out: new Float32Array(16), lse: new Float32Array(2) };
  const call = callOf(state, state, 8);
  const encoder = backend.device.createCommandEncoder();
  throws(() => backend.recordMergeStates(encoder, { ...call, rows: 3 }), /"outA" expected at least 96 bytes, got 64/);
  throws(() => backend.recordMergeStates(encoder, { ...call, headDim: 10 }), /"headDim \/ 4" expected an integer from 2 to 64/);
  throws(() => backend.recordMergeStates(encoder, { ...call, out: call.outA }), /"out" expected a buffer that is not read/);
});
