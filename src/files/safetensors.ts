/** .safetensors: an 8-byte header length (u64), a JSON header, then the tensors' bytes, all little endian. */

import { FormatError } from '../errors.js';
import { METADATA, readHeader, serializeHeader } from './safetensors-header.js';
import { byteCount, checkTensor, dtypeBytes, quote, showShape } from './tensor.js';
import type { Entry } from './safetensors-header.js';
import type { Tensor } from './tensor.js';

export interface SafetensorsFile {
  readonly metadata: ReadonlyMap<string, string>;
  /** In the header's order. */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/**
 * Reads a .safetensors file. Checks, in this order: the header's length, the header's text from front to back, each tensor's range and size
 * in the header's order, and that the tensors cover the data without overlap or hole.
 * @param bytes the whole file; the tensors are views onto it
 * @param file what to call the file in errors
 * @throws FormatError with the byte at which the file breaks the format
 */
export function parseSafetensors(bytes: Uint8Array, file: string): SafetensorsFile {
  const { dataStart, metadata, entries } = readHeader(bytes, file);
  for (const entry of entries) checkSize(entry, bytes.length - dataStart, file);
  checkCoverage(entries, dataStart, bytes.length, file);
  const tensors = new Map<string, Tensor>();
  for (const { name, dtype, shape, begin, end } of entries) {
    // Not `subarray`, which gives a Buffer for a Buffer.
    tensors.set(name, { dtype, shape, data: new Uint8Array(bytes.buffer, bytes.byteOffset + dataStart + begin, end - begin) });
  }
  return { metadata, tensors };
}

/**
 * Writes a .safetensors file. Tensors of large elements come first and the header is padded to 8 bytes, so that every tensor can be read as
 * a view if the file's first byte is aligned.
 * @throws RangeError for data whose length is not that of its dtype and shape; TypeError for metadata other than strings
 */
export function serializeSafetensors(tensors: ReadonlyMap<string, Tensor>, metadata: ReadonlyMap<string, string> = new Map()): Uint8Array {
  if (tensors.has(METADATA)) throw new RangeError(`"tensors" expected names other than ${METADATA}, got a tensor of that name`);
  for (const [name, tensor] of tensors) checkTensor(name, tensor);
  const sorted = [...tensors].sort(byAlignmentThenName);
  const header = serializeHeader(sorted, metadata);
  const bytes = new Uint8Array(sorted.reduce((sum, [, { data }]) => sum + data.byteLength, header.length));
  bytes.set(header);
  let at = header.length;
  for (const [, { data }] of sorted) {
    bytes.set(data, at);
    at += data.byteLength;
  }
  return bytes;
}

/** @param dataBytes how many bytes of data the file has; Infinity where that is not known */
export function checkSize({ name, at, dtype, shape, begin, end }: Entry, dataBytes: number, file: string): void {
  if (begin > end) throw new FormatError(file, at, `tensor ${quote(name)} ends at ${end}, before it begins at ${begin}`);
  if (end > dataBytes) throw new FormatError(file, at, `tensor ${quote(name)} ends at ${end}, the file has ${dataBytes} bytes of data`);
  const need = byteCount(dtype, shape);
  if (need === Infinity) throw new FormatError(file, at, `tensor ${quote(name)}, ${dtype} ${showShape(shape)}, has over 2^53 - 1 bytes`);
  if (end - begin !== need) {
    throw new FormatError(file, at, `tensor ${quote(name)}, ${dtype} ${showShape(shape)}, expected ${need} bytes, got ${end - begin}`);
  }
}

function checkCoverage(entries: readonly Entry[], dataStart: number, fileBytes: number, file: string): void {
  let covered = 0;
  for (const { name, begin, end } of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin < covered) throw new FormatError(file, dataStart + begin, `tensor ${quote(name)} overlaps the one before it`);
    if (begin > covered) throw new FormatError(file, dataStart + covered, `${begin - covered} bytes before tensor ${quote(name)} belong to no tensor`);
    covered = end;
  }
  const rest = fileBytes - dataStart - covered;
  if (rest > 0) throw new FormatError(file, dataStart + covered, `the last ${rest} bytes belong to no tensor`);
}

function byAlignmentThenName([a, { dtype: dtypeA }]: [string, Tensor], [b, { dtype: dtypeB }]: [string, Tensor]): number {
  return dtypeBytes[dtypeB] - dtypeBytes[dtypeA] || (a < b ? -1 : 1);
}
