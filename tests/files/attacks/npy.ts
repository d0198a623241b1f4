import { concat, encode } from './attack.js';
import type { Attack } from './attack.js';

const MAGIC = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59);

/** A file around a header, right or wrong. */
export function fileOf(header: string, dataBytes = 0, version: readonly [number, number] = [1, 0], claim?: number): Uint8Array {
  const text = encode(header);
  const length = new Uint8Array(version[0] === 1 ? 2 : 4);
  const view = new DataView(length.buffer);
  if (version[0] === 1) view.setUint16(0, claim ?? text.length, true);
  else view.setUint32(0, claim ?? text.length, true);
  return concat(MAGIC, Uint8Array.from(version), length, text, new Uint8Array(dataBytes));
}

export const dict = (descr: string, order: string, shape: string): string => `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}, }\n`;

/** The error stands where `marker` is first found in the header. */
function header(name: string, text: string, marker: string, reason: RegExp, dataBytes = 0): Attack {
  return { name, bytes: fileOf(text, dataBytes), offset: 10 + encode(text.slice(0, text.indexOf(marker))).length, reason };
}

const descr = (value: string, reason: RegExp, dataBytes = 4): Attack => header(`descr ${value}`, dict(value, 'False', '(1,)'), value, reason, dataBytes);

const shape = (value: string, reason: RegExp, dataBytes = 0): Attack => {
  return header(`shape ${value.slice(0, 40)}`, dict("'|u1'", 'False', value), value, reason, dataBytes);
};

/** The error stands where the data starts. */
function size(name: string, descrAndShape: readonly [string, string], dataBytes: number, reason: RegExp): Attack {
  const text = dict(descrAndShape[0], 'False', descrAndShape[1]);
  return { name, bytes: fileOf(text, dataBytes), offset: 10 + text.length, reason };
}

const good = dict("'|u1'", 'False', '(1,)');

const preamble: Attack[] = [
  { name: 'empty file', bytes: new Uint8Array(0), offset: 0, reason: /starts with \\x93NUMPY/ },
  { name: 'another magic', bytes: encode('PK\x03\x04 and so on, as in an .npz'), offset: 0, reason: /starts with \\x93NUMPY/ },
  { name: 'magic in UTF-8', bytes: encode('\x93NUMPY\x01\0'), offset: 0, reason: /starts with \\x93NUMPY/ },
  { name: 'magic and no version', bytes: MAGIC, offset: 6, reason: /ends before its version/ },
  { name: 'half a version', bytes: concat(MAGIC, Uint8Array.of(1)), offset: 7, reason: /ends before its version/ },
  { name: 'version 0.1', bytes: fileOf(good, 1, [0, 1]), offset: 6, reason: /version 0\.1 is not one of 1\.0, 2\.0, 3\.0/ },
  { name: 'version 1.1', bytes: fileOf(good, 1, [1, 1]), offset: 6, reason: /version 1\.1 is not one of/ },
  { name: 'version 4.0', bytes: fileOf(good, 1, [4, 0]), offset: 6, reason: /version 4\.0 is not one of/ },
  { name: 'no header length', bytes: concat(MAGIC, Uint8Array.of(1, 0, 1)), offset: 9, reason: /ends before its header length/ },
  { name: 'no header length in version 2', bytes: concat(MAGIC, Uint8Array.of(2, 0, 1, 0, 0)), offset: 11, reason: /ends before its header length/ },
  { name: 'header of 2^16 - 1 bytes', bytes: fileOf(good, 1, [1, 0], 65_535), offset: 8, reason: /claims 65535 bytes, the limit is 10000/ },
  { name: 'header of 2^32 - 1 bytes', bytes: fileOf(good, 1, [2, 0], 2 ** 32 - 1), offset: 8, reason: /claims 4294967295 bytes, the limit is 10000/ },
  { name: 'header over the limit that is there', bytes: fileOf(good.padEnd(10_001), 1, [3, 0]), offset: 8, reason: /claims 10001 bytes, the limit is/ },
  { name: 'header longer than the file', bytes: fileOf(good, 0, [1, 0], good.length + 1), offset: 8, reason: /claims 59 bytes, the file has 58/ },
];

