// A row's largest magnitude → its scale, and values → codes, by recipe (src/recipe.ts). Exact: the bits that IEEE f32
// operations give, denormals kept. WGSL's own promise that little that all is done in integers, but for guesses.
//
// amax  = max |x|, NaN left out: append.wgsl
// scale = amax / max, bounded and replaced as the recipe says
// code  = encode(x / scale), or by a factor: encode(x · factor)
//
// Beside it go, as constants, the quotient rules' QUOTIENT_DIVIDE and QUOTIENT_RECIPROCAL, the scales' PRECISION_F32 and
// PRECISION_F16, FORMAT_INT8; and the formats' encode as `encodeCode`.
//
// A magnitude is the bits of an f32 without its sign: these are in the order of what they stand for, NaN last.
//
// ns per value on SwiftShader, two cores: quotientCode 14, encodeCode(multiplyBits) 26, encodeCode(divideBits) 38; in
// floats, and wrong, 7.

const SIGN: u32 = 0x80000000u;
const INFINITY: u32 = 0x7f800000u;
const NAN: u32 = 0x7fc00000u;
const ONE: u32 = 0x3f800000u;

// mantissa · 2^(exponent - 150)
struct Float {
  mantissa: u32,
  exponent: i32,
}

// A finite magnitude as it lies there: the mantissa of a denormal is below 2^23.
fn split(magnitude: u32) -> Float {
  let exponent = max(magnitude >> 23u, 1u);
  return Float(magnitude - ((exponent - 1u) << 23u), i32(exponent));
}

// The mantissa moved to [2^23, 2^24), unless it is 0. Its conversion is exact and normal: as good as counting zeros.
fn normalize(x: Float) -> Float {
  let converted = bitcast<u32>(f32(x.mantissa));
  return Float((converted & 0x7fffffu) | 0x800000u, x.exponent + i32(converted >> 23u) - 150);
}

// The f32 nearest to mantissa · 2^(exponent - 152), ties to even.
// The mantissa is in [2^25, 2^26), its last bit set if anything below it is. A shift of 27 leaves nothing of it.
fn pack(mantissa: u32, exponent: i32) -> u32 {
  let stored = max(exponent, 1);
  let shift = min(u32(2 + stored - exponent), 27u);
  let rounded = (mantissa + (1u << (shift - 1u)) - 1u + ((mantissa >> shift) & 1u)) >> shift;
  return min((u32(stored - 1) << 23u) + rounded, INFINITY);
}

// a / b of magnitudes, as IEEE's. Once or twice per row.
fn divideBits(a: u32, b: u32) -> u32 {
  if (max(a, b) > INFINITY || (a == b && (a == 0u || a == INFINITY))) {
    return NAN;
  }
  if (a == INFINITY || b == 0u) {
    return INFINITY;
  }
  if (a == 0u || b == INFINITY) {
    return 0u;
  }
  var x = normalize(split(a));
  let y = normalize(split(b));
  if (x.mantissa < y.mantissa) {
    x = Float(x.mantissa << 1u, x.exponent - 1);
  }
  // Long division: the first bit is a one; 24 more follow, 8 at a time.
  var quotient = 1u;
  var rest = x.mantissa - y.mantissa;
  for (var i = 0; i < 3; i++) {
    let digit = (rest << 8u) / y.mantissa;
    quotient = (quotient << 8u) | digit;
    rest = (rest << 8u) - digit * y.mantissa;
  }
  return pack((quotient << 1u) | u32(rest != 0u), x.exponent - y.exponent + 127);
}

// a · b of magnitudes, as IEEE's. Once per value, so without branches.
fn multiplyBits(a: u32, b: u32) -> u32 {
  let x = normalize(split(a));
  let y = normalize(split(b));
  // 24 × 24 bits in halves of 12: the product is high · 2^24 + low, in [2^46, 2^48).
  let middle = (x.mantissa >> 12u) * (y.mantissa & 0xfffu) + (x.mantissa & 0xfffu) * (y.mantissa >> 12u);
  let low = (x.mantissa & 0xfffu) * (y.mantissa & 0xfffu) + ((middle & 0xfffu) << 12u);
  let high = (x.mantissa >> 12u) * (y.mantissa >> 12u) + (middle >> 12u) + (low >> 24u);
  // Its upper 26 or 27 bits, of which 26 are kept.
  let upper = (high << 3u) | ((low >> 21u) & 7u);
  let long = high >> 23u;
  let mantissa = (upper >> long) | (upper & long) | u32((low & 0x1fffffu) != 0u);
  let product = pack(mantissa, x.exponent + y.exponent - 127 + i32(long));
  let zero = min(a, b) == 0u;
  let infinite = max(a, b) == INFINITY;
  let nan = max(a, b) > INFINITY || (zero && infinite);
  return select(select(select(product, 0u, zero), INFINITY, infinite), NAN, nan);
}

