/** What is recorded of a call is enough to compute it again, and is there before the call is. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { equal, is, match, ok } from 'uvu/assert';
import { readAppendCase, runAppendCase } from '../../src/files/append-case.js';
import { readAttendCase, runAttendCase } from '../../src/files/attend-case.js';
import { parseSafetensors } from '../../src/files/safetensors.js';
import { bytesOf } from '../../src/formats.js';
import { KvCache, onWarning, wasmBackend, type AttentionOptions, type Backend, type LayerConfig } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { callOf, fixture, type FixtureOptions } from '../fixture.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('recorder');
const root = mkdtempSync(join(tmpdir(), 'fp8-kv-record-'));
test.after(() => rmSync(root, { recursive: true }));

/** A backend that was made while recording was asked for. */
function recording(folder: string, open: () => Backend): Backend {
  process.env.FP8_KV_RECORD = folder;
  try {
    return open();
  } finally {
    delete process.env.FP8_KV_RECORD;
  }
}

const recordedIn = (folder: string): { name: string; bytes: Uint8Array }[] =>
  readdirSync(folder).sort().map((name) => ({ name, bytes: new Uint8Array(readFileSync(join(folder, name))) }));

const channels = Float32Array.from({ length: 2 * 16 }, (_, i) => 0.02 * 1.1 ** i);
const sorts: readonly (readonly [string, Partial<FixtureOptions>, AttentionOptions])[] = [
  ['plain', {}, {}],
  ['groups, channels, windows, sinks', { k: { dtype: 'int8', granularity: 'group', groupSize: 8 }, v: { dtype: 'e5m2', granularity: 'channel' }, vScale: channels },
    { windowLeft: 5, softcap: 1e-7, sinks: Float32Array.of(0, 1, 2, 3), alibiSlopes: Float32Array.of(0, 0.1, 0.2, 0.3), softmaxScale: 0.3 }],
  ['one number for all heads, f16', { k: { granularity: 'head' }, kScale: 0.05, v: { dtype: 'f16' } }, { causal: false, windowRight: 3 }],
];

for (const [threads, open] of [[1, () => wasmBackend()], [2, () => wasmBackend({ threads: 2 })]] as const) {
  for (const [name, options, attention] of sorts) {
    test(`replayed, calls give the same bytes: ${name}, ${threads} threads`, async () => {
      const folder = join(root, `${threads}-${name}`);
      const backend = recording(folder, open);
      const numbers = random(3);
      const cache = await fixture(backend, numbers, { kvHeads: 2, headDim: 16, blockSize: 4, kvLens: [9, 0, 14], ...options });
      const rows = [2, 1, 3];
      const q = numbers.normals(6 * 4 * 16);
      const { out, lse } = await backend.attend({ ...callOf(cache, rows, q), ...attention });
      const slotMapping = Int32Array.of(-1, cache.blockTable[8] * 4 + 2);
      const key = numbers.normals(2 * 2 * 16);
      await backend.append({ pages: cache.pages, key, value: key, slotMapping, kScale: options.kScale, vScale: options.vScale });
      const page = await cache.pages.export(cache.blockTable[8], 1);
      backend.dispose();

      const files = recordedIn(folder);
      equal(files.map(({ name }) => name.replace(/^\d+-/, '')), ['000001-append', '000002-append', '000003-append', '000004-attend', '000005-append'].map((file) => `${file}.safetensors`));
      const plain = wasmBackend();
      const result = await runAttendCase(plain, readAttendCase(files[3].bytes, 'attend'));
      assertSameBits(result.out, out);
      assertSameBits(result.lse, lse);
      const { tensors } = await runAppendCase(plain, readAppendCase(files[4].bytes, 'append'));
      assertSameBits(tensors.get('k_cache')!.data.slice(), bytesOf(page.keyCache).slice(), 'keys');
      if (page.keyScale) assertSameBits(tensors.get('k_scale')!.data.slice(), bytesOf(page.keyScale).slice(), 'scales');
      const { metadata } = parseSafetensors(files[3].bytes, 'attend');
      match(metadata.get('recorded_backend')!, /^wasm/);
      match(metadata.get('recorded_at')!, /^\d{4}-\d\d-\d\dT/);
      is(metadata.get('recorded_number'), '4');
      plain.dispose();
    });
  }
}

