import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { MAX_NPY_DIMENSIONS, MAX_NPY_HEADER_BYTES, parseNpy, serializeNpy } from '../../src/files/npy.js';
import type { NpyDescr } from '../../src/files/npy.js';
import { dtypeBytes, float32, uint8 } from '../../src/files/tensor.js';
import type { SafetensorsDtype } from '../../src/files/tensor.js';
import { assertSameBits } from '../bits.js';
import { suite } from '../suite.js';
import { assertEveryTruncationRefused, assertRefused, concat, countReadable, mutations } from './attacks/attack.js';
import { attacks, dict, fileOf } from './attacks/npy.js';

const test = suite('files/npy');

const dtypes: { readonly [D in NpyDescr]: SafetensorsDtype } = {
  '<f4': 'F32', '<f2': 'F16', '|u1': 'U8', '|i1': 'I8', '<u2': 'U16', '<i4': 'I32', '<i8': 'I64', '|V1': 'U8', '<V1': 'U8', '<f1': 'F8_E5M2', '<V2': 'BF16',
};
const descrs = Object.keys(dtypes) as NpyDescr[];

const bytesOf = (values: ArrayBufferView): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

const small = serializeNpy('<f4', [2, 1], bytesOf(Float32Array.of(-0, 1.5)));

test('writes the bytes that numpy.save writes', () => {
  // numpy 2: np.save(file, np.array([[1, 2, 3]], np.uint8))
  const header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 3), }".padEnd(117) + '\n';
  assertSameBits(serializeNpy('|u1', [1, 3], Uint8Array.of(1, 2, 3)), concat(fileOf(header), Uint8Array.of(1, 2, 3)));
});

test('writes scalars, vectors and long shapes as Python tuples', () => {
  const text = (shape: number[]): string => Buffer.from(serializeNpy('|u1', shape, new Uint8Array(shape.reduce((a, b) => a * b, 1)))).toString('latin1');
  assert.match(text([]), "'shape': (), }");
  assert.match(text([3]), "'shape': (3,), }");
  assert.match(text([3, 0]), "'shape': (3, 0), }");
  assert.match(text(Array<number>(64).fill(1)), `'shape': (${Array(64).fill(1).join(', ')}), }`);
});

test('reads every element type as a tensor, as a view onto the file', () => {
  for (const descr of descrs) {
    const bytes = serializeNpy(descr, [2], new Uint8Array(2 * dtypeBytes[dtypes[descr]]).fill(7));
    const array = parseNpy(bytes, 'file');
    assert.is(array.descr, descr);
    assert.is(array.dtype, dtypes[descr]);
    assert.equal(array.shape, [2]);
    assert.is(array.data.buffer, bytes.buffer);
    assert.is(array.data.byteOffset % 64, 0);
  }
  assertSameBits(float32(parseNpy(small, 'file')), Float32Array.of(-0, 1.5));
});

test('reads versions 1.0, 2.0 and 3.0', () => {
  for (const major of [1, 2, 3]) assert.equal(parseNpy(fileOf(dict("'<u2'", 'False', '(3,)'), 6, [major, 0]), 'file').shape, [3]);
});

test('reads headers as other programs write them', () => {
  const headers = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }",
    "{'shape': (2, 3), 'fortran_order': False, 'descr': '|u1'}\n",
    '{"descr":"|u1","fortran_order":False,"shape":(2,3)}',
    "{ 'descr' : '|u1' ,\n\t'fortran_order' : False , 'shape' : ( 2 , 3 , ) , }  \n",
    dict("'|u1'", 'False', '(2, 3,)'),
  ];
  for (const header of headers) {
    const { descr, shape, data } = parseNpy(fileOf(header, 6), 'file');
    assert.is(descr, '|u1', header);
    assert.equal(shape, [2, 3], header);
    assert.is(data.length, 6, header);
  }
});

test('column-major order is no matter below two dimensions', () => {
  assert.equal(parseNpy(fileOf(dict("'|u1'", 'True', '(3,)'), 3), 'file').shape, [3]);
  assert.equal(parseNpy(fileOf(dict("'|u1'", 'True', '()'), 1), 'file').shape, []);
});

