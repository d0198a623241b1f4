import { existsSync, linkSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { equal, is, match, ok } from 'uvu/assert';
import { append } from '../../src/cli/append.js';
import { attend } from '../../src/cli/attend.js';
import { UsageError, type Command } from '../../src/cli/command.js';
import { decode as decodeCommand } from '../../src/cli/decode.js';
import { doctor } from '../../src/cli/doctor.js';
import { encode as encodeCommand } from '../../src/cli/encode.js';
import { readAppendCase, runAppendCase, writeAppendResult } from '../../src/files/append-case.js';
import { readAttendCase, runAttendCase, writeAttendResult } from '../../src/files/attend-case.js';
import { parseNpy, serializeNpy } from '../../src/files/npy.js';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { decode, encode, wasmBackend } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { golden } from '../golden.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { appendCase, assertDone, assertFailed, bytesOf, commandLine, tensor } from './harness.js';

const test = suite('cli');
const { folder, run, put, get, remove } = commandLine();
test.after(remove);

const numbers = random(5);
const values = Float32Array.of(...numbers.normals(20, 100), -0, NaN, Infinity, -500, 449, 1e6);
const halves = Uint16Array.from({ length: 12 }, (_, i) => i * 5377);

const metadata = new Map([['format', 'pt']]);
const integers = tensor('I32', [2], Int32Array.of(1, -1));
const mixed = new Map([
  ['a', tensor('F32', [26], values)], ['b', tensor('BF16', [3, 4], halves)], ['c', tensor('F16', [12], halves)], ['other', integers],
]);
const right = golden('attend/decode_D64_G1_q1_kv1_bs16_e4m3fn_tensor_sink.safetensors');
const other = golden('attend/decode_D128_G1_q1_kv1_bs16_e5m2_token_head.safetensors');

/** A case with one of its tensors made wrong. */
function changed(bytes: Uint8Array, name: string, change: (values: Float32Array) => void): Uint8Array {
  const file = parseSafetensors(bytes, 'case');
  const data = file.tensors.get(name)!.data.slice();
  change(new Float32Array(data.buffer));
  return serializeSafetensors(new Map([...file.tensors, [name, { ...file.tensors.get(name)!, data }]]), file.metadata);
}

test.before(() => {
  put('x.npy', serializeNpy('<f4', [2, 13], bytesOf(values)));
  put('x.safetensors', serializeSafetensors(mixed, metadata));
  put('broken.npy', get('x.npy').subarray(0, 140));
  put('broken.safetensors', get('x.safetensors').subarray(0, 100));
  put('right.safetensors', right);
  put('other.safetensors', other);
  put('wrong.safetensors', changed(right, 'expected.out', (out) => (out[3] += 1)));
  put('wrong-lse.safetensors', changed(right, 'expected.lse', (lse) => (lse[0] -= 1)));
  put('cut.safetensors', right.subarray(0, 5000));
});

test('encode and decode of .npy give the bytes of encode and decode', async () => {
  put('codes.npy', new Uint8Array(1));
  // A second name of the file that was there, which is not written to: a disk that is full leaves it as it was.
  linkSync(join(folder, 'codes.npy'), join(folder, 'before.npy'));
  const encoded = await run('encode', 'x.npy', '-o', 'codes.npy', '--json');
  assertDone(encoded);
  is(get('before.npy').length, 1);
  equal(JSON.parse(encoded.out), { output: 'codes.npy', format: 'e4m3fn', values: 26 });
  assertSameBits(get('codes.npy'), serializeNpy('|u1', [2, 13], encode(values, 'e4m3fn')));
  const loose = await run('encode', 'x.npy', '--output', 'loose.npy', '--format', 'fp8_e5m2', '--no-saturate');
  assertDone(loose);
  is(loose.out, 'loose.npy: 26 e5m2 codes\n');
  const codes = encode(values, 'e5m2', { saturate: false });
  assertSameBits(parseNpy(get('loose.npy'), 'loose.npy').data, codes);
  ok(!codes.every((code, i) => code === encode(values, 'e5m2')[i]), 'saturation matters here');
  const decoded = await run('decode', 'loose.npy', '-o', 'back.npy', '--format', 'e5m2');
  assertDone(decoded);
  is(decoded.out, 'back.npy: 26 f32 values\n');
  const back = serializeNpy('<f4', [2, 13], bytesOf(decode(codes, 'e5m2')));
  assertSameBits(get('back.npy'), back);
  // As ml_dtypes' arrays are saved: e5m2 says what it is.
  for (const [descr, ...options] of [['|V1', '--format', 'e5m2'], ['<V1', '--format', 'e5m2'], ['<f1']] as const) {
    put('saved.npy', serializeNpy(descr, [2, 13], codes));
    assertDone(await run('decode', 'saved.npy', '-o', 'again.npy', ...options));
    assertSameBits(get('again.npy'), back);
  }
  assertFailed(await run('decode', 'saved.npy', '-o', 'again.npy', '--format', 'e4m3fn'), 2, /--format is e4m3fn, but saved\.npy holds <f1, e5m2 of ml_dtypes/);
});

test('bf16 bits in a <u2 .npy, and f16', async () => {
  put('bits.npy', serializeNpy('<u2', [12], bytesOf(halves)));
  put('half.npy', serializeNpy('<f2', [12], bytesOf(halves)));
  assertDone(await run('encode', 'bits.npy', '-o', 'bf16.npy', '--from', 'bf16'));
  assertSameBits(parseNpy(get('bf16.npy'), 'bf16.npy').data, encode(halves, 'e4m3fn', { from: 'bf16' }));
  assertDone(await run('encode', 'half.npy', '-o', 'f16.npy'));
  assertSameBits(parseNpy(get('f16.npy'), 'f16.npy').data, encode(halves, 'e4m3fn', { from: 'f16' }));
});

test('.safetensors: floating-point tensors are encoded, FP8 decoded, others and metadata kept', async () => {
  assertDone(await run('encode', 'x.safetensors', '-o', 'codes.safetensors', '--format', 'e5m2'));
  const [a, b, c] = [encode(values, 'e5m2'), encode(halves, 'e5m2', { from: 'bf16' }), encode(halves, 'e5m2', { from: 'f16' })];
  const codes = new Map([
    ['a', tensor('F8_E5M2', [26], a)], ['b', tensor('F8_E5M2', [3, 4], b)], ['c', tensor('F8_E5M2', [12], c)], ['other', integers],
  ]);
  assertSameBits(get('codes.safetensors'), serializeSafetensors(codes, metadata));
  const decoded = await run('decode', 'codes.safetensors', '-o', 'back.safetensors', '--json');
  assertDone(decoded);
  equal(JSON.parse(decoded.out), { output: 'back.safetensors', values: 50 });
  const { tensors } = parseSafetensors(get('back.safetensors'), 'back');
  equal(tensors.get('b'), tensor('F32', [3, 4], decode(b, 'e5m2')));
  equal(tensors.get('other'), integers);
});

const fresh = join(folder, 'fresh');
/** Arguments that no command takes. */
const usage: readonly (readonly [Command, readonly string[], RegExp])[] = [
  [encodeCommand, [], /expected one input file, got 0/],
  [encodeCommand, ['x.npy', 'codes.npy', '-o', `${fresh}.npy`], /expected one input file, got 2/],
  [encodeCommand, ['x.npy'], /expected -o FILE/],
  [encodeCommand, ['x.npy', '-o', './x.npy'], /-o expected another file than the input, got \.\/x\.npy/],
  [decodeCommand, ['x.npy', '-o', 'x.npy'], /-o expected another file than the input/],
  [encodeCommand, ['x.npy', '-o', `${fresh}.safetensors`], /fresh\.safetensors: expected a \.npy file, as the input/],
  [encodeCommand, ['x.bin', '-o', `${fresh}.bin`], /x\.bin: expected a \.npy or \.safetensors file/],
  [encodeCommand, ['x.npy', '-o', `${fresh}.npy`, '--format', 'f16'], /"--format" expected one of e4m3fn, e5m2, fp8, .*, got "f16"/],
  [encodeCommand, ['x.npy', '-o', `${fresh}.npy`, '--saturate'], /Unknown option '--saturate'/],
  [encodeCommand, ['x.npy', '-o', '--json'], /argument is ambiguous/],
  [encodeCommand, ['x.safetensors', '-o', `${fresh}.safetensors`, '--from', 'bf16'], /--from is for \.npy files/],
  [decodeCommand, ['x.safetensors', '-o', `${fresh}.safetensors`, '--format', 'e5m2'], /--format is for \.npy files/],
  [attend, [], /expected case files, got none/],
  [attend, ['a.safetensors', 'b.safetensors', '-o', fresh], /-o is for a single case, got 2: use --out-dir/],
  [append, ['a.safetensors', '-o', fresh, '--out-dir', fresh], /expected -o or --out-dir, got both/],
  [append, ['a.safetensors', 'x/a.safetensors', '--out-dir', fresh], /expected cases with different file names, got a\.safetensors twice/],
  [append, ['x/a.safetensors', '--out-dir', 'x'], /expected a result file other than the case, got x\/a\.safetensors for both/],
  [attend, ['a.safetensors', '-o', './a.safetensors'], /expected a result file other than the case, got a\.safetensors for both/],
  [attend, ['a.safetensors', '--backend', 'cuda'], /--backend expected wasm or webgpu, got cuda/],
  [doctor, ['a.safetensors'], /expected no file, got a\.safetensors/],
  [doctor, ['--exhaustive'], /--exhaustive expected --align with it/],
];

test('wrong usage is refused in one line, before anything is read or written', async () => {
  for (const [command, args, message] of usage) {
    const error = await command.run([...args]).then(() => undefined, (reason: unknown) => reason as Error);
    ok(error instanceof UsageError, `${args.join(' ')}: got ${String(error)}`);
    match(error.message, message);
    ok(!error.message.includes('\n'), error.message);
  }
  ok(!readdirSync(folder).some((name) => name.startsWith('fresh')));
});

test('exit codes: 2 for wrong usage, 1 for what cannot be read', async () => {
  assertFailed(await run('transmute', 'x.npy'), 2, /^fp8-kv: no command "transmute": expected one of encode, decode, append, attend, evaluate, calibrate, check, gen, inspect, doctor, tune$/m);
  assertFailed(await run('encode', 'x.npy', '--out'), 2, /^fp8-kv encode: Unknown option '--out'/);
  assertFailed(await run('encode', 'nowhere.npy', '-o', 'new.npy'), 1, /^fp8-kv encode: ENOENT: no such file or directory, open 'nowhere\.npy'/);
  const short = await run('encode', 'broken.npy', '-o', 'new.npy');
  assertFailed(short, 1, /^fp8-kv encode: broken\.npy, byte 128: <f4 \[2, 13\] expected 104 bytes of data, got 12/);
  const cut = await run('decode', 'broken.safetensors', '-o', 'new.safetensors');
  assertFailed(cut, 1, /^fp8-kv decode: broken\.safetensors, byte 0: the header claims/);
  assertFailed(await run('decode', 'x.npy', '-o', 'new.npy'), 1, /^fp8-kv decode: x\.npy holds <f4: expected \|u1/);
  assertFailed(await run('decode', 'x.safetensors', '-o', 'new.safetensors'), 1, /expected F8_E4M3 or F8_E5M2 tensors, got none/);
  assertFailed(await run('encode', 'x.npy', '-o', 'nowhere/new.npy'), 2, /^fp8-kv encode: nowhere\/new\.npy expected a folder that can be written to, got nowhere/);
  assertFailed(await run('decode', 'x.npy', '-o', 'nowhere/new.npy'), 2, /^fp8-kv decode: nowhere\/new\.npy expected a folder/);
  ok(!existsSync(join(folder, 'new.npy')) && !existsSync(join(folder, 'new.safetensors')));
});

test('help says what there is', async () => {
  const none = await run();
  is(none.code, 2);
  const overview = await run('--help');
  assertDone(overview);
  is(none.out, overview.out);
  match((await run('--version')).out, /^\d+\.\d+\.\d+\n$/);
  for (const name of ['encode', 'decode', 'append', 'attend', 'doctor']) match(overview.out, new RegExp(`^  ${name}`, 'm'));
  const one = await run('attend', 'x', '--help');
  assertDone(one);
  match(one.out, /^fp8-kv attend CASE/);
});

/** The result that the library gives for a case. */
async function attended(bytes: Uint8Array): Promise<Uint8Array> {
  const attendCase = readAttendCase(bytes, 'case');
  return writeAttendResult(attendCase, await runAttendCase(wasmBackend(), attendCase));
}

test('attend: a case that differs or fails ends in exit code 1, the others are still run and written', async () => {
  const cases = ['wrong', 'cut', 'right', 'nowhere', 'wrong-lse', 'other'].map((name) => `${name}.safetensors`);
  const result = await run('attend', ...cases, '--out-dir', 'deep/results', '--backend', 'wasm', '--json');
  is(result.code, 1);
  is(result.err, '');
  const report = JSON.parse(result.out);
  is(report.backend, 'wasm');
  is(report.failed, 4);
  equal(report.cases.map((each: { case: string; ok: boolean }) => [each.case, each.ok]), cases.map((name, i) => [name, i === 2 || i === 5]));
  const reasons = report.cases.map((each: { reason?: string }) => each.reason ?? '');
  match(reasons[0], /^out is off by [\d.e+-]+ of its row, the bound is 0\.0001$/);
  match(reasons[1], /^cut\.safetensors, byte \d+: /);
  match(reasons[3], /^ENOENT/);
  match(reasons[4], /^lse is off by/);
  ok(report.cases[2].figures.out <= 1e-4 && report.cases[2].output === join('deep/results', 'right.safetensors'));
  equal(readdirSync(join(folder, 'deep/results')).sort(), ['other', 'right', 'wrong-lse', 'wrong'].map((name) => `${name}.safetensors`));
  for (const name of ['wrong', 'right']) assertSameBits(get(`deep/results/${name}.safetensors`), await attended(right), name);
  assertSameBits(get('deep/results/other.safetensors'), await attended(other));
});

test('attend: lines for people, one on stderr for each failure, and -o', async () => {
  const many = await run('attend', 'wrong.safetensors', 'right.safetensors', 'cut.safetensors');
  is(many.code, 1);
  match(many.out, /^ok right\.safetensors: out [\d.e-]+, lse [\d.e-]+\n1 of 3 cases ok\n$/);
  match(many.err, /^FAILED wrong\.safetensors: out is off by [^\n]+\nFAILED cut\.safetensors, byte [^\n]+\n$/);
  assertFailed(await run('attend', 'wrong.safetensors', '-o', 'wrong-out.safetensors'), 1, /^FAILED wrong\.safetensors: out is off by/);
  assertSameBits(get('wrong-out.safetensors'), await attended(right));
  const one = await run('attend', 'right.safetensors', '-o', 'out.safetensors');
  assertDone(one);
  match(one.out, /^ok right\.safetensors: [^\n]+\n$/);
  assertSameBits(get('out.safetensors'), await attended(right));
});

test('append: results as the library gives them, and the first byte that differs', async () => {
  const bytes = await appendCase(numbers);
  put('append.safetensors', bytes);
  put('scale.safetensors', changed(bytes, 'expected.v_scale', (scales) => (scales[4] = -scales[4])));
  const { tensors } = await runAppendCase(wasmBackend(), readAppendCase(bytes, 'case'));
  const result = await run('append', 'append.safetensors', '-o', 'cache.safetensors', '--json');
  assertDone(result);
  equal(JSON.parse(result.out), {
    backend: 'wasm', failed: 0,
    cases: [{ case: 'append.safetensors', ok: true, output: 'cache.safetensors', figures: { written: 2, skipped: 1 } }],
  });
  assertSameBits(get('cache.safetensors'), writeAppendResult(tensors));
  const wrong = await run('append', 'scale.safetensors', 'append.safetensors', '--out-dir', 'caches');
  is(wrong.code, 1);
  match(wrong.err, /^FAILED scale\.safetensors: v_scale differs in 1 bytes, first at 19: expected 0x[0-9a-f]{2}, got 0x[0-9a-f]{2}\n$/);
  match(wrong.out, /^ok append\.safetensors: written 2, skipped 1\n1 of 2 cases ok\n$/);
  for (const name of ['scale', 'append']) assertSameBits(get(`caches/${name}.safetensors`), writeAppendResult(tensors), name);
  const foreign = await run('append', 'right.safetensors');
  assertFailed(foreign, 1, /^FAILED right\.safetensors, byte 8: metadata "fp8_kv_case" expected append\/1, got "attend\/1"/);
});

test('doctor: what the machine offers', async () => {
  const text = await run('doctor');
  assertDone(text);
  match(text.out, /^WebAssembly {3}SIMD yes/m);
  match(text.out, /^GPU {11}\S/m);
  match(text.out, /^codec {9}e4m3fn exact, e5m2 exact/m);
  match(text.out, /^backend {7}(webgpu|wasm, (baseline|relaxed) build): \S/m);
  const json = await run('doctor', '--json');
  assertDone(json);
  const found = JSON.parse(json.out);
  equal(found.codec, { e4m3fn: true, e5m2: true });
  ok(found.ok && found.wasm.simd);
  is(found.machine.runtime, `Node ${process.version}`);
  ok(found.gpu.name || found.gpu.problem);
  ok(found.choice.reason);
  ok(found.gigaValuesPerSecond.encode > 0 && found.gigaValuesPerSecond.decode > 0);
});
