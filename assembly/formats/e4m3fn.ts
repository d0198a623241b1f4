/**
 * E4M3FN: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, NaN is S.1111.111 (OCP 8-bit Floating Point
 * Specification 1.0, section 5). Exact.
 *
 * encode: |x| is rounded to a multiple of its last mantissa bit's weight by adding 2^20 times its power of two (at least
 * 2^-6, the smallest normal): f32 addition rounds to nearest, ties to even. The sum's lower half then is the mantissa, with
 * its leading one for normals; its upper half is the exponent, which a product of halves puts on top of the mantissa. One
 * path for normal and subnormal codes: 6 operations for 4 values and 3 for the 8 that they end in (10 for 4 where exponent and
 * mantissa are shifted and added as words, 15 where a path for each is selected from).
 * decode: a code's exponent and mantissa, moved to the top of an f32's, are its value · 2^-120. Runs of codes get the
 * exponents' difference by an integer addition, and subnormal codes what normalizes them: as products, f32 denormals would
 * come in, and one in 250 codes already made decoding take 40 % longer.
 */

/** What |x| is bounded by: saturating, 448; else 480, the value that 0x7F would have. */
export const E4M3FN_MAX: f32 = 448;
export const E4M3FN_OVERFLOW: f32 = 480;
/** The largest finite code: 448. */
export const E4M3FN_LARGEST: i16 = 0x7e;

/** 16 times the codes of 4 values, one per i32 lane, plus 16 times the code that an exponent of 121 + 20 would have. */
@inline
function sixteenfold(a: v128): v128 {
  const power = i32x4.max_s(v128.and(a, i32x4.splat(0x7f800000)), i32x4.splat(121 << 23)); // 2^-6
  const rounded = f32x4.add(a, i32x4.add(power, i32x4.splat(20 << 23)));
  return i32x4.dot_i16x8_s(rounded, i32x4.splat((1 << 16) | 16));
}

/** Codes (0…0x7F) of 8 values in [0, 480], one per i16 lane; up to 2^100, more than 0x7E for all that is too large. */
@inline
export function encodeMagnitudes(a: v128, b: v128): v128 {
  const both = i16x8.narrow_i32x4_s(sixteenfold(a), sixteenfold(b));
  return i16x8.shr_u(i16x8.sub(both, i16x8.splat((121 + 20) << 7)), 4);
}

/** Where {@link spread} puts a code's bits. */
@inline
export const SPREAD_SHIFT: i32 = 4;
@inline
export const SPREAD_MASK: i32 = 0x87f0;

/** 8 codes, sign-extended to i16, as f32 · 2^-120 bit patterns in the upper half of each i32: the low half is zero. */
@inline
export function spread(codes: v128): v128 {
  return v128.and(i16x8.shl(codes, SPREAD_SHIFT), i16x8.splat(<i16>SPREAD_MASK));
}

/** Where the table of offsets has what is added to normal codes: the first normal code. */
export const E4M3FN_NORMAL: i8 = 8;

/**
 * What {@link spread} bits of a code need to be the upper half of its f32, lower and upper bytes apart, for codes 0 to 7
 * and for all above: 0, 0x3af0, 0x3b60, 0x3b90, 0x3bc0, 0x3bd0, 0x3be0, 0x3bf0; 0x3c00, which is 120 in the exponent.
 */
@inline
export function lowerOffsets(index: v128): v128 {
  return i8x16.swizzle(i8x16(0, <i8>0xf0, 0x60, <i8>0x90, <i8>0xc0, <i8>0xd0, <i8>0xe0, <i8>0xf0, 0, 0, 0, 0, 0, 0, 0, 0), index);
}

@inline
export function upperOffsets(index: v128): v128 {
  return i8x16.swizzle(i8x16(0, 0x3a, 0x3b, 0x3b, 0x3b, 0x3b, 0x3b, 0x3b, 0x3c, 0, 0, 0, 0, 0, 0, 0), index);
}

/** The power of two that {@link spread} leaves out. */
@inline
export const E4M3FN_UNIT_EXPONENT: i32 = 120;
export const E4M3FN_UNIT: f32 = reinterpret<f32>(0x7b800000); // 2^120

/** Lanes of 16 codes that are NaN. */
@inline
export function isSpecial(codes: v128): v128 {
  return i8x16.eq(v128.and(codes, i8x16.splat(0x7f)), i8x16.splat(0x7f));
}

/** 4 values as {@link spread} bits, times a power of two → f32, NaN codes included (→ 0x7FC00000). */
@inline
export function widenSpecial(bits: v128, unit: v128): v128 {
  const nan = i32x4.eq(v128.and(bits, i32x4.splat(0x7fffffff)), i32x4.splat(0x7f << 20));
  return v128.bitselect(i32x4.splat(0x7fc00000), f32x4.mul(bits, unit), nan);
}
