/** The header of a .safetensors file: read, and written. */

import { FormatError } from '../errors.js';
import { JsonScanner } from './json.js';
import { byteCount, dtypeBytes, quote } from './tensor.js';
import type { SafetensorsDtype, Tensor } from './tensor.js';

/** The longest header that is read, in bytes: the reference implementation's limit. */
export const MAX_SAFETENSORS_HEADER_BYTES = 100_000_000;

/** What the header says about a tensor. `D` is `string` where dtypes are not looked at. */
export interface Entry<D extends string = SafetensorsDtype> {
  readonly name: string;
  /** Where the name stands in the file. */
  readonly at: number;
  readonly dtype: D;
  readonly shape: readonly number[];
  /** The data's range, counted from the end of the header. */
  readonly begin: number;
  readonly end: number;
}

export interface Header<D extends string = SafetensorsDtype> {
  /** Where the data starts in the file. */
  readonly dataStart: number;
  readonly metadata: ReadonlyMap<string, string>;
  readonly entries: readonly Entry<D>[];
}

/** Of the header's length, with which the file begins. */
export const LENGTH_BYTES = 8;

/** The header's key that is no tensor. */
export const METADATA = '__metadata__';

/**
 * Reads the header of a .safetensors file: first its length, then its text from front to back.
 * @throws FormatError
 */
export function readHeader(bytes: Uint8Array, file: string): Header {
  return new HeaderReader(bytes, headerEnd(bytes, file), file, isKnown).read();
}

/** As {@link readHeader}, for who reads some tensors only: the others may be of dtypes that are not known here, as F4 is. */
export function readHeaderOfAnyDtypes(bytes: Uint8Array, file: string): Header<string> {
  return new HeaderReader(bytes, headerEnd(bytes, file), file, (_dtype): _dtype is string => true).read();
}

const isKnown = (dtype: string): dtype is SafetensorsDtype => Object.hasOwn(dtypeBytes, dtype);

function headerEnd(bytes: Uint8Array, file: string): number {
  const length = readHeaderLength(bytes, file);
  const available = bytes.length - LENGTH_BYTES;
  if (length > available) throw new FormatError(file, 0, `the header claims ${length} bytes, the file has ${available} after the length`);
  return LENGTH_BYTES + length;
}

/**
 * Reads how long the header is, of which no byte need be there yet.
 * @throws FormatError for fewer than 8 bytes, or a length over the limit
 */
export function readHeaderLength(bytes: Uint8Array, file: string): number {
  if (bytes.length < LENGTH_BYTES) throw new FormatError(file, 0, `a .safetensors file has at least 8 bytes, this one has ${bytes.length}`);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > MAX_SAFETENSORS_HEADER_BYTES) {
    throw new FormatError(file, 0, `the header claims ${length} bytes, the limit is ${MAX_SAFETENSORS_HEADER_BYTES}`);
  }
  return Number(length);
}

/**
 * The header's length and text, padded with spaces to a multiple of 8 bytes, for tensors whose data come in the order of their
 * names here.
 * @throws TypeError for metadata other than strings
 */
export function serializeHeader(tensors: Iterable<readonly [string, Pick<Tensor, 'dtype' | 'shape'>]>, metadata: ReadonlyMap<string, string>): Uint8Array {
  const members: string[] = [];
  if (metadata.size > 0) members.push(`"${METADATA}":{${[...metadata].map(metadataMember).join(',')}}`);
  let dataBytes = 0;
  for (const [name, { dtype, shape }] of tensors) {
    const begin = dataBytes;
    dataBytes += byteCount(dtype, shape);
    members.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${begin},${dataBytes}]}`);
  }
  const text = new TextEncoder().encode(`{${members.join(',')}}`);
  const header = new Uint8Array(Math.ceil((LENGTH_BYTES + text.length) / 8) * 8).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - LENGTH_BYTES), true);
  header.set(text, LENGTH_BYTES);
  return header;
}

function metadataMember([key, value]: [string, string]): string {
  if (typeof value !== 'string') throw new TypeError(`"metadata" expected strings, got ${typeof value} for ${quote(key)}`);
  return `${JSON.stringify(key)}:${JSON.stringify(value)}`;
}

/** Reads the header's JSON byte by byte, so that an error knows its place in the file. */
class HeaderReader<D extends string> extends JsonScanner {
  constructor(
    bytes: Uint8Array,
    end: number,
    private readonly file: string,
    private readonly isDtype: (dtype: string) => dtype is D,
  ) {
    super(bytes, LENGTH_BYTES, end);
  }

  read(): Header<D> {
    if (this.at === this.end || this.bytes[this.at] !== 0x7b) throw this.error('the header does not start with {');
    let metadata: ReadonlyMap<string, string> = new Map();
    const entries: Entry<D>[] = [];
    this.object((name, at) => {
      if (name === METADATA) metadata = this.strings();
      else entries.push(this.entry(name, at));
    });
    this.finish('the header');
    return { dataStart: this.end, metadata, entries };
  }

  private strings(): ReadonlyMap<string, string> {
    const strings = new Map<string, string>();
    this.object((key) => strings.set(key, this.string(`the metadata ${quote(key)}`)));
    return strings;
  }

  private entry(name: string, at: number): Entry<D> {
    const tensor = `tensor ${quote(name)}`;
    let dtype: D | undefined;
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

  private dtype(tensor: string): D {
    this.skipSpace();
    const at = this.at;
    const dtype = this.string(`the dtype of ${tensor}`);
    if (!this.isDtype(dtype)) throw this.error(`${tensor} has the unknown dtype ${quote(dtype)}`, at);
    return dtype;
  }

  private integers(what: string): number[] {
    return this.array(what, () => this.integer(what));
  }

  protected override error(reason: string, at = this.at): FormatError {
    return new FormatError(this.file, at, reason);
  }
}
