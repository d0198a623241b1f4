// INT8: an integer, times its scale. Exact. Its bits of mantissa and first exponent say that a code's last bit weighs 1, as of a
// format whose numbers are all subnormal.

const INT8_MANTISSA_BITS: u32 = 7u;
const INT8_FIRST_EXPONENT: u32 = 134u;
const INT8_LARGEST: u32 = 127u;

// Bits of an f32 → its magnitude as the nearest integer, ties to even, up to 128. NaN and the sign are left to quantize.wgsl.
fn encodeInt8(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  let a = min(magnitude, 0x43000000u);
  // 150 is the exponent of integers as they stand in a mantissa; a shift of 25 leaves nothing of 24 bits.
  let shift = min(150u - min(a >> 23u, 149u), 25u);
  let mantissa = (a & 0x7fffffu) | 0x800000u;
  return (mantissa + (1u << (shift - 1u)) - 1u + ((mantissa >> shift) & 1u)) >> shift;
}

const INT8_UNIT: f32 = 1.0;

// 4 codes → their values.
fn decodeInt8(word: u32) -> vec4<f32> {
  return vec4<f32>(vec4<i32>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}

// No code is NaN, or any other than a finite number.
fn nanInt8(word: u32) -> u32 {
  return 0u;
}

fn decodeAllInt8(word: u32, nan: f32) -> vec4<f32> {
  return decodeInt8(word);
}

fn specialInt8(word: u32) -> u32 {
  return 0u;
}
