import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { MAX_SAFETENSORS_HEADER_BYTES } from '../../src/files/safetensors-header.js';
import { dtypeBytes, float32, int32, uint16, uint8 } from '../../src/files/tensor.js';
import type { SafetensorsDtype, Tensor } from '../../src/files/tensor.js';
import { assertSameBits } from '../bits.js';
import { suite } from '../suite.js';
import { assertEveryTruncationRefused, assertRefused, concat, countReadable, encode, mutations } from './attacks/attack.js';
import { attacks, fileOf } from './attacks/safetensors.js';

const test = suite('files/safetensors');

const tensorOf = (dtype: SafetensorsDtype, shape: number[], values: ArrayBufferView): Tensor => {
  return { dtype, shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
};

const example = new Map<string, Tensor>([
  ['k_cache', tensorOf('F8_E4M3', [1, 3], Uint8Array.of(0x7e, 0x80, 0x7f))],
  ['out', tensorOf('F32', [2], Float32Array.of(-0, 1.5))],
  ['q', tensorOf('BF16', [2, 1], Uint16Array.of(0x3f80, 0x7fc0))],
  ['block_table', tensorOf('I32', [1], Int32Array.of(-1))],
  ['empty', tensorOf('F64', [0, 4], new Float64Array(0))],
  ['scalar', tensorOf('F16', [], Uint16Array.of(0x3c00))],
]);
const metadata = new Map([['fp8_kv_case', 'attend/1'], ['causal', 'true']]);

function assertSameTensors(actual: ReadonlyMap<string, Tensor>, expected: ReadonlyMap<string, Tensor>): void {
  assert.equal([...actual.keys()].sort(), [...expected.keys()].sort());
  for (const [name, tensor] of expected) {
    const { dtype, shape, data } = actual.get(name)!;
    assert.is(dtype, tensor.dtype, name);
    assert.equal(shape, tensor.shape, name);
    assertSameBits(data, tensor.data, name);
  }
}

test('reads a file written by hand', () => {
  const b = '{"data_offsets":[4,6],"dtype":"U8","shape":[2]}';
  const seven = '{ "dtype" : "F32" , "shape" : [ ] , "data_offsets" : [ 0 , 4 ] }';
  const header = `{"b":${b},"__metadata__":{"format":"pt"},"7":${seven}} \n\t`;
  const bytes = fileOf(header, 6);
  new DataView(bytes.buffer).setFloat32(8 + header.length, 0.5, true);
  bytes.set([1, 2], bytes.length - 2);
  const file = parseSafetensors(bytes, 'hand');
  assert.equal([...file.metadata], [['format', 'pt']]);
  assert.equal([...file.tensors.keys()], ['b', '7'], 'the order is the header\'s');
  assert.equal(float32(file.tensors.get('7')!), Float32Array.of(0.5));
  assert.equal(uint8(file.tensors.get('b')!), Uint8Array.of(1, 2));
});

test('reads what it wrote, as views onto the file', () => {
  const bytes = serializeSafetensors(example, metadata);
  const file = parseSafetensors(bytes, 'file');
  assertSameTensors(file.tensors, example);
  assert.equal([...file.metadata], [...metadata]);
  for (const [name, { data }] of file.tensors) assert.is(data.buffer, bytes.buffer, name);
});

test('writes large elements first, then by name, with all data aligned', () => {
  const { tensors } = parseSafetensors(serializeSafetensors(example, metadata), 'file');
  assert.equal([...tensors.keys()], ['empty', 'block_table', 'out', 'q', 'scalar', 'k_cache']);
  for (const [name, { dtype, data }] of tensors) assert.is(data.byteOffset % dtypeBytes[dtype], 0, name);
});

test('writes the documented bytes', () => {
  const header = '{"__metadata__":{"a":"\\"é"},"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}';
  const padding = 8 - (encode(header).length % 8);
  const expected = concat(fileOf(header + ' '.repeat(padding)), Uint8Array.of(1, 2));
  const actual = serializeSafetensors(new Map([['x', tensorOf('U8', [2], Uint8Array.of(1, 2))]]), new Map([['a', '"é']]));
  assertSameBits(actual, expected);
  assertSameBits(serializeSafetensors(new Map()), fileOf('{}      '));
});

test('writes the same bytes in whatever order the tensors come', () => {
  assertSameBits(serializeSafetensors(new Map([...example].reverse())), serializeSafetensors(example));
});

test('names such as __proto__ are names', () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', '0', '"\\\n', '\u0000', 'é😀'];
  const tensors = new Map(names.map((name, i) => [name, tensorOf('U8', [1], Uint8Array.of(i))] as const));
  const file = parseSafetensors(serializeSafetensors(tensors, new Map(names.map((name) => [name, name]))), 'file');
  assertSameTensors(file.tensors, tensors);
  assert.equal([...file.metadata], names.map((name) => [name, name]));
  assert.is(({} as Record<string, unknown>).dtype, undefined);
});

