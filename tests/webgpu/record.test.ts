/** What engines do: they record into encoders of their own, with buffers of their own. */
import { equal, is, ok, throws } from 'uvu/assert';
import { pageLayout, wasmBackend, type AttendResult, type PageLayout } from '../../src/index.js';
import { usage } from '../../src/webgpu/constants.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { webgpuBackend } from '../../src/webgpu/open.js';
import { attentionError } from '../../src/files/compare.js';
import { assertSameBits } from '../bits.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { counted } from '../gpu/counted.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`record, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
let device: GPUDevice;
test.before(async () => {
  backend = await openVariant([]);
  ({ device } = backend);
});
test.after(() => backend.dispose());

const shape = { kvHeads: 2, headDim: 16, blockSize: 4 };
const layout: PageLayout = pageLayout(shape);
const queryHeads = 4;
const rowFloats = queryHeads * shape.headDim;
const tokenFloats = shape.kvHeads * shape.headDim;

/** A buffer with these contents, beginning at an offset. */
function bufferOf(on: GPUDevice, data: Float32Array | Int32Array, offset = 0): GPUBufferBinding {
  const buffer = on.createBuffer({ size: offset + data.byteLength, usage: usage.storage | usage.copyDst | usage.copySrc });
  on.queue.writeBuffer(buffer, offset, data as Float32Array<ArrayBuffer>);
  return { buffer, offset };
}

function emptyBuffer(on: GPUDevice, floats: number, offset = 0): GPUBufferBinding {
  return { buffer: on.createBuffer({ size: offset + floats * 4, usage: usage.storage | usage.copySrc | usage.copyDst }), offset };
}

async function read({ buffer, offset = 0 }: GPUBufferBinding, floats: number): Promise<Float32Array> {
  const result = device.createBuffer({ size: floats * 4, usage: usage.mapRead | usage.copyDst });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, offset, result, 0, floats * 4);
  device.queue.submit([encoder.finish()]);
  await result.mapAsync(1);
  const values = new Float32Array(result.getMappedRange().slice(0));
  result.destroy();
  return values;
}

test('a kernel that was not compiled is not compiled while recording: the error says what to do', async () => {
  const other = await openVariant([]);
  const pages = other.createPages(layout, 2);
  const encoder = other.device.createCommandEncoder();
  const key = bufferOf(other.device, new Float32Array(tokenFloats));
  throws(() => other.recordAppend(encoder, { pages, key, value: key, slotMapping: Int32Array.of(0) }), /expected to be compiled before it is recorded: await backend\.warm/);
  await other.warm(layout, { queryHeads });
  other.recordAppend(encoder, { pages, key, value: key, slotMapping: Int32Array.of(0) });
  other.dispose();
});

test('two steps in one encoder equal the same two run apart', async () => {
  await backend.warm(layout, { queryHeads });
  const numbers = random(1);
  const tokens = [numbers.normals(tokenFloats), numbers.normals(tokenFloats)];
  const queries = [numbers.normals(rowFloats), numbers.normals(rowFloats)];
  const blockTable = Int32Array.of(1, 0);
  const apart: AttendResult[] = [];
  const pages = backend.createPages(layout, 2);
  for (const [i, x] of tokens.entries()) {
    await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.of(blockTable[0] * 4 + i) });
    apart.push(await backend.attend({ pages, q: queries[i], blockTable, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(i + 1) }));
  }
  const together = backend.createPages(layout, 2);
  const outs = tokens.map(() => emptyBuffer(device, rowFloats, 256));
  const lses = tokens.map(() => emptyBuffer(device, queryHeads, 512));
  const encoder = device.createCommandEncoder();
  for (const [i, x] of tokens.entries()) {
    const key = bufferOf(device, x, 256 * (i + 1));
    backend.recordAppend(encoder, { pages: together, key, value: key, slotMapping: Int32Array.of(blockTable[0] * 4 + i) });
    backend.recordAttend(encoder, {
      pages: together, q: bufferOf(device, queries[i], 1024), queryHeads, blockTable, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(i + 1), out: outs[i], lse: lses[i],
    });
  }
  device.queue.submit([encoder.finish()]);
  for (const [i, { out, lse }] of apart.entries()) {
    assertSameBits(await read(outs[i], rowFloats), out, `step ${i}`);
    assertSameBits(await read(lses[i], queryHeads), lse, `step ${i}, lse`);
  }
  equal(await together.export(), await pages.export());
});

test('200 steps with tables on the GPU: no pipeline, no readback, no submit of ours, and no buffer is left', async () => {
  const own = await (await gpu!.requestAdapter())!.requestDevice();
  const { device: wrapped, counts } = counted(own);
  const borrowed = await webgpuBackend({ device: wrapped, optionalFeatures: [] });
  await borrowed.warm(layout, { queryHeads, maxSeqlenQ: 1 });
  const steps = 200;
  const sequences = 2;
  const maxBlocks = steps / 4;
  const pages = borrowed.createPages(layout, sequences * maxBlocks);
  const numbers = random(2);
  const x = numbers.normals(sequences * tokenFloats);
  const q = numbers.normals(sequences * rowFloats);
  const table = Int32Array.from({ length: sequences * maxBlocks }, (_, i) => (i % 2) * maxBlocks + (i >> 1));
  // The engine's own buffers are none of the backend's business.
  const input = { key: bufferOf(own, x), q: bufferOf(own, q), table: bufferOf(own, table), cu: bufferOf(own, Int32Array.of(0, 1, 2)), slots: emptyBuffer(own, 2), used: emptyBuffer(own, 2) };
  const [out, lse] = [emptyBuffer(own, sequences * rowFloats), emptyBuffer(own, sequences * queryHeads)];
  const alibiSlopes = Float32Array.of(0.3, 0.1, 0.03, 0.01);
  const pageOf = (sequence: number, block: number): number => table[sequence * maxBlocks + block];
  const before = { ...counts };
  for (let step = 0; step < steps; step++) {
    own.queue.writeBuffer(input.slots.buffer, 0, Int32Array.from({ length: 2 }, (_, s) => pageOf(s, step >> 2) * 4 + (step & 3)));
    own.queue.writeBuffer(input.used.buffer, 0, Int32Array.of(step + 1, step + 1));
    const encoder = wrapped.createCommandEncoder();
    borrowed.recordAppend(encoder, { pages, key: input.key, value: input.key, slotMapping: input.slots, tokens: 2 });
    borrowed.recordAttend(encoder, {
      pages, q: input.q, queryHeads, totalQ: 2, sequences, maxBlocks, maxSeqlenQ: 1, blockTable: input.table, cuSeqlensQ: input.cu, seqUsedK: input.used, alibiSlopes, out, lse,
    });
    own.queue.submit([encoder.finish()]);
  }
  const { created, pipelines, modules, readbacks, submits } = counts;
  equal({ pipelines, modules, readbacks, submits }, { pipelines: before.pipelines, modules: before.modules, readbacks: before.readbacks, submits: before.submits });
  ok(created - before.created <= 2, `${created - before.created} buffers for 200 steps`);
  is(counts.dispatches - before.dispatches, 3 * steps, 'append, decode and merge');
  equal(await borrowed.readStatus(), { badSlot: false, badPage: false, badLength: false });

  const cpu = wasmBackend();
  const cpuPages = cpu.createPages(layout, sequences * maxBlocks);
  for (let step = 0; step < steps; step++) cpu.append({ pages: cpuPages, key: x, value: x, slotMapping: Int32Array.from({ length: 2 }, (_, s) => pageOf(s, step >> 2) * 4 + (step & 3)) });
  equal(await pages.export(), cpuPages.export());
  const expected = cpu.attend({ pages: cpuPages, q, blockTable: table, cuSeqlensQ: Int32Array.of(0, 1, 2), seqUsedK: Int32Array.of(steps, steps), alibiSlopes });
  const readOwn = async (from: GPUBufferBinding, floats: number): Promise<Float32Array> => {
    const result = own.createBuffer({ size: floats * 4, usage: usage.mapRead | usage.copyDst });
    const encoder = own.createCommandEncoder();
    encoder.copyBufferToBuffer(from.buffer, 0, result, 0, floats * 4);
    own.queue.submit([encoder.finish()]);
    await result.mapAsync(1);
    return new Float32Array(result.getMappedRange().slice(0));
  };
  const actual = { out: await readOwn(out, sequences * rowFloats), lse: await readOwn(lse, sequences * queryHeads) };
  const error = attentionError(actual, expected, shape.headDim);
  ok(error.out < 1e-4 && error.lse < 1e-4, `${error.out} ${error.lse}`);

  borrowed.dispose();
  is(counts.buffers, 0, 'buffers that are left');
  // The device is still its owner's.
  own.createBuffer({ size: 4, usage: usage.storage });
  own.destroy();
});

test('ranges of one buffer, tables there too, are told apart; and more buffers than bind groups are kept for', async () => {
  await backend.warm(layout, { queryHeads });
  const numbers = random(6);
  const calls = 40;
  const [x, q] = [numbers.normals(4 * tokenFloats), numbers.normals(4 * rowFloats)];
  // Every 256 bytes: the keys of two tokens, the queries of one, or a table: cuSeqlensQ, then a seqUsedK and a slot of each call.
  const [keys, queries] = [bufferOf(device, x), bufferOf(device, q)];
  const tables = new Int32Array(9 * 64);
  tables[1] = 1;
  for (let i = 0; i < 4; i++) {
    tables[(1 + i) * 64] = i + 1;
    tables[(5 + i) * 64] = i;
  }
  const { buffer } = bufferOf(device, tables);
  const at = (tensor: GPUBufferBinding, i: number): GPUBufferBinding => ({ buffer: tensor.buffer, offset: 256 * i });
  const pages = backend.createPages(layout, 1);
  // Two calls share one.
  const outs = Array.from({ length: calls / 2 }, () => emptyBuffer(device, 2 * rowFloats));
  const encoder = device.createCommandEncoder();
  for (let i = 0; i < calls; i++) {
    const n = i % 4;
    if (i < 4) backend.recordAppend(encoder, { pages, key: at(keys, n >> 1), value: at(keys, n >> 1), slotMapping: at({ buffer }, 5 + n), tokens: 1 });
    backend.recordAttend(encoder, {
      pages, q: at(queries, n), queryHeads, totalQ: 1, sequences: 1, maxBlocks: 1, maxSeqlenQ: 1, out: at(outs[i >> 1], i % 2),
      cuSeqlensQ: { buffer, offset: 0 }, seqUsedK: at({ buffer }, 1 + n), blockTable: at({ buffer }, 5),
    });
  }
  device.queue.submit([encoder.finish()]);
  equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: false });
  const cpu = wasmBackend();
  const cpuPages = cpu.createPages(layout, 1);
  const expected = Array.from({ length: 4 }, (_, n) => {
    const row = x.subarray((n >> 1) * 64, (n >> 1) * 64 + tokenFloats);
    cpu.append({ pages: cpuPages, key: row, value: row, slotMapping: Int32Array.of(n) });
    return cpu.attend({ pages: cpuPages, q: q.subarray(n * rowFloats, (n + 1) * rowFloats), blockTable: Int32Array.of(0), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(n + 1) });
  });
  equal(await pages.export(), cpuPages.export());
  for (let i = 0; i < calls; i++) {
    const out = await read(at(outs[i >> 1], i % 2), rowFloats);
    const error = attentionError({ out, lse: expected[i % 4].lse }, expected[i % 4], shape.headDim);
    ok(error.out < 1e-4, `call ${i}: ${error.out}`);
  }
});

test('a table that changes between two calls is the one of each call; a sink of -0 is not 0\'s', async () => {
  await backend.warm(layout, { queryHeads });
  const pages = backend.createPages(layout, 2);
  const numbers = random(8);
  const x = numbers.normals(8 * tokenFloats);
  await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 8 }, (_, i) => i) });
  const q = numbers.normals(rowFloats);
  const [query, table, used, sinks] = [bufferOf(device, q), Int32Array.of(0, 1), Int32Array.of(3), new Float32Array(queryHeads)];
  const call = { pages, blockTable: table, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: used, sinks, windowLeft: 0, windowRight: 0 };
  const encoder = device.createCommandEncoder();
  const [outs, lses] = [[0, 1, 2].map(() => emptyBuffer(device, rowFloats)), [0, 1, 2].map(() => emptyBuffer(device, queryHeads))];
  const expected: AttendResult[] = [];
  const changes = [(): void => {}, () => table.set([1, 0]), () => { used[0] = 7; sinks.fill(-Infinity); }];
  for (const [i, change] of changes.entries()) {
    change();
    backend.recordAttend(encoder, { ...call, queryHeads, q: query, out: outs[i], lse: lses[i] });
    expected.push(await backend.attend({ ...call, q }));
  }
  device.queue.submit([encoder.finish()]);
  for (const [i, { out, lse }] of expected.entries()) {
    assertSameBits(await read(outs[i], rowFloats), out, `call ${i}`);
    assertSameBits(await read(lses[i], queryHeads), lse, `call ${i}, lse`);
  }
  // What no row sees leaves the sink itself.
  const lse = emptyBuffer(device, queryHeads);
  for (const sink of [0, -0, NaN, 0]) {
    const recording = device.createCommandEncoder();
    backend.recordAttend(recording, { ...call, queryHeads, seqUsedK: Int32Array.of(0), q: query, out: outs[0], lse, sinks: new Float32Array(queryHeads).fill(sink) });
    device.queue.submit([recording.finish()]);
    assertSameBits(await read(lse, queryHeads), new Float32Array(queryHeads).fill(sink), `a sink of ${Object.is(sink, -0) ? '-0' : sink}`);
  }
});

test('parameters of many calls recorded before the first is submitted do not mix', async () => {
  await backend.warm(layout, { queryHeads });
  const pages = backend.createPages(layout, 2);
  const numbers = random(3);
  const x = numbers.normals(8 * tokenFloats);
  await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 8 }, (_, i) => i) });
  const q = numbers.normals(rowFloats);
  const tables = { blockTable: Int32Array.of(0, 1), cuSeqlensQ: Int32Array.of(0, 1) };
  const outs = Array.from({ length: 8 }, () => emptyBuffer(device, rowFloats));
  const encoder = device.createCommandEncoder();
  const query = bufferOf(device, q);
  // Enough for several of the buffers in which parameters lie.
  for (let i = 0; i < 2400; i++) {
    backend.recordAttend(encoder, { pages, q: query, queryHeads, ...tables, seqUsedK: Int32Array.of(1 + (i % 8)), out: outs[i % 8] });
  }
  device.queue.submit([encoder.finish()]);
  for (const [i, out] of outs.entries()) {
    const expected = await backend.attend({ pages, q, ...tables, seqUsedK: Int32Array.of(1 + i) });
    assertSameBits(await read(out, rowFloats), expected.out, `${1 + i} keys`);
  }
});

test('the layers of a step share a table of any size', async () => {
  await backend.warm(layout, { queryHeads });
  const pages = backend.createPages(layout, 2);
  const [x, q] = [random(9).normals(8 * tokenFloats), random(10).normals(rowFloats)];
  await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 8 }, (_, i) => i) });
  for (const [entries, layers] of [[2 ** 16 + 1, 5000], [2 ** 19, 40], [2 ** 20, 40]]) {
    const out = emptyBuffer(device, rowFloats);
    const call = { pages, blockTable: new Int32Array(entries).fill(1, 0, 1), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(7) };
    const encoder = device.createCommandEncoder();
    const query = bufferOf(device, q);
    // Windows that differ are parameters that do: 5000 fill more than one buffer.
    for (let layer = 0; layer < layers; layer++) backend.recordAttend(encoder, { ...call, windowLeft: layers - layer, q: query, queryHeads, out });
    device.queue.submit([encoder.finish()]);
    const expected = await backend.attend({ ...call, windowLeft: 1, q });
    assertSameBits(await read(out, rowFloats), expected.out, `${entries} entries`);
  }
});

test('an encoder that waits until its parameters are gone cannot be submitted, instead of computing with others', async () => {
  await backend.warm(layout, { queryHeads });
  const pages = backend.createPages(layout, 2);
  const q = bufferOf(device, new Float32Array(rowFloats));
  const out = emptyBuffer(device, rowFloats);
  // Tables that differ only where no call looks.
  const record = (_: unknown, i: number): GPUCommandEncoder => {
    const encoder = device.createCommandEncoder();
    backend.recordAttend(encoder, { pages, q, queryHeads, blockTable: new Int32Array(2 ** 20).fill(i, 5, 6), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(1), out });
    return encoder;
  };
  const encoders = Array.from({ length: 7 }, record);
  const [first, last] = [encoders[0], encoders[6]];
  const submitted = async (encoder: GPUCommandEncoder): Promise<boolean> => {
    device.pushErrorScope('validation');
    device.queue.submit([encoder.finish()]);
    return (await device.popErrorScope()) === null;
  };
  ok(await submitted(last));
  ok(!(await submitted(first)));
});

test('bad entries in tables on the GPU are left out, and the status word says so', async () => {
  await backend.warm(layout, { queryHeads });
  const pages = backend.createPages(layout, 6);
  const numbers = random(4);
  const x = numbers.normals(20 * tokenFloats);
  const key = bufferOf(device, x);
  const encoder = device.createCommandEncoder();
  // Tokens 3 and 5 belong nowhere; -7 is no error.
  const slots = Int32Array.from({ length: 20 }, (_, i) => (i === 3 ? 24 : i === 5 ? 0x7fffffff : i === 9 ? -7 : i));
  backend.recordAppend(encoder, { pages, key, value: key, slotMapping: bufferOf(device, slots), tokens: 20 });
  device.queue.submit([encoder.finish()]);
  equal(await backend.readStatus(), { badSlot: true, badPage: false, badLength: false });
  equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: false });
  const cpu = wasmBackend();
  const cpuPages = cpu.createPages(layout, 6);
  cpu.append({ pages: cpuPages, key: x, value: x, slotMapping: slots.map((slot) => (slot >= 24 ? -1 : slot)) });
  equal(await pages.export(), cpuPages.export());

  const attendWith = async (rows: number, maxBlocks: number, table: readonly number[], cu: readonly number[], used: readonly number[], more = {}): Promise<Float32Array> => {
    const q = numbers.normals(rows * rowFloats);
    const out = bufferOf(device, new Float32Array(rows * rowFloats).fill(9));
    const recording = device.createCommandEncoder();
    backend.recordAttend(recording, {
      pages, q: bufferOf(device, q), queryHeads, totalQ: rows, sequences: used.length, maxBlocks, out, ...more,
      blockTable: bufferOf(device, Int32Array.from(table)), cuSeqlensQ: bufferOf(device, Int32Array.from(cu)), seqUsedK: bufferOf(device, Int32Array.from(used)),
    });
    device.queue.submit([recording.finish()]);
    return read(out, rows * rowFloats);
  };
  const untouched = (out: Float32Array, row: number): boolean => out.subarray(row * rowFloats, (row + 1) * rowFloats).every((value) => value === 9);
  // Few rows are decoded, many prefilled.
  for (const rows of [1, 20]) {
    equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: false });
    const fine = await attendWith(rows, 2, [0, 1], [0, rows], [8]);
    ok(!untouched(fine, 0));
    equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: false });
    // A page that is not there: its keys are left out.
    const partly = await attendWith(rows, 2, [0, 77], [0, rows], [8]);
    ok(partly.every(Number.isFinite) && !untouched(partly, rows - 1));
    equal(await backend.readStatus(), { badSlot: false, badPage: true, badLength: false });
    await attendWith(rows, 2, [0, -1], [0, rows], [8]);
    equal(await backend.readStatus(), { badSlot: false, badPage: true, badLength: false });
    // More keys than the table has room for: as if there were none.
    const none = await attendWith(rows, 2, [0, 1], [0, rows], [9]);
    ok(none.every((value) => value === 0));
    equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: true });
    // Rows beyond q, and rows out of order: not computed.
    const beyond = await attendWith(rows, 2, [0, 1], [0, rows + 1], [8]);
    ok(untouched(beyond, 0));
    equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: true });
    const disorder = await attendWith(rows, 2, [0, 1, 2, 3], [rows, 0, rows], [8, 8]);
    ok(!untouched(disorder, 0));
    equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: true });
  }
  // More rows, or keys, than the call allows.
  ok(untouched(await attendWith(20, 2, [0, 1], [0, 20], [8], { maxSeqlenQ: 19 }), 0));
  ok((await attendWith(1, 2, [0, 1], [0, 1], [8], { maxSeqlenK: 7 })).every((value) => value === 0));
  equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: true });
});

test('a ragged batch with tables on the GPU, sinks there too, equals the call with typed arrays', async () => {
  await backend.warm(layout, { queryHeads });
  const pages = backend.createPages(layout, 16);
  const numbers = random(5);
  const x = numbers.normals(64 * tokenFloats);
  await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 64 }, (_, i) => i) });
  const lengths = [1, 30, 0, 3, 17];
  const cuSeqlensQ = Int32Array.of(0, 1, 31, 31, 34, 51);
  const seqUsedK = Int32Array.of(60, 30, 12, 2, 50);
  const blockTable = Int32Array.from({ length: 5 * 16 }, (_, i) => (i * 7) % 16);
  const q = numbers.normals(51 * rowFloats);
  const sinks = numbers.normals(queryHeads);
  const options = { windowLeft: 40, softcap: 5 };
  const expected = await backend.attend({ ...options, pages, q, blockTable, cuSeqlensQ, seqUsedK, sinks });
  const [out, lse] = [emptyBuffer(device, 51 * rowFloats), emptyBuffer(device, 51 * queryHeads)];
  const encoder = device.createCommandEncoder();
  backend.recordAttend(encoder, {
    ...options, pages, q: bufferOf(device, q), queryHeads, totalQ: 51, sequences: lengths.length, maxBlocks: 16, maxSeqlenQ: 30, out, lse,
    blockTable: bufferOf(device, blockTable), cuSeqlensQ: bufferOf(device, cuSeqlensQ), seqUsedK: bufferOf(device, seqUsedK), sinks: bufferOf(device, sinks),
  });
  device.queue.submit([encoder.finish()]);
  assertSameBits(await read(out, 51 * rowFloats), expected.out);
  assertSameBits(await read(lse, 51 * queryHeads), expected.lse);
  equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: false });
});

test('contiguous pages, descales, ALiBi and f16 output are those of the call with typed arrays', async () => {
  await backend.warm(layout, { queryHeads });
  // A page for each sequence: no table is needed, and none given where a step's lengths lie on the GPU.
  const side = { granularity: 'tensor' } as const;
  const contiguous = pageLayout({ ...shape, blockSize: 64, k: side, v: side });
  const [cuSeqlensQ, seqUsedK, totalQ] = [Int32Array.of(0, 1, 31, 34), Int32Array.of(60, 30, 5), 34];
  const pages = backend.createPages(contiguous, 3);
  const numbers = random(11);
  const x = numbers.normals(3 * 64 * tokenFloats);
  await backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 3 * 64 }, (_, i) => i), kScale: 0.02, vScale: 0.03 });
  const q = numbers.normals(totalQ * rowFloats);
  const kDescale = Float32Array.of(0.02, 0.03, 0.01, 0.05, 0.02, 0.07);
  const options = { kDescale, vDescale: 0.04, alibiSlopes: Float32Array.of(0.5, 0.25, 0.125, -0.1), sinks: numbers.normals(queryHeads), windowLeft: 50 };
  const host = { cuSeqlensQ, seqUsedK };
  const onGpu = { cuSeqlensQ: bufferOf(device, cuSeqlensQ), seqUsedK: bufferOf(device, seqUsedK), sequences: 3, totalQ, maxSeqlenQ: 30 };
  for (const outDtype of ['f32', 'f16'] as const) {
    const expected = await backend.attend({ ...options, ...host, pages, q, outDtype });
    for (const tables of [host, onGpu]) {
      const floats = expected.out.byteLength / 4;
      const [out, lse] = [emptyBuffer(device, floats), emptyBuffer(device, totalQ * queryHeads)];
      const encoder = device.createCommandEncoder();
      backend.recordAttend(encoder, { ...options, ...tables, pages, q: bufferOf(device, q), queryHeads, outDtype, out, lse });
      device.queue.submit([encoder.finish()]);
      const bits = (await read(out, floats)).buffer;
      assertSameBits(outDtype === 'f16' ? new Uint16Array(bits) : new Float32Array(bits), expected.out, outDtype);
      assertSameBits(await read(lse, totalQ * queryHeads), expected.lse, `${outDtype}, lse`);
    }
  }
  equal(await backend.readStatus(), { badSlot: false, badPage: false, badLength: false });
  // Sinks in a buffer of the caller's are bound as they are, and nothing else can be then.
  const encoder = device.createCommandEncoder();
  const out = emptyBuffer(device, totalQ * rowFloats);
  const call = { ...onGpu, pages, q: bufferOf(device, q), queryHeads, out, sinks: bufferOf(device, options.sinks) };
  const refusal = /"sinks" expected a Float32Array where ALiBi slopes, or scales per sequence, head or channel go with them/;
  backend.recordAttend(encoder, { ...call, vDescale: 0.04 });
  throws(() => backend.recordAttend(encoder, { ...call, alibiSlopes: options.alibiSlopes }), refusal);
  throws(() => backend.recordAttend(encoder, { ...call, kDescale }), refusal);
  throws(() => backend.recordAttend(encoder, { ...call, kDescale, kScale: 1, sinks: undefined }), /"kDescale" expected to be absent where "kScale" is given/);
  throws(() => backend.recordAttend(encoder, { ...call, kDescale: kDescale.subarray(1), sinks: undefined }), /"kDescale" expected 1 scale or \[3 sequences, 2 kvHeads\], got 5/);
  throws(() => backend.recordAttend(encoder, { ...call, alibiSlopes: new Float32Array(3), sinks: undefined }), /"alibiSlopes" expected one number per query head \(4\), got 3/);
  throws(() => backend.recordAttend(encoder, { ...call, maxBlocks: 2 }), /"maxBlocks" expected an integer from 1 to 1, got number 2/);
  throws(() => backend.recordAttend(encoder, { ...call, outDtype: 'bf16' as 'f16' }), /"outDtype" expected f32 or f16/);
  throws(() => backend.recordAttend(encoder, { ...call, outDtype: 'f16', out: emptyBuffer(device, totalQ * rowFloats / 2 - 4) }), /"out" expected at least 4352 bytes, got 4336/);
  device.queue.submit([encoder.finish()]);
});

test('what does not fit is refused by name before anything is recorded', async () => {
  await backend.warm(layout, { queryHeads });
  const pages = backend.createPages(layout, 2);
  const encoder = device.createCommandEncoder();
  const q = bufferOf(device, new Float32Array(rowFloats));
  const out = emptyBuffer(device, rowFloats);
  const tables = { blockTable: Int32Array.of(0, 1), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(5) };
  const call = { pages, q, queryHeads, out, ...tables };
  const gpuTables = { blockTable: bufferOf(device, tables.blockTable), cuSeqlensQ: bufferOf(device, tables.cuSeqlensQ), seqUsedK: bufferOf(device, tables.seqUsedK) };
  backend.recordAttend(encoder, call);
  throws(() => backend.recordAttend(encoder, { ...call, queryHeads: 3 }), /"queryHeads" expected a multiple of kvHeads \(2\), got 3/);
  throws(() => backend.recordAttend(encoder, { ...call, q: new Float32Array(rowFloats) as never }), /"q" expected a GPUBuffer, or \{ buffer, offset \}, got Float32Array/);
  throws(() => backend.recordAttend(encoder, { ...call, q: { buffer: out.buffer, offset: 4 } }), /"q" expected an offset that is a multiple of 256/);
  throws(() => backend.recordAttend(encoder, { ...call, out: emptyBuffer(device, 8) }), /"out" expected at least 256 bytes, got 32/);
  throws(() => backend.recordAttend(encoder, { ...call, seqUsedK: Int32Array.of(9) }), /"seqUsedK\[0\]" expected an integer from 0 to 8/);
  throws(() => backend.recordAttend(encoder, { ...call, blockTable: Int32Array.of(0, 2) }), /"blockTable" expected a page from 0 to 1/);
  throws(() => backend.recordAttend(encoder, { ...call, seqUsedK: gpuTables.seqUsedK }), /"blockTable" expected a GPUBuffer, or \{ buffer, offset \}, as "seqUsedK" is/);
  throws(() => backend.recordAttend(encoder, { ...call, ...gpuTables }), /"sequences" expected a number, as the tables lie in GPU buffers, got undefined/);
  throws(() => backend.recordAttend(encoder, { ...call, ...gpuTables, sequences: 1, maxBlocks: 3, totalQ: 1 }), /"blockTable" expected at least 12 bytes, got 8/);
  throws(() => backend.recordAttend(encoder, { ...call, softcap: -1 }), /"softcap"/);
  throws(() => backend.recordAttend(call as never, call), /"encoder" expected a GPUCommandEncoder, got Object/);
  throws(() => backend.recordAttend(encoder, undefined as never), /"call" expected an object, got undefined/);
  throws(() => backend.recordAttend(encoder, { ...call, lse: out }), /"lse" expected a place of its own, got one that overlaps that of "out"/);
  throws(() => backend.recordAttend(encoder, { ...call, blockTable: [0, 1] as never }), /"blockTable" expected an Int32Array, got Array/);
  throws(() => backend.recordAttend(encoder, { ...call, ...gpuTables, blockTable: [0, 1] as never }), /"blockTable" expected a GPUBuffer, .*; got Array/);
  for (const [name, said] of [['totalQ', 1], ['sequences', 1], ['maxBlocks', 2]] as const) {
    throws(() => backend.recordAttend(encoder, { ...call, [name]: 3 }), new RegExp(`"${name}" expected ${said}, as ".*" says, got number 3`));
  }
  throws(() => backend.recordAppend(encoder, { pages, key: q, value: q, slotMapping: Int32Array.of(1), tokens: 2 }), /"tokens" expected 1, as "slotMapping" says, got number 2/);
  throws(() => backend.recordAppend(encoder, { pages, key: q, value: q, slotMapping: Int32Array.of(8) }), /"slotMapping\[0\]" expected a slot below 8, got 8/);
  throws(() => backend.recordAppend(encoder, { pages, key: q, value: q, slotMapping: gpuTables.seqUsedK }), /"tokens" expected a number/);
  throws(() => backend.recordAppend(encoder, { pages: wasmBackend().createPages(layout, 1), key: q, value: q, slotMapping: Int32Array.of(0) }), /"pages" expected pages that this backend created/);
  throws(() => backend.recordAttend(encoder, { ...call, q: device.createBuffer({ size: 256, usage: usage.copyDst }) }), /"q" expected a buffer with the usage STORAGE, got usage 8/);
  const both = emptyBuffer(device, 2 * 64);
  throws(() => backend.recordAttend(encoder, { ...call, q: both, out: { ...both, offset: 256 } }), /"out" expected a buffer that is not read/);
  device.pushErrorScope('validation');
  device.queue.submit([encoder.finish()]);
  is(await device.popErrorScope(), null);
});
