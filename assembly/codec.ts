/** Runs of codes → f32, and of the unquantized dtypes among each other. Exact. encode.ts is the way to codes. */
import * as e4m3fn from "./formats/e4m3fn";
import * as e5m2 from "./formats/e5m2";
import { narrowF16, widenBF16, widenF16 } from "./formats/half";
import { BF16, E4M3FN, E5M2, F16, F32 } from "./types";
import { DTYPE_F16, DTYPE_F32, FORMAT_E4M3FN } from "../build/params";

/** 4 values of dtype T at `x` as f32. */
@inline
export function load4<T>(x: usize): v128 {
  if (isFloat<T>()) return v128.load(x);
  const half = v128.load16x4_s(x);
  return isSigned<T>() ? widenBF16(half) : widenF16(half);
}

function widenLoop<T>(x: usize, n: i32, values: usize): void {
  const end = values + (<usize>n << 2);
  for (; values < end; values += 16, x += sizeof<T>() * 4) v128.store(values, load4<T>(x));
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
    const half = narrowF16(load4<T>(x));
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
