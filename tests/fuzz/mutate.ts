/** Files that are nearly valid: a few things of a valid one changed, the same ones for the same seed. */
import { random, type Random } from '../random.js';

/** A valid file, and the part of it that is text, perhaps with what makes a file of other text: its length and checksum are right then. */
export interface Sample {
  readonly bytes: Uint8Array;
  readonly inner?: Uint8Array;
  /** The file around an inner part. */
  readonly wrap?: (inner: Uint8Array) => Uint8Array;
}

/** No mutated file is larger. */
const MOST_BYTES = 65_536;

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'latin1'));

const pick = <T>(numbers: Random, list: readonly T[]): T => list[numbers.integer(list.length)];

/** A range of bytes: mostly short. */
function range(numbers: Random, { length }: Uint8Array): [number, number] {
  const begin = numbers.integer(length + 1);
  return [begin, Math.min(length, begin + numbers.integer(pick(numbers, [2, 9, 65, length + 1])))];
}

const replaced = (bytes: Uint8Array, begin: number, end: number, by: Uint8Array): Uint8Array => Uint8Array.from(Buffer.concat([bytes.subarray(0, begin), by, bytes.subarray(end)]));

const figures = ['0', '-1', '1', '7', '65', '255', '65536', '1048577', '2147483647', '2147483648', '4294967295', '4294967296', '9007199254740991', '9007199254740992', '18446744073709551616', '1.5', '1e9', '1e999', '-0', '01', 'null', '[]', '{}', '""', `${'9'.repeat(400)}`];
const words = ['__proto__', 'constructor', 'toString', '', '\\u0000', '\\ud800', 'x'.repeat(300), 'F32', 'F8_E4M3', 'NaN', 'inf'];

/** Puts something else in place of one of the pieces of text that an expression finds. */
function replaceOne(numbers: Random, bytes: Uint8Array, expression: RegExp, by: (found: string) => string): Uint8Array {
  const found = [...latin1(bytes).matchAll(expression)];
  if (found.length === 0) return bytes;
  const { 0: text, index } = pick(numbers, found);
  return replaced(bytes, index, index + text.length, bytesOf(by(text)));
}

type Change = (numbers: Random, bytes: Uint8Array) => Uint8Array;

const changes: readonly Change[] = [
  // A bit, or a byte.
  (numbers, bytes) => bytes.map(((at) => (byte, i) => (i === at ? byte ^ (1 << numbers.integer(8)) : byte))(numbers.integer(bytes.length))),
  (numbers, bytes) => bytes.map(((at) => (byte, i) => (i === at ? numbers.integer(256) : byte))(numbers.integer(bytes.length))),
  // Words of the machine that are as large as can be, or negative.
  (numbers, bytes) => {
    const at = numbers.integer(bytes.length);
    const word = bytesOf(pick(numbers, ['\xff\xff\xff\xff', '\xff\xff\xff\x7f', '\0\0\0\x80', '\0\0\0\0', '\0\0\xc0\x7f', '\xff\xff\xff\xff\xff\xff\xff\xff', '\0\xe1\xf5\x05']));
    return replaced(bytes, at, Math.min(bytes.length, at + word.length), word.subarray(0, bytes.length - at));
  },
  // A cut, a hole, bytes from elsewhere, in place of others or between.
  (numbers, bytes) => bytes.slice(0, numbers.integer(bytes.length + 1)),
  (numbers, bytes) => replaced(bytes, ...range(numbers, bytes), new Uint8Array(0)),
  (numbers, bytes) => replaced(bytes, ...range(numbers, bytes), bytes.slice(...range(numbers, bytes))),
  (numbers, bytes) => {
    const at = numbers.integer(bytes.length + 1);
    return replaced(bytes, at, at, bytes.slice(...range(numbers, bytes)));
  },
  // Numbers made huge, negative or none; names and values that are other ones.
  (numbers, bytes) => replaceOne(numbers, bytes, /-?\d+(\.\d+)?/g, () => pick(numbers, figures)),
  (numbers, bytes) => replaceOne(numbers, bytes, /-?\d+(\.\d+)?/g, (found) => String(Number(found) + pick(numbers, [-1, 1, 8]))),
  (numbers, bytes) => replaceOne(numbers, bytes, /["'][^"']*["']/g, (found) => found[0] + pick(numbers, words) + found[0]),
  (numbers, bytes) => {
    const found = latin1(bytes).match(/["'][^"']*["']/g) ?? ['""'];
    return replaceOne(numbers, bytes, /["'][^"']*["']/g, () => pick(numbers, found));
  },
  // A key twice, a key that goes, arrays in arrays.
  (numbers, bytes) => replaceOne(numbers, bytes, /["'][^"']*["'] ?: ?("[^"]*"|'[^']*'|[\w.-]+|\[[^[\]]*\])/g, (found) => pick(numbers, [`${found},${found}`, `"x":0`])),
  (numbers, bytes) => replaceOne(numbers, bytes, /["'][^"']*["'] ?: ?("[^"]*"|'[^']*'|[\w.-]+|\[[^[\]]*\]),/g, () => ''),
  (numbers, bytes) => replaceOne(numbers, bytes, /[[{]/g, (found) => found.repeat(pick(numbers, [2, 100, 20_000]))),
];

/** One file, by its seed. */
export function mutate(samples: readonly Sample[], seed: number): Uint8Array {
  const numbers = random(seed);
  const { bytes, inner, wrap } = pick(numbers, samples);
  const within = wrap !== undefined && numbers.integer(3) > 0;
  let mutated = within ? (inner ?? bytes) : bytes;
  for (let left = pick(numbers, [1, 1, 1, 2, 3, 6]); left > 0 && mutated.length > 0; left--) mutated = pick(numbers, changes)(numbers, mutated).slice(0, MOST_BYTES);
  return within ? wrap(mutated) : mutated;
}
