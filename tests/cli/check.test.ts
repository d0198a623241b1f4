import { join } from 'node:path';
import { equal, is, match } from 'uvu/assert';
import { readCaseFolder, writeCaseFolder } from '../../src/cli/case-folder.js';
import { parseNpy, serializeNpy } from '../../src/files/npy.js';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { encode, quantize } from '../../src/index.js';
import { checkCase, generateAppendCase } from '../../src/oracle/index.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { appendCase, assertDone, assertFailed, bytesOf, commandLine, tensor } from './harness.js';

const test = suite('cli, check');
const { folder, run, put, get, remove } = commandLine();
test.after(remove);

const numbers = random(19);
const values = numbers.normals(2 * 3 * 16);
const shape = [2, 3, 16];
const { codes, scales } = quantize(values, { rowLength: 16 });
put('x.npy', serializeNpy('<f4', shape, bytesOf(values)));
put('codes.npy', serializeNpy('|u1', shape, codes));
put('scales.npy', serializeNpy('<f4', [2, 3], bytesOf(scales)));

test('equal, as text and as JSON', async () => {
  const done = await run('check', '--input', 'x.npy', '--codes', 'codes.npy', '--scales', 'scales.npy', '--granularity', 'token-head');
  assertDone(done);
  is(done.out, 'equal: 96 codes and 6 scales\n');
  const json = await run('check', '--input', 'x.npy', '--codes', 'codes.npy', '--granularity', 'token-head', '--json');
  assertDone(json);
  equal(JSON.parse(json.out), { kind: 'codes', equal: true, codes: 96, scales: 0, differing: { codes: 0, scales: 0 }, first: [] });
});