// A format that values become codes of. Where a kernel has but one, all of it is known to the compiler.
struct Encoding {
  format: u32,
  mantissaBits: u32,
  // Of the smallest normal, biased as in f32.
  firstExponent: u32,
  largestCode: u32,
}

// How scales are computed: f32 as bits.
struct Recipe {
  quotient: u32,
  // Bounds, which may be -0.
  amaxFloor: u32,
  scaleFloor: u32,
  scaleIfZero: u32,
  // What amax is divided by.
  max: u32,
  scalePrecision: u32,
  // The magnitude of int8's lowest code: 127 or 128.
  least: u32,
}

struct RowScale {
  scale: u32,
  // What values are divided by or multiplied with.
  operand: u32,
}

fn roundedToF16(x: u32) -> u32 {
  return widenF16(narrowF16(x));
}

fn scaleOf(amax: u32, recipe: Recipe) -> RowScale {
  let bounded = max(amax, recipe.amaxFloor & ~SIGN);
  let exact = max(divideBits(bounded, recipe.max), recipe.scaleFloor & ~SIGN);
  let computed = select(exact, roundedToF16(exact), recipe.scalePrecision == PRECISION_F16);
  let scaleIfZero = recipe.scaleIfZero & ~SIGN;
  let replaced = computed == 0u && scaleIfZero != 0u;
  let scale = select(computed, scaleIfZero, replaced);
  // What is stored as f16, and as f16 only, does not change what values are divided by.
  let stored = select(roundedToF16(scale), scale, recipe.scalePrecision == PRECISION_F32);
  if (recipe.quotient == QUOTIENT_DIVIDE || recipe.quotient == QUOTIENT_RECIPROCAL) {
    return RowScale(stored, operandOf(scale, recipe.quotient));
  }
  return RowScale(stored, select(divideBits(recipe.max, bounded), ONE, replaced));
}

// The operand of a scale, given or not, under the rules that need no more than that.
fn operandOf(scale: u32, quotient: u32) -> u32 {
  if (quotient == QUOTIENT_DIVIDE) {
    return scale;
  }
  return divideBits(ONE, scale);
}

// A magnitude's code with its value's sign: FP8's a bit, int8's two's complement. NaN is 0x7F, or 0.
fn signedCode(magnitude: u32, x: u32, isNan: bool, least: u32, encoding: Encoding) -> u32 {
  let negative = x >> 31u;
  if (encoding.format == FORMAT_INT8) {
    let bounded = min(magnitude, select(encoding.largestCode, least, negative != 0u));
    return select((bounded ^ (0u - negative)) + negative, 0u, isNan) & 0xffu;
  }
  return select(magnitude | (negative << 7u), 0x7fu, isNan);
}

// A scale, ready to be divided by.
struct Divisor {
  // In [2^23, 2^24).
  mantissa: u32,
  exponent: i32,
  // About 0.5 / mantissa.
  halfReciprocal: f32,
  // Magnitudes below `first` and above `last` have NaN as their quotient: they are NaN, or it is 0 / 0 or ∞ / ∞.
  first: u32,
  last: u32,
}

// By 0 all other quotients are far too large, by infinity far too small: exponents will do that.
fn divisorOf(scale: u32) -> Divisor {
  let float = normalize(split(scale));
  let zero = scale == 0u;
  let infinite = scale == INFINITY;
  let exponent = select(select(float.exponent, -1000, zero), 1000, infinite);
  return Divisor(float.mantissa, exponent, 0.5 / f32(float.mantissa), u32(zero), INFINITY - u32(infinite));
}

