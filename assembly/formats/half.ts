/**
 * The 16-bit floats: f16 (IEEE 754 binary16) and bf16 (the upper half of an f32). Widening is exact, NaN payloads kept;
 * f32 → f16 rounds to nearest, ties to even, overflow to infinity, every NaN to 0x7E00.
 */

/** What a finite f16 is multiplied by once its bits lie where an f32's do: 2^112, the biases' difference. */
export const F16_UNIT: f32 = reinterpret<f32>(0x77800000);

/** 4 f16 of any kind, sign-extended to i32 lanes → f32. */
@inline
export function widenF16(h: v128): v128 {
  const magnitude = v128.and(i32x4.shl(h, 13), i32x4.splat(0x0fffe000));
  const special = i32x4.gt_s(magnitude, i32x4.splat((0x7c00 << 13) - 1));
  const sign = v128.and(h, i32x4.splat(0x80000000));
  const finite = f32x4.mul(v128.or(sign, magnitude), f32x4.splat(F16_UNIT));
  return v128.bitselect(v128.or(sign, v128.or(magnitude, i32x4.splat(0x7f800000))), finite, special);
}

/** 4 bf16, extended to i32 lanes → f32. */
@inline
export function widenBF16(h: v128): v128 {
  return i32x4.shl(h, 16);
}

/** 4 f32 → f16 in the low half of each i32 lane. */
@inline
export function narrowF16(x: v128): v128 {
  const a = v128.and(x, i32x4.splat(0x7fffffff));
  // 65536 is where f16 has its infinity; pmin lets NaN through.
  const bounded = f32x4.pmin(a, f32x4.splat(65536));
  const even = v128.and(i32x4.shr_u(bounded, 13), i32x4.splat(1));
  const normal = i32x4.sub(i32x4.shr_u(i32x4.add(i32x4.add(bounded, i32x4.splat(0xfff)), even), 13), i32x4.splat(112 << 10));
  // 0.5's last mantissa bit weighs 2^-24, the smallest f16.
  const subnormal = i32x4.sub(f32x4.add(bounded, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  const magnitude = v128.bitselect(subnormal, normal, f32x4.lt(bounded, f32x4.splat(0.00006103515625)));
  const sign = v128.and(i32x4.shr_u(x, 16), i32x4.splat(0x8000));
  const nan = i32x4.gt_s(a, i32x4.splat(0x7f800000));
  return v128.bitselect(i32x4.splat(0x7e00), v128.or(magnitude, sign), nan);
}