test('what differs, and the dialect: exit code 1', async () => {
  const large = Float32Array.of(1, 500, -500);
  put('large.npy', serializeNpy('<f4', [3], bytesOf(large)));
  put('nosat.npy', serializeNpy('|V1', [3], encode(large, 'e4m3fn', { saturate: false })));
  const { code, out, err } = await run('check', '--input', 'large.npy', '--codes', 'nosat.npy');
  is(code, 1);
  is(err, '');
  match(out, /^2 of 3 codes differ, first\n {2}codes\[1\]: input 0x43fa0000 \(500\), expected 0x7e \(448\), found 0x7f \(NaN\)\n/);
  match(out, /\n {2}non-saturating: .*\(CUDA/);
  assertDone(await run('check', '--input', 'large.npy', '--codes', 'nosat.npy', '--no-saturate'));
  const json = await run('check', '--input', 'large.npy', '--codes', 'nosat.npy', '--json');
  is(json.code, 1);
  const { first, explanation } = JSON.parse(json.out);
  equal(first[0], { tensor: 'codes', at: [1], input: '0x43fa0000', inputValue: 500, expected: '0x7e', found: '0x7f', expectedValue: 448, foundValue: 'NaN' });
  equal(explanation.all.map(({ name }: { name: string }) => name), ['non-saturating', 'torch', 'ml_dtypes', 'LLVM']);
});

test('tensors of a .safetensors file, which says the format, and bfloat16 of ml_dtypes', async () => {
  const bits = Uint16Array.of(0x3f80, 0xbf80, 0x4000);
  const codesOf = encode(bits, 'e5m2', { from: 'bf16' });
  put('x.safetensors', serializeSafetensors(new Map([['x', tensor('BF16', [3], bits)], ['y', tensor('F8_E5M2', [3], codesOf)]])));
  put('bf16.npy', serializeNpy('<V2', [3], bytesOf(bits)));
  assertDone(await run('check', '--input', 'x.safetensors#x', '--codes', 'x.safetensors#y'));
  assertDone(await run('check', '--input', 'bf16.npy', '--codes', 'x.safetensors#y'));
  assertFailed(await run('check', '--input', 'x.safetensors', '--codes', 'x.safetensors#y'), 2, /x\.safetensors#NAME, with one of x, y/);
  assertFailed(await run('check', '--input', 'bf16.npy', '--codes', 'x.safetensors#y', '--format', 'e4m3fn'), 2, /--format is e4m3fn, but the codes are F8_E5M2/);
});

test('a case: equal, or what differs by side', async () => {
  const bytes = await appendCase(numbers);
  put('case.safetensors', bytes);
  const done = await run('check', 'case.safetensors');
  assertDone(done);
  is(done.out, 'k: equal: 96 codes and 12 scales\nv: equal: 96 codes and 12 scales\n');
  const { tensors, metadata } = parseSafetensors(bytes.slice(), 'case');
  tensors.get('expected.v_cache')!.data[90] ^= 1;
  put('wrong.safetensors', serializeSafetensors(tensors, metadata));
  const { code, out } = await run('check', 'wrong.safetensors');
  is(code, 1);
  match(out, /^k: equal: .*\nv: 1 of 96 codes and 0 of 12 scales differ, first\n {2}v_cache\[1, 2, 1, 2\]: input 0x[0-9a-f]{8} \(-?[\d.e-]+\), scale [\d.]+, expected .*\nno known dialect explains it\n$/);
  assertFailed(await run('check', 'case.safetensors', '--format', 'e5m2'), 2, /got --format beside case\.safetensors/);
});

test('what gen writes is equal', async () => {
  assertDone(await run('gen', 'append', '-o', 'generated.safetensors', '--format', 'int8', '--granularity', 'group', '--group-size', '8', '--head-dim', '24'));
  assertDone(await run('check', 'generated.safetensors'));
  assertFailed(await run('gen', 'append', '-o', 'no.safetensors', '--recipe', 'mila-activation', '--format', 'int8'), 2, /"recipe" expected amax/);
  assertFailed(await run('gen', 'append', '-o', 'no.npz'), 2, /no\.npz expected a \.safetensors file, or a folder/);
  assertFailed(await run('gen', 'prefill', '-o', 'no.safetensors'), 2, /expected codes, append or attend, got prefill/);
});

test('a case as a folder of .npy, in which a kernel puts what it made', async () => {
  const gen = ['gen', 'codes', '-o', 'folder', '--format', 'e5m2', '--granularity', 'head', '--dtype', 'bf16', '--head-dim', '16'];
  const done = await run(...gen, '--json');
  assertDone(done);
  equal(JSON.parse(done.out), { output: 'folder', kind: 'codes', files: ['case.json', 'expected.codes.npy', 'input.npy', 'scales.npy'] });
  is(parseNpy(get('folder/expected.codes.npy'), 'codes').descr, '|u1');
  is(parseNpy(get('folder/input.npy'), 'input').descr, '<u2');
  assertDone(await run('check', 'folder'));
  const { shape, data } = parseNpy(get('folder/expected.codes.npy'), 'codes');
  put('folder/expected.codes.npy', serializeNpy('<f1', shape, data.map((code, i) => (i === 7 ? code ^ 0x10 : code))));
  const { code, out } = await run('check', 'folder');
  is(code, 1);
  match(out, /^1 of 1280 codes differ, first\n {2}codes\[0, 0, 7\]: input 0x[0-9a-f]{4} \(.*\), scale [\d.]+, expected 0x/);
  put('folder/expected.codes.npy', serializeNpy('|i1', shape, data));
  assertFailed(await run('check', 'folder'), 2, /metadata states e5m2, tensor "expected\.codes" is I8/);
  assertFailed(await run(...gen), 2, /folder expected a new folder, or an empty one/);
});

test('a folder of every dtype, as plain numpy has it and as ml_dtypes', async () => {
  for (const [name, mlDtypes, descr] of [['plain', false, '|u1'], ['of-ml-dtypes', true, '|V1']] as const) {
    const bytes = await generateAppendCase({ dtype: 'bf16', headDim: 8, tokens: 5 });
    writeCaseFolder(join(folder, name), bytes, mlDtypes);
    is(parseNpy(get(`${name}/expected.k_cache.npy`), 'codes').descr, descr);
    const again = readCaseFolder(join(folder, name));
    equal(new Map([...parseSafetensors(again, 'again').tensors].sort()), new Map([...parseSafetensors(bytes, 'case').tensors].sort()));
    is((await checkCase(again, name)).equal, true);
  }
});

/** numpy 2.4.6: np.savez_compressed(file, x=np.array([1, 2, -3, 448], np.float32), codes=np.array([0x38, 0x40, 0xc4, 0x7e], np.uint8)) */
const npz = [
  'UEsDBC0AAAAIAAAAIQACtsYY//////////8FABQAeC5ucHkBABAAkAAAAAAAAABTAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TZqKuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5Gi',
  'Y6mjoKtQoUAC4GhgZ7BgYGByA6wMDwwBkAUEsDBC0AAAAIAAAAIQDUSQ2v//////////8JABQAY29kZXMubnB5AQAQAIQAAAAAAAAASAAAAAAAAACb7BfqGxDJyFDGUK2eklqcXKRupaBeU2qorqOg',
  'npZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RomOpo6CrUKFAAuC4cjdQBQSwECLQMtAAAACAAAACEAArbGGFMAAACQAAAABQAAAAAAAAAAAAAAgAEAAAAAeC5ucHlQSwECLQMtAAAACAAAACEA1E',
  'kNr0gAAACEAAAACQAAAAAAAAAAAAAAgAGKAAAAY29kZXMubnB5UEsFBgAAAAACAAIAagAAAA0BAAAAAA==',
].join('');

test("arrays of numpy's .npz", async () => {
  put('both.npz', Buffer.from(npz, 'base64'));
  const done = await run('check', '--input', 'both.npz#x', '--codes', 'both.npz#codes');
  assertDone(done);
  is(done.out, 'equal: 4 codes\n');
  assertFailed(await run('check', '--input', 'both.npz', '--codes', 'both.npz#codes'), 2, /both\.npz#NAME, with one of x, codes/);
});

test('wrong usage and files that cannot be read are exit code 2', async () => {
  assertFailed(await run('check', '--input', 'x.npy'), 2, /expected --input FILE and --codes FILE/);
  assertFailed(await run('check', '--input', 'x.npy', '--codes', 'scales.npy'), 2, /--codes expected the shape of the input, \[2, 3, 16\], got \[2, 3\]/);
  assertFailed(await run('check', '--input', 'x.npy', '--codes', 'codes.npy', '--scales', 'scales.npy'), 2, /--scales expected --granularity/);
  assertFailed(await run('check', '--input', 'x.npy', '--codes', 'codes.npy', '--granularity', 'row'), 2, /granularity" expected one of tensor/);
  assertFailed(await run('check', '--input', 'x.npy', '--codes', 'codes.npy', '--granularity', 'token-head', '--recipe', 'mine'), 2, /"recipe" expected one of/);
  assertFailed(await run('check', 'x.npy'), 2, /got x\.npy: arrays are named by --input and --codes/);
  put('swapped.npy', Buffer.from(Buffer.from(serializeNpy('<f4', shape, bytesOf(values))).toString('latin1').replace('<f4', '>f4'), 'latin1'));
  assertFailed(await run('check', '--input', 'swapped.npy', '--codes', 'codes.npy'), 2, /descr ">f4" is big endian/);
});