test('sizes of 0, and of 2^53 - 1 beside a 0, are read', () => {
  const shape = `[0,${Number.MAX_SAFE_INTEGER}]`;
  const { tensors } = parseSafetensors(fileOf(`{"a":{"dtype":"F32","shape":${shape},"data_offsets":[0,0]}}`), 'file');
  assert.equal(tensors.get('a')!.shape, [0, Number.MAX_SAFE_INTEGER]);
});

test('files in the middle of a buffer, in a Buffer and in shared memory are read', () => {
  const bytes = serializeSafetensors(example, metadata);
  const inTheMiddle = concat(new Uint8Array(3), bytes, new Uint8Array(5)).subarray(3, 3 + bytes.length);
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  for (const copy of [inTheMiddle, Buffer.from(bytes), shared]) {
    const { tensors } = parseSafetensors(copy, 'file');
    assertSameTensors(tensors, example);
    assert.equal(float32(tensors.get('out')!), Float32Array.of(-0, 1.5));
    assert.equal(int32(tensors.get('block_table')!), Int32Array.of(-1));
    assert.equal(uint16(tensors.get('q')!), Uint16Array.of(0x3f80, 0x7fc0));
    for (const [name, { data }] of tensors) assert.is(data.constructor, Uint8Array, name);
  }
});

