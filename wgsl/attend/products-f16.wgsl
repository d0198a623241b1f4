// Products of a row of q and a key, 16 dims of each, in f16, eight at a time: sums of more are f32. Rows of q are between 1
// and 2 where they are largest; divided by 16, eight products with the largest e5m2, 57344, still are f16.

alias KeyDims = mat4x4<f16>;
const Q_UNIT: f32 = 0.0625;

fn queryDims(dims: mat4x4<f32>) -> KeyDims {
  return mat4x4<f16>(dims * Q_UNIT);
}

fn productOf(query: KeyDims, key: KeyDims) -> f32 {
  let products = query[0] * key[0] + query[1] * key[1] + query[2] * key[2] + query[3] * key[3];
  let sums = products.xy + products.zw;
  return f32(sums.x) + f32(sums.y);
}
