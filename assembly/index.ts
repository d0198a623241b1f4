/** What the module exports. Addresses are in the imported memory; src/wasm/ lays it out. */
import { decodeRun, narrowRun, widenRun } from "./codec";
import { encodeRun } from "./encode";
import * as quantize from "./quantize";
import { DTYPE_F32, QuantizeParams } from "../build/params";

export { append } from "./append";
export { attend } from "./attend/attend";
export { attendUnit, mergeSplit } from "./attend/units";

/** n values (a multiple of 16, not 0) at `x` → n codes; see encode.ts. */
export function encode(x: usize, dtype: i32, n: i32, codes: usize, format: i32, saturate: bool): void {
  encodeRun(x, dtype, n, codes, format, saturate);
}

/** n codes (rounded up to 16) → f32 at `values`. */
export function decode(codes: usize, n: i32, values: usize, format: i32): void {
  decodeRun(codes, n, values, format, 1);
}

/** n values (a multiple of 4) → f32. */
export function widen(x: usize, dtype: i32, n: i32, values: usize): void {
  widenRun(x, dtype, n, values);
}

/** n f32 (a multiple of 4) → f16, rounded once; `halves` may be where x is. */
export function narrow(x: usize, n: i32, halves: usize): void {
  narrowRun(x, DTYPE_F32, n, halves);
}

/** The first `rows` contiguous rows at p.x, without pages. A given scale is that of all. */
export function quantizeRows(p: QuantizeParams, rows: i32): void {
  quantize.quantizeRows(p, rows, p.x, quantize.inputBytes(p, p.dim), p.codes, p.codesStride, p.scales, p.given != 0 ? 0 : 4);
}
