/**
 * Runs of values ↔ runs of codes. Exact.
 *
 * encode: one rounding, also where a quotient comes first: code = encode(fround(x op factor)).
 * NaN becomes 0x7F whatever its sign; −0 and negative underflow become 0x80.
 *
 * 16 values at a time: magnitudes narrow to bytes with saturation, which is what turns NaN's large magnitude into 0x7F.
 */
import * as e4m3fn from "./formats/e4m3fn";
import * as e5m2 from "./formats/e5m2";
import { narrowF16, widenBF16, widenF16 } from "./formats/half";
import { DTYPE_F16, DTYPE_F32, FORMAT_E4M3FN } from "../build/params";

/** What happens to a value before it is encoded. */
export const OP_NONE: i32 = 0;
export const OP_DIVIDE: i32 = 1;
export const OP_MULTIPLY: i32 = 2;

/** 4 values of `dtype` at `x` as f32. */
// @ts-ignore: decorator
@inline
export function load4(x: usize, dtype: i32): v128 {
  if (dtype == DTYPE_F32) return v128.load(x);
  const half = v128.load16x4_u(x);
  return dtype == DTYPE_F16 ? widenF16(half) : widenBF16(half);
}

// @ts-ignore: decorator
@inline
export function dtypeShift(dtype: i32): i32 {
  return dtype == DTYPE_F32 ? 2 : 1;
}

// @ts-ignore: decorator
@inline
function load4Scaled(x: usize, dtype: i32, op: i32, factor: v128): v128 {
  const value = load4(x, dtype);
  if (op == OP_DIVIDE) return f32x4.div(value, factor);
  return op == OP_MULTIPLY ? f32x4.mul(value, factor) : value;
}

// @ts-ignore: decorator
@inline
function magnitude(x: v128, format: i32, bound: f32): v128 {
  return format == FORMAT_E4M3FN ? e4m3fn.encodeMagnitude(x, bound) : e5m2.encodeMagnitude(x, bound);
}

/** 16 values → 16 codes. Saturating narrowing keeps an i32's sign, so x's own bits serve as the signs. */
// @ts-ignore: decorator
@inline
function encode16(x0: v128, x1: v128, x2: v128, x3: v128, format: i32, bound: f32): v128 {
  const low = i16x8.narrow_i32x4_s(magnitude(x0, format, bound), magnitude(x1, format, bound));
  const high = i16x8.narrow_i32x4_s(magnitude(x2, format, bound), magnitude(x3, format, bound));
  const largest = i16x8.splat(0x7f);
  const lowSigns = v128.andnot(i16x8.narrow_i32x4_s(x0, x1), i16x8.gt_s(low, largest));
  const highSigns = v128.andnot(i16x8.narrow_i32x4_s(x2, x3), i16x8.gt_s(high, largest));
  const signs = v128.and(i8x16.narrow_i16x8_s(lowSigns, highSigns), i8x16.splat(<i8>0x80));
  return v128.or(i8x16.narrow_i16x8_s(low, high), signs);
}

/** The loop behind {@link encodeRun}; dtype, op and format are constants where it is called, so each call is its own loop. */
// @ts-ignore: decorator
@inline
function encodeLoop(x: usize, dtype: i32, n: i32, codes: usize, format: i32, bound: f32, op: i32, by: f32): void {
  const factor = f32x4.splat(by);
  const step: usize = 4 << dtypeShift(dtype);
  const end = codes + (n & ~15);
  while (codes < end) {
    const x0 = load4Scaled(x, dtype, op, factor);
    const x1 = load4Scaled(x + step, dtype, op, factor);
    const x2 = load4Scaled(x + 2 * step, dtype, op, factor);
    const x3 = load4Scaled(x + 3 * step, dtype, op, factor);
    v128.store(codes, encode16(x0, x1, x2, x3, format, bound));
    codes += 16;
    x += 4 * step;
  }
  if (n & 8) {
    const x0 = load4Scaled(x, dtype, op, factor);
    const x1 = load4Scaled(x + step, dtype, op, factor);
    const zero = i32x4.splat(0);
    v128.store(codes, encode16(x0, x1, zero, zero, format, bound));
  }
}

// @ts-ignore: decorator
@inline
function encodeByOp(x: usize, dtype: i32, n: i32, codes: usize, format: i32, bound: f32, op: i32, by: f32): void {
  if (op == OP_NONE) encodeLoop(x, dtype, n, codes, format, bound, OP_NONE, by);
  else if (op == OP_DIVIDE) encodeLoop(x, dtype, n, codes, format, bound, OP_DIVIDE, by);
  else encodeLoop(x, dtype, n, codes, format, bound, OP_MULTIPLY, by);
}

