// Adds up what LANES invocations have of the products of each key of a round and row, through workgroup memory: those of two
// neighbours, of four, and so on.

fn keepProducts(products: array<Rows, KEYS_AHEAD>, first: u32, ahead: u32, lane: u32) {
  let place = lane / LANES * SPACED + lane % LANES;
  for (var n = 0u; n < KEYS_AHEAD; n++) {
    for (var r = 0u; r < ROWS; r++) { parts[((ahead + n) * ROWS + r) * STRIDE + place] = bitcast<u32>(products[n][r]); }
  }
}

fn joinProducts(first: u32, lane: u32) {
  workgroupBarrier();
  for (var i = lane; i < ROUND * ROWS * GROUPS; i += WORKGROUP) {
    let at = i / GROUPS * STRIDE + i % GROUPS * SPACED;
    var sums = array<f32, LANES>();
    for (var part = 0u; part < LANES; part++) { sums[part] = bitcast<f32>(parts[at + part]); }
    for (var step = 1u; step < LANES; step *= 2u) {
      for (var part = 0u; part < LANES; part += 2u * step) { sums[part] += sums[part + step]; }
    }
    scores[i / GROUPS % ROWS * CUT_KEYS + first + i / (GROUPS * ROWS) * GROUPS + i % GROUPS] = bitcast<u32>(sums[0]);
  }
  workgroupBarrier();
}
