import { concat, encode } from './attack.js';
import type { Attack } from './attack.js';

const LIMIT = 100_000_000;
const DEEP = 100_000;

function lengthBytes(length: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, length, true);
  return bytes;
}

/** A file around a header, right or wrong. */
export function fileOf(header: string | Uint8Array, dataBytes = 0, claim?: bigint): Uint8Array {
  const text = typeof header === 'string' ? encode(header) : header;
  return concat(lengthBytes(claim ?? BigInt(text.length)), text, new Uint8Array(dataBytes));
}

const entry = (dtype: string, shape: string, begin: number | string, end: number | string): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

/** An attack by header alone: the error stands where `marker` is first found in the header. */
function header(name: string, text: string, marker: string, reason: RegExp, dataBytes = 0): Attack {
  return { name, bytes: fileOf(text, dataBytes), offset: 8 + encode(text.slice(0, text.indexOf(marker))).length, reason };
}

/** An attack by data: the error stands `offset` bytes into the data. */
function data(name: string, text: string, dataBytes: number, offset: number, reason: RegExp): Attack {
  return { name, bytes: fileOf(text, dataBytes), offset: 8 + text.length + offset, reason };
}

const endOf = (name: string, text: string, reason: RegExp): Attack => ({ name, bytes: fileOf(text), offset: 8 + text.length, reason });

