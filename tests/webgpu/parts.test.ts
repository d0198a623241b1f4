/** Keys in several places, on a GPU: calls with typed arrays, and recorded ones. */
import { equal, is, ok, throws } from 'uvu/assert';
import { pageLayout } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { usage } from '../../src/webgpu/constants.js';
import { assertReference, attentions, splitCache, testAttendParts, testContextLens, wholeRange } from '../attention-parts.js';
import { assertSameBits } from '../bits.js';
import { poison } from '../fixture.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { testOrders } from '../page-orders.js';
import { random } from '../random.js';
import { assertSameTensors, expectedOf, filled, settings, testRequantize } from '../requantize.js';
import { suite } from '../suite.js';

const test = suite(`parts, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

testContextLens(test, () => backend);
testAttendParts(test, () => backend);
testOrders(test, () => backend);
testRequantize(test, () => backend);

function bufferOf(data: Float32Array | Int32Array, more: number = usage.copySrc): GPUBuffer {
  const buffer = backend.device.createBuffer({ size: data.byteLength, usage: usage.storage | usage.copyDst | more });
  backend.device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>);
  return buffer;
}

async function read(buffer: GPUBuffer): Promise<Float32Array> {
  const { device } = backend;
  const result = device.createBuffer({ size: buffer.size, usage: usage.mapRead | usage.copyDst });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, result, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await result.mapAsync(1);
  return new Float32Array(result.getMappedRange().slice(0));
}

function submit(record: (encoder: GPUCommandEncoder) => void): void {
  const encoder = backend.device.createCommandEncoder();
  record(encoder);
  backend.device.queue.submit([encoder.finish()]);
}

const fine = { badSlot: false, badPage: false, badLength: false };
const layout = pageLayout({ kvHeads: 1, headDim: 8, blockSize: 4 });

/** 24 tokens, and a call of one sequence with few rows and one with many. */
async function prepared(seed: number) {
  await backend.warm(layout);
  const numbers = random(seed);
  const pages = backend.createPages(layout, 6);
  const x = numbers.normals(24 * 8);
  await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 24 }, (_, i) => i) });
  const tables = { blockTable: Int32Array.of(0, 1, 2, 3, 4, 5), cuSeqlensQ: Int32Array.of(0, 1, 21), seqUsedK: Int32Array.of(12, 10) };
  return { pages, tables, q: numbers.normals(21 * 8), options: { windowLeft: 9, alibiSlopes: Float32Array.of(0.2) } };
}

test('recorded with contexts: the bits of the call with typed arrays, wherever the tables lie', async () => {
  const { pages, tables, q, options } = await prepared(1);
  const query = bufferOf(q);
  const contexts = [Int32Array.of(12, 10), Int32Array.of(14, 19), Int32Array.of(22, 13)];
  const onGpu = { blockTable: bufferOf(tables.blockTable), cuSeqlensQ: bufferOf(tables.cuSeqlensQ), seqUsedK: bufferOf(tables.seqUsedK), sequences: 2, maxBlocks: 3, totalQ: 21, maxSeqlenQ: 20 };
  for (const isOnGpu of [false, true]) {
    const [outs, lses] = [contexts.map(() => bufferOf(new Float32Array(21 * 8))), contexts.map(() => bufferOf(new Float32Array(21)))];
    // In one encoder: each call finds its own lengths.
    submit((encoder) => {
      for (const [i, lengths] of contexts.entries()) {
        const call = { ...options, pages, q: query, queryHeads: 1, out: outs[i], lse: lses[i] };
        backend.recordAttend(encoder, isOnGpu ? { ...call, ...onGpu, contextLens: bufferOf(lengths) } : { ...call, ...tables, contextLens: lengths });
      }
    });
    for (const [i, contextLens] of contexts.entries()) {
      const expected = await backend.attend({ ...options, ...tables, pages, q, contextLens });
      assertSameBits(await read(outs[i]), expected.out, `${isOnGpu ? 'GPU' : 'host'}, call ${i}`);
      assertSameBits(await read(lses[i]), expected.lse, `${isOnGpu ? 'GPU' : 'host'}, call ${i}, lse`);
    }
  }
  equal(await backend.readStatus(), fine);
  pages.dispose();
});

test('bad contexts on the GPU are left out, and the status word says so', async () => {
  const { pages, tables, q, options } = await prepared(2);
  const call = { ...options, pages, q: bufferOf(q), queryHeads: 1, sequences: 2, maxBlocks: 3, totalQ: 21, maxSeqlenQ: 20 };
  const onGpu = { blockTable: bufferOf(tables.blockTable), cuSeqlensQ: bufferOf(tables.cuSeqlensQ), seqUsedK: bufferOf(tables.seqUsedK) };
  for (const bad of [[11, 10], [12, 9], [-1, 10], [12, 2 ** 30], [0x7fffffff, -0x80000000]]) {
    const out = bufferOf(new Float32Array(21 * 8).fill(9));
    submit((encoder) => backend.recordAttend(encoder, { ...call, ...onGpu, contextLens: bufferOf(Int32Array.from(bad)), out }));
    const values = await read(out);
    const isBad = [bad[0] < 12 || bad[0] >= 2 ** 30, bad[1] < 10 || bad[1] >= 2 ** 30];
    is(values.subarray(0, 8).every((value) => value === 0), isBad[0], `${bad}`);
    is(values.subarray(20 * 8).every((value) => value === 0), isBad[1], `${bad}`);
    equal(await backend.readStatus(), { ...fine, badLength: true }, `${bad}`);
  }
  // No keys, and what is no length either.
  submit((encoder) => backend.recordAttend(encoder, { ...call, ...onGpu, seqUsedK: bufferOf(Int32Array.of(0, 0)), contextLens: bufferOf(Int32Array.of(-5, 0)), out: bufferOf(new Float32Array(21 * 8)) }));
  equal(await backend.readStatus(), { ...fine, badLength: true });
  // Pages before the window of the first row need not be there; others must.
  for (const [page, badPage] of [[0, false], [1, true]] as const) {
    const blockTable = bufferOf(tables.blockTable.slice().fill(-1, page, page + 1));
    submit((encoder) => backend.recordAttend(encoder, { ...call, ...onGpu, blockTable, contextLens: bufferOf(Int32Array.of(14, 30)), out: bufferOf(new Float32Array(21 * 8)) }));
    equal(await backend.readStatus(), { ...fine, badPage }, `page ${page}`);
  }
  pages.dispose();
});

test('contexts that cannot be copied, or lie elsewhere than the other tables, are refused by name', async () => {
  const { pages, tables, q } = await prepared(3);
  const out = bufferOf(new Float32Array(21 * 8));
  const call = { pages, q: bufferOf(q), queryHeads: 1, out };
  const onGpu = { blockTable: bufferOf(tables.blockTable), cuSeqlensQ: bufferOf(tables.cuSeqlensQ), seqUsedK: bufferOf(tables.seqUsedK), sequences: 2, maxBlocks: 3, totalQ: 21 };
  const contextLens = Int32Array.of(12, 10);
  submit((encoder) => {
    throws(() => backend.recordAttend(encoder, { ...call, ...tables, contextLens: bufferOf(contextLens) }), /"blockTable" expected a GPUBuffer, or \{ buffer, offset \}, as "contextLens" is/);
    throws(() => backend.recordAttend(encoder, { ...call, ...onGpu, contextLens }), /"contextLens" expected a GPUBuffer, or \{ buffer, offset \}, as "blockTable" is/);
    throws(() => backend.recordAttend(encoder, { ...call, ...onGpu, contextLens: bufferOf(contextLens, 0) }), /"contextLens" expected a buffer with the usage COPY_SRC where "contextLens" is given, got usage 136/);
    throws(() => backend.recordAttend(encoder, { ...call, ...onGpu, seqUsedK: bufferOf(tables.seqUsedK, 0), contextLens: bufferOf(contextLens) }), /"seqUsedK" expected a buffer with the usage COPY_SRC/);
    throws(() => backend.recordAttend(encoder, { ...call, ...onGpu, contextLens: bufferOf(contextLens.subarray(1)) }), /"contextLens" expected at least 8 bytes, got 4/);
    throws(() => backend.recordAttend(encoder, { ...call, ...tables, contextLens: Int32Array.of(12, 9) }), /"contextLens\[1\]" expected an integer from 10/);
  });
  ok((await read(out)).every((value) => value === 0));
  pages.dispose();
});

test('requantize recorded: the bytes of append, several times in one encoder', async () => {
  const { k: _k, v: _v, ...how } = settings[1];
  const made = await Promise.all([4, 5].map((fromBlock) => filled(backend, 'f16', fromBlock, 8, settings[1])));
  const all = made.map(({ layout: to, count }) => backend.createPages(to, count));
  for (const [i, pages] of all.entries()) {
    await pages.import(poison(pages.layout, made[i].count));
    await backend.warm(pages.layout, { maxSeqlenQ: 1 });
  }
  submit((encoder) => {
    throws(() => backend.recordRequantize(encoder, { ...how, ...made[0].call, from: made[0].from, pages: all[0], fromPages: [9] }), /"fromPages\[0\]" expected an integer from 0 to 5/);
    for (const [i, pages] of all.entries()) backend.recordRequantize(encoder, { ...how, ...made[i].call, from: made[i].from, pages });
  });
  for (const [i, pages] of all.entries()) assertSameTensors(await pages.export(), expectedOf(made[i], 'f16', settings[1]), `call ${i}`);
  const [other] = made;
  const unknown = pageLayout({ kvHeads: 3, headDim: 24, blockSize: 8, k: { dtype: 'e5m2' }, v: { dtype: 'int8' } });
  submit((encoder) => {
    throws(() => backend.recordRequantize(encoder, { ...other.call, from: other.from, pages: backend.createPages(unknown, 9) }), /expected to be compiled before it is recorded: await backend\.warm/);
  });
  for (const pages of [...all, ...made.map(({ from }) => from)]) pages.dispose();
});

test('parts recorded, two layers in one encoder: their keys against float64', async () => {
  await backend.warm(layout, { maxSeqlenQ: 1, mergeStates: true });
  for (const [index, attention] of attentions.entries()) {
    const layers = [await splitCache(backend, random(800 + index)), await splitCache(backend, random(810 + index))];
    for (const { pages } of layers[0].caches) await backend.warm(pages.layout, { queryHeads: 6 });
    for (const count of [3, 1]) {
      const results = layers.map(({ q }) => ({ out: bufferOf(new Float32Array(q.length)), lse: bufferOf(new Float32Array(q.length / 24)) }));
      submit((encoder) => {
        for (const [i, { q, calls }] of layers.entries()) {
          const parts = calls(attention).map((call) => ({ ...call, q: bufferOf(q), queryHeads: 6, outDtype: 'f32' as const }));
          backend.recordAttendParts(encoder, parts.slice(-count).map((part) => ({ ...part, ...results[i] })));
        }
      });
      for (const [i, split] of layers.entries()) {
        const actual = { out: await read(results[i].out), lse: await read(results[i].lse) };
        if (count === 3) assertReference(split, actual, attention, wholeRange, `${Object.keys(attention)}, layer ${i}`);
        else assertSameBits(actual.out, (await backend.attend(split.calls(attention)[2])).out, 'one part is attention as it is');
      }
    }
    for (const { pages } of layers.flatMap(({ caches }) => caches)) pages.dispose();
  }
  equal(await backend.readStatus(), fine);
});

test('parts that do not fit are refused by name, and kernels that are missing are not compiled while recording', async () => {
  const other = await openVariant([]);
  const pages = other.createPages(layout, 1);
  await other.warm(layout);
  const buffers = [2 * 8, 2 * 8].map((floats) => other.device.createBuffer({ size: 4 * floats, usage: usage.storage }));
  const part = { pages, q: buffers[0], out: buffers[1], queryHeads: 1, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(2) };
  const encoder = other.device.createCommandEncoder();
  throws(() => other.recordAttendParts(encoder, [part, part]), /expected to be compiled before it is recorded: await backend\.warm/);
  await other.warm(layout, { mergeStates: true });
  throws(() => other.recordAttendParts(encoder, [part, { ...part, outDtype: 'f16' }]), /"outDtype" expected f32 where keys lie in 2 places/);
  throws(() => other.recordAttendParts(encoder, [part, { ...part, cuSeqlensQ: Int32Array.of(0, 2) }]), /"parts" expected the same rows, \[1, 1, 8\], in each, got \[2, 1, 8\]/);
  throws(() => other.recordAttendParts(encoder, [0, 1].map(() => ({ ...part, out: part.q }))), /"out" expected a buffer that is not read/);
  other.recordAttendParts(encoder, [part, part]);
  other.device.pushErrorScope('validation');
  other.device.queue.submit([encoder.finish()]);
  is(await other.device.popErrorScope(), null);
  other.dispose();
});
