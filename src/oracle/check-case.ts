/** A dump of one call of another kernel. */
import { parseSafetensors } from '../files/safetensors.js';
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
  return kind === 'attend/1' ? checkAttendCase(bytes, file) : checkAppendCase(bytes, file);
}
