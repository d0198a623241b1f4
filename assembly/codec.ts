/**
 * Runs of values ↔ runs of codes. Exact.
 *
 * encode: one rounding, also where a quotient comes first: code = encode(fround(x op factor)).
 * NaN becomes 0x7F whatever its sign; −0 and negative underflow become 0x80.
 *
 * 16 values at a time. NaN (and f16's infinities, on the way in) are rare: the 16 that hold one take a path of their own.
 */
import * as e4m3fn from "./formats/e4m3fn";
import * as e5m2 from "./formats/e5m2";
import { anySpecialF16, narrowF16, widenBF16, widenF16, widenF16Finite } from "./formats/half";
import { BF16, Divide, E4M3FN, E5M2, F16, F32, Keep, Multiply } from "./types";
import { DTYPE_F16, DTYPE_F32, FORMAT_E4M3FN } from "../build/params";

/** 4 values of dtype T at `x` as f32. `finite`: they are known to hold no f16 infinity or NaN. */
@inline
export function load4<T>(x: usize, finite: bool): v128 {
  if (isFloat<T>()) return v128.load(x);
  const half = v128.load16x4_s(x);
  if (isSigned<T>()) return widenBF16(half);
  return finite ? widenF16Finite(half) : widenF16(half);
}

/** Whether 16 values of dtype T at `x` may be loaded as finite: true for all but f16. */
@inline
export function loadsFinite<T>(x: usize): bool {
  if (isFloat<T>() || isSigned<T>()) return true;
  return !anySpecialF16(v128.load(x)) && !anySpecialF16(v128.load(x, 16));
}

@inline
function load4By<T, Op>(x: usize, finite: bool, factor: v128): v128 {
  const value = load4<T>(x, finite);
  if (sizeof<Op>() == sizeof<Divide>()) return f32x4.div(value, factor);
  if (sizeof<Op>() == sizeof<Multiply>()) return f32x4.mul(value, factor);
  return value;
}

@inline
function magnitude<F>(a: v128, bound: v128): v128 {
  const bounded = f32x4.pmin(a, bound);
  return isSigned<F>() ? e5m2.encodeMagnitude(bounded) : e4m3fn.encodeMagnitude(bounded);
}

/** 16 lanes of bytes from four masks of i32 lanes. */
@inline
function narrowMasks(m0: v128, m1: v128, m2: v128, m3: v128): v128 {
  return i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(m0, m1), i16x8.narrow_i32x4_s(m2, m3));
}

/** 16 values → 16 codes. Saturating narrowing keeps an i32's sign, so x's own bits serve as the signs. */
@inline
function encode16<F>(x0: v128, x1: v128, x2: v128, x3: v128, bound: v128): v128 {
  const positive = i32x4.splat(0x7fffffff);
  const a0 = v128.and(x0, positive);
  const a1 = v128.and(x1, positive);
  const a2 = v128.and(x2, positive);
  const a3 = v128.and(x3, positive);
  const low = i16x8.narrow_i32x4_s(magnitude<F>(a0, bound), magnitude<F>(a1, bound));
  const high = i16x8.narrow_i32x4_s(magnitude<F>(a2, bound), magnitude<F>(a3, bound));
  const signs = v128.and(narrowMasks(x0, x1, x2, x3), i8x16.splat(<i8>0x80));
  const codes = v128.or(i8x16.narrow_i16x8_s(low, high), signs);
  const infinity = i32x4.splat(0x7f800000);
  const largest = i32x4.max_s(i32x4.max_s(a0, a1), i32x4.max_s(a2, a3));
  if (!v128.any_true(i32x4.gt_s(largest, infinity))) return codes;
  const nan = narrowMasks(i32x4.gt_s(a0, infinity), i32x4.gt_s(a1, infinity), i32x4.gt_s(a2, infinity), i32x4.gt_s(a3, infinity));
  return v128.bitselect(i8x16.splat(0x7f), codes, nan);
}

@inline
function encodeFrom<F, T, Op>(x: usize, finite: bool, bound: v128, factor: v128): v128 {
  const step = sizeof<T>() * 4;
  return encode16<F>(
    load4By<T, Op>(x, finite, factor), load4By<T, Op>(x + step, finite, factor),
    load4By<T, Op>(x + 2 * step, finite, factor), load4By<T, Op>(x + 3 * step, finite, factor), bound,
  );
}

/** The last 8 values of a row that is not a multiple of 16, and 8 zero codes. */
@inline
function encodeLast8<F, T, Op>(x: usize, codes: usize, bound: v128, factor: v128): void {
  const zero = i32x4.splat(0);
  const x0 = load4By<T, Op>(x, false, factor);
  v128.store(codes, encode16<F>(x0, load4By<T, Op>(x + sizeof<T>() * 4, false, factor), zero, zero, bound));
}

function encodeLoop<F, T, Op>(x: usize, n: i32, codes: usize, limit: f32, by: f32): void {
  const bound = f32x4.splat(limit);
  const factor = f32x4.splat(by);
  const end = codes + (n & ~15);
  for (; codes < end; codes += 16, x += sizeof<T>() * 16) {
    if (loadsFinite<T>(x)) v128.store(codes, encodeFrom<F, T, Op>(x, true, bound, factor));
    else v128.store(codes, encodeFrom<F, T, Op>(x, false, bound, factor));
  }
  if (n & 8) encodeLast8<F, T, Op>(x, codes, bound, factor);
}