const lengths: Attack[] = [
  { name: 'empty file', bytes: new Uint8Array(0), offset: 0, reason: /at least 8 bytes, this one has 0/ },
  { name: 'seven bytes', bytes: new Uint8Array(7), offset: 0, reason: /at least 8 bytes, this one has 7/ },
  { name: 'header of 2^60 bytes', bytes: fileOf('{}', 0, 1n << 60n), offset: 0, reason: /claims 1152921504606846976 bytes, the limit is 100000000/ },
  { name: 'header of 2^64 - 1 bytes', bytes: fileOf('{}', 0, (1n << 64n) - 1n), offset: 0, reason: /the limit is/ },
  { name: 'header one byte over the limit', bytes: fileOf('{}', 0, BigInt(LIMIT + 1)), offset: 0, reason: /the limit is/ },
  { name: 'header at the limit, file small', bytes: fileOf('{}', 0, BigInt(LIMIT)), offset: 0, reason: /claims 100000000 bytes, the file has 2/ },
  { name: 'header one byte longer than the file', bytes: fileOf('{}', 0, 3n), offset: 0, reason: /claims 3 bytes, the file has 2/ },
  { name: 'no header', bytes: fileOf(''), offset: 8, reason: /does not start with {/ },
  { name: 'no header, but data like one', bytes: fileOf('{}', 0, 0n), offset: 8, reason: /does not start with {/ },
];

const syntax: Attack[] = [
  header('white space before the header', ' {}', ' ', /does not start with {/),
  header('byte order mark', '\uFEFF{}', '\uFEFF', /does not start with {/),
  header('header is an array', '[]', '[', /does not start with {/),
  endOf('header is one brace', '{', /a key is not a string/),
  header('text after the header', '{} x', 'x', /goes on after its last }/),
  header('NUL padding', '{}\0\0', '\0', /goes on after its last }/),
  { name: 'two headers', bytes: fileOf('{}{}'), offset: 10, reason: /goes on after its last }/ },
  endOf('comma and nothing', `{"a":${entry('U8', '[0]', 0, 0)},`, /a key is not a string/),
  header('comma before the brace', '{"__metadata__":{"a":"b",}}', '}', /a key is not a string/),
  header('key without quotes', '{a:1}', 'a', /a key is not a string/),
  header('key in single quotes', "{'a':1}", "'", /a key is not a string/),
  header('no colon', '{"a" 1}', '1', /expected :/),
  header('no comma', `{"a":${entry('U8', '[0]', 0, 0)} "b":1}`, '"b"', /expected , or }/),
  header('string without end', '{"a', '"a', /a string has no end/),
  header('string that ends in a backslash', '{"a\\', '"a', /a string has no end/),
  header('string that ends in an escaped quote', '{"a\\"', '"a', /a string has no end/),
  header('bad escape', '{"\\x41":1}', '"', /bad escape/),
  header('control character in a string', '{"a\nb":1}', '"', /control character/),
  header('deep arrays in place of a tensor', `{"a":${'['.repeat(DEEP)}`, '[', /expected {/),
  header('deep objects', `{"b":${'{"a":'.repeat(DEEP)}`, '"a"', /tensor "b" has an unknown field "a"/),
  header('deep arrays in a shape', `{"a":{"shape":[0,${'['.repeat(DEEP)}`, '[[', /not a non-negative integer/),
  header('deep arrays as dtype', `{"a":{"dtype":${'['.repeat(DEEP)}`, '[', /the dtype of tensor "a" is not a string/),
  header('deep arrays in the metadata', `{"__metadata__":{"a":${'['.repeat(DEEP)}`, '[', /the metadata "a" is not a string/),
  { name: 'name is not UTF-8', bytes: fileOf(concat(encode('{"'), Uint8Array.of(0xc3, 0x28), encode('":1}'))), offset: 9, reason: /not UTF-8/ },
  { name: 'overlong UTF-8', bytes: fileOf(concat(encode('{"'), Uint8Array.of(0xc0, 0xaf), encode('":1}'))), offset: 9, reason: /not UTF-8/ },
  { name: 'UTF-8 surrogate', bytes: fileOf(concat(encode('{"'), Uint8Array.of(0xed, 0xa0, 0x80), encode('":1}'))), offset: 9, reason: /not UTF-8/ },
  header('UTF-16', '{\0"\0a\0"\0:\x001\0}\0', '\0', /a key is not a string/),
];

const one = entry('U8', '[1]', 0, 1);

const keys: Attack[] = [
  header('a tensor twice', `{"a":${one},"a" :${one}}`, '"a" ', /the key "a" comes twice/, 1),
  header('a tensor twice, once escaped', `{"a":${one},"\\u0061":${one}}`, '"\\u', /the key "a" comes twice/, 1),
  header('__proto__ twice', `{"__proto__":${one},"__proto__" :${one}}`, '"__proto__" ', /the key "__proto__" comes twice/, 1),
  header('metadata twice', '{"__metadata__":{},"__metadata__" :{}}', '"__metadata__" ', /the key "__metadata__" comes twice/),
  header('a metadata key twice', '{"__metadata__":{"a":"1","a" :"2"}}', '"a" ', /the key "a" comes twice/),
  header('dtype twice', '{"a":{"dtype":"U8","dtype" :"I8"}}', '"dtype" ', /the key "dtype" comes twice/),
  header('metadata is an array', '{"__metadata__":[]}', '[', /expected {/),
  header('metadata is null', '{"__metadata__":null}', 'null', /expected {/),
  header('metadata number', '{"__metadata__":{"a":1}}', '1', /the metadata "a" is not a string/),
  header('metadata object', '{"__metadata__":{"__proto__":{}}}', '{}', /the metadata "__proto__" is not a string/),
  header('tensor is null', '{"a":null}', 'null', /expected {/),
  header('tensor is a number', '{"__proto__":1}', '1', /expected {/),
  header('unknown field', '{"a":{"stride":[1]}}', '"stride"', /tensor "a" has an unknown field "stride"/),
  header('__proto__ as a field', `{"a":{"__proto__":${one}}}`, '"__proto__"', /unknown field "__proto__"/),
  header('constructor as a field', '{"a":{"constructor":{"name":{"toString":1}}}}', '"constructor"', /unknown field "constructor"/),
  header('no dtype', '{"a":{"shape":[],"data_offsets":[0,0]}}', '"a"', /tensor "a" has no dtype/),
  header('no shape', '{"a":{"dtype":"U8","data_offsets":[0,0]}}', '"a"', /tensor "a" has no shape/),
  header('no data_offsets', '{"a":{"dtype":"U8","shape":[]}}', '"a"', /tensor "a" has no data_offsets/),
  header('no field', '{"a":{}}', '"a"', /tensor "a" has no dtype/),
  header('a name of a million characters', `{"${'x'.repeat(1_000_000)}":{}}`, '"x', /tensor "x{80}…" has no dtype/),
  header('a name behind wide characters', '{"__metadata__":{"é":"😀"},"a":{}}', '"a"', /tensor "a" has no dtype/),
];

const values: Attack[] = [
  header('dtype in lower case', `{"a":${entry('f32', '[]', 0, 4)}}`, '"f32"', /tensor "a" has the unknown dtype "f32"/, 4),
  header('dtype with a prototype name', `{"a":${entry('toString', '[]', 0, 4)}}`, '"toString"', /unknown dtype "toString"/, 4),
  header('dtype __proto__', `{"a":${entry('__proto__', '[]', 0, 4)}}`, '"__proto__"', /unknown dtype "__proto__"/, 4),
  header('dtype is a number', '{"a":{"dtype":8}}', '8', /the dtype of tensor "a" is not a string/),
  header('shape is an object', '{"a":{"shape":{"length":1}}}', '{"l', /the shape of tensor "a" is not an array/),
  header('shape is a string', '{"a":{"shape":"1"}}', '"1"', /the shape of tensor "a" is not an array/),
  header('negative shape', `{"a":${entry('U8', '[-1]', 0, 1)}}`, '-1', /not a non-negative integer/, 1),
  header('two negative sizes', `{"a":${entry('U8', '[-1,-1]', 0, 1)}}`, '-1', /not a non-negative integer/, 1),
  header('minus zero', `{"a":${entry('U8', '[-0]', 0, 0)}}`, '-0', /not a non-negative integer/),
  header('fraction', `{"a":${entry('U8', '[1.5]', 0, 1)}}`, '1.5', /not a non-negative integer/, 1),
  header('whole number with a point', `{"a":${entry('U8', '[1.0]', 0, 1)}}`, '1.0', /not a non-negative integer/, 1),
  header('exponent', `{"a":${entry('U8', '[1e0]', 0, 1)}}`, '1e0', /not a non-negative integer/, 1),
  header('leading zero', `{"a":${entry('U8', '[01]', 0, 1)}}`, '01', /not a non-negative integer/, 1),
  header('hexadecimal', `{"a":${entry('U8', '[0x1]', 0, 1)}}`, 'x1', /expected , or \]/, 1),
  header('string in a shape', `{"a":${entry('U8', '["1"]', 0, 1)}}`, '"1"', /not a non-negative integer/, 1),
  header('null in a shape', `{"a":${entry('U8', '[null]', 0, 1)}}`, 'null', /not a non-negative integer/, 1),
  header('NaN in a shape', `{"a":${entry('U8', '[NaN]', 0, 1)}}`, 'NaN', /not a non-negative integer/, 1),
  header('comma at the end of a shape', `{"a":${entry('U8', '[1,]', 0, 1)}}`, ']', /not a non-negative integer/, 1),
  header('shape of 2^60', `{"a":${entry('U8', '[1152921504606846976]', 0, 1)}}`, '1152', /number over 2\^53 - 1/, 1),
  header('shape of 2^53', `{"a":${entry('U8', '[9007199254740992]', 0, 1)}}`, '9007', /number over 2\^53 - 1/, 1),
  header('shape of a thousand digits', `{"a":${entry('U8', `[${'9'.repeat(1000)}]`, 0, 1)}}`, '999', /number over 2\^53 - 1/, 1),
  header('product of 2^60', `{"a":${entry('U8', '[1073741824,1073741824]', 0, 1)}}`, '"a"', /over 2\^53 - 1 bytes/, 1),
  header('product of 2^64, which wraps to 0', `{"a":${entry('U8', '[4294967296,4294967296]', 0, 0)}}`, '"a"', /over 2\^53 - 1 bytes/),
  header('product beyond 2^53 before a zero', `{"a":${entry('U8', '[4294967296,4294967296,0]', 0, 0)}}`, '"a"', /over 2\^53 - 1 bytes/),
  header('product beyond what a double holds', `{"a":${entry('U8', `[${Array(100).fill(2 ** 52)}]`, 0, 0)}}`, '"a"', /over 2\^53 - 1 bytes/),
  header('2^52 elements of 8 bytes', `{"a":${entry('F64', `[${2 ** 52}]`, 0, 1)}}`, '"a"', /over 2\^53 - 1 bytes/, 1),
  header('one offset', `{"a":{"dtype":"U8","shape":[],"data_offsets":[1]}}`, '"a"', /expected 2 integers, got 1/, 1),
  header('three offsets', `{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1,1]}}`, '"a"', /expected 2 integers, got 3/, 1),
  header('offsets are a number', `{"a":{"data_offsets":1}}`, '1', /data_offsets of tensor "a" is not an array/),
  header('negative offset', `{"a":${entry('U8', '[2]', -1, 1)}}`, '-1', /not a non-negative integer/, 1),
  header('offset of 2^60', `{"a":${entry('U8', '[1]', 0, '1152921504606846976')}}`, '1152', /number over 2\^53 - 1/, 1),
  header('offset of 2^53 - 1', `{"a":${entry('U8', '[1]', 0, 2 ** 53 - 1)}}`, '"a"', /ends at 9007199254740991, the file has 1 bytes of data/, 1),
  header('offset behind the file', `{"a":${entry('U8', '[2]', 0, 2)}}`, '"a"', /ends at 2, the file has 1 bytes of data/, 1),
  header('begin and end behind the file', `{"a":${entry('U8', '[0]', 9, 9)}}`, '"a"', /ends at 9, the file has 1 bytes of data/, 1),
  header('reversed offsets', `{"a":${entry('U8', '[1]', 1, 0)}}`, '"a"', /ends at 0, before it begins at 1/, 1),
  header('too few bytes for the shape', `{"a":${entry('F32', '[2,3]', 0, 20)}}`, '"a"', /tensor "a", F32 \[2, 3\], expected 24 bytes, got 20/, 20),
  header('too many bytes for the shape', `{"a":${entry('F32', '[2,3]', 0, 28)}}`, '"a"', /expected 24 bytes, got 28/, 28),
  header('bytes of another dtype', `{"a":${entry('F16', '[2]', 0, 8)}}`, '"a"', /expected 4 bytes, got 8/, 8),
  header('a shape of 10,000 sizes', `{"a":${entry('U8', `[${Array(10_000).fill(1)}]`, 0, 2)}}`, '"a"', /U8 \[(1, ){16}…\], expected 1 bytes, got 2/, 2),
];

const two = (a: string, b: string): string => `{"a":${a},"b":${b}}`;

const coverage: Attack[] = [
  data('two tensors in one place', two(one, one), 1, 0, /tensor "b" overlaps the one before it/),
  data('overlap by a byte', two(entry('U8', '[4]', 0, 4), entry('U8', '[4]', 3, 7)), 7, 3, /tensor "b" overlaps/),
  data('one tensor inside another', two(entry('U8', '[8]', 0, 8), entry('U8', '[2]', 3, 5)), 8, 3, /tensor "b" overlaps/),
  data('empty tensor inside another', two(entry('U8', '[8]', 0, 8), entry('U8', '[0]', 3, 3)), 8, 3, /tensor "b" overlaps/),
  data('overlap, header in reverse order', two(entry('U8', '[4]', 3, 7), entry('U8', '[4]', 0, 4)), 7, 3, /tensor "a" overlaps/),
  data('hole at the start', `{"a":${entry('U8', '[1]', 1, 2)}}`, 2, 0, /1 bytes before tensor "a" belong to no tensor/),
  data('hole in the middle', two(one, entry('U8', '[1]', 3, 4)), 4, 1, /2 bytes before tensor "b" belong to no tensor/),
  data('hole at the end', `{"a":${one}}`, 3, 1, /the last 2 bytes belong to no tensor/),
  data('data without tensors', '{}', 5, 0, /the last 5 bytes belong to no tensor/),
];

export const attacks: readonly Attack[] = [...lengths, ...syntax, ...keys, ...values, ...coverage];
