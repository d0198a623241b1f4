// Products of a row of q and a key, 16 dims of each, in f32: added up one after the other, so that a device that multiplies
// and adds at once does so.

alias KeyDims = mat4x4<f32>;
const Q_UNIT: f32 = 1.0;

fn queryDims(dims: mat4x4<f32>) -> KeyDims {
  return dims;
}

fn addProducts(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
  return sum + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

fn productOf(query: KeyDims, key: KeyDims) -> f32 {
  return addProducts(addProducts(addProducts(dot(query[0], key[0]), query[1], key[1]), query[2], key[2]), query[3], key[3]);
}
