/**
 * E5M2: 1 sign, 5 exponent (bias 15), 2 mantissa bits; infinity is S.11111.00, NaN S.11111.{01,10,11} (OCP 8-bit
 * Floating Point Specification 1.0, section 5): the upper byte of an f16. Exact.
 *
 * encode and decode go as in e4m3fn.ts, with 2^21 times the value's power of two, the smallest normal 2^-14, and 2^112
 * as the power that decoding leaves out.
 */

/** What |x| is bounded by: saturating, 57344; else 65536, the value that 0x7C (infinity) would have. */
export const E5M2_MAX: f32 = 57344;
export const E5M2_OVERFLOW: f32 = 65536;
/** The largest finite code: 57344. */
export const E5M2_LARGEST: i16 = 0x7b;

/** 32 times the codes of 4 values, one per i32 lane, plus 32 times the code that an exponent of 113 + 21 would have. */
@inline
function thirtyTwofold(a: v128): v128 {
  const power = i32x4.max_s(v128.and(a, i32x4.splat(0x7f800000)), i32x4.splat(113 << 23)); // 2^-14
  const rounded = f32x4.add(a, i32x4.add(power, i32x4.splat(21 << 23)));
  return i32x4.dot_i16x8_s(rounded, i32x4.splat((1 << 16) | 32));
}

/** Codes (0…0x7C) of 8 values in [0, 65536], one per i16 lane; up to 2^100, more than 0x7B for all that is too large. */
@inline
export function encodeMagnitudes(a: v128, b: v128): v128 {
  const both = i16x8.narrow_i32x4_s(thirtyTwofold(a), thirtyTwofold(b));
  return i16x8.shr_u(i16x8.sub(both, i16x8.splat((113 + 21) << 7)), 5);
}

/** Where {@link spread} puts a code's bits. */
@inline
export const SPREAD_SHIFT: i32 = 5;
@inline
export const SPREAD_MASK: i32 = 0x8fe0;

/** 8 codes, sign-extended to i16, as f32 · 2^-112 bit patterns in the upper half of each i32: the low half is zero. */
@inline
export function spread(codes: v128): v128 {
  return v128.and(i16x8.shl(codes, SPREAD_SHIFT), i16x8.splat(<i16>SPREAD_MASK));
}

/** As in e4m3fn.ts. */
export const E5M2_NORMAL: i8 = 4;

/** As in e4m3fn.ts: 0, 0x3760, 0x37c0, 0x37e0; 0x3800, which is 112 in the exponent. */
@inline
export function lowerOffsets(index: v128): v128 {
  return i8x16.swizzle(i8x16(0, 0x60, <i8>0xc0, <i8>0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), index);
}

@inline
export function upperOffsets(index: v128): v128 {
  return i8x16.swizzle(i8x16(0, 0x37, 0x37, 0x37, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), index);
}

/** The power of two that {@link spread} leaves out. */
@inline
export const E5M2_UNIT_EXPONENT: i32 = 112;
export const E5M2_UNIT: f32 = reinterpret<f32>(0x77800000); // 2^112

/** Lanes of 16 codes that are infinite or NaN. */
@inline
export function isSpecial(codes: v128): v128 {
  return i8x16.gt_s(v128.and(codes, i8x16.splat(0x7f)), i8x16.splat(0x7b));
}

/** 4 values as {@link spread} bits, times a power of two → f32, infinities and NaN codes (→ 0x7FC00000) included. */
@inline
export function widenSpecial(bits: v128, unit: v128): v128 {
  const magnitude = v128.and(bits, i32x4.splat(0x7fffffff));
  const infinity = v128.or(bits, i32x4.splat(0x7f800000)); // the mantissa is zero where this is taken
  const infinite = i32x4.eq(magnitude, i32x4.splat(0x7c << 21));
  const nan = i32x4.gt_s(magnitude, i32x4.splat(0x7c << 21));
  const finite = f32x4.mul(bits, unit);
  return v128.bitselect(i32x4.splat(0x7fc00000), v128.bitselect(infinity, finite, infinite), nan);
}
