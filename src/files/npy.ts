/**
 * .npy: magic, version, header length, the header as a Python dict literal, then one array's bytes
 * (NEP 1, and numpy/lib/format.py for versions 2.0 and 3.0).
 */

import { FormatError } from '../errors.js';
import { byteCount, checkTensor, quote, showShape } from './tensor.js';
import type { SafetensorsDtype, Tensor } from './tensor.js';

/**
 * The element types that are read and written: numpy's descr, and what .safetensors calls the same. Of ml_dtypes' types numpy
 * writes the size only, and for bytes no order or another: `|V1` and `<V1` may be any of its FP8 formats but one, e5m2, which is
 * `<f1`; `<V2` is bfloat16 (ml_dtypes 0.6.0, numpy 2.4.6).
 */
const dtypes = {
  '<f4': 'F32', '<f2': 'F16', '|u1': 'U8', '|i1': 'I8', '<u2': 'U16', '<i4': 'I32', '<i8': 'I64', '|V1': 'U8', '<V1': 'U8', '<f1': 'F8_E5M2', '<V2': 'BF16',
} as const satisfies { readonly [descr: string]: SafetensorsDtype };

/** numpy's name of an element type. */
export type NpyDescr = keyof typeof dtypes;

/** An array in row-major order. It is a tensor, so what reads a .safetensors tensor reads it too. */
export interface NpyArray extends Tensor {
  readonly descr: NpyDescr;
}

/** The longest header that is read, in bytes: numpy's own limit (`max_header_size`). */
export const MAX_NPY_HEADER_BYTES = 10_000;

/** The most dimensions that are read and written: numpy's `NPY_MAXDIMS`. */
export const MAX_NPY_DIMENSIONS = 64;

const MAGIC = '\x93NUMPY';
const VERSION_END = 8;
const KEYS = ['descr', 'fortran_order', 'shape'] as const;

type Key = (typeof KEYS)[number];