test('what a cache does is recorded, with the recipes of its layers', async () => {
  const folder = join(root, 'cache');
  const backend = recording(folder, wasmBackend);
  const layers: LayerConfig[] = [{}, { recipe: 'vllm-token-head' }, { dtype: { k: 'int8', v: 'f16' }, recipe: 'compressed-tensors' }, { granularity: 'head', scale: Float32Array.of(0.1, 0.2) }];
  const cache = new KvCache(backend, { layers, queryHeads: 2, kvHeads: 2, headDim: 8, capacity: 64 });
  const numbers = random(5);
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 5 }]);
  const outs: Float32Array[] = [];
  for (const layer of layers.keys()) {
    await step.append(layer, numbers.normals(5 * 16), numbers.normals(5 * 16));
    outs.push((await step.attend(layer, numbers.normals(5 * 16))).out);
  }
  step.commit();
  backend.dispose();
  const files = recordedIn(folder);
  is(files.length, 2 * layers.length);
  const plain = wasmBackend();
  for (const [layer, out] of outs.entries()) {
    const [append, attend] = files.slice(2 * layer, 2 * layer + 2).map(({ bytes }) => bytes);
    const { tensors } = await runAppendCase(plain, readAppendCase(append, 'case'));
    const stored = parseSafetensors(attend, 'case').tensors;
    for (const [name, { data }] of tensors) assertSameBits(data, stored.get(name)!.data, `layer ${layer}, ${name}`);
    assertSameBits((await runAttendCase(plain, readAttendCase(attend, 'case'))).out, out, `layer ${layer}`);
  }
  plain.dispose();
});

test('calls that wait for others are recorded with what is in the pages when they have their turn', async () => {
  const folder = join(root, 'busy');
  const backend = recording(folder, () => wasmBackend({ threads: 2 }));
  const numbers = random(4);
  const cache = await fixture(backend, numbers, { kvHeads: 1, headDim: 16, blockSize: 16, kvLens: [1000] });
  // Large enough for workers: what follows has to wait.
  const call = callOf(cache, [64], numbers.normals(64 * 4 * 16));
  const before = backend.attend(call);
  const key = numbers.normals(16);
  const written = backend.append({ pages: cache.pages, key, value: key, slotMapping: Int32Array.of(cache.blockTable[62] * 16) });
  key.fill(0);
  const after = backend.attend(call);
  await written;
  const results = [await before, await after];
  backend.dispose();
  const plain = wasmBackend();
  const attends = recordedIn(folder).filter(({ name }) => name.includes('attend'));
  is(attends.length, 2);
  for (const [i, { bytes }] of attends.entries()) assertSameBits((await runAttendCase(plain, readAttendCase(bytes, 'case'))).out, results[i].out, `call ${i}`);
  ok(results[0].out.some((value, i) => value !== results[1].out[i]));
  plain.dispose();
});

test('a process that ends in the middle of a call leaves that call', () => {
  const folder = join(root, 'killed');
  const child = fileURLToPath(new URL('killed.fixture.ts', import.meta.url));
  const { signal } = spawnSync(process.execPath, ['--import', 'tsx', child], { env: { ...process.env, FP8_KV_RECORD: folder } });
  is(signal, 'SIGKILL');
  const files = recordedIn(folder);
  match(files.at(-1)!.name, /^\d+-000002-attend\.safetensors$/);
  const { call } = readAttendCase(files[1].bytes, 'attend');
  equal([...call.seqUsedK, ...call.blockTable!], [2, 0]);
});

test('files that another process of the same number has left stay, and the next names are taken', async () => {
  const folder = join(root, 'again');
  mkdirSync(folder);
  const left = ['000001-append', '000002-append'].map((name) => `${process.pid}-${name}.safetensors`);
  for (const name of left) writeFileSync(join(folder, name), 'left');
  await fixture(recording(folder, wasmBackend), random(1), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [3, 3] });
  const files = recordedIn(folder);
  equal(files.map(({ name }) => name), [...left, ...['000003-append', '000004-append'].map((name) => `${process.pid}-${name}.safetensors`)]);
  equal(files.map(({ bytes }) => String.fromCharCode(...bytes.subarray(0, 4)) === 'left'), [true, true, false, false]);
});

test('what is no call is refused as without a recorder', async () => {
  for (const open of [() => wasmBackend(), () => wasmBackend({ threads: 2 })]) {
    const backend = recording(join(root, 'none'), open) as { append(call?: unknown): unknown; attend(call?: unknown): unknown; dispose(): void };
    for (const name of ['append', 'attend'] as const) {
      match(String(await (async () => backend[name]())().catch((error: unknown) => error)), /^TypeError: "call" expected an object, got undefined$/);
    }
    backend.dispose();
  }
});

test('where nothing is asked for, a backend is as it was', () => {
  equal(Object.keys(wasmBackend()).sort(), ['kind', 'simd', 'synchronous', 'threads']);
});

test('what cannot be recorded is said once, and computed', async () => {
  const folder = join(root, 'a file');
  mkdirSync(root, { recursive: true });
  writeFileSync(folder, '');
  const told: string[] = [];
  const end = onWarning((message) => told.push(message));
  try {
    const backend = recording(folder, () => wasmBackend());
    await fixture(backend, random(1), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [3, 3] });
    is(told.length, 1);
    match(told[0], /^FP8_KV_RECORD: a call is not recorded: EEXIST|ENOTDIR/);
    const other = recording(join(root, 'descales'), () => wasmBackend());
    const cache = await fixture(other, random(1), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [3], k: { granularity: 'tensor' } });
    const { out } = await other.attend({ ...callOf(cache, [1], new Float32Array(8)), kDescale: 0.5 });
    ok(out.every(Number.isFinite));
    match(told[1], /has no descales/);
    is(recordedIn(join(root, 'descales')).length, 1);
  } finally {
    end();
  }
});
