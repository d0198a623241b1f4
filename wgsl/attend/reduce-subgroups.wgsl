// As reduce.wgsl, with subgroups of 4 and more: each reduces by itself, and its first invocation hands on what it has.
// Invocations lie in subgroups in the order of their index, which has been tried on the device.

fn largestOfAll(lane: u32, own: RowOrders) -> RowOrders {
  var largest = own;
  for (var i = 0u; i < ROW_QUADS; i++) {
    let part = subgroupMax(own[i]);
    if (lane % SUBGROUP == 0u) { memory[i * WORKGROUP + lane / SUBGROUP] = bitcast<vec4<u32>>(part); }
  }
  workgroupBarrier();
  for (var i = 0u; i < ROW_QUADS; i++) {
    for (var part = 0u; part < WORKGROUP / SUBGROUP; part++) {
      largest[i] = max(largest[i], bitcast<vec4<i32>>(memory[i * WORKGROUP + part]));
    }
  }
  return largest;
}

fn sumOfAll(lane: u32, own: RowQuads) -> RowQuads {
  var sums = RowQuads();
  for (var i = 0u; i < ROW_QUADS; i++) {
    let part = subgroupAdd(own[i]);
    if (lane % SUBGROUP == 0u) { memory[i * WORKGROUP + lane / SUBGROUP] = bitcast<vec4<u32>>(part); }
  }
  workgroupBarrier();
  for (var i = 0u; i < ROW_QUADS; i++) {
    for (var part = 0u; part < WORKGROUP / SUBGROUP; part++) { sums[i] += bitcast<vec4<f32>>(memory[i * WORKGROUP + part]); }
  }
  return sums;
}
