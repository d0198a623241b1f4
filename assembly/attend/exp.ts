/**
 * exp, tanh and ln, without a fused multiply-add anywhere: the same bits in every build. Bounded.
 *
 * exp(x) = 2^n · 2^f with x / ln 2 = n + f, |f| ≤ ½, and 2^f by the polynomial of degree 5 that has the least relative error
 * there with 2^0 = 1: 9e-8, and 2e-7 with its roundings. The rounding of x / ln 2 adds |x| · 6e-8, so that the absolute
 * error is below 2e-7 for x ≤ 0. Below −87 the result is 0.
 */

@inline
const LOG2_E: f32 = 1.4426950408889634;
/** 1.5 · 2^23: adding it rounds to an integer, which is left in the lowest bits. */
@inline
const ROUND: f32 = 12582912;

@inline
function multiplyAdd(a: v128, b: v128, c: f32): v128 {
  return f32x4.add(f32x4.mul(a, b), f32x4.splat(c));
}

/** exp of 4 values of at most 88; NaN stays NaN, −∞ gives exactly 0, 0 exactly 1. */
@inline
export function exp4(x: v128): v128 {
  const t = f32x4.mul(x, f32x4.splat(LOG2_E));
  const n = f32x4.add(t, f32x4.splat(ROUND));
  const f = f32x4.sub(t, f32x4.sub(n, f32x4.splat(ROUND)));
  // In pairs, not one coefficient after the other: the polynomial is what the loop around it waits for.
  const f2 = f32x4.mul(f, f);
  const high = multiplyAdd(f32x4.splat(0.0013264727219408727), f, 0.00967151264396107);
  const middle = multiplyAdd(f32x4.splat(0.055507337431701546), f, 0.2402224208528118);
  const low = multiplyAdd(f32x4.splat(0.6931469775992363), f, 1);
  const y = f32x4.add(f32x4.mul(f32x4.add(f32x4.mul(high, f2), middle), f2), low);
  return v128.andnot(i32x4.add(y, i32x4.shl(n, 23)), f32x4.lt(x, f32x4.splat(-87)));
}
/** exp of one value: the same arithmetic as {@link exp4}. */
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

/**
 * tanh of 4 values. From |x| = 0.4 on (1 − e) / (1 + e) with e = exp(−2|x|); below, where that loses digits,
 * x − x³/3 + 2x⁵/15 − 17x⁷/315 + 62x⁹/2835 − 1382x¹¹/155925 (the next term is below 7e-8 of the result).
 */
@inline
export function tanh4(x: v128): v128 {
  const sign = i32x4.splat(0x80000000);
  const a = v128.andnot(x, sign);
  const e = exp4(f32x4.mul(a, f32x4.splat(-2)));
  const one = f32x4.splat(1);
  const large = f32x4.div(f32x4.sub(one, e), f32x4.add(one, e));
  const s = f32x4.mul(a, a);
  let y = multiplyAdd(f32x4.splat(-1382.0 / 155925), s, 62.0 / 2835);
  y = multiplyAdd(y, s, -17.0 / 315);
  y = multiplyAdd(y, s, 2.0 / 15);
  y = multiplyAdd(y, s, -1.0 / 3);
  const small = f32x4.add(a, f32x4.mul(a, f32x4.mul(y, s)));
  return v128.or(v128.bitselect(small, large, f32x4.lt(a, f32x4.splat(0.4))), v128.and(x, sign));
}

/**
 * ln of a positive value, in f64: 2^k · f with f in [√½, √2), ln f = 2 artanh(t) with t = (f − 1) / (f + 1), |t| < 0.172.
 * The series ends at t¹³: error below 1e-11. 0 gives −∞, NaN and +∞ themselves.
 */
export function ln(x: f32): f64 {
  if (!(x > 0) || x == <f32>Infinity) return x == 0 ? -Infinity : <f64>x;
  let bits = reinterpret<u64>(<f64>x);
  let k = <i32>(bits >> 52) - 1023;
  let f = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  if (f > 1.4142135623730951) {
    f *= 0.5;
    k++;
  }
  const t = (f - 1) / (f + 1);
  const s = t * t;
  const series = 1 + s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7 + s * (1.0 / 9 + s * (1.0 / 11 + s * (1.0 / 13))))));
  return <f64>k * 0.6931471805599453 + 2 * t * series;
}
