import * as assert from 'uvu/assert';
import { FormatError } from '../../../src/errors.js';

/** A malformed file, and what a reader must say about it. */
export interface Attack {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** The byte that the error names. */
  readonly offset: number;
  readonly reason: RegExp;
}

export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

export const concat = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]));

/** The one FormatError that `parse` throws; anything else, also no error, fails. */
function formatErrorOf(parse: () => unknown, what: string): FormatError {
  try {
    parse();
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
  throw new Error(`${what}: expected a FormatError, the file was read`);
}

export function assertRefused(parse: (bytes: Uint8Array, file: string) => unknown, { name, bytes, offset, reason }: Attack): void {
  const error = formatErrorOf(() => parse(bytes, 'evil.file'), name);
  assert.match(error.message, reason, `${name}: ${error.message}`);
  assert.is(error.offset, offset, `${name}: offset`);
  assert.ok(error.message.startsWith(`evil.file, byte ${offset}: `), `${name}: the message names file and offset: ${error.message}`);
  assert.ok(error.message.length < 1000, `${name}: the message has ${error.message.length} characters`);
}

/** Every proper prefix of a valid file must be refused, at a byte that the prefix has or at its end. */
export function assertEveryTruncationRefused(parse: (bytes: Uint8Array, file: string) => unknown, valid: Uint8Array): void {
  parse(valid, 'valid');
  for (let length = 0; length < valid.length; length++) {
    const error = formatErrorOf(() => parse(valid.slice(0, length), 'cut'), `cut to ${length} bytes`);
    assert.ok(error.offset >= 0 && error.offset <= length, `cut to ${length} bytes: offset ${error.offset}`);
  }
}

/** Whatever the bytes, a reader returns or throws a FormatError inside the file; it tells how many of the files were read. */
export function countReadable(parse: (bytes: Uint8Array, file: string) => unknown, files: Iterable<Uint8Array>): number {
  let readable = 0;
  for (const bytes of files) {
    try {
      parse(bytes, 'fuzz');
      readable++;
    } catch (error) {
      if (!(error instanceof FormatError) || !(error.offset >= 0 && error.offset <= bytes.length)) {
        throw new Error(`a file of ${bytes.length} bytes, in hex ${Buffer.from(bytes).toString('hex')}`, { cause: error });
      }
    }
  }
  return readable;
}

/** Copies of a file with one to four bytes replaced; the same for the same seed. */
export function* mutations(valid: Uint8Array, count: number, seed: number): Generator<Uint8Array> {
  const random = xorshift32(seed);
  for (let i = 0; i < count; i++) {
    const bytes = valid.slice();
    for (let flips = 1 + (random() % 4); flips > 0; flips--) bytes[random() % bytes.length] = random() & 0xff;
    yield bytes;
  }
}

/** Marsaglia, Xorshift RNGs (2003). */
function xorshift32(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
