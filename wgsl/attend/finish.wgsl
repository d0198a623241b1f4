// How a row ends: out = values / sum, lse = ln(sum of e^score).

const NAN_BITS: u32 = 0x7fc00000u;
const MINUS_INFINITY_BITS: u32 = 0xff800000u;

struct Sink {
  // As a score in units of log2(e), in its order.
  order: i32,
  bits: u32,
}

fn sinkOf(queryHead: u32) -> Sink {
  if (params.hasSinks == 0u) { return Sink(NOTHING, MINUS_INFINITY_BITS); }
  let bits = sinks[queryHead];
  return Sink(orderOf(bitcast<f32>(bits) * LOG2_E), bits);
}

// Bits of 4 dims of out. Without a sum, where all scores were -infinity, or with a largest score that is no number, NaN.
fn outBits(most: i32, nothingSeen: bool, sum: f32, values: vec4<f32>) -> vec4<u32> {
  if (nothingSeen) { return vec4<u32>(0u); }
  if (isPoisoned(most) || sum == 0.0) { return vec4<u32>(NAN_BITS); }
  return bitcast<vec4<u32>>(values * (1.0 / sum) * params.valueScale);
}

fn lseBits(most: i32, nothingSeen: bool, sum: f32, sinkBits: u32) -> u32 {
  if (nothingSeen) { return sinkBits; }
  if (isPoisoned(most) || sum == 0.0) { return NAN_BITS; }
  return bitcast<u32>((baseOf(most) + log2(sum)) * LN_2);
}
