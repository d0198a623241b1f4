// Products of a row of q and a key, 16 dims of each, in f32: as fma, so that every kernel computes the same.

alias KeyDims = mat4x4<f32>;
const Q_UNIT: f32 = 1.0;

fn queryDims(dims: mat4x4<f32>) -> KeyDims {
  return dims;
}

fn addProducts(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

fn productOf(query: KeyDims, key: KeyDims) -> f32 {
  return addProducts(addProducts(addProducts(addProducts(0.0, query[0], key[0]), query[1], key[1]), query[2], key[2]), query[3], key[3]);
}
