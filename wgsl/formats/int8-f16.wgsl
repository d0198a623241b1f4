// As decodeInt8, as f16: exact, too.
fn decodeKeyQuad(word: u32) -> vec4<f16> {
  return vec4<f16>(decodeInt8(word));
}
