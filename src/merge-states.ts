/** Attention over parts of the keys, joined: each part's output counts by its softmax denominator. */
import type { AttendResult } from './backend.js';
import { describe } from './formats.js';

/** Where the joined attention goes. */
export interface MergeStatesOptions {
  /** As long as `outA`: where to put the result; made when absent. May be `outA` or `outB`. */
  readonly out?: Float32Array;
  /** As long as `lseA`; made when absent. May be `lseA` or `lseB`. */
  readonly lse?: Float32Array;
}

function checkState(array: Float32Array | undefined, length: number, argument: string): void {
  if (!(array instanceof Float32Array)) throw new TypeError(`"${argument}" expected a Float32Array, got ${describe(array)}`);
  if (array.length !== length) throw new RangeError(`"${argument}" expected length ${length}, got ${array.length}`);
}

/**
 * What attention over the keys of A and of B together gives, from what it gave over each: a prefix that many sequences share
 * is attended once, or parts of a long context are attended on several machines. Keys may be in both in no case, and a sink
 * in one of them only. The order is free; more parts are merged one after the other.
 *
 * lse = ln(e^lseA + e^lseB), out = outA · e^(lseA − lse) + outB · e^(lseB − lse). A part that saw nothing, lse −∞, leaves the
 * other as it is, bit for bit. Within an f32 rounding of exact arithmetic; the same on every machine but for Math.exp.
 *
 * @param outA [rows, queryHeads, headDim], as {@link AttendResult} has it
 * @param lseA [rows, queryHeads]
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function mergeStates(outA: Float32Array, lseA: Float32Array, outB: Float32Array, lseB: Float32Array, options: MergeStatesOptions = {}): AttendResult {
  checkState(lseA, lseA?.length, 'lseA');
  checkState(outA, outA?.length, 'outA');
  const headDim = lseA.length === 0 ? 0 : outA.length / lseA.length;
  if (!Number.isInteger(headDim)) throw new RangeError(`"outA" expected a multiple of the ${lseA.length} numbers of "lseA", got length ${outA.length}`);
  if (lseA.length === 0) checkState(outA, 0, 'outA');
  checkState(outB, outA.length, 'outB');
  checkState(lseB, lseA.length, 'lseB');
  const { out = new Float32Array(outA.length), lse = new Float32Array(lseA.length) } = options;
  checkState(out, outA.length, 'out');
  checkState(lse, lseA.length, 'lse');
  for (let row = 0; row < lseA.length; row++) mergeRow(outA, lseA[row], outB, lseB[row], out, lse, row, headDim);
  return { out, lse };
}

function mergeRow(outA: Float32Array, a: number, outB: Float32Array, b: number, out: Float32Array, lse: Float32Array, row: number, headDim: number): void {
  const begin = row * headDim;
  const end = begin + headDim;
  if (a === -Infinity || b === -Infinity) {
    lse[row] = a === -Infinity ? b : a;
    const seen = a === -Infinity ? outB : outA;
    if (seen !== out) out.set(seen.subarray(begin, end), begin);
    return;
  }
  const largest = Math.max(a, b);
  const [weightA, weightB] = [Math.exp(a - largest), Math.exp(b - largest)];
  const sum = weightA + weightB;
  const [shareA, shareB] = [weightA / sum, weightB / sum];
  lse[row] = largest + Math.log(sum);
  for (let i = begin; i < end; i++) out[i] = outA[i] * shareA + outB[i] * shareB;
}
