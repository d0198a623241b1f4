// As decodeE5m2, as f16.
fn decodeKeyQuad(word: u32) -> vec4<f16> {
  let even = bitcast<vec2<f16>>((word & 0x00ff00ffu) << 8u);
  let odd = bitcast<vec2<f16>>(word & 0xff00ff00u);
  return vec4<f16>(even.x, odd.x, even.y, odd.y);
}
