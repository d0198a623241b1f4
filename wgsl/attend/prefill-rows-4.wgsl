// The sums of an invocation that has 4 rows, each with a name of its own: they are to stay in registers, and some compilers
// put an array that a loop goes through elsewhere. prefill-rows-8.wgsl is the same for 8.

fn addScores(scores: ptr<function, Rows>, row: u32, column: u32) {
  var s0 = (*scores)[0];
  var s1 = (*scores)[1];
  var s2 = (*scores)[2];
  var s3 = (*scores)[3];
  for (var step = 0u; step < PRODUCT_STEPS; step++) {
    let keys = keysAt(step, column);
    s0 = withProducts(s0, step, row, keys);
    s1 = withProducts(s1, step, row + 1u, keys);
    s2 = withProducts(s2, step, row + 2u, keys);
    s3 = withProducts(s3, step, row + 3u, keys);
  }
  (*scores)[0] = s0;
  (*scores)[1] = s1;
  (*scores)[2] = s2;
  (*scores)[3] = s3;
}

// Products of the values that lie in workgroup memory, from begin to end - 1, with their weights, of which the given one is
// the first value's.
fn addValues(products: ptr<function, Rows>, firstWeight: u32, begin: u32, end: u32, rowQuad: u32, column: u32) {
  var p0 = (*products)[0];
  var p1 = (*products)[1];
  var p2 = (*products)[2];
  var p3 = (*products)[3];
  if (atomicLoad(&specialValues) != 0u) {
    // Select, never multiply: a value that is no number must not reach a row that does not see it.
    for (var key = begin; key < end; key++) {
      let value = valueAt(key * COLUMNS + column);
      let at = (firstWeight + key) * WEIGHT_STRIDE + rowQuad;
      let weights = memory[at];
      p0 = withVisible(p0, weights.x, value);
      p1 = withVisible(p1, weights.y, value);
      p2 = withVisible(p2, weights.z, value);
      p3 = withVisible(p3, weights.w, value);
    }
  } else {
    for (var key = begin; key < end; key++) {
      let value = valueAt(key * COLUMNS + column);
      let at = (firstWeight + key) * WEIGHT_STRIDE + rowQuad;
      let weights = memory[at];
      p0 = withValue(p0, weights.x, value);
      p1 = withValue(p1, weights.y, value);
      p2 = withValue(p2, weights.z, value);
      p3 = withValue(p3, weights.w, value);
    }
  }
  (*products)[0] = p0;
  (*products)[1] = p1;
  (*products)[2] = p2;
  (*products)[3] = p3;
}
