/**
 * INT8: an integer, times its scale. Exact.
 *
 * encode: rounded to the nearest, ties to even, and clamped; NaN becomes 0.
 */

/** 16 quotients, four by four, as codes from `least` to 127. */
@inline
export function encodeSixteen(a: v128, b: v128, c: v128, d: v128, least: v128): v128 {
  const low = i16x8.narrow_i32x4_s(i32x4.trunc_sat_f32x4_s(f32x4.nearest(a)), i32x4.trunc_sat_f32x4_s(f32x4.nearest(b)));
  const high = i16x8.narrow_i32x4_s(i32x4.trunc_sat_f32x4_s(f32x4.nearest(c)), i32x4.trunc_sat_f32x4_s(f32x4.nearest(d)));
  return i8x16.max_s(i8x16.narrow_i16x8_s(low, high), least);
}

/** 4 of 8 codes, sign-extended to i16, as f32. */
@inline
export function widenLow(codes: v128): v128 {
  return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes));
}

@inline
export function widenHigh(codes: v128): v128 {
  return f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes));
}