// @ts-ignore: decorator
@inline
function encodeByDtype(x: usize, dtype: i32, n: i32, codes: usize, format: i32, bound: f32, op: i32, by: f32): void {
  if (dtype == DTYPE_F32) encodeByOp(x, DTYPE_F32, n, codes, format, bound, op, by);
  else if (dtype == DTYPE_F16) encodeByOp(x, DTYPE_F16, n, codes, format, bound, op, by);
  else encodeByOp(x, dtype, n, codes, format, bound, op, by);
}

/**
 * n values (a multiple of 8) → n codes. Where n is not a multiple of 16, 8 zero codes follow: rows are padded to 16.
 * @param saturate NVIDIA's SATFINITE, else NOSAT
 */
export function encodeRun(x: usize, dtype: i32, n: i32, codes: usize, format: i32, saturate: bool, op: i32, by: f32): void {
  if (format == FORMAT_E4M3FN) {
    encodeByDtype(x, dtype, n, codes, FORMAT_E4M3FN, saturate ? e4m3fn.E4M3FN_MAX : e4m3fn.E4M3FN_OVERFLOW, op, by);
  } else {
    encodeByDtype(x, dtype, n, codes, format, saturate ? e5m2.E5M2_MAX : e5m2.E5M2_OVERFLOW, op, by);
  }
}

/** n values (a multiple of 4) → f32: exact. */
export function widenRun(x: usize, dtype: i32, n: i32, values: usize): void {
  if (dtype == DTYPE_F32) {
    memory.copy(values, x, <usize>n << 2);
    return;
  }
  const end = values + (<usize>n << 2);
  for (; values < end; values += 16, x += 8) v128.store(values, load4(x, dtype));
}

/** n values (a multiple of 4) → f16, rounded once. */
export function narrowRun(x: usize, dtype: i32, n: i32, halves: usize): void {
  const step: usize = 4 << dtypeShift(dtype);
  const end = halves + (<usize>n << 1);
  for (; halves < end; halves += 8, x += step) {
    const half = narrowF16(load4(x, dtype));
    v128.store64_lane(halves, i16x8.narrow_i32x4_u(half, half), 0);
  }
}

// @ts-ignore: decorator
@inline
function decodeQuarter(half: v128, high: bool, format: i32, special: bool): v128 {
  const zero = i16x8.splat(0);
  const bits = high
    ? v128.shuffle<i16>(zero, half, 4, 12, 5, 13, 6, 14, 7, 15)
    : v128.shuffle<i16>(zero, half, 0, 8, 1, 9, 2, 10, 3, 11);
  if (special) return format == FORMAT_E4M3FN ? e4m3fn.widenSpecial(bits) : e5m2.widenSpecial(bits);
  return f32x4.mul(bits, f32x4.splat(format == FORMAT_E4M3FN ? e4m3fn.E4M3FN_UNIT : e5m2.E5M2_UNIT));
}

// @ts-ignore: decorator
@inline
function decode16(codes: v128, values: usize, format: i32, special: bool): void {
  const low = i16x8.extend_low_i8x16_s(codes);
  const high = i16x8.extend_high_i8x16_s(codes);
  const a = format == FORMAT_E4M3FN ? e4m3fn.spread(low) : e5m2.spread(low);
  const b = format == FORMAT_E4M3FN ? e4m3fn.spread(high) : e5m2.spread(high);
  v128.store(values, decodeQuarter(a, false, format, special));
  v128.store(values, decodeQuarter(a, true, format, special), 16);
  v128.store(values, decodeQuarter(b, false, format, special), 32);
  v128.store(values, decodeQuarter(b, true, format, special), 48);
}

/** NaN (and e5m2's infinities) are rare: their path is taken for the 16 codes that hold one. */
// @ts-ignore: decorator
@inline
function decodeLoop(codes: usize, n: i32, values: usize, format: i32): void {
  const end = codes + n;
  while (codes < end) {
    const c = v128.load(codes);
    const special = format == FORMAT_E4M3FN ? e4m3fn.isSpecial(c) : e5m2.isSpecial(c);
    if (v128.any_true(special)) decode16(c, values, format, true);
    else decode16(c, values, format, false);
    codes += 16;
    values += 64;
  }
}

/** n FP8 codes → n f32; codes and values are read and written in whole groups of 16. Every NaN is 0x7FC00000. */
export function decodeRun(codes: usize, n: i32, values: usize, format: i32): void {
  if (format == FORMAT_E4M3FN) decodeLoop(codes, n, values, FORMAT_E4M3FN);
  else decodeLoop(codes, n, values, format);
}
