/**
 * E4M3FN: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, NaN is S.1111.111 (OCP 8-bit Floating Point
 * Specification 1.0, section 5). Exact.
 *
 * encode: |x| is rounded to the nearest code, ties to even. Normal codes are the upper bits of the f32, rounded by an
 * integer addition; what is below 2^-6 is rounded by adding 2^14, whose last mantissa bit weighs 2^-9.
 * decode: a code's exponent and mantissa, moved to the top of an f32's, are its value · 2^-120.
 */

/** Upper bound of |x|: saturating, what is larger becomes 448; else 480, the value that 0x7F would have. */
export const E4M3FN_MAX: f32 = 448;
export const E4M3FN_OVERFLOW: f32 = 480;

// @ts-ignore: decorator
@inline
const SMALLEST_NORMAL: f32 = 0.015625;
// @ts-ignore: decorator
@inline
const SUBNORMAL_MAGIC: f32 = 16384;

/** Magnitude codes (0…0x7F) of 4 values, one per i32 lane; NaN gives more than 0x7F. `bound` is one of the two above. */
// @ts-ignore: decorator
@inline
export function encodeMagnitude(x: v128, bound: f32): v128 {
  const a = f32x4.pmin(v128.and(x, i32x4.splat(0x7fffffff)), f32x4.splat(bound)); // pmin lets NaN through
  const even = v128.and(i32x4.shr_u(a, 20), i32x4.splat(1));
  const normal = i32x4.sub(i32x4.shr_u(i32x4.add(i32x4.add(a, i32x4.splat(0x7ffff)), even), 20), i32x4.splat(120 << 3));
  const subnormal = i32x4.sub(f32x4.add(a, f32x4.splat(SUBNORMAL_MAGIC)), i32x4.splat(0x46800000));
  return v128.bitselect(subnormal, normal, f32x4.lt(a, f32x4.splat(SMALLEST_NORMAL)));
}

/** 8 codes, sign-extended to i16, as f32 · 2^-120 bit patterns in the upper half of each i32: the low half is zero. */
// @ts-ignore: decorator
@inline
export function spread(codes: v128): v128 {
  return v128.and(i16x8.shl(codes, 4), i16x8.splat(<i16>0x87f0));
}

/** The power of two that {@link spread} leaves out. */
export const E4M3FN_UNIT: f32 = reinterpret<f32>(0x7b800000); // 2^120

/** Lanes of 16 codes that are NaN. */
// @ts-ignore: decorator
@inline
export function isSpecial(codes: v128): v128 {
  return i8x16.eq(v128.and(codes, i8x16.splat(0x7f)), i8x16.splat(0x7f));
}

/** 4 values as {@link spread} bits → f32, NaN codes included (→ 0x7FC00000). */
// @ts-ignore: decorator
@inline
export function widenSpecial(bits: v128): v128 {
  const nan = i32x4.eq(v128.and(bits, i32x4.splat(0x7fffffff)), i32x4.splat(0x7f << 20));
  return v128.bitselect(i32x4.splat(0x7fc00000), f32x4.mul(bits, f32x4.splat(E4M3FN_UNIT)), nan);
}
