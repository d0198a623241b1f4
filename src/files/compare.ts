/** How far results are from what they should be. */
import type { AttendResult } from '../backend.js';
import type { Tensor } from './tensor.js';

/** The bound that attention in f32 keeps against a float64 reference on the same codes. */
export const ATTENTION_BOUND = 1e-4;

/** What `out` of a kernel is held to that computes in 16 bits on purpose. */
export const ATTENTION_BOUND_16 = 5e-3;

/** How far a result of attention is off another, relative to it. */
export interface AttentionError {
  /** Largest |out − expected| of a row ÷ max(largest |expected| of the row, 1e-6); ∞ where a NaN or infinity is not the same. */
  readonly out: number;
  /** Largest |lse − expected| ÷ max(1, |expected|), likewise. */
  readonly lse: number;
}

const distance = (actual: number, expected: number): number => {
  if (Object.is(actual, expected) || actual === expected) return 0;
  return Number.isFinite(actual) && Number.isFinite(expected) ? Math.abs(actual - expected) : Infinity;
};

/** What errors of a row are relative to: its largest finite magnitude. */
function rowSize(expected: Float32Array, start: number, length: number): number {
  let largest = 1e-6;
  for (let i = start; i < start + length; i++) {
    const magnitude = Math.abs(expected[i]);
    if (magnitude > largest && magnitude < Infinity) largest = magnitude;
  }
  return largest;
}

function rowError(actual: Float32Array, expected: Float32Array, start: number, length: number): number {
  let error = 0;
  for (let i = start; i < start + length; i++) error = Math.max(error, distance(actual[i], expected[i]));
  return error / rowSize(expected, start, length);
}

const lseError = (actual: number, expected: number): number => distance(actual, expected) / (Number.isFinite(expected) ? Math.max(1, Math.abs(expected)) : 1);

/** @param headDim elements of out per element of lse */
export function attentionError(actual: { out: Float32Array; lse: Float32Array }, expected: { out?: Float32Array; lse?: Float32Array }, headDim: number): AttentionError {
  let out = 0;
  let lse = 0;
  for (let start = 0; expected.out && start < expected.out.length; start += headDim) out = Math.max(out, rowError(actual.out, expected.out, start, headDim));
  for (let i = 0; expected.lse && i < expected.lse.length; i++) lse = Math.max(lse, lseError(actual.lse[i], expected.lse[i]));
  return { out, lse };
}

/** The first element of out, or else of lse, whose error is beyond the bound. */
export function firstBeyond(actual: AttendResult, expected: AttendResult, headDim: number, bound: number): { what: 'out' | 'lse'; index: number } | undefined {
  for (let start = 0; start < expected.out.length; start += headDim) {
    const size = rowSize(expected.out, start, headDim);
    for (let index = start; index < start + headDim; index++) {
      if (distance(actual.out[index], expected.out[index]) / size > bound) return { what: 'out', index };
    }
  }
  const index = expected.lse.findIndex((value, i) => lseError(actual.lse[i], value) > bound);
  return index < 0 ? undefined : { what: 'lse', index };
}

export interface ByteDifference {
  readonly tensor: string;
  readonly count: number;
  /** The first byte that differs. */
  readonly at: number;
  readonly expected: number;
  readonly actual: number;
}

/** The first expected tensor whose bytes are not those of the actual one. */
export function firstDifference(actual: ReadonlyMap<string, Tensor>, expected: ReadonlyMap<string, Tensor>): ByteDifference | undefined {
  for (const [tensor, { data }] of expected) {
    const got = actual.get(tensor)?.data ?? new Uint8Array(0);
    let count = Math.abs(data.length - got.length);
    let at = -1;
    for (let i = 0; i < Math.min(data.length, got.length); i++) {
      if (data[i] === got[i]) continue;
      if (at < 0) at = i;
      count++;
    }
    if (count > 0) {
      if (at < 0) at = Math.min(data.length, got.length);
      return { tensor, count, at, expected: data[at], actual: got[at] };
    }
  }
  return undefined;
}
