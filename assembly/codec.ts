/** Runs of codes → f32, and of the unquantized dtypes among each other. Exact. encode.ts is the way to codes. */
import * as e4m3fn from "./formats/e4m3fn";
import * as e5m2 from "./formats/e5m2";
import { narrowF16, widenBF16, widenF16 } from "./formats/half";
import { widenHigh, widenLow } from "./formats/int8";
import { BF16, E4M3FN, E5M2, F16, F32, Keep, Multiply } from "./types";
import { zipHigh, zipLow } from "./zip";
import { DTYPE_F16, DTYPE_F32, FORMAT_E4M3FN, FORMAT_INT8 } from "../build/params";

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

/** Codes of any kind, 8 at a time. */
function decodeCarefully<F>(codes: usize, n: i32, values: usize, scale: f32): void {
  const zero = i16x8.splat(0);
  const unit = f32x4.splat(scale * (isSigned<F>() ? e5m2.E5M2_UNIT : e4m3fn.E4M3FN_UNIT));
  for (const end = codes + n; codes < end; codes += 8, values += 32) {
    const eight = v128.load8x8_s(codes);
    const bits = isSigned<F>() ? e5m2.spread(eight) : e4m3fn.spread(eight);
    const low = zipLow<u16>(zero, bits);
    const high = zipHigh<u16>(zero, bits);
    v128.store(values, isSigned<F>() ? e5m2.widenSpecial(low, unit) : e4m3fn.widenSpecial(low, unit));
    v128.store(values, isSigned<F>() ? e5m2.widenSpecial(high, unit) : e4m3fn.widenSpecial(high, unit), 16);
  }
}

/** 8 codes in the upper bytes of i16 lanes, and what makes f32 of them → 8 values. */
@inline
function decode8<F, Op>(codes: v128, offsets: v128, values: usize, by: v128): void {
  const zero = i16x8.splat(0);
  const shifted = i16x8.shr_s(codes, 8 - (isSigned<F>() ? e5m2.SPREAD_SHIFT : e4m3fn.SPREAD_SHIFT));
  const spread = v128.and(shifted, i16x8.splat(<i16>(isSigned<F>() ? e5m2.SPREAD_MASK : e4m3fn.SPREAD_MASK)));
  const bits = i16x8.add(spread, offsets);
  const low = zipLow<u16>(zero, bits);
  const high = zipHigh<u16>(zero, bits);
  v128.store(values, sizeof<Op>() == sizeof<Multiply>() ? f32x4.mul(low, by) : low);
  v128.store(values, sizeof<Op>() == sizeof<Multiply>() ? f32x4.mul(high, by) : high, 16);
}

/** 16 codes that are finite. @returns their magnitudes */
@inline
function decode16<F, Op>(codes: usize, values: usize, by: v128): v128 {
  const zero = i8x16.splat(0);
  const sixteen = v128.load(codes);
  const magnitudes = v128.and(sixteen, i8x16.splat(0x7f));
  const index = i8x16.min_u(magnitudes, i8x16.splat(isSigned<F>() ? e5m2.E5M2_NORMAL : e4m3fn.E4M3FN_NORMAL));
  const lower = isSigned<F>() ? e5m2.lowerOffsets(index) : e4m3fn.lowerOffsets(index);
  const upper = isSigned<F>() ? e5m2.upperOffsets(index) : e4m3fn.upperOffsets(index);
  decode8<F, Op>(zipLow<u8>(zero, sixteen), zipLow<u8>(lower, upper), values, by);
  decode8<F, Op>(zipHigh<u8>(zero, sixteen), zipHigh<u8>(lower, upper), values + 32, by);
  return magnitudes;
}

@inline
function anySpecial<F>(codes: v128): bool {
  return v128.any_true(isSigned<F>() ? e5m2.isSpecial(codes) : e4m3fn.isSpecial(codes));
}

/** 32 codes share one test. Op: whether there is a scale (Multiply) or none (Keep). */
function decodeLoop<F, Op>(codes: usize, n: i32, values: usize, scale: f32): void {
  const by = f32x4.splat(scale);
  const end = codes + n;
  if (n > 16) {
    do {
      const magnitudes = i8x16.max_s(decode16<F, Op>(codes, values, by), decode16<F, Op>(codes + 16, values + 64, by));
      if (anySpecial<F>(magnitudes)) decodeCarefully<F>(codes, 32, values, scale);
      codes += 32;
      values += 128;
    } while (codes + 16 < end);
  }
  if (codes < end) decodeCarefully<F>(codes, 16, values, scale);
}

function decodeFormat<F>(codes: usize, n: i32, values: usize, scale: f32): void {
  if (scale == 1) decodeLoop<F, Keep>(codes, n, values, scale);
  else decodeLoop<F, Multiply>(codes, n, values, scale);
}

/** n int8 codes (rounded up to 16) → f32. */
function decodeIntegers(codes: usize, n: i32, values: usize): void {
  for (const end = codes + n; codes < end; codes += 16, values += 64) {
    const a = v128.load8x8_s(codes);
    const b = v128.load8x8_s(codes, 8);
    v128.store(values, widenLow(a));
    v128.store(values, widenHigh(a), 16);
    v128.store(values, widenLow(b), 32);
    v128.store(values, widenHigh(b), 48);
  }
}

/**
 * n 8-bit codes → n f32; codes and values are read and written in whole groups of 16, and of 32 where that many begin. Every NaN is 0x7FC00000.
 * @param scale a power of two, 1 … 2^-unit exponent: what finite values are multiplied with; 1 for int8
 */
export function decodeRun(codes: usize, n: i32, values: usize, format: i32, scale: f32): void {
  if (format == FORMAT_INT8) decodeIntegers(codes, n, values);
  else if (format == FORMAT_E4M3FN) decodeFormat<E4M3FN>(codes, n, values, scale);
  else decodeFormat<E5M2>(codes, n, values, scale);
}
