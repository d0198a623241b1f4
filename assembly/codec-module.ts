/**
 * What the codec's module exports: of the kernels those that need no pages. A module of its own, since programs that encode and
 * decode alone should not carry attention: 4 KB in place of 11 (gzip). Addresses are in the imported memory.
 */
import { decodeRun } from "./codec";
import { encodeRun } from "./encode";
import * as quantize from "./quantize";
import { QuantizeParams } from "../build/params";

/** n values (a multiple of 16, not 0) at `x` → n codes; see encode.ts. */
export function encode(x: usize, dtype: i32, n: i32, codes: usize, format: i32, saturate: bool): void {
  encodeRun(x, dtype, n, codes, format, saturate);
}

/** n codes (rounded up to 16) → f32 at `values`. */
export function decode(codes: usize, n: i32, values: usize, format: i32): void {
  decodeRun(codes, n, values, format, 1);
}

/** The first `rows` contiguous rows at p.x, without pages. A given scale is that of all. */
export function quantizeRows(p: QuantizeParams, rows: i32): void {
  quantize.quantizeRows(p, rows, p.x, quantize.inputBytes(p, p.dim), p.codes, p.codesStride, p.scales, p.given != 0 ? 0 : 4);
}
