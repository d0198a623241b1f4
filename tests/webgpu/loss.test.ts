/** Devices that are lost, before, between and during calls, and caches that go on elsewhere. */
import { equal, is, ok } from 'uvu/assert';
import { wasmBackend, type AttendResult, type Backend, type KvCache, type Pages, type Sequence } from '../../src/index.js';
import { DeviceLostError } from '../../src/errors.js';
import { ATTENTION_BOUND, attentionError } from '../../src/files/compare.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { webgpuBackend } from '../../src/webgpu/open.js';
import { assertSameResult, attendTo, cacheOf, extend, fp8 as shape, randomTokens, type Tokens } from '../cache/tokens.js';
import { gpu, noAdapter } from '../gpu/adapter.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('WebGPU, loss of the device', { skip: noAdapter });
const cpu = wasmBackend();

/** A backend on a device that the test owns, and may destroy. */
async function borrowed(): Promise<{ device: GPUDevice; backend: WebgpuBackend }> {
  const device = await (await gpu!.requestAdapter())!.requestDevice();
  return { device, backend: await webgpuBackend({ device }) };
}

/** Destroys it, and waits until that is known. */
async function lose(device: GPUDevice): Promise<void> {
  device.destroy();
  await device.lost;
}

/** What a call gives, by its promise or at once, must be the loss. */
async function assertLost(call: () => unknown, what: string): Promise<void> {
  let error: unknown;
  try {
    await call();
  } catch (reason) {
    error = reason;
  }
  ok(error instanceof DeviceLostError, `${what} expected a DeviceLostError, got ${String(error)}`);
  is(error.reason, 'destroyed', what);
  ok(/^the GPU device was lost \(destroyed.*the keys and values in its pages are gone$/.test(error.message), error.message);
}

const numbers = random(41);
const queries = numbers.normals(3 * 32);
const [shared, more, most] = [6, 3, 5].map((count) => randomTokens(numbers, shape, count));

/** On the CPU: a sequence, a fork of it that has gone on, and one more. */
function filled(): { cache: KvCache; sequences: Sequence[] } {
  const cache = cacheOf(cpu, shape, 12);
  const sequence = cache.createSequence();
  extend(cache, sequence, shared, shape);
  const twin = sequence.fork();
  extend(cache, twin, more, shape);
  const third = cache.createSequence();
  extend(cache, third, most, shape);
  return { cache, sequences: [sequence, twin, third, third.fork()] };
}

/** Attention at the end of each sequence, in each layer; changes nothing. */
function attention(backend: Backend, cache: KvCache, sequences: readonly Sequence[]): Promise<AttendResult[]> {
  return Promise.all(sequences.flatMap((sequence) => [0, 1].map((layer) => attendTo(backend, cache, layer, sequence, queries, shape))));
}

function assertSameResults(actual: readonly AttendResult[], expected: readonly AttendResult[], what: string): void {
  is(actual.length, expected.length);
  expected.forEach((result, i) => assertSameResult(actual[i], result, `${what}, ${i}`));
}

/** A step of one token after another: what attention gives. */
async function decode(cache: KvCache, sequence: Sequence, { key, value }: Tokens): Promise<AttendResult[]> {
  const results: AttendResult[] = [];
  for (let token = 0; token < key.length / 16; token++) {
    const step = cache.begin([{ sequence, tokens: 1 }]);
    for (let layer = 0; layer < cache.layers; layer++) {
      await step.append(layer, key.slice(token * 16, token * 16 + 16), value.slice(token * 16, token * 16 + 16));
      results.push(await step.attend(layer, queries.slice(token * 32, token * 32 + 32)));
    }
    step.commit();
  }
  return results;
}

/** Lengths and pages. */
const tables = (cache: KvCache, sequences: readonly Sequence[]) => ({ freePages: cache.freePages, sequences: sequences.map(({ length, blocks }) => [length, ...blocks]) });

test('a cache goes from the CPU to a GPU, to another and back, bit for bit', async () => {
  const { cache, sequences } = filled();
  const before = tables(cache, sequences);
  const exported = [0, 1].map((layer) => cache.pages(layer).export(0, 6));
  const onCpu = await attention(cpu, cache, sequences);
  let onGpu: AttendResult[] | undefined;
  for (let time = 0; time < 2; time++) {
    const { device, backend } = await borrowed();
    const report = await cache.restore(backend, await cache.checkpoint());
    equal(report.sequences.map(({ length, lost }) => [length, lost]), sequences.map(({ length }) => [length, 0]));
    equal(tables(cache, sequences), before);
    equal(await Promise.all([0, 1].map((layer) => cache.pages(layer).export(0, 6))), exported);
    const results = await attention(backend, cache, sequences);
    results.forEach((result, i) => {
      const error = attentionError(result, onCpu[i], shape.headDim);
      ok(error.out <= 2 * ATTENTION_BOUND && error.lse <= 2 * ATTENTION_BOUND, `out ${error.out}, lse ${error.lse}`);
    });
    assertSameResults(results, (onGpu ??= results), 'on the second GPU');
    // The second takes over while the first still works; from the second it is brought back once that is lost.
    if (time === 1) {
      const checkpoint = await cache.checkpoint();
      await lose(device);
      await cache.restore(cpu, checkpoint);
    }
  }
  assertSameResults(await attention(cpu, cache, sequences), onCpu, 'on the CPU again');
  equal(tables(cache, sequences), before);
  for (const each of sequences) each.free();
  is(cache.freePages, 12);
  cache.dispose();
});

test('a device that goes in mid-step: the step is aborted, and all go on from the checkpoint on another as they did on this one', async () => {
  const { cache, sequences } = filled();
  const [sequence, twin, third] = sequences;
  const first = await borrowed();
  await cache.restore(first.backend, await cache.checkpoint());
  const checkpoint = await cache.checkpoint();
  const before = tables(cache, sequences);
  const run = async (): Promise<AttendResult[]> => [...(await decode(cache, sequence, more)), ...(await decode(cache, third, more)), ...(await decode(cache, twin, more))];
  const expected = await run();
  const atLoss = tables(cache, sequences);
  const step = cache.begin([{ sequence: third, tokens: 5 }]);
  await step.append(0, most.key, most.value);
  const onItsWay = assertLost(() => step.attend(0, new Float32Array(5 * 32)), 'attend on its way');
  first.device.destroy();
  await onItsWay;
  await assertLost(() => step.append(1, most.key, most.value), 'append');
  await assertLost(() => step.attend(0, new Float32Array(5 * 32)), 'attend');
  step.abort();
  equal(tables(cache, sequences), atLoss, 'the tables survive');
  const second = await borrowed();
  const report = await cache.restore(second.backend, checkpoint);
  equal(report.sequences.map(({ sequence: each, length, lost }) => [sequences.indexOf(each), length, lost]), [[0, 6, 3], [1, 9, 3], [2, 5, 3], [3, 5, 0]]);
  equal(tables(cache, sequences), before);
  assertSameResults(await run(), expected, 'after the loss');
  equal(tables(cache, sequences), atLoss);
  cache.dispose();
});

test('without a checkpoint all tokens are gone, and the report says so', async () => {
  const { cache, sequences } = filled();
  const { device, backend } = await borrowed();
  await cache.restore(backend, await cache.checkpoint());
  await lose(device);
  await assertLost(() => cache.checkpoint(), 'checkpoint');
  const after = await borrowed();
  const report = await cache.restore(after.backend);
  is(report.lost, 6 + 9 + 5 + 5);
  equal(report.sequences.map(({ sequence, length, lost }) => [sequences.indexOf(sequence), length, lost]), [[0, 0, 6], [1, 0, 9], [2, 0, 5], [3, 0, 5]]);
  is(cache.freePages, 12);
  await decode(cache, sequences[1], more);
  is(sequences[1].length, 3);
  cache.dispose();
});

/** Every call that needs the device, on pages of 4 tokens that are there. */
function callsOf(backend: WebgpuBackend, device: GPUDevice, pages: Pages, sources: readonly GPUBuffer[]): Record<string, () => unknown> {
  const { layout } = pages;
  const [key, value, out] = sources;
  const one = { blockTable: Int32Array.of(0), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(1) };
  const nothing = { keyCache: new Uint8Array(64), valueCache: new Uint8Array(64), keyScale: new Float32Array(8), valueScale: new Float32Array(8) };
  return {
    export: () => pages.export(),
    attend: () => backend.attend({ pages, q: new Float32Array(32), ...one }),
    'attend with many rows': () => backend.attend({ pages, q: new Float32Array(40 * 32), ...one, cuSeqlensQ: Int32Array.of(0, 40) }),
    readStatus: () => backend.readStatus(),
    append: () => backend.append({ pages, key: new Float32Array(16), value: new Float32Array(16), slotMapping: Int32Array.of(0) }),
    import: () => pages.import(nothing),
    warm: () => backend.warm(layout),
    copyPages: () => pages.copyPages([0], [1]),
    createPages: () => backend.createPages(layout, 2),
    recordAppend: () => backend.recordAppend(device.createCommandEncoder(), { pages, key, value, slotMapping: Int32Array.of(0) }),
    recordAttend: () => backend.recordAttend(device.createCommandEncoder(), { pages, q: key, queryHeads: 2, out, ...one }),
  };
}

/** Pages of {@link shape} with calls on them. */
async function prepared(): Promise<{ device: GPUDevice; backend: WebgpuBackend; pages: Pages; calls: Record<string, () => unknown> }> {
  const { device, backend } = await borrowed();
  const cache = cacheOf(backend, shape, 4);
  const pages = cache.pages(0);
  const sources = [0, 1, 2].map(() => device.createBuffer({ size: 256, usage: 0x80 }));
  return { device, backend, pages, calls: callsOf(backend, device, pages, sources) };
}

test('every call on a lost device is a DeviceLostError, and what gives back is none', async () => {
  const { device, backend, pages, calls } = await prepared();
  const cache = cacheOf(backend, shape, 8);
  const [sequence, other] = [cache.createSequence(), cache.createSequence()];
  const step = cache.begin([{ sequence, tokens: 6 }]);
  for (const layer of [0, 1]) await step.append(layer, shared.key, shared.value);
  step.commit();
  const twin = sequence.fork();
  const open = cache.begin([{ sequence: other, tokens: 1 }]);
  await lose(device);
  for (const [name, call] of Object.entries(calls)) await assertLost(call, name);
  await assertLost(() => cache.begin([{ sequence: twin, tokens: 1 }]), 'a step that copies a page');
  const row = new Float32Array(16);
  await assertLost(() => open.append(0, row, row), 'append');
  await assertLost(() => webgpuBackend({ device }), 'a backend on that device');
  open.abort();
  await assertLost(() => cache.warm(), 'cache.warm');
  await assertLost(() => cache.checkpoint(), 'checkpoint');
  await assertLost(() => cache.restore(backend), 'restore on the same device');
  is(cache.freePages, 6);
  equal(twin.blocks, sequence.blocks);
  twin.truncate(3);
  for (const each of [sequence, twin, other]) each.free();
  is(cache.freePages, 8);
  pages.dispose();
  cache.dispose();
  backend.dispose();
  let error: unknown;
  try {
    backend.createPages(pages.layout, 1);
  } catch (reason) {
    error = reason;
  }
  ok(error instanceof TypeError && error.message.includes('disposed of'), String(error));
});

/** Of those that wait for the device: what comes of them while it goes. */
const answered = ['export', 'attend', 'attend with many rows', 'readStatus'];

for (const warmed of [false, true]) {
  test(`calls on their way when the device goes are a DeviceLostError each (kernels ${warmed ? 'compiled' : 'not yet compiled'})`, async () => {
    for (const name of [...answered, 'all']) {
      const { device, backend, pages, calls } = await prepared();
      if (warmed) await backend.warm(pages.layout, { queryHeads: 4 });
      const underWay = (name === 'all' ? answered : [name]).map((each) => assertLost(calls[each], each));
      device.destroy();
      await Promise.all(underWay);
      // By now it is known.
      for (const each of Object.keys(calls)) await assertLost(calls[each], `${each}, afterwards`);
      backend.dispose();
    }
  });
}

test('calls after the device has gone, before it is known', async () => {
  for (const name of answered) {
    const { device, backend, calls } = await prepared();
    device.destroy();
    await assertLost(calls[name], name);
    for (const each of Object.keys(calls)) await assertLost(calls[each], `${each}, afterwards`);
    backend.dispose();
  }
});

/** Calls that ask nothing of the device may not notice that it has gone, as long as it is not known. */
async function assertNoticed(device: GPUDevice, call: () => unknown, what: string): Promise<void> {
  let known = false;
  void device.lost.then(() => {
    known = true;
  });
  try {
    await call();
    ok(!known, `${what} expected a DeviceLostError, as the loss was known, got none`);
  } catch (error) {
    ok(error instanceof DeviceLostError, `${what} expected a DeviceLostError, got ${String(error)}`);
  }
}

test('calls without an answer from the device notice the loss as soon as it is known', async () => {
  for (const waiting of [false, true]) {
    const { device, backend, calls } = await prepared();
    // The others wait for their turn behind its kernels.
    const first = waiting ? assertLost(calls.attend, 'attend') : undefined;
    const silent = ['append', 'import', 'warm'].map((name) => assertNoticed(device, calls[name], name));
    device.destroy();
    const later = ['append', 'import', 'warm'].map((name) => assertNoticed(device, calls[name], `${name}, later`));
    await Promise.all([first, ...silent, ...later]);
    await device.lost;
    for (const [name, call] of Object.entries(calls)) await assertLost(call, name);
    backend.dispose();
  }
});

test('a device that goes while a backend is made of it', async () => {
  const device = await (await gpu!.requestAdapter())!.requestDevice();
  const making = assertLost(() => webgpuBackend({ device }), 'a backend');
  device.destroy();
  await making;
  await assertLost(() => webgpuBackend({ device }), 'another');
});

test('a checkpoint that is being read when the device goes fails, and the one before serves', async () => {
  const { cache, sequences } = filled();
  const before = tables(cache, sequences);
  const expected = await attention(cpu, cache, sequences);
  const { device, backend } = await borrowed();
  await cache.restore(backend, await cache.checkpoint());
  const checkpoint = await cache.checkpoint();
  const reading = assertLost(() => cache.checkpoint(), 'checkpoint');
  device.destroy();
  await reading;
  equal(tables(cache, sequences), before);
  await cache.restore(cpu, checkpoint);
  assertSameResults(await attention(cpu, cache, sequences), expected, 'on the CPU');
  cache.dispose();
});

test('a restore on a lost device leaves the cache where it is', async () => {
  const { cache, sequences } = filled();
  const before = tables(cache, sequences);
  const expected = await attention(cpu, cache, sequences);
  const { device, backend } = await borrowed();
  await lose(device);
  const checkpoint = await cache.checkpoint();
  await assertLost(() => cache.restore(backend, checkpoint), 'restore');
  for (const from of [checkpoint, undefined]) {
    const other = await borrowed();
    other.device.destroy();
    await assertLost(() => cache.restore(other.backend, from), 'restore, before the loss is known');
  }
  equal(tables(cache, sequences), before);
  assertSameResults(await attention(cpu, cache, sequences), expected, 'on the CPU');
  cache.dispose();
});

test('other devices do not notice', async () => {
  const [one, two] = [await prepared(), await prepared()];
  await lose(one.device);
  for (const call of Object.values(two.calls)) await call();
  two.device.destroy();
});
