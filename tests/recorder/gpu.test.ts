/** Calls on a GPU: what is recorded is enough to compute them again, and is there before they are. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { equal, is, match } from 'uvu/assert';
import { parseSafetensors } from '../../src/files/safetensors.js';
import { bytesOf } from '../../src/formats.js';
import { onWarning } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { usage } from '../../src/webgpu/constants.js';
import { requestWebgpuBackend } from '../../src/webgpu/open.js';
import { assertSameBits } from '../bits.js';
import { assertDone, commandLine } from '../cli/harness.js';
import { callOf, fixture } from '../fixture.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`recorder, ${adapterName}`, { skip: noAdapter });
const root = mkdtempSync(join(tmpdir(), 'fp8-kv-record-'));
const { folder: results, run, get, remove } = commandLine();
test.after(() => {
  rmSync(root, { recursive: true });
  remove();
});

/** A backend that was made while recording was asked for. */
async function recording(folder: string): Promise<WebgpuBackend> {
  process.env.FP8_KV_RECORD = folder;
  try {
    return await requestWebgpuBackend({ gpu });
  } finally {
    delete process.env.FP8_KV_RECORD;
  }
}

const filesIn = (folder: string): string[] => readdirSync(folder).sort();
const contentOf = (path: string): ReturnType<typeof parseSafetensors> => parseSafetensors(new Uint8Array(readFileSync(path)), path);

test('replayed on the command line, calls give the same bytes, whether or not they were awaited', async () => {
  const folder = join(root, 'calls');
  const backend = await recording(folder);
  const numbers = random(3);
  const cache = await fixture(backend, numbers, { kvHeads: 2, headDim: 16, blockSize: 4, kvLens: [9, 0, 14] });
  const [first, last] = [numbers.normals(6 * 4 * 16), numbers.normals(6 * 4 * 16)];
  const slotMapping = Int32Array.of(-1, cache.blockTable[8] * 4 + 2);
  const key = numbers.normals(2 * 2 * 16);
  // Nothing is awaited in between, and what lay in typed arrays changes.
  const before = backend.attend(callOf(cache, [2, 1, 3], first));
  const written = backend.append({ pages: cache.pages, key, value: key, slotMapping });
  key.fill(0);
  const after = backend.attend(callOf(cache, [2, 1, 3], last));
  const outs = [await before, await after];
  await written;
  const page = await cache.pages.export(cache.blockTable[8], 1);
  backend.dispose();

  const files = filesIn(folder);
  equal(files.map((name) => name.replace(/^\d+-/, '')), ['000001-append', '000002-append', '000003-append', '000004-attend', '000005-append', '000006-attend'].map((file) => `${file}.safetensors`));
  assertDone(await run('attend', join(folder, files[3]), join(folder, files[5]), '--out-dir', results, '--backend', 'webgpu'));
  for (const [i, file] of [files[3], files[5]].entries()) {
    const { tensors } = parseSafetensors(get(file), file);
    assertSameBits(tensors.get('out')!.data, bytesOf(outs[i].out), `out of call ${i}`);
    assertSameBits(tensors.get('lse')!.data, bytesOf(outs[i].lse), `lse of call ${i}`);
  }
  // On the CPU, too, an append has these bytes.
  assertDone(await run('append', join(folder, files[4]), '-o', 'cache.safetensors'));
  const { tensors } = parseSafetensors(get('cache.safetensors'), 'cache');
  assertSameBits(tensors.get('k_cache')!.data, bytesOf(page.keyCache), 'keys');
  assertSameBits(tensors.get('v_scale')!.data, bytesOf(page.valueScale!), 'scales');
  is(contentOf(join(folder, files[5])).metadata.get('recorded_backend'), 'webgpu');
}, { seconds: 120 });

test('keys and values in GPU buffers are read back, where the buffers let one', async () => {
  const folder = join(root, 'buffers');
  const told: string[] = [];
  const end = onWarning((message) => told.push(message));
  const backend = await recording(folder);
  try {
    const cache = await fixture(backend, random(4), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [3] });
    const values = random(9).normals(64 + 8);
    const buffer = (flags: number): GPUBuffer => {
      const made = backend.device.createBuffer({ size: values.byteLength, usage: usage.storage | usage.copyDst | flags });
      backend.device.queue.writeBuffer(made, 0, values);
      return made;
    };
    const call = { pages: cache.pages, slotMapping: Int32Array.of(3) };
    await backend.append({ ...call, key: { buffer: buffer(usage.copySrc), offset: 256 }, value: buffer(usage.copySrc) });
    const files = filesIn(folder);
    const { tensors } = contentOf(join(folder, files.at(-1)!));
    assertSameBits(tensors.get('key')!.data, bytesOf(values.subarray(64)));
    assertSameBits(tensors.get('value')!.data, bytesOf(values.subarray(0, 8)));
    equal(told, []);
    await backend.append({ ...call, key: buffer(0), value: buffer(0) });
    is(filesIn(folder).length, files.length);
    match(told.join('\n'), /^FP8_KV_RECORD: a call is not recorded: .*"key" lies in a buffer without the usage COPY_SRC$/);
  } finally {
    end();
    backend.dispose();
  }
});

test('a call is on file before it runs, and a device that is gone keeps no call from failing as it does', async () => {
  const folder = join(root, 'order');
  const backend = await recording(folder);
  const cache = await fixture(backend, random(4), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [3] });
  const { queue } = backend.device;
  const atSubmit: number[] = [];
  const { submit } = queue;
  queue.submit = (buffers) => {
    atSubmit.push(filesIn(folder).length);
    submit.call(queue, buffers);
  };
  const before = filesIn(folder).length;
  await backend.attend(callOf(cache, [1], new Float32Array(8)));
  // What is read back for the file is submitted first; the call, when the file is there.
  equal(atSubmit, [before, before + 1]);
  queue.submit = submit;
  backend.device.destroy();
  const told: string[] = [];
  const end = onWarning((message) => told.push(message));
  match(await backend.attend(callOf(cache, [1], new Float32Array(8))).then(() => '', String), /^DeviceLostError/);
  end();
  match(told.join('\n'), /^FP8_KV_RECORD: a call is not recorded: .*its pages could not be read back: \S/);
  is(filesIn(folder).length, before + 1);
  backend.dispose();
});

test('what is no call is refused as without a recorder', async () => {
  const backend = (await recording(join(root, 'none'))) as unknown as { append(call?: unknown): Promise<unknown>; attend(call?: unknown): Promise<unknown>; dispose(): void };
  for (const name of ['append', 'attend'] as const) {
    match(String(await (async () => backend[name]())().catch((error: unknown) => error)), /^TypeError: "call" expected an object, got undefined$/);
  }
  backend.dispose();
});

test('where nothing is asked for, a backend is as it was', async () => {
  const backend = await requestWebgpuBackend({ gpu });
  equal([Object.hasOwn(backend, 'append'), Object.hasOwn(backend, 'attend')], [false, false]);
  backend.dispose();
});
