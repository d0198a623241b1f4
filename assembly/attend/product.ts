/** sum + a · b: rounded twice in the baseline build, once (fused) in the relaxed one. Nothing exact may use it. */
@inline
export function addProduct(sum: v128, a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, sum);
  return f32x4.add(sum, f32x4.mul(a, b));
}
