/** A dump of one call of another kernel. */
import { parseSafetensors } from '../files/safetensors.js';
import { checkAppendCase, type AppendCheck } from './check-append.js';
import { checkAttendCase, type AttendCheck } from './check-attend.js';

/**
 * Checks an `append/1` or `attend/1` case file whose tensors `expected.…` are what a kernel gave.
 * @param file what to call the file in errors
 * @throws FormatError when it is neither; RangeError for one that nothing can be compared with
 */
export async function checkCase(bytes: Uint8Array, file: string): Promise<AppendCheck | AttendCheck> {
  const kind = parseSafetensors(bytes, file).metadata.get('fp8_kv_case');
  return kind === 'attend/1' ? checkAttendCase(bytes, file) : checkAppendCase(bytes, file);
}
