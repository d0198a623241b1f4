// The 16-bit floats as bits: f16 (IEEE 754 binary16) and bf16 (the upper half of an f32). Widening is exact, NaN
// payloads kept; f32 → f16 rounds to nearest, ties to even, overflow to infinity, every NaN to 0x7E00. Integers only.

// Bits of an f16, in the low half → bits of the f32 of the same value.
fn widenF16(half: u32) -> u32 {
  let magnitude = half & 0x7fffu;
  let normal = (magnitude << 13u) + (112u << 23u);
  let special = (magnitude << 13u) | 0x7f800000u;
  // A subnormal is an integer · 2^-24. The conversion is exact, its result a normal f32 or 0, whose exponent has no 24 to lose.
  let integer = bitcast<u32>(f32(magnitude));
  let subnormal = integer - min(integer, 24u << 23u);
  let finite = select(subnormal, normal, magnitude >= 0x400u);
  return select(finite, special, magnitude >= 0x7c00u) | ((half & 0x8000u) << 16u);
}

// Bits of a bf16, in the low half → bits of the f32 of the same value.
fn widenBF16(half: u32) -> u32 {
  return half << 16u;
}

// Bits of an f32 → bits of the nearest f16. The rounding is that of e4m3fn.wgsl; 65536 is where f16 has its infinity.
fn narrowF16(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  let a = min(magnitude, 0x47800000u);
  let exponent = max(a >> 23u, 113u);
  let shift = min(13u + exponent - (a >> 23u), 25u);
  let mantissa = (a & 0x7fffffu) | 0x800000u;
  let rounded = (mantissa + (1u << (shift - 1u)) - 1u + ((mantissa >> shift) & 1u)) >> shift;
  let half = ((exponent - 113u) << 10u) + rounded;
  return select(half | ((bits >> 16u) & 0x8000u), 0x7e00u, magnitude > 0x7f800000u);
}