const syntax: Attack[] = [
  { name: 'no header', bytes: fileOf(''), offset: 10, reason: /the header expected {/ },
  header('no dict', "['descr']", '[', /the header expected {/),
  header('space before the dict', ` ${good}`, ' ', /the header expected {/, 1),
  header('empty dict', '{}\n', '{', /the header has no 'descr'/),
  { name: 'dict without end', bytes: fileOf(good.replace('}', '')), offset: 10 + good.length - 1, reason: /expected a key and a colon/ },
  header('text behind the dict', `${good.trim()} x\n`, '} x', /only white space behind it/, 1),
  header('NUL behind the dict', `${good.trim()}\0`, '}\0', /only white space behind it/, 1),
  header('two dicts', `${good.trim()}{}`, '}{', /only white space behind it/, 1),
  header('key without quotes', good.replace("'descr'", 'descr'), 'descr', /expected a key and a colon/, 1),
  header('key in mixed quotes', good.replace("'descr'", '"descr\''), '"descr', /expected a key and a colon/, 1),
  header('key with an escape', good.replace("'descr'", "'\\x64escr'"), "'\\", /expected a key and a colon/, 1),
  header('key of bytes', good.replace("'descr'", "b'descr'"), 'b', /expected a key and a colon/, 1),
  header('no colon', good.replace("'descr':", "'descr'"), "'descr'", /expected a key and a colon/, 1),
  header('no comma', good.replace("'|u1',", "'|u1'"), "'fortran_order'", /expected }/, 1),
  header('two commas', good.replace("'|u1',", "'|u1',,"), ",, '".slice(1), /expected a key and a colon/, 1),
  header('unknown key', good.replace("'descr'", "'dtype'"), "'dtype'", /unknown key "dtype"/, 1),
  header('key __proto__', good.replace("'descr'", "'__proto__'"), "'__proto__'", /unknown key "__proto__"/, 1),
  header('key constructor', good.replace("'descr'", "'constructor'"), "'constructor'", /unknown key "constructor"/, 1),
  header('a fourth key', good.replace('}', "'order': 'C'}"), "'order'", /unknown key "order"/, 1),
  header('descr twice', good.replace('}', "'descr' : '|u1'}"), "'descr' ", /the key 'descr' comes twice/, 1),
  header('shape twice', good.replace('}', "'shape' : (9,)}"), "'shape' ", /the key 'shape' comes twice/, 1),
  header('no descr', "{'fortran_order': False, 'shape': (1,)}", '{', /the header has no 'descr'/, 1),
  header('no fortran_order', "{'descr': '|u1', 'shape': (1,)}", '{', /the header has no 'fortran_order'/, 1),
  header('no shape', "{'descr': '|u1', 'fortran_order': False}", '{', /the header has no 'shape'/),
  header('deep dict', `{'descr':${'{'.repeat(9000)}`, '{{', /'descr' expected a string/),
  header('an order of 0', dict("'|u1'", '0', '(1,)'), '0,', /'fortran_order' expected True or False/, 1),
  header('an order in JSON', dict("'|u1'", 'false', '(1,)'), 'false', /'fortran_order' expected True or False/, 1),
  header('an order in quotes', dict("'|u1'", "'False'", '(1,)'), "'False'", /'fortran_order' expected True or False/, 1),
  header('column-major matrix', dict("'|u1'", 'True', '(2, 3)'), 'True', /column-major arrays are not supported/, 6),
];

const values: Attack[] = [
  descr("'<f8'", /descr "<f8" is not one of <f4, <f2, \|u1, \|i1, <u2, <i4/, 8),
  descr("'>f4'", /descr ">f4" is big endian/),
  descr("'|O'", /descr "\|O" is not one of/),
  descr("'f4'", /descr "f4" is not one of/),
  descr("'<f4 '", /descr "<f4 " is not one of/),
  descr("''", /descr "" is not one of/),
  descr("'toString'", /descr "toString" is not one of/),
  descr("'__proto__'", /descr "__proto__" is not one of/),
  descr("'\u00e9'", /descr "Ã©" is not one of/),
  descr("[('a', '<f4')]", /'descr' expected a string \(structured dtypes are not supported\)/),
  descr("('<f4', (1,))", /'descr' expected a string/),
  descr("u'<f4'", /'descr' expected a string/),
  descr('None', /'descr' expected a string/),
  descr("'<\\x66\\x34'", /'descr' expected a string/),
  header('descr without end', "{'descr': '<f4", "'<f4", /'descr' expected a string/),
  shape('12', /'shape' expected a tuple of decimal integers/, 12),
  shape('[1]', /'shape' expected a tuple of decimal integers/, 1),
  shape('None', /'shape' expected a tuple of decimal integers/),
  shape('(1,', /'shape' expected a tuple of decimal integers/, 1),
  shape('(-1,)', /'shape' expected a tuple of decimal integers/, 1),
  shape('(-1, -1)', /'shape' expected a tuple of decimal integers/, 1),
  shape('(1L,)', /'shape' expected a tuple of decimal integers/, 1),
  shape('(1.0,)', /'shape' expected a tuple of decimal integers/, 1),
  shape('(1e0,)', /'shape' expected a tuple of decimal integers/, 1),
  shape('(0x1,)', /'shape' expected a tuple of decimal integers/, 1),
  shape('((1,),)', /'shape' expected a tuple of decimal integers/, 1),
  shape('("1",)', /'shape' expected a tuple of decimal integers/, 1),
  shape('(True,)', /'shape' expected a tuple of decimal integers/, 1),
  shape('(1)', /shape \(1\) is not a tuple: it has no comma/, 1),
  shape('(1 2)', /shape \(1 2\) is not a tuple/, 2),
  shape('(1\n2)', /shape \(1 2\) is not a tuple/, 2),
  shape('(1 2,)', /shape holds "1 2", which is not a decimal integer/, 2),
  shape('(,)', /shape holds "", which is not a decimal integer/, 1),
  shape('(1,,)', /shape holds "", which is not a decimal integer/, 1),
  shape('(,1)', /shape holds "", which is not a decimal integer/, 1),
  shape('(01,)', /shape holds "01", which is not a decimal integer/, 1),
  shape(`(${'9'.repeat(5000)},)`, /number over 2\^53 - 1/, 1),
  shape('(1152921504606846976,)', /number over 2\^53 - 1/, 1),
  shape('(1073741824, 1073741824)', /\|u1 \[1073741824, 1073741824\] has over 2\^53 - 1 bytes/, 1),
  shape('(4294967296, 4294967296)', /has over 2\^53 - 1 bytes/),
  shape('(4294967296, 4294967296, 0)', /has over 2\^53 - 1 bytes/),
  header('2^52 elements of 4 bytes', dict("'<f4'", 'False', '(4503599627370496,)'), '(4', /has over 2\^53 - 1 bytes/),
  shape(`(${'1,'.repeat(65)})`, /shape has 65 dimensions, the limit is 64/, 1),
  shape(`(${' '.repeat(5000)},)`, /shape holds ""/, 1),
];

const sizes: Attack[] = [
  size('a byte too few', ["'<f4'", '(2, 3)'], 23, /<f4 \[2, 3\] expected 24 bytes of data, got 23/),
  size('a byte too many', ["'<f4'", '(2, 3)'], 25, /<f4 \[2, 3\] expected 24 bytes of data, got 25/),
  size('no data', ["'<f4'", '(1,)'], 0, /expected 4 bytes of data, got 0/),
  size('data of an empty array', ["'<f4'", '(0,)'], 4, /expected 0 bytes of data, got 4/),
  size('no data of a scalar', ["'<f2'", '()'], 0, /expected 2 bytes of data, got 0/),
  size('2^50 elements', ["'<f4'", '(1125899906842624,)'], 4, /expected 4503599627370496 bytes of data, got 4/),
  size('2^53 - 1 elements', ["'|u1'", '(9007199254740991,)'], 1, /expected 9007199254740991 bytes of data, got 1/),
];

export const attacks: readonly Attack[] = [...preamble, ...syntax, ...values, ...sizes];
