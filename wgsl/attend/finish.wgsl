// How a row ends: out = values / sum · given scales of V, lse = ln(sum of e^score).

const NAN_BITS: u32 = 0x7fc00000u;
const MINUS_INFINITY_BITS: u32 = 0xff800000u;

struct Sink {
  // As a score in units of log2(e), in its order.
  order: i32,
  bits: u32,
}

fn sinkOf(queryHead: u32) -> Sink {
  if (params.hasSinks == 0u) { return Sink(NOTHING, MINUS_INFINITY_BITS); }
  let bits = extras[queryHead];
  return Sink(orderOf(bitcast<f32>(bits) * LOG2_E), bits);
}

// Bits of 4 dims of out. Without a sum, where all scores were -infinity, or with a largest score that is no number, NaN.
fn outBits(block: Block, quad: u32, most: i32, nothingSeen: bool, sum: f32, values: vec4<f32>) -> vec4<u32> {
  if (nothingSeen) { return vec4<u32>(0u); }
  if (isPoisoned(most) || sum == 0.0) { return vec4<u32>(NAN_BITS); }
  var scaled = values * (1.0 / sum);
  if (params.vChannels != 0u) { scaled *= channelQuad(params.vChannels, block.kvHead, quad); }
  return bitcast<vec4<u32>>(scaled * givenValueScale(block));
}

// Puts 4 dims of out, counted over all rows, where they belong: as f32, or rounded to f16.
fn storeOut(quad: u32, bits: vec4<u32>) {
  if (params.outHalves != 0u) {
    out[quad] = vec2<u32>(narrowF16(bits.x) | (narrowF16(bits.y) << 16u), narrowF16(bits.z) | (narrowF16(bits.w) << 16u));
    return;
  }
  out[2u * quad] = bits.xy;
  out[2u * quad + 1u] = bits.zw;
}

fn lseBits(most: i32, nothingSeen: bool, sum: f32, sinkBits: u32) -> u32 {
  if (nothingSeen) { return sinkBits; }
  if (isPoisoned(most) || sum == 0.0) { return NAN_BITS; }
  return bitcast<u32>((baseOf(most) + log2(sum)) * LN_2);
}
