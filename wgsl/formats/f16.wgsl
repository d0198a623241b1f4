const F16_UNIT: f32 = 1.0;

// 4 values in 2 words.
fn decodeF16(words: vec2<u32>) -> vec4<f32> {
  if (UNPACKS_F16) { return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)); }
  return bitcast<vec4<f32>>(vec4<u32>(widenF16(words.x & 0xffffu), widenF16(words.x >> 16u), widenF16(words.y & 0xffffu), widenF16(words.y >> 16u)));
}

// Not 0 where one of 4 values is NaN.
fn nanF16(words: vec2<u32>) -> u32 {
  let nan = ((words & vec2<u32>(0x7fff7fffu)) + vec2<u32>(0x03ff03ffu)) & vec2<u32>(0x80008000u);
  return nan.x | nan.y;
}

// As decodeF16, with NaN also where the device would take it for granted that there is none.
fn decodeAllF16(words: vec2<u32>, nan: f32) -> vec4<f32> {
  let magnitude = vec4<u32>(words.x, words.x >> 16u, words.y, words.y >> 16u) & vec4<u32>(0x7fffu);
  return select(decodeF16(words), vec4<f32>(nan), magnitude > vec4<u32>(0x7c00u));
}

// Not 0 where one of 4 values is no finite number.
fn specialF16(words: vec2<u32>) -> u32 {
  let special = ((words & vec2<u32>(0x7fff7fffu)) + vec2<u32>(0x04000400u)) & vec2<u32>(0x80008000u);
  return special.x | special.y;
}
