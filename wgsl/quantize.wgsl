// A row's largest magnitude → its scale, and its values → codes, by recipe (src/recipe.ts). Exact: every result is the
// one that IEEE f32 operations give, denormals kept, though WGSL's own give it on few devices.
//
// scale = amax / max, bounded and replaced as the recipe says
// code  = encode(x / scale), or by a factor: encode(x · factor)
//
// Before it go: the format's MANTISSA_BITS, FIRST_EXPONENT and LARGEST_CODE, and QUOTIENT_DIVIDE and QUOTIENT_RECIPROCAL.
//
// All floats are bit patterns of magnitudes: those are in the order of what they stand for, NaN last. As a number of its
// own, a float is mantissa · 2^(exponent - 150), whatever its mantissa.

const INFINITY: u32 = 0x7f800000u;
const NAN: u32 = 0x7fc00000u;
const ONE: u32 = 0x3f800000u;
// Exponents of what is beyond, or below, every product and quotient of floats.
const HUGE: i32 = 2000;
const TINY: i32 = -2000;

struct Float {
  mantissa: u32,
  exponent: i32,
}

// Below 2^23 where the float is denormal.
fn split(bits: u32) -> Float {
  let exponent = max(bits >> 23u, 1u);
  return Float(bits - ((exponent - 1u) << 23u), i32(exponent));
}

// In [2^23, 2^24), except for 0. The conversion is exact and its result a normal f32: a bit count that costs nothing.
fn normalize(x: Float) -> Float {
  let float = bitcast<u32>(f32(x.mantissa));
  return Float((float & 0x7fffffu) | 0x800000u, x.exponent + i32(float >> 23u) - 150);
}

// mantissa · 2^(exponent - 152), its last bit set if anything was lost → the nearest f32, ties to even.
// @param mantissa in [2^25, 2^26)
fn pack(mantissa: u32, exponent: i32) -> u32 {
  let place = max(exponent, 1);
  let shift = min(u32(2 + place - exponent), 27u);
  let rounded = (mantissa + (1u << (shift - 1u)) - 1u + ((mantissa >> shift) & 1u)) >> shift;
  return min((u32(place - 1) << 23u) + rounded, INFINITY);
}

// a / b, rounded as IEEE's.
fn divideBits(a: u32, b: u32) -> u32 {
  if (a > INFINITY || b > INFINITY || (a == b && (a == 0u || a == INFINITY))) {
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
  // Long division: a one, and 8 bits at a time of 24 more.
  var quotient = 1u;
  var rest = x.mantissa - y.mantissa;
  for (var i = 0; i < 3; i++) {
    quotient = (quotient << 8u) + (rest << 8u) / y.mantissa;
    rest = (rest << 8u) % y.mantissa;
  }
  return pack((quotient << 1u) | u32(rest != 0u), x.exponent - y.exponent + 127);
}

// How scales are computed; f32 as bits, but for `quotient`.
struct Recipe {
  quotient: u32,
  amaxFloor: u32,
  scaleFloor: u32,
  scaleIfZero: u32,
  formatMax: u32,
}

struct RowScale {
  scale: u32,
  // What the row's values are divided by or multiplied with.
  operand: u32,
}

fn scaleOf(amax: u32, recipe: Recipe) -> RowScale {
  // Bounds may be -0.
  let bounded = max(amax, recipe.amaxFloor & 0x7fffffffu);
  let computed = max(divideBits(bounded, recipe.formatMax), recipe.scaleFloor & 0x7fffffffu);
  let scaleIfZero = recipe.scaleIfZero & 0x7fffffffu;
  let replaced = computed == 0u && scaleIfZero != 0u;
  let scale = select(computed, scaleIfZero, replaced);
  if (recipe.quotient == QUOTIENT_DIVIDE) {
    return RowScale(scale, scale);
  }
  if (recipe.quotient == QUOTIENT_RECIPROCAL) {
    return RowScale(scale, divideBits(ONE, scale));
  }
  return RowScale(scale, select(divideBits(recipe.formatMax, bounded), ONE, replaced));
}

// A row's operand, ready to be used.
struct Operand {
  // In [2^23, 2^24).
  mantissa: u32,
  exponent: i32,
  // About 0.5 / mantissa.
  halfReciprocal: f32,
  // Magnitudes below and above these give NaN: x itself is one, or 0 / 0, ∞ / ∞, 0 · ∞.
  first: u32,
  last: u32,
}

fn prepare(operand: u32, divides: bool) -> Operand {
  let zero = operand == 0u;
  let infinite = operand == INFINITY;
  let float = normalize(split(operand));
  let exponent = select(select(float.exponent, TINY, zero), HUGE, infinite);
  let first = u32(select(infinite, zero, divides));
  let last = INFINITY - u32(select(zero, infinite, divides));
  return Operand(float.mantissa, exponent, 0.5 / f32(float.mantissa), first, last);
}

fn finish(x: u32, code: u32, operand: Operand) -> u32 {
  let magnitude = x & 0x7fffffffu;
  let bounded = select(min(code, LARGEST_CODE), LARGEST_CODE, magnitude == INFINITY);
  let signed = bounded | ((x >> 24u) & 0x80u);
  return select(signed, 0x7fu, magnitude != clamp(magnitude, operand.first, operand.last));
}

fn quotientCode(x: u32, divisor: Operand) -> u32 {
  let dividend = split(x & 0x7fffffffu);
  let distance = dividend.exponent - divisor.exponent;
  let guess = f32(dividend.mantissa) * divisor.halfReciprocal;
  let exponent = i32(bitcast<u32>(guess) >> 23u) + 1 + distance;
  let place = max(exponent, i32(FIRST_EXPONENT));
  let shift = distance - place + 128 + i32(MANTISSA_BITS);
  let doubled = select(dividend.mantissa << u32(shift), 0u, shift < 0);
  let whole = u32(f32(doubled) * divisor.halfReciprocal);
  let beyondTie = i32(doubled - (2u * whole + 1u) * divisor.mantissa);
  let slack = divisor.mantissa >> min(u32(23 - i32(MANTISSA_BITS) + place - exponent), 31u);
  let up = beyondTie > i32(slack ^ (0u - (whole & 1u)));
  return finish(x, (u32(place - i32(FIRST_EXPONENT)) << MANTISSA_BITS) + whole + u32(up), divisor);
}

fn productCode(x: u32, factor: Operand) -> u32 {
  let a = normalize(split(x & 0x7fffffffu));
  let middle = (a.mantissa >> 12u) * (factor.mantissa & 0xfffu) + (a.mantissa & 0xfffu) * (factor.mantissa >> 12u);
  let low = (a.mantissa & 0xfffu) * (factor.mantissa & 0xfffu) + ((middle & 0xfffu) << 12u);
  let high = (a.mantissa >> 12u) * (factor.mantissa >> 12u) + (middle >> 12u);
  let product = ((high << 6u) + (low >> 18u)) | u32((low & 0x3ffffu) != 0u);
  let large = product >> 29u;
  let exponent = a.exponent + factor.exponent - 127 + i32(large);
  let place = max(exponent, i32(FIRST_EXPONENT));
  let shift = min(28u + large - MANTISSA_BITS + u32(place - exponent), 31u);
  let slack = 16u << large;
  let up = (1u << (shift - 1u)) + (slack ^ (((product >> shift) & 1u) - 1u));
  let rounded = (product + up) >> shift;
  return finish(x, (u32(place - i32(FIRST_EXPONENT)) << MANTISSA_BITS) + rounded, factor);
}