test('typed arrays are views where the data is aligned, else copies', () => {
  const buffer = new ArrayBuffer(16);
  const at = (dtype: SafetensorsDtype, offset: number): Tensor => ({ dtype, shape: [1], data: new Uint8Array(buffer, offset, dtypeBytes[dtype]) });
  for (const [read, dtype] of [[float32, 'F32'], [int32, 'I32'], [uint16, 'F16'], [uint16, 'BF16'], [uint16, 'U16']] as const) {
    assert.is(read(at(dtype, 4)).buffer, buffer, dtype);
    const copy = read(at(dtype, 3));
    assert.is.not(copy.buffer, buffer, dtype);
    assert.is(copy.length, 1, dtype);
  }
  for (const dtype of ['F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'U8', 'I8', 'BOOL'] as const) assert.is(uint8(at(dtype, 3)).buffer, buffer, dtype);
});

test('typed arrays of another dtype are refused by name', () => {
  const tensor = example.get('q')!;
  assert.throws(() => float32(tensor, 'q'), (error: Error) => error instanceof TypeError && error.message === '"q" expected F32, got BF16');
  assert.throws(() => int32(tensor), (error: Error) => error.message === '"tensor" expected I32 or I64, got BF16');
  assert.throws(() => uint8(tensor), /"tensor" expected F8_E4M3 or .* got BF16/);
  assert.throws(() => uint16(example.get('out')!), /"tensor" expected F16 or BF16 or U16, got F32/);
});

test('what would make a malformed file is not written', () => {
  const write = (name: string, dtype: string, shape: number[], bytes: number) => () =>
    serializeSafetensors(new Map([[name, { dtype: dtype as SafetensorsDtype, shape, data: new Uint8Array(bytes) }]]));
  const refused = (call: () => unknown, type: typeof RangeError | typeof TypeError, reason: RegExp): void =>
    assert.throws(call, (error: Error) => error instanceof type && reason.test(error.message), reason.source);
  refused(write('w', 'F32', [2, 3], 20), RangeError, /"w" expected 24 bytes for F32 \[2, 3\], got 20/);
  refused(write('w', 'F32', [-1, -1], 4), RangeError, /"w" expected a shape of non-negative integers, got \[-1, -1\]/);
  refused(write('w', 'U8', [0.5, 2], 1), RangeError, /"w" expected a shape/);
  refused(write('w', 'U8', [2 ** 32, 2 ** 32], 0), RangeError, /"w" expected Infinity bytes/);
  refused(write('w', 'toString', [], 1), RangeError, /"w" expected a dtype of BOOL, .*, got toString/);
  refused(write('__metadata__', 'U8', [], 1), RangeError, /"tensors" expected names other than __metadata__/);
  refused(() => serializeSafetensors(new Map(), new Map([['a', 1 as unknown as string]])), TypeError, /"metadata" expected strings, got number for "a"/);
});

for (const attack of attacks) test(`refuses: ${attack.name}`, () => assertRefused(parseSafetensors, attack));

test('refuses a header over the limit that is really there', () => {
  const bytes = new Uint8Array(8 + MAX_SAFETENSORS_HEADER_BYTES + 1).fill(0x20);
  bytes.set(fileOf('{}', 0, BigInt(MAX_SAFETENSORS_HEADER_BYTES + 1)));
  assert.throws(() => parseSafetensors(bytes, 'large'), /the limit is 100000000/);
});

test('refuses a file cut at any byte', () => {
  assertEveryTruncationRefused(parseSafetensors, serializeSafetensors(example, metadata));
});

test('a file with some bytes replaced is read or refused, nothing else', () => {
  const valid = serializeSafetensors(example, metadata);
  const readable = countReadable(parseSafetensors, mutations(valid, 10_000, 0x5afe7e75));
  assert.ok(readable > 0 && readable < 10_000, `${readable} of 10000 were read`);
});

test('property: what is written is read back', () => {
  const tensor = fc
    .record({
      dtype: fc.constantFrom(...(Object.keys(dtypeBytes) as SafetensorsDtype[])),
      shape: fc.array(fc.nat(4), { maxLength: 4 }),
      fill: fc.nat(255),
    })
    .map(({ dtype, shape, fill }): Tensor => {
      return { dtype, shape, data: new Uint8Array(shape.reduce((a, b) => a * b, 1) * dtypeBytes[dtype]).map((_, i) => fill + i) };
    });
  const name = fc.string({ unit: 'binary' }).filter((text) => text !== '__metadata__');
  const tensors = fc.array(fc.tuple(name, tensor)).map((entries) => new Map(entries));
  const strings = fc.array(fc.tuple(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }))).map((entries) => new Map(entries));
  const property = fc.property(tensors, strings, (written, notes) => {
    const bytes = serializeSafetensors(written, notes);
    const file = parseSafetensors(bytes, 'file');
    assertSameTensors(file.tensors, written);
    assert.equal([...file.metadata], [...notes]);
    assertSameBits(serializeSafetensors(file.tensors, file.metadata), bytes, 'written again');
    for (const { dtype, data } of file.tensors.values()) assert.is(data.byteOffset % dtypeBytes[dtype], 0);
  });
  fc.assert(property, { seed: 20_240_301, numRuns: 500 });
});

test('property: any bytes behind a plausible length are read or refused', () => {
  const property = fc.property(fc.uint8Array({ maxLength: 64 }), fc.boolean(), (body, brace) => {
    if (brace && body.length > 0) body[0] = 0x7b;
    countReadable(parseSafetensors, [fileOf(body)]);
  });
  fc.assert(property, { seed: 7, numRuns: 5_000 });
});
