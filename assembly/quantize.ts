/**
 * Rows of values → codes and one scale per row, by recipe (src/recipe.ts). Exact: every step is one IEEE f32 operation.
 *
 * amax  = max |x|, NaN left out: for f32, pmax(acc, |x|) keeps acc when the comparison with NaN fails
 * scale = amax / max, bounded and replaced as the recipe says
 * code  = encode(x / scale), or by a factor: encode(x · factor)
 */
import { encodeRun } from "./codec";
import { widenBF16, widenF16 } from "./formats/half";
import { BF16, Divide, F16, Multiply } from "./types";
import { DTYPE_F16, DTYPE_F32, QuantizeParams, QUOTIENT_DIVIDE, QUOTIENT_RECIPROCAL } from "../build/params";

/** Bytes of a row of the input. */
@inline
export function rowBytes(p: QuantizeParams): usize {
  return (<usize>p.dim) << (p.dtype == DTYPE_F32 ? 2 : 1);
}

/** Of f32. */
function amaxWords(x: usize, n: i32): f32 {
  const positive = i32x4.splat(0x7fffffff);
  let even = f32x4.splat(0);
  let odd = f32x4.splat(0);
  for (const end = x + (<usize>n << 2); x < end; x += 32) {
    even = f32x4.pmax(even, v128.and(v128.load(x), positive));
    odd = f32x4.pmax(odd, v128.and(v128.load(x, 16), positive));
  }
  const four = f32x4.pmax(even, odd);
  const two = f32x4.pmax(four, v128.shuffle<i32>(four, four, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.pmax(two, v128.shuffle<i32>(two, two, 1, 0, 3, 2)), 0);
}

/** Of f16 or bf16, whose magnitudes are in the order of their bits; what is above `infinity` is NaN. One result, as f32. */
@inline
function amaxHalves<T>(x: usize, n: i32, infinity: i16): f32 {
  const positive = i16x8.splat(0x7fff);
  const largest = i16x8.splat(infinity);
  let eight = i16x8.splat(0);
  for (const end = x + (<usize>n << 1); x < end; x += 16) {
    const magnitude = v128.and(v128.load(x), positive);
    eight = i16x8.max_s(eight, v128.andnot(magnitude, i16x8.gt_s(magnitude, largest)));
  }
  const four = i16x8.max_s(eight, v128.shuffle<i32>(eight, eight, 2, 3, 0, 1));
  const two = i16x8.max_s(four, v128.shuffle<i32>(four, four, 1, 0, 3, 2));
  const one = i32x4.splat(max(i16x8.extract_lane_s(two, 0), i16x8.extract_lane_s(two, 1)));
  return f32x4.extract_lane(isSigned<T>() ? widenBF16(one) : widenF16(one), 0);
}

function amaxOf(x: usize, dtype: i32, n: i32): f32 {
  if (dtype == DTYPE_F32) return amaxWords(x, n);
  return dtype == DTYPE_F16 ? amaxHalves<F16>(x, n, 0x7c00) : amaxHalves<BF16>(x, n, 0x7f80);
}

/** One row with the given scale. */
export function quantizeRowGiven(p: QuantizeParams, x: usize, codes: usize): void {
  if (p.quotient == QUOTIENT_DIVIDE) encodeRun<Divide>(x, p.dtype, p.dim, codes, p.format, true, p.givenScale);
  else encodeRun<Multiply>(x, p.dtype, p.dim, codes, p.format, true, 1 / p.givenScale);
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
    encodeRun<Divide>(x, p.dtype, p.dim, codes, p.format, true, scale);
  } else {
    const factor: f32 = p.quotient == QUOTIENT_RECIPROCAL ? 1 / scale : replaced ? 1 : p.max / amax;
    encodeRun<Multiply>(x, p.dtype, p.dim, codes, p.format, true, factor);
  }
}

/** The first `rows` contiguous rows at p.x, without pages: what `quantize` calls. */
export function quantizeRows(p: QuantizeParams, rows: i32): void {
  const bytes = rowBytes(p);
  let x = p.x;
  let codes = p.codes;
  for (let row = 0; row < rows; row++) {
    if (p.scales == 0) quantizeRowGiven(p, x, codes);
    else quantizeRow(p, x, codes, p.scales + (<usize>row << 2));
    x += bytes;
    codes += p.codesStride;
  }
}