test('reads a header at the limit', () => {
  assert.is(parseNpy(fileOf(dict("'|u1'", 'False', '(3,)').padEnd(MAX_NPY_HEADER_BYTES), 3), 'file').data.length, 3);
});

test('files in the middle of a buffer, in a Buffer and in shared memory are read', () => {
  const inTheMiddle = concat(new Uint8Array(3), small, new Uint8Array(5)).subarray(3, 3 + small.length);
  const shared = new Uint8Array(new SharedArrayBuffer(small.length));
  shared.set(small);
  for (const copy of [inTheMiddle, Buffer.from(small), shared]) {
    const array = parseNpy(copy, 'file');
    assert.is(array.data.constructor, Uint8Array);
    assertSameBits(float32(array), Float32Array.of(-0, 1.5));
  }
});

test('what would make a malformed file is not written', () => {
  const refused = (descr: string, shape: number[], bytes: number, reason: RegExp): void =>
    assert.throws(
      () => serializeNpy(descr as NpyDescr, shape, new Uint8Array(bytes)),
      (error: Error) => error instanceof RangeError && reason.test(error.message),
      reason.source,
    );
  refused('<f4', [2, 3], 20, /"data" expected 24 bytes for F32 \[2, 3\], got 20/);
  refused('<f8', [1], 8, /"descr" expected one of <f4, .*, got <f8/);
  refused('toString', [1], 8, /"descr" expected one of <f4, .*, got toString/);
  refused('|u1', [-1, -1], 1, /"data" expected a shape of non-negative integers, got \[-1, -1\]/);
  refused('|u1', Array<number>(MAX_NPY_DIMENSIONS + 1).fill(1), 1, /"shape" expected at most 64 dimensions, got 65/);
});

for (const attack of attacks) test(`refuses: ${attack.name}`, () => assertRefused(parseNpy, attack));

test('refuses a file cut at any byte', () => {
  assertEveryTruncationRefused(parseNpy, small);
  assertEveryTruncationRefused(parseNpy, fileOf(dict("'|i1'", 'False', '(2,)'), 2, [2, 0]));
});

test('a file with some bytes replaced is read or refused, nothing else', () => {
  const readable = countReadable(parseNpy, mutations(small, 10_000, 0x93));
  assert.ok(readable > 0 && readable < 10_000, `${readable} of 10000 were read`);
});

test('property: what is written is read back', () => {
  const property = fc.property(fc.constantFrom(...descrs), fc.array(fc.nat(4), { maxLength: 5 }), fc.nat(255), (descr, shape, fill) => {
    const data = new Uint8Array(shape.reduce((a, b) => a * b, 1) * dtypeBytes[dtypes[descr]]).map((_, i) => fill + i);
    const bytes = serializeNpy(descr, shape, data);
    const array = parseNpy(bytes, 'file');
    assert.is(array.descr, descr);
    assert.equal(array.shape, shape);
    assertSameBits(array.data, data);
    assertSameBits(serializeNpy(array.descr, array.shape, array.data), bytes, 'written again');
  });
  fc.assert(property, { seed: 20_240_302, numRuns: 500 });
});

test('property: any text as a header is read or refused', () => {
  const words = ["'descr'", "'shape'", "'fortran_order'", "'|u1'", 'False', 'True', '1', '()', '(1,)'];
  const token = fc.constantFrom(...words, ...':,(){} \n');
  const property = fc.property(fc.array(token, { maxLength: 20 }), fc.boolean(), (tokens, brace) => {
    countReadable(parseNpy, [fileOf((brace ? '{' : '') + tokens.join(''), 1)]);
  });
  fc.assert(property, { seed: 11, numRuns: 5_000 });
});

test('a scalar of codes is one byte', () => {
  assertSameBits(uint8(parseNpy(serializeNpy('|u1', [], Uint8Array.of(0x7e)), 'file')), Uint8Array.of(0x7e));
});