/** Each pattern also takes the white space behind what it names. */
const patterns = {
  open: /\{[ \t\n]*/y,
  key: /(['"])(?<value>\w*)\1[ \t\n]*:[ \t\n]*/y,
  descr: /(['"])(?<value>[^'"\\]*)\1[ \t\n]*/y,
  fortran_order: /(?<value>True|False)[ \t\n]*/y,
  shape: /\((?<value>[\d, \t\n]*)\)[ \t\n]*/y,
  comma: /,[ \t\n]*/y,
  close: /\}[ \t\n]*$/y,
};

const expectations: { readonly [K in Key]: string } = {
  descr: 'a string (structured dtypes are not supported)',
  fortran_order: 'True or False',
  shape: 'a tuple of decimal integers',
};

/**
 * Reads a .npy file of version 1.0, 2.0 or 3.0. Checks, in this order: magic, version, the header's length, the header's text from front to
 * back, descr, shape, order, size.
 * @param bytes the whole file; the array's data is a view onto it
 * @param file what to call the file in errors
 * @throws FormatError with the byte at which the file breaks the format, also for what numpy could read but is not supported here:
 * other element types, column-major matrices
 */
export function parseNpy(bytes: Uint8Array, file: string): NpyArray {
  const headerStart = readPreamble(bytes, file);
  const headerBytes = readHeaderLength(bytes, headerStart, file);
  const dataStart = headerStart + headerBytes;
  const fields = new HeaderReader(latin1(bytes.subarray(headerStart, dataStart)), headerStart, file).read();
  const descr = checkDescr(fields.descr, file);
  const shape = readShape(fields.shape, file);
  if (fields.fortran_order.text === 'True' && shape.length > 1) {
    throw new FormatError(file, fields.fortran_order.at, 'fortran_order is True: column-major arrays are not supported');
  }
  const dtype = dtypes[descr];
  const need = byteCount(dtype, shape);
  if (need === Infinity) throw new FormatError(file, fields.shape.at, `${descr} ${showShape(shape)} has over 2^53 - 1 bytes`);
  const have = bytes.length - dataStart;
  if (have !== need) throw new FormatError(file, dataStart, `${descr} ${showShape(shape)} expected ${need} bytes of data, got ${have}`);
  // Not `subarray`, which gives a Buffer for a Buffer.
  return { descr, dtype, shape, data: new Uint8Array(bytes.buffer, bytes.byteOffset + dataStart, have) };
}

/**
 * Writes a .npy file of version 1.0 whose data starts at a multiple of 64 bytes, as numpy's does.
 * @param data the elements in row-major order, little endian
 * @throws RangeError for data whose length is not that of its descr and shape
 */
export function serializeNpy(descr: NpyDescr, shape: readonly number[], data: Uint8Array): Uint8Array {
  if (!Object.hasOwn(dtypes, descr)) throw new RangeError(`"descr" expected one of ${Object.keys(dtypes).join(', ')}, got ${descr}`);
  if (shape.length > MAX_NPY_DIMENSIONS) throw new RangeError(`"shape" expected at most ${MAX_NPY_DIMENSIONS} dimensions, got ${shape.length}`);
  checkTensor('data', { dtype: dtypes[descr], shape, data });
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const dict = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const headerStart = VERSION_END + 2;
  const dataStart = Math.ceil((headerStart + dict.length + 1) / 64) * 64;
  const header = `${dict.padEnd(dataStart - headerStart - 1)}\n`;
  const bytes = new Uint8Array(dataStart + data.byteLength);
  bytes.set(asciiBytes(`${MAGIC}\x01\x00`));
  new DataView(bytes.buffer).setUint16(VERSION_END, header.length, true);
  bytes.set(asciiBytes(header), headerStart);
  bytes.set(data, dataStart);
  return bytes;
}

/** A value of the header as it stands there, and the byte of the file at which it starts. */
interface Field {
  readonly text: string;
  readonly at: number;
}

/** Returns where the header starts: behind a length of 2 bytes in version 1, 4 bytes later. */
function readPreamble(bytes: Uint8Array, file: string): number {
  if (latin1(bytes.subarray(0, MAGIC.length)) !== MAGIC) throw new FormatError(file, 0, 'a .npy file starts with \\x93NUMPY, this one does not');
  if (bytes.length < VERSION_END) throw new FormatError(file, bytes.length, 'the file ends before its version');
  const [major, minor] = [bytes[6], bytes[7]];
  if (major < 1 || major > 3 || minor !== 0) throw new FormatError(file, 6, `version ${major}.${minor} is not one of 1.0, 2.0, 3.0`);
  const headerStart = VERSION_END + (major === 1 ? 2 : 4);
  if (bytes.length < headerStart) throw new FormatError(file, bytes.length, 'the file ends before its header length');
  return headerStart;
}

function readHeaderLength(bytes: Uint8Array, headerStart: number, file: string): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = headerStart === VERSION_END + 2 ? view.getUint16(VERSION_END, true) : view.getUint32(VERSION_END, true);
  if (length > MAX_NPY_HEADER_BYTES) {
    throw new FormatError(file, VERSION_END, `the header claims ${length} bytes, the limit is ${MAX_NPY_HEADER_BYTES}`);
  }
  const available = bytes.length - headerStart;
  if (length > available) throw new FormatError(file, VERSION_END, `the header claims ${length} bytes, the file has ${available} after the length`);
  return length;
}

/** Reads the dict literal: the three keys in any order, each once, values by their pattern. */
class HeaderReader {
  private at = 0;

  constructor(
    private readonly text: string,
    /** Where the text starts in the file. */
    private readonly start: number,
    private readonly file: string,
  ) {}

  read(): { readonly [K in Key]: Field } {
    const fields: { [K in Key]?: Field } = {};
    this.expect(patterns.open, 'the header expected {');
    while (this.text[this.at] !== '}') {
      const keyAt = this.at;
      const key = this.key();
      if (fields[key] !== undefined) throw this.error(`the key '${key}' comes twice`, keyAt);
      const at = this.start + this.at;
      fields[key] = { text: this.expect(patterns[key], `'${key}' expected ${expectations[key]}`), at };
      if (this.take(patterns.comma) === undefined) break;
    }
    this.expect(patterns.close, 'the header expected }, and only white space behind it');
    for (const key of KEYS) if (fields[key] === undefined) throw new FormatError(this.file, this.start, `the header has no '${key}'`);
    return fields as { [K in Key]: Field };
  }

  private key(): Key {
    const at = this.at;
    const key = this.expect(patterns.key, 'the header expected a key and a colon');
    if (!(KEYS as readonly string[]).includes(key)) throw this.error(`the header has an unknown key ${quote(key)}`, at);
    return key as Key;
  }

  private expect(pattern: RegExp, reason: string): string {
    const value = this.take(pattern);
    if (value === undefined) throw this.error(reason);
    return value;
  }

  /** Steps over the pattern, if it comes next, and returns its value. */
  private take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    if (match === null) return undefined;
    this.at = pattern.lastIndex;
    return match.groups?.value ?? '';
  }

  private error(reason: string, at = this.at): FormatError {
    return new FormatError(this.file, this.start + at, reason);
  }
}

function checkDescr({ text, at }: Field, file: string): NpyDescr {
  if (Object.hasOwn(dtypes, text)) return text as NpyDescr;
  if (text.startsWith('>')) throw new FormatError(file, at, `descr ${quote(text)} is big endian: only little endian is supported`);
  throw new FormatError(file, at, `descr ${quote(text)} is not one of ${Object.keys(dtypes).join(', ')}`);
}

function readShape({ text, at }: Field, file: string): number[] {
  const items = text.split(',').map((item) => item.trim());
  // In Python the comma makes the tuple: (3) is an integer, and there is none to leave out of ().
  if (items.length === 1 && items[0] !== '') throw new FormatError(file, at, `shape (${items[0].replaceAll(/\s+/g, ' ').slice(0, 80)}) is not a tuple: it has no comma`);
  if (items.at(-1) === '') items.pop();
  if (items.length > MAX_NPY_DIMENSIONS) throw new FormatError(file, at, `shape has ${items.length} dimensions, the limit is ${MAX_NPY_DIMENSIONS}`);
  const shape = items.map((item) => {
    if (!/^(?:0|[1-9]\d*)$/.test(item)) throw new FormatError(file, at, `shape holds ${quote(item)}, which is not a decimal integer`);
    return Number(item);
  });
  if (!shape.every(Number.isSafeInteger)) throw new FormatError(file, at, 'shape has a number over 2^53 - 1');
  return shape;
}

/** One character per byte, so that an index in the text is an offset in the file. */
function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function asciiBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}
