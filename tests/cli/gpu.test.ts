import { equal, is, match, ok } from 'uvu/assert';
import { wasmBackend } from '../../src/index.js';
import { readAppendCase, runAppendCase, writeAppendResult } from '../../src/files/append-case.js';
import { assertSameBits } from '../bits.js';
import { golden } from '../golden.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { appendCase, assertDone, assertFailed, commandLine } from './harness.js';

const test = suite(`cli on ${adapterName}`, { skip: noAdapter });
const { run, put, get, remove } = commandLine();
test.after(remove);

test('doctor: the adapter, its kernels, and the choice of a backend', async () => {
  const { gpu, choice } = JSON.parse((await run('doctor', '--json')).out);
  is(gpu.name, adapterName);
  match(gpu.kernels, /^(plain|subgroups-\d+)/);
  ok(gpu.largestBuffer >= 2 ** 27);
  equal([typeof gpu.subgroups, typeof gpu.f16], ['boolean', 'boolean']);
  is(choice.backend, gpu.software ? 'wasm' : 'webgpu');
});

test('doctor --align: one line per case, and a verdict', async () => {
  const result = await run('doctor', '--align');
  assertDone(result);
  const cases = result.out.match(/^ok (append|attend) .*$/gm)!;
  ok(cases.length > 40);
  match(result.out, new RegExp(`^all ${cases.length} cases agree: the GPU computes what WebAssembly does$`, 'm'));
}, { seconds: 180 });

test('attend and append --backend webgpu', async () => {
  const bytes = await appendCase(random(6));
  put('attend.safetensors', golden('attend/decode_D64_G8_q1_kv15_bs32_e5m2_token_head.safetensors'));
  put('append.safetensors', bytes);
  const attended = await run('attend', 'attend.safetensors', '--backend', 'webgpu', '--json');
  assertDone(attended);
  const { backend, cases: [{ ok: holds, figures }] } = JSON.parse(attended.out);
  equal([backend, holds], ['webgpu', true]);
  ok(figures.out > 0 && figures.out <= 1e-4, `off by ${figures.out}`);
  const appended = await run('append', 'append.safetensors', '--backend', 'webgpu', '-o', 'cache.safetensors');
  assertDone(appended);
  is(appended.out, 'ok append.safetensors: written 2, skipped 1\n');
  assertSameBits(get('cache.safetensors'), writeAppendResult((await runAppendCase(wasmBackend(), readAppendCase(bytes, 'case'))).tensors));
});

const without = suite('cli without an adapter');
/** What Node would find in a browser without one. */
const noGpu = 'data:text/javascript,Object.defineProperty(globalThis, "navigator", { value: { gpu: { requestAdapter: async () => null } } })';
const bare = commandLine(['--import', noGpu]);
without.after(bare.remove);

without('doctor says that there is none, and that WebAssembly is taken', async () => {
  const { code, out, err } = await bare.run('doctor', '--align');
  equal([code, err], [1, 'fp8-kv doctor: the GPU could not be tried: WebGPU has no adapter for this machine\n']);
  match(out, /^GPU {11}none: WebGPU has no adapter for this machine$/m);
  match(out, /^backend {7}wasm, (baseline|relaxed) build: WebGPU has no adapter for this machine$/m);
  assertDone(await bare.run('doctor'));
  const json = await bare.run('doctor', '--align', '--json');
  const { ok: holds, problem } = JSON.parse(json.out);
  equal([json.code, json.err, holds, problem], [1, '', false, 'the GPU could not be tried: WebGPU has no adapter for this machine']);
});

without('--backend webgpu is refused', async () => {
  bare.put('attend.safetensors', golden('attend/decode_D64_G1_q1_kv1_bs16_e4m3fn_tensor_sink.safetensors'));
  assertFailed(await bare.run('attend', 'attend.safetensors', '--backend', 'webgpu', '-o', 'out.safetensors'), 1, /^fp8-kv attend: WebGPU has no adapter for this machine$/m);
});
