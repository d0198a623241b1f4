const F32_UNIT: f32 = 1.0;

fn decodeF32(words: vec4<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(words);
}

// Not 0 where one of 4 values is NaN.
fn nanF32(words: vec4<u32>) -> u32 {
  return select(0u, 1u, any((words & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u)));
}

fn decodeAllF32(words: vec4<u32>, nan: f32) -> vec4<f32> {
  return bitcast<vec4<f32>>(words);
}

// Not 0 where one of 4 values is no finite number.
fn specialF32(words: vec4<u32>) -> u32 {
  return select(0u, 1u, any((words & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u)));
}
