/** What a cache's module exports. Addresses are in the imported memory; src/wasm/ lays it out. */
import { narrowRun, widenRun } from "./codec";
import { DTYPE_F32 } from "../build/params";

export { append } from "./append";
export { attend } from "./attend/attend";
export { attendUnit, mergeSplit } from "./attend/units";

/** n values (a multiple of 4) → f32. */
export function widen(x: usize, dtype: i32, n: i32, values: usize): void {
  widenRun(x, dtype, n, values);
}

/** n f32 (a multiple of 4) → f16, rounded once; `halves` may be where x is. */
export function narrow(x: usize, n: i32, halves: usize): void {
  narrowRun(x, DTYPE_F32, n, halves);
}
