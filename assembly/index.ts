/** What the module exports. Addresses are in the imported memory; src/wasm/ lays it out. */
import { decodeRun, encodeRun, widenRun } from "./codec";
import { Keep } from "./types";

export { append } from "./append";
export { attend } from "./attend/attend";
export { attendUnit, mergeSplit } from "./attend/units";
export { quantizeRows } from "./quantize";

/** n values (a multiple of 8) at `x` → n codes; see codec.ts. */
export function encode(x: usize, dtype: i32, n: i32, codes: usize, format: i32, saturate: bool): void {
  encodeRun<Keep>(x, dtype, n, codes, format, saturate, 1);
}

/** n codes (rounded up to 16) → f32 at `values`. */
export function decode(codes: usize, n: i32, values: usize, format: i32): void {
  decodeRun(codes, n, values, format, 1);
}

/** n values (a multiple of 4) → f32. */
export function widen(x: usize, dtype: i32, n: i32, values: usize): void {
  widenRun(x, dtype, n, values);
}