// encode(fround(x / divisor)), of a value with its sign.
//
// x / divisor = X / S · 2^distance, with S in [2^23, 2^24) and X below 2^24. In units of the code's last bit it is
// doubled / 2S: whole, and a rest that decides by its distance from half, beyondTie / 2S = doubled / 2S - whole - 1/2.
// All of these integers are exact, and below 2^31, or 2^32 for int8, whose code's last bit is a unit always.
//
// Two roundings in one: x / divisor is first rounded to f32, and that is a tie if beyondTie / 2S is at most half an f32
// ulp, 2^(exponent - 24) where the code's last bit is 2^(unit - mantissaBits): if |beyondTie| <= slack. With ties to
// even, `whole` is rounded up if it is even and beyondTie > slack, or odd and beyondTie >= -slack, that is > ~slack.
//
// The guesses need not be right. They are off by less than 2^-20 of themselves, and so name the wrong `whole` or the
// wrong exponent only next to a number of units, or to a power of two; far from a tie, both sides of which round to it:
// one less with beyondTie near +S gives the same code as one more with beyondTie near -S; 2^(mantissaBits + 1) units the
// same as half as many of the double. (A power of two is a tie only at half the smallest code, where slack is 0: X / S is
// no closer to 1 than 2^-24.)
fn quotientCode(x: u32, divisor: Divisor, least: u32, encoding: Encoding) -> u32 {
  let magnitude = x & ~SIGN;
  let dividend = split(magnitude);
  let distance = dividend.exponent - divisor.exponent;
  let guess = f32(dividend.mantissa) * divisor.halfReciprocal;
  let guessBits = bitcast<u32>(guess);
  let exponent = i32(guessBits >> 23u) + 1 + distance;
  let unit = max(exponent, i32(encoding.firstExponent));
  let shift = distance + 128 - unit + i32(encoding.mantissaBits);
  // Where the shift is negative, the quotient is below half a unit.
  let doubled = select(dividend.mantissa << u32(shift), 0u, shift < 0);
  let whole = u32(f32(doubled) * divisor.halfReciprocal);
  let beyondTie = i32(doubled - (2u * whole + 1u) * divisor.mantissa);
  let slack = divisor.mantissa >> min(23u - encoding.mantissaBits + u32(unit - exponent), 31u);
  let rounded = whole + u32(beyondTie > i32(slack ^ (0u - (whole & 1u))));
  let code = (u32(unit - i32(encoding.firstExponent)) << encoding.mantissaBits) + rounded;
  // One more than int8's largest is its lowest. From 127.75 on, all is that; there `doubled` would pass 2^32.
  let integers = encoding.format == FORMAT_INT8;
  let largest = encoding.largestCode + u32(integers);
  let beyond = integers && (exponent > 133 || (exponent == 133 && (guessBits & 0x7fffffu) >= 0x7f8000u));
  let bounded = select(min(code, largest), largest, magnitude == INFINITY || beyond);
  return signedCode(bounded, x, magnitude != clamp(magnitude, divisor.first, divisor.last), least, encoding);
}

// encode(fround(x · factor)), of a value with its sign.
fn productCode(x: u32, factor: u32, least: u32, encoding: Encoding) -> u32 {
  let product = multiplyBits(x & ~SIGN, factor);
  return signedCode(encodeCode(product, encoding.format), x, product > INFINITY, least, encoding);
}

// 4 values, each divided by a scale of its own → 4 codes, the first lowest.
fn divideFour(x: vec4<u32>, scales: vec4<u32>, least: u32, encoding: Encoding) -> u32 {
  var codes = 0u;
  for (var i = 0u; i < 4u; i++) {
    codes |= quotientCode(x[i], divisorOf(scales[i]), least, encoding) << (8u * i);
  }
  return codes;
}

// 4 values → 4 codes, the first lowest.
fn quantizeFour(x: vec4<u32>, operand: u32, recipe: Recipe, encoding: Encoding) -> u32 {
  let least = recipe.least;
  if (recipe.quotient == QUOTIENT_DIVIDE) {
    let divisor = divisorOf(operand);
    return quotientCode(x.x, divisor, least, encoding) | (quotientCode(x.y, divisor, least, encoding) << 8u) | (quotientCode(x.z, divisor, least, encoding) << 16u) | (quotientCode(x.w, divisor, least, encoding) << 24u);
  }
  return productCode(x.x, operand, least, encoding) | (productCode(x.y, operand, least, encoding) << 8u) | (productCode(x.z, operand, least, encoding) << 16u) | (productCode(x.w, operand, least, encoding) << 24u);
}