function encodeFormat<F, Op>(x: usize, dtype: i32, n: i32, codes: usize, limit: f32, by: f32): void {
  if (dtype == DTYPE_F32) encodeLoop<F, F32, Op>(x, n, codes, limit, by);
  else if (dtype == DTYPE_F16) encodeLoop<F, F16, Op>(x, n, codes, limit, by);
  else encodeLoop<F, BF16, Op>(x, n, codes, limit, by);
}

/**
 * n values (a multiple of 8) → n codes. Where n is not a multiple of 16, 8 zero codes follow: rows are padded to 16.
 * Op says what happens first: nothing (Keep), or an operation with `by`.
 * @param saturate NVIDIA's SATFINITE, else NOSAT
 */
export function encodeRun<Op>(x: usize, dtype: i32, n: i32, codes: usize, format: i32, saturate: bool, by: f32): void {
  if (format == FORMAT_E4M3FN) encodeFormat<E4M3FN, Op>(x, dtype, n, codes, saturate ? e4m3fn.E4M3FN_MAX : e4m3fn.E4M3FN_OVERFLOW, by);
  else encodeFormat<E5M2, Op>(x, dtype, n, codes, saturate ? e5m2.E5M2_MAX : e5m2.E5M2_OVERFLOW, by);
}

function widenLoop<T>(x: usize, n: i32, values: usize): void {
  const end = values + (<usize>n << 2);
  for (; values < end; values += 16, x += sizeof<T>() * 4) v128.store(values, load4<T>(x, false));
}

/** n values (a multiple of 4) → f32: exact. */
export function widenRun(x: usize, dtype: i32, n: i32, values: usize): void {
  if (dtype == DTYPE_F32) memory.copy(values, x, <usize>n << 2);
  else if (dtype == DTYPE_F16) widenLoop<F16>(x, n, values);
  else widenLoop<BF16>(x, n, values);
}

function narrowLoop<T>(x: usize, n: i32, halves: usize): void {
  const end = halves + (<usize>n << 1);
  for (; halves < end; halves += 8, x += sizeof<T>() * 4) {
    const half = narrowF16(load4<T>(x, false));
    v128.store64_lane(halves, i16x8.narrow_i32x4_u(half, half), 0);
  }
}

/** n values (a multiple of 4) → f16, rounded once. */
export function narrowRun(x: usize, dtype: i32, n: i32, halves: usize): void {
  if (dtype == DTYPE_F32) narrowLoop<F32>(x, n, halves);
  else if (dtype == DTYPE_F16) narrowLoop<F16>(x, n, halves);
  else narrowLoop<BF16>(x, n, halves);
}

/** 4 of 8 spread codes as f32; `special`: there may be NaN, or e5m2's infinities, among them. */
@inline
function widenSpread<F>(bits: v128, unit: v128, special: bool): v128 {
  if (special) return isSigned<F>() ? e5m2.widenSpecial(bits, unit) : e4m3fn.widenSpecial(bits, unit);
  return f32x4.mul(bits, unit);
}

/** 8 codes, sign-extended to i16 → 8 values. */
@inline
function decode8<F>(codes: v128, values: usize, unit: v128, special: bool): void {
  const zero = i16x8.splat(0);
  const bits = isSigned<F>() ? e5m2.spread(codes) : e4m3fn.spread(codes);
  v128.store(values, widenSpread<F>(v128.shuffle<i16>(zero, bits, 0, 8, 1, 9, 2, 10, 3, 11), unit, special));
  v128.store(values, widenSpread<F>(v128.shuffle<i16>(zero, bits, 4, 12, 5, 13, 6, 14, 7, 15), unit, special), 16);
}

@inline
function decode16<F>(codes: v128, values: usize, unit: v128, special: bool): void {
  decode8<F>(i16x8.extend_low_i8x16_s(codes), values, unit, special);
  decode8<F>(i16x8.extend_high_i8x16_s(codes), values + 32, unit, special);
}

@inline
function isSpecial<F>(codes: v128): v128 {
  return isSigned<F>() ? e5m2.isSpecial(codes) : e4m3fn.isSpecial(codes);
}

/** 32 codes share one test: a third faster than 16. */
function decodeLoop<F>(codes: usize, n: i32, values: usize, by: f32): void {
  const unit = f32x4.splat(by);
  const end = codes + n;
  for (; codes + 16 < end; codes += 32, values += 128) {
    const first = v128.load(codes);
    const second = v128.load(codes, 16);
    const special = v128.any_true(v128.or(isSpecial<F>(first), isSpecial<F>(second)));
    if (special) {
      decode16<F>(first, values, unit, true);
      decode16<F>(second, values + 64, unit, true);
    } else {
      decode16<F>(first, values, unit, false);
      decode16<F>(second, values + 64, unit, false);
    }
  }
  if (codes < end) decode16<F>(v128.load(codes), values, unit, true);
}

/**
 * n FP8 codes → n f32; codes and values are read and written in whole groups of 16, and of 32 where that many begin. Every NaN is 0x7FC00000.
 * @param scale a power of two, 1 … 2^-unit exponent: what finite values are multiplied with
 */
export function decodeRun(codes: usize, n: i32, values: usize, format: i32, scale: f32): void {
  if (format == FORMAT_E4M3FN) decodeLoop<E4M3FN>(codes, n, values, e4m3fn.E4M3FN_UNIT * scale);
  else decodeLoop<E5M2>(codes, n, values, e5m2.E5M2_UNIT * scale);
}
