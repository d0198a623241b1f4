// Scores, in units of log2(e), so that their weight is a power of two.
//
// A score is compared as an integer, in which NaN is above infinity and NOTHING, of a key that is not seen, below -infinity:
// WGSL need not know NaN and infinity as f32. So a row that sees a NaN or +infinity has it as its largest score, and is NaN.

const NOTHING: i32 = -0x7fffffff - 1;
const NAN_ORDER: i32 = 0x7fc00000;
const INFINITY_ORDER: i32 = 0x7f800000;
const MINUS_INFINITY_ORDER: i32 = -0x7f800001;
// A probability that is not there: its value must not reach a sum, were it NaN. Probabilities are never -0.
const MASKED: u32 = 0x80000000u;

fn isNan(score: f32) -> bool {
  return (bitcast<i32>(score) & 0x7fffffff) > INFINITY_ORDER;
}

fn orderOf(score: f32) -> i32 {
  if (isNan(score)) { return NAN_ORDER; }
  let bits = bitcast<i32>(score);
  return select(bits, bits ^ 0x7fffffff, bits < 0);
}

fn scoreOf(order: i32) -> f32 {
  return bitcast<f32>(select(order, order ^ 0x7fffffff, order < 0));
}

// WGSL's own tanh may be off by 1e-5, which softcap multiplies.
fn tanhOf(x: f32) -> f32 {
  let square = x * x;
  // Where 1 - 2 / (…) would cancel: the series up to x^9, to f32's precision.
  let series = x * (1.0 + square * (-0.33333333 + square * (0.13333333 + square * (-0.053968254 + square * 0.021869489))));
  return select(1.0 - 2.0 / (exp2(2.885390081777927 * x) + 1.0), series, abs(x) < 0.25);
}

// NaN goes round tanh: exp2 of it is a number on some devices.
fn capped(score: f32) -> f32 {
  if (params.softcap == 0.0 || isNan(score)) { return score; }
  return params.softcap * tanhOf(score / params.softcap);
}

// What scores are compared with: where nothing above -infinity was seen, weights are 2^-infinity all the same.
fn baseOf(largest: i32) -> f32 {
  return select(scoreOf(largest), 0.0, largest <= MINUS_INFINITY_ORDER);
}

fn isPoisoned(largest: i32) -> bool {
  return largest >= INFINITY_ORDER;
}

// 2^(score - base), and 0 for what is not seen or -infinity.
fn weightOf(order: i32, base: f32) -> f32 {
  return select(exp2(scoreOf(order) - base), 0.0, order <= MINUS_INFINITY_ORDER);
}
