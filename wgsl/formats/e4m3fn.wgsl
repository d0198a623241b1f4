// E4M3FN: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, NaN is S.1111.111 (OCP 8-bit Floating Point
// Specification 1.0, section 5). Exact: integers only, since WGSL promises f32 neither a rounding mode nor denormals.

const E4M3FN_MANTISSA_BITS: u32 = 3u;
// Exponent of the smallest normal, 2^-6, biased as in f32.
const E4M3FN_FIRST_EXPONENT: u32 = 121u;
// The largest finite code, and the f32 it stands for: 448.
const E4M3FN_LARGEST: u32 = 0x7eu;
const E4M3FN_MAX: u32 = 0x43e00000u;

// Bits of an f32 → its code: to nearest, ties to even, saturating; every NaN becomes 0x7F.
//
// The mantissa is rounded at the last bit that the code has at this exponent. Its leading one, still there for normals,
// then counts as one more exponent, which is why the first exponent is subtracted whole: one path for normal and
// subnormal codes. A shift of 25 leaves nothing of 24 bits, whatever follows.
fn encodeE4m3fn(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  let a = min(magnitude, E4M3FN_MAX);
  let exponent = max(a >> 23u, E4M3FN_FIRST_EXPONENT);
  let shift = min(23u - E4M3FN_MANTISSA_BITS + exponent - (a >> 23u), 25u);
  let mantissa = (a & 0x7fffffu) | 0x800000u;
  let rounded = (mantissa + (1u << (shift - 1u)) - 1u + ((mantissa >> shift) & 1u)) >> shift;
  let code = ((exponent - E4M3FN_FIRST_EXPONENT) << E4M3FN_MANTISSA_BITS) + rounded;
  return select(code | ((bits >> 24u) & 0x80u), 0x7fu, magnitude > 0x7f800000u);
}

// Decoding leaves out a power of two that is put back where scores and sums are scaled.
const E4M3FN_UNIT: f32 = 256.0;

// 4 codes → their values / 256: with that, normal and subnormal codes are f16 of the same bits, shifted. NaN codes come out as ±480 / 256.
fn decodeE4m3fn(word: u32) -> vec4<f32> {
  if (UNPACKS_F16) {
    let even = unpack2x16float(((word & 0x00800080u) << 8u) | ((word & 0x007f007fu) << 7u));
    let odd = unpack2x16float((word & 0x80008000u) | ((word & 0x7f007f00u) >> 1u));
    return vec4<f32>(even.x, odd.x, even.y, odd.y);
  }
  let magnitude = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0x7fu);
  let sign = (vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) & vec4<u32>(0x80000000u);
  let normal = (magnitude << vec4<u32>(20u)) + vec4<u32>(112u << 23u);
  let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-17);
  return bitcast<vec4<f32>>(sign | select(normal, subnormal, magnitude < vec4<u32>(8u)));
}

// Not 0 where one of 4 codes is NaN.
fn nanE4m3fn(word: u32) -> u32 {
  return ((word & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
}

// As decodeE4m3fn, with NaN.
fn decodeAllE4m3fn(word: u32, nan: f32) -> vec4<f32> {
  let magnitude = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0x7fu);
  return select(decodeE4m3fn(word), vec4<f32>(nan), magnitude == vec4<u32>(0x7fu));
}

// Not 0 where one of 4 codes is no finite number.
fn specialE4m3fn(word: u32) -> u32 {
  return nanE4m3fn(word);
}
