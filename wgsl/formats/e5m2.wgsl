// E5M2: 1 sign, 5 exponent (bias 15), 2 mantissa bits; infinity is S.11111.00, NaN S.11111.{01,10,11} (OCP 8-bit
// Floating Point Specification 1.0, section 5). Exact, as e4m3fn.wgsl.

const E5M2_MANTISSA_BITS: u32 = 2u;
// Exponent of the smallest normal, 2^-14, biased as in f32.
const E5M2_FIRST_EXPONENT: u32 = 113u;
// The largest finite code, and the f32 it stands for: 57344.
const E5M2_LARGEST: u32 = 0x7bu;
const E5M2_MAX: u32 = 0x47600000u;

// Bits of an f32 → its code: to nearest, ties to even, saturating; every NaN becomes 0x7F. As encodeE4m3fn.
fn encodeE5m2(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  let a = min(magnitude, E5M2_MAX);
  let exponent = max(a >> 23u, E5M2_FIRST_EXPONENT);
  let shift = min(23u - E5M2_MANTISSA_BITS + exponent - (a >> 23u), 25u);
  let mantissa = (a & 0x7fffffu) | 0x800000u;
  let rounded = (mantissa + (1u << (shift - 1u)) - 1u + ((mantissa >> shift) & 1u)) >> shift;
  let code = ((exponent - E5M2_FIRST_EXPONENT) << E5M2_MANTISSA_BITS) + rounded;
  return select(code | ((bits >> 24u) & 0x80u), 0x7fu, magnitude > 0x7f800000u);
}

const E5M2_UNIT: f32 = 1.0;

// 4 codes → their values: a code is the high byte of an f16.
fn decodeE5m2(word: u32) -> vec4<f32> {
  if (UNPACKS_F16) {
    let even = unpack2x16float((word & 0x00ff00ffu) << 8u);
    let odd = unpack2x16float(word & 0xff00ff00u);
    return vec4<f32>(even.x, odd.x, even.y, odd.y);
  }
  let magnitude = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0x7fu);
  let sign = (vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) & vec4<u32>(0x80000000u);
  let normal = (magnitude << vec4<u32>(21u)) + vec4<u32>(112u << 23u);
  let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-16);
  let finite = select(normal, subnormal, magnitude < vec4<u32>(4u));
  let special = vec4<u32>(0x7f800000u) | (magnitude << vec4<u32>(21u));
  return bitcast<vec4<f32>>(sign | select(finite, special, magnitude >= vec4<u32>(0x7cu)));
}

// Not 0 where one of 4 codes is NaN.
fn nanE5m2(word: u32) -> u32 {
  return ((word & 0x7f7f7f7fu) + 0x03030303u) & 0x80808080u;
}

// As decodeE5m2, with NaN also where the device would take it for granted that there is none.
fn decodeAllE5m2(word: u32, nan: f32) -> vec4<f32> {
  let magnitude = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0x7fu);
  return select(decodeE5m2(word), vec4<f32>(nan), magnitude > vec4<u32>(0x7cu));
}

// Not 0 where one of 4 codes is no finite number.
fn specialE5m2(word: u32) -> u32 {
  return ((word & 0x7f7f7f7fu) + 0x04040404u) & 0x80808080u;
}
