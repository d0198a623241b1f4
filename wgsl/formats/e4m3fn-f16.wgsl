// As decodeE4m3fn, as f16.
fn decodeKeyQuad(word: u32) -> vec4<f16> {
  let even = bitcast<vec2<f16>>(((word & 0x00800080u) << 8u) | ((word & 0x007f007fu) << 7u));
  let odd = bitcast<vec2<f16>>((word & 0x80008000u) | ((word & 0x7f007f00u) >> 1u));
  return vec4<f16>(even.x, odd.x, even.y, odd.y);
}
