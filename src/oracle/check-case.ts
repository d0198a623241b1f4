/** A dump of one call of another kernel. */
import { FormatError } from '../errors.js';
import { parseSafetensors } from '../files/safetensors.js';
import { quote } from '../files/tensor.js';
import { checkAppendCase, type AppendCheck } from './check-append.js';
import { checkAttendCase, type AttendCheck } from './check-attend.js';
import type { CodesCheck } from './check-codes.js';
import { checkCodesCase } from './codes-case.js';

/**
 * Checks a `codes/1`, `append/1` or `attend/1` case file whose tensors `expected.…` are what a kernel gave.
 * @param file what to call the file in errors
 * @throws FormatError when it is none of these; RangeError for one that nothing can be compared with
 */
export async function checkCase(bytes: Uint8Array, file: string): Promise<CodesCheck | AppendCheck | AttendCheck> {
  const kind = parseSafetensors(bytes, file).metadata.get('fp8_kv_case');
  if (kind === 'codes/1') return checkCodesCase(bytes, file);
  if (kind === 'append/1') return checkAppendCase(bytes, file);
  if (kind === 'attend/1') return checkAttendCase(bytes, file);
  throw new FormatError(file, 8, `metadata "fp8_kv_case" expected codes/1, append/1 or attend/1, got ${kind === undefined ? 'none' : quote(kind)}`);
}
