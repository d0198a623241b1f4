/**
 * Rows of values → codes and one scale per row, by recipe (src/recipe.ts). Exact: every step is one IEEE f32 operation.
 *
 * amax  = max |x|, NaN left out: pmax(acc, |x|) keeps acc when the comparison with NaN fails
 * scale = amax / max, bounded and replaced as the recipe says
 * code  = encode(x / scale), or by a factor: encode(x · factor)
 */
import { encodeRun, dtypeShift, load4, OP_DIVIDE, OP_MULTIPLY } from "./codec";
import { DTYPE_F16, DTYPE_F32, QuantizeParams, QUOTIENT_DIVIDE, QUOTIENT_RECIPROCAL } from "../build/params";

// @ts-ignore: decorator
@inline
function amaxLoop(x: usize, dtype: i32, n: i32): f32 {
  const sign = i32x4.splat(0x7fffffff);
  const step: usize = 4 << dtypeShift(dtype);
  let even = f32x4.splat(0);
  let odd = f32x4.splat(0);
  for (let i = 0; i < n; i += 8) {
    even = f32x4.pmax(even, v128.and(load4(x, dtype), sign));
    odd = f32x4.pmax(odd, v128.and(load4(x + step, dtype), sign));
    x += 2 * step;
  }
  const four = f32x4.pmax(even, odd);
  const two = f32x4.pmax(four, v128.shuffle<i32>(four, four, 2, 3, 0, 1));
  const one = f32x4.pmax(two, v128.shuffle<i32>(two, two, 1, 0, 3, 2));
  return f32x4.extract_lane(one, 0);
}

function amaxOf(x: usize, dtype: i32, n: i32): f32 {
  if (dtype == DTYPE_F32) return amaxLoop(x, DTYPE_F32, n);
  if (dtype == DTYPE_F16) return amaxLoop(x, DTYPE_F16, n);
  return amaxLoop(x, dtype, n);
}

/** One row with the given scale. */
export function quantizeRowGiven(p: QuantizeParams, x: usize, codes: usize): void {
  const divide = p.quotient == QUOTIENT_DIVIDE;
  encodeRun(x, p.dtype, p.dim, codes, p.format, true, divide ? OP_DIVIDE : OP_MULTIPLY, divide ? p.givenScale : 1 / p.givenScale);
}

/** One row with a scale of its own, which is stored at `scaleAt`. */
export function quantizeRow(p: QuantizeParams, x: usize, codes: usize, scaleAt: usize): void {
  let amax = amaxOf(x, p.dtype, p.dim);
  if (amax < p.amaxFloor) amax = p.amaxFloor;
  let scale = amax / p.max;
  if (scale < p.scaleFloor) scale = p.scaleFloor;
  const replaced = scale == 0 && p.scaleIfZero != 0;
  if (replaced) scale = p.scaleIfZero;
  store<f32>(scaleAt, scale);
  if (p.quotient == QUOTIENT_DIVIDE) {
    encodeRun(x, p.dtype, p.dim, codes, p.format, true, OP_DIVIDE, scale);
  } else {
    const factor: f32 = p.quotient == QUOTIENT_RECIPROCAL ? 1 / scale : replaced ? 1 : p.max / amax;
    encodeRun(x, p.dtype, p.dim, codes, p.format, true, OP_MULTIPLY, factor);
  }
}

/** Contiguous rows, without pages: what `quantize` calls. */
export function quantizeRows(p: QuantizeParams): void {
  const rowBytes: usize = (<usize>p.dim) << dtypeShift(p.dtype);
  let x = p.x;
  let codes = p.codes;
  for (let row = 0; row < p.rows; row++) {
    if (p.scales == 0) quantizeRowGiven(p, x, codes);
    else quantizeRow(p, x, codes, p.scales + (<usize>row << 2));
    x += rowBytes;
    codes += p.codesStride;
  }
}
