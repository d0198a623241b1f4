/**
 * The header of a .safetensors file, read by a scanner for the few forms it may have. `JSON.parse` would keep the last of two equal keys
 * without a word, round large integers, and build whatever a hostile file nests before anyone could look at it.
 */

import { FormatError } from '../errors.js';
import { dtypeBytes, quote } from './tensor.js';
import type { SafetensorsDtype } from './tensor.js';

/** The longest header that is read, in bytes: the reference implementation's limit. */
export const MAX_SAFETENSORS_HEADER_BYTES = 100_000_000;

/** What the header says about a tensor. */
export interface Entry {
  readonly name: string;
  /** Where the name stands in the file. */
  readonly at: number;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** The data's range, counted from the end of the header. */
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  /** Where the data starts in the file. */
  readonly dataStart: number;
  readonly metadata: ReadonlyMap<string, string>;
  readonly entries: readonly Entry[];
}

const LENGTH_BYTES = 8;

/** The header's key that is no tensor. */
export const METADATA = '__metadata__';

/**
 * Reads the header of a .safetensors file: first its length, then its text from front to back.
 * @throws FormatError
 */
export function readHeader(bytes: Uint8Array, file: string): Header {
  const dataStart = LENGTH_BYTES + readHeaderLength(bytes, file);
  return new HeaderReader(bytes, dataStart, file).read();
}

function readHeaderLength(bytes: Uint8Array, file: string): number {
  if (bytes.length < LENGTH_BYTES) throw new FormatError(file, 0, `a .safetensors file has at least 8 bytes, this one has ${bytes.length}`);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > MAX_SAFETENSORS_HEADER_BYTES) {
    throw new FormatError(file, 0, `the header claims ${length} bytes, the limit is ${MAX_SAFETENSORS_HEADER_BYTES}`);
  }
  const available = bytes.length - LENGTH_BYTES;
  if (length > available) throw new FormatError(file, 0, `the header claims ${length} bytes, the file has ${available} after the length`);
  return Number(length);
}

/** Reads the header's JSON byte by byte, so that an error knows its place in the file. */
class HeaderReader {
  private readonly utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  private at = LENGTH_BYTES;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly end: number,
    private readonly file: string,
  ) {}

  read(): Header {
    if (this.at === this.end || this.bytes[this.at] !== 0x7b) throw this.error('the header does not start with {');
    let metadata: ReadonlyMap<string, string> = new Map();
    const entries: Entry[] = [];
    this.object((name, at) => {
      if (name === METADATA) metadata = this.strings();
      else entries.push(this.entry(name, at));
    });
    this.skipSpace();
    if (this.at < this.end) throw this.error('the header goes on after its last }');
    return { dataStart: this.end, metadata, entries };
  }

  private strings(): ReadonlyMap<string, string> {
    const strings = new Map<string, string>();
    this.object((key) => strings.set(key, this.string(`the metadata ${quote(key)}`)));
    return strings;
  }

  private entry(name: string, at: number): Entry {
    const tensor = `tensor ${quote(name)}`;
    let dtype: SafetensorsDtype | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.object((field, fieldAt) => {
      if (field === 'dtype') dtype = this.dtype(tensor);
      else if (field === 'shape') shape = this.integers(`the shape of ${tensor}`);
      else if (field === 'data_offsets') offsets = this.integers(`data_offsets of ${tensor}`);
      else throw this.error(`${tensor} has an unknown field ${quote(field)}`, fieldAt);
    });
    if (dtype === undefined) throw this.error(`${tensor} has no dtype`, at);
    if (shape === undefined) throw this.error(`${tensor} has no shape`, at);
    if (offsets === undefined) throw this.error(`${tensor} has no data_offsets`, at);
    if (offsets.length !== 2) throw this.error(`data_offsets of ${tensor} expected 2 integers, got ${offsets.length}`, at);
    return { name, at, dtype, shape, begin: offsets[0], end: offsets[1] };
  }

  private dtype(tensor: string): SafetensorsDtype {
    this.skipSpace();
    const at = this.at;
    const dtype = this.string(`the dtype of ${tensor}`);
    if (!Object.hasOwn(dtypeBytes, dtype)) throw this.error(`${tensor} has the unknown dtype ${quote(dtype)}`, at);
    return dtype as SafetensorsDtype;
  }

  /** An object; `member` is called in front of each value, must read it, and is told where the key stands. */
  private object(member: (key: string, at: number) => void): void {
    const keys = new Set<string>();
    this.expect('{', '{');
    if (this.take('}')) return;
    do {
      this.skipSpace();
      const at = this.at;
      const key = this.string('a key');
      if (keys.has(key)) throw this.error(`the key ${quote(key)} comes twice`, at);
      keys.add(key);
      this.expect(':', ':');
      member(key, at);
    } while (this.take(','));
    this.expect('}', ', or }');
  }

  private integers(what: string): number[] {
    const integers: number[] = [];
    if (!this.take('[')) throw this.error(`${what} is not an array`);
    if (this.take(']')) return integers;
    do integers.push(this.integer(what));
    while (this.take(','));
    this.expect(']', ', or ]');
    return integers;
  }

  private integer(what: string): number {
    this.skipSpace();
    const start = this.at;
    let value = 0;
    while (this.at < this.end && isDigit(this.bytes[this.at])) {
      value = value * 10 + (this.bytes[this.at++] - 0x30);
      if (value > Number.MAX_SAFE_INTEGER) throw this.error(`${what} has a number over 2^53 - 1`, start);
    }
    const leadingZero = this.bytes[start] === 0x30 && this.at > start + 1;
    if (this.at === start || leadingZero || this.continuesNumber()) throw this.error(`${what} holds what is not a non-negative integer`, start);
    return value;
  }

  private continuesNumber(): boolean {
    return this.at < this.end && '.eE'.includes(String.fromCharCode(this.bytes[this.at]));
  }

  private string(what: string): string {
    this.skipSpace();
    const start = this.at;
    if (!this.take('"')) throw this.error(`${what} is not a string`);
    while (this.at < this.end && this.bytes[this.at] !== 0x22) this.at += this.bytes[this.at] === 0x5c ? 2 : 1;
    if (this.at >= this.end) throw this.error('a string has no end', start);
    this.at++;
    return this.unescape(this.decode(start), start);
  }

  private decode(start: number): string {
    // A copy, and not by `slice`, because browsers do not decode views onto a SharedArrayBuffer.
    const text = new Uint8Array(this.bytes.subarray(start, this.at));
    try {
      return this.utf8.decode(text);
    } catch {
      throw this.error('a string is not UTF-8', start);
    }
  }

  private unescape(text: string, start: number): string {
    try {
      return JSON.parse(text) as string;
    } catch {
      throw this.error('a string has a bad escape or a control character', start);
    }
  }

  private expect(char: string, wanted: string): void {
    if (!this.take(char)) throw this.error(`the header is not JSON of a known form: expected ${wanted}`);
  }

  /** Steps over white space and, if it comes next, over `char`. */
  private take(char: string): boolean {
    this.skipSpace();
    if (this.at === this.end || this.bytes[this.at] !== char.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  private skipSpace(): void {
    while (this.at < this.end && isSpace(this.bytes[this.at])) this.at++;
  }

  private error(reason: string, at = this.at): FormatError {
    return new FormatError(this.file, at, reason);
  }
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
